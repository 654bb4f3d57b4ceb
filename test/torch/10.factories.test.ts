import { afterEach, describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

afterEach(() => torch.setDefaultDtype('float32'))

/** Shape, dtype and values of a tensor, which is freed. */
function read(tensor: torch.Tensor) {
  const found = { shape: tensor.shape, dtype: tensor.dtype, values: tensor.toArray() }
  tensor.dispose()
  return found
}

describe('tensor', () => {
  describe('chooses the dtype by the kind of the data, never by its values', () => {
    it.each<[string, torch.TensorData, torch.DType, number[]]>([
      ['a whole number', 3, 'float32', []],
      ['a fraction', 3.5, 'float32', []],
      ['whole numbers', [1, 2, 3], 'float32', [3]],
      ['numbers and booleans', [1, true], 'float32', [2]],
      ['a bigint', 3n, 'int64', []],
      ['bigints', [[1n], [2n]], 'int64', [2, 1]],
      ['a boolean', true, 'bool', []],
      ['booleans', [true, false], 'bool', [2]],
      ['complex numbers', [{ re: 1, im: 2 }], 'complex64', [1]],
      ['complex and real numbers', [{ re: 1, im: 2 }, 3], 'complex64', [2]],
      ['nothing', [], 'float32', [0]],
      ['nested nothing', [[], []], 'float32', [2, 0]],
      ['Float32Array', new Float32Array([1]), 'float32', [1]],
      ['Float64Array', new Float64Array([1]), 'float64', [1]],
      ['Int8Array', new Int8Array([1]), 'int8', [1]],
      ['Int16Array', new Int16Array([1]), 'int16', [1]],
      ['Int32Array', new Int32Array([1]), 'int32', [1]],
      ['Uint8Array', new Uint8Array([1]), 'uint8', [1]],
      ['Uint8ClampedArray', new Uint8ClampedArray([1]), 'uint8', [1]],
      ['Uint16Array', new Uint16Array([1]), 'uint16', [1]],
      ['Uint32Array', new Uint32Array([1]), 'uint32', [1]],
      ['BigInt64Array', new BigInt64Array([1n]), 'int64', [1]],
      ['BigUint64Array', new BigUint64Array([1n]), 'uint64', [1]],
      ['an empty typed array', new Int16Array(0), 'int16', [0]],
      ['rows of Int32Array', [new Int32Array([1, 2]), new Int32Array([3, 4])], 'int32', [2, 2]],
      ['rows of BigInt64Array', [new BigInt64Array([1n]), new BigInt64Array([3n])], 'int64', [2, 1]],
      ['rows of Uint8ClampedArray', [new Uint8ClampedArray([1])], 'uint8', [1, 1]],
    ])('%s', (_, data, dtype, shape) => {
      using tensor = torch.tensor(data)
      expect(tensor.dtype).toBe(dtype)
      expect(tensor.shape).toEqual(shape)
    })
  })

  it('follows the default dtype for plain and complex numbers only', () => {
    torch.setDefaultDtype('float64')
    expect(read(torch.tensor([1, 2.5]))).toEqual({ shape: [2], dtype: 'float64', values: [1, 2.5] })
    expect(read(torch.tensor({ re: 0.1, im: 0 }))).toEqual({
      shape: [],
      dtype: 'complex128',
      values: { re: 0.1, im: 0 },
    })
    expect(read(torch.tensor([1n])).dtype).toBe('int64')
    expect(read(torch.tensor(new Float32Array([1]))).dtype).toBe('float32')
  })

  it.each<[torch.DType, torch.TensorData, unknown]>([
    ['float64', [0.1], [0.1]],
    ['float16', [0.1, 65504], [0.0999755859375, 65504]],
    ['bfloat16', [0.1, 3], [0.10009765625, 3]],
    ['int64', [1, -2], [1, -2]],
    ['int32', [2147483647n, -2147483648], [2147483647, -2147483648]],
    ['int16', [-32768, 32767], [-32768, 32767]],
    ['int8', [-128, 127], [-128, 127]],
    ['uint8', [0, 255], [0, 255]],
    ['uint16', [65535], [65535]],
    ['uint32', [4294967295], [4294967295]],
    ['bool', [0, 1, 2.5, true], [false, true, true, true]],
    [
      'complex64',
      [1, { re: 0, im: -1 }],
      [
        { re: 1, im: 0 },
        { re: 0, im: -1 },
      ],
    ],
    ['complex128', [[0.1]], [[{ re: 0.1, im: 0 }]]],
    ['float32', [1n, true, 2], [1, 1, 2]],
    ['int64', [true, 2, 3n], [1, 2, 3]],
  ])('makes %s of what it is given', (dtype, data, values) => {
    expect(read(torch.tensor(data, { dtype }))).toMatchObject({ dtype, values })
  })

  it('keeps int64 exact to its ends', () => {
    const ends = [2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n]
    using signed = torch.tensor(ends)
    expect([...signed.toTypedArray()]).toEqual(ends)
    using unsigned = torch.tensor([2n ** 64n - 1n], { dtype: 'uint64' })
    expect([...unsigned.toTypedArray()]).toEqual([2n ** 64n - 1n])
  })

  it.each<[string, torch.TensorData, torch.DType | undefined, RegExp]>([
    ['uneven lengths', [[1, 2], [3]], undefined, /^tensor: expected nested arrays of one length at each depth/],
    ['a number beside an array', [[1, 2], 3], undefined, /^tensor: expected nested arrays of one length/],
    ['an array beside a number', [1, [2]], undefined, /^tensor: expected nested arrays of one length/],
    ['deeper in one place', [[[1]], [2]] as torch.TensorData, undefined, /^tensor: expected nested arrays/],
    ['256 in uint8', [256], 'uint8', /^tensor: expected numbers from 0 to 255 for dtype uint8, but received 256/],
    ['-1 in uint8', [-1], 'uint8', /from 0 to 255/],
    ['128 in int8', [128], 'int8', /from -128 to 127/],
    ['2^31 in int32', [2 ** 31], 'int32', /from -2147483648 to 2147483647/],
    ['2^63 in int64', [2n ** 63n], 'int64', /from -9223372036854775808 to 9223372036854775807/],
    ['2^63 without dtype', [2n ** 63n], undefined, /from -9223372036854775808/],
    [
      'an unsafe number in int64',
      [2 ** 53],
      'int64',
      /^tensor: expected safe whole numbers, but received 9007199254740992; give it as a bigint/,
    ],
    ['a fraction in int64', [1.5], 'int64', /^tensor: expected whole numbers for dtype int64, but received 1.5/],
    ['not a number in int32', [Number.NaN], 'int32', /expected whole numbers for dtype int32, but received NaN/],
  ])('refuses %s', (_, data, dtype, message) => {
    const options = dtype === undefined ? {} : { dtype }
    expect(() => torch.tensor(data, options)).toThrow(RangeError)
    expect(() => torch.tensor(data, options)).toThrow(message)
  })

  it.each<[string, unknown, RegExp]>([
    ['a string', 'abc', /expected numbers, bigints, booleans or \{re, im\} in the data, but received the string 'abc'/],
    ['null', [null], /but received null/],
    ['undefined', [undefined], /but received undefined/],
    ['a function', () => 1, /but received function/],
    ['parts that are no numbers', { re: '1', im: 2 }, /but received object/],
    ['half a complex number', [{ re: 1 }], /but received object/],
    ['a hole', Object.assign([1, 2, 3], { length: 4 }), /but received undefined/],
    ['bigints among numbers', [1n, 2], /expected data of one kind, but received bigints among numbers/],
  ])('refuses %s', (_, data, message) => {
    expect(() => torch.tensor(data as torch.TensorData)).toThrow(TypeError)
    expect(() => torch.tensor(data as torch.TensorData)).toThrow(message)
  })

  it('refuses an array inside itself', () => {
    const endless: unknown[] = []
    endless.push(endless)
    expect(() => torch.tensor(endless as unknown as torch.TensorData)).toThrow(RangeError)
    expect(() => torch.tensor(endless as unknown as torch.TensorData)).toThrow(
      'tensor: expected at most 128 nested arrays, but received more',
    )
    const later = [1, endless]
    expect(() => torch.tensor(later as unknown as torch.TensorData)).toThrow(RangeError)
  })

  it('refuses complex numbers where a real dtype is said', () => {
    expect(() => torch.tensor([{ re: 1, im: 1 }], { dtype: 'float32' })).toThrow(TypeError)
    expect(() => torch.tensor([{ re: 1, im: 1 }], { dtype: 'int64' })).toThrow(RangeError)
  })

  it('copies: neither the data nor another tensor is shared', () => {
    inScope(() => {
      const data = new Float32Array([1, 2])
      const first = torch.tensor(data)
      data[0] = 9
      expect(first.toArray()).toEqual([1, 2])
      const second = torch.tensor(first)
      first.setAt(0, 7)
      expect(second.toArray()).toEqual([1, 2])
      expect(torch.tensor(first, { dtype: 'int64' }).toArray()).toEqual([7, 2])
      const leaf = torch.tensor(torch.ones([1]).requiresGrad_().mul(2))
      expect([leaf.isLeaf, leaf.requiresGrad]).toEqual([true, false])
    })
  })

  it('takes requiresGrad and device', () => {
    inScope(() => {
      const x = torch.tensor([1], { requiresGrad: true })
      expect([x.requiresGrad, x.isLeaf]).toEqual([true, true])
      expect(torch.tensor([1], { device: 'meta' }).device).toBe('meta')
      expect(() => torch.tensor([1n], { requiresGrad: true })).toThrow(/^requiresGrad_: expected a floating-point/)
    })
  })

  it('leaves nothing behind', () => {
    const before = liveTensors()
    for (const data of [[1, 2], [{ re: 1, im: 1 }], new Uint8Array(3), [[1n]]] as torch.TensorData[]) {
      torch.tensor(data, { device: 'meta' }).dispose()
      torch.tensor(data, { dtype: 'complex64' }).dispose()
    }
    using source = torch.ones([2])
    torch.tensor(source).dispose()
    torch.tensor(source, { dtype: 'float64' }).dispose()
    torch.tensor(source, { device: 'meta' }).dispose()
    expect(() => torch.tensor([1n], { requiresGrad: true })).toThrow(TypeError)
    expect(liveTensors()).toBe(before + 1)
  })
})

describe('fromTypedArray', () => {
  it('reads row by row', () => {
    expect(read(torch.fromTypedArray(new Int32Array([1, 2, 3, 4, 5, 6]), [2, 3]))).toEqual({
      shape: [2, 3],
      dtype: 'int32',
      values: [
        [1, 2, 3],
        [4, 5, 6],
      ],
    })
    expect(read(torch.fromTypedArray(new Uint8Array([1, 2]), [2], { dtype: 'float64' }))).toMatchObject({
      dtype: 'float64',
    })
    expect(read(torch.fromTypedArray(new Float32Array([5]), []))).toMatchObject({ shape: [], values: 5 })
  })

  it('takes complex values as pairs, as they are read out, or as real parts', () => {
    inScope(() => {
      const pairs = torch.fromTypedArray(new Float64Array([1, 2, 3, 4]), [2], { dtype: 'complex128' })
      expect(pairs.toArray()).toEqual([
        { re: 1, im: 2 },
        { re: 3, im: 4 },
      ])
      const again = torch.fromTypedArray(pairs.toTypedArray(), pairs.shape, { dtype: pairs.dtype })
      expect(again.equal(pairs)).toBe(true)
      const real = torch.tensor(new Int8Array([1, -2]), { dtype: 'complex64' })
      expect(real.toArray()).toEqual([
        { re: 1, im: 0 },
        { re: -2, im: 0 },
      ])
      expect(torch.tensor(new Float32Array(0), { dtype: 'complex64' }).shape).toEqual([0])
      expect(() => torch.fromTypedArray(new Float32Array(3), [2], { dtype: 'complex64' })).toThrow(RangeError)
    })
  })

  it('reads a part of a buffer', () => {
    const part = new Float32Array([0, 1, 2, 3, 4]).subarray(1, 3)
    expect(read(torch.fromTypedArray(part, [2])).values).toEqual([1, 2])
  })

  it('refuses shapes of another number of elements', () => {
    expect(() => torch.fromTypedArray(new Float32Array(5), [2, 3])).toThrow(RangeError)
    expect(() => torch.fromTypedArray(new Float32Array(5), [2, 3])).toThrow(
      'expected 6 elements for the shape [2, 3], but received 5',
    )
    expect(() => torch.fromTypedArray(new Float32Array(1), [-1])).toThrow(RangeError)
    expect(() => torch.fromTypedArray(new Float32Array(1), [2 ** 40, 2 ** 40])).toThrow(RangeError)
    expect(() => torch.fromTypedArray(new DataView(new ArrayBuffer(4)) as unknown as Float32Array, [1])).toThrow(
      TypeError,
    )
  })
})

describe('full', () => {
  it.each<[torch.Scalar, torch.DType, unknown]>([
    [2, 'float32', [2]],
    [2.5, 'float32', [2.5]],
    [2n, 'int64', [2]],
    [true, 'bool', [true]],
    [torch.float(2), 'float32', [2]],
    [{ re: 1, im: -1 }, 'complex64', [{ re: 1, im: -1 }]],
  ])('of %s is %s', (value, dtype, values) => {
    expect(read(torch.full([1], value))).toEqual({ shape: [1], dtype, values })
  })

  it('takes a dtype and the default dtype', () => {
    expect(read(torch.full([2], 3, { dtype: 'int32' }))).toEqual({ shape: [2], dtype: 'int32', values: [3, 3] })
    torch.setDefaultDtype('float64')
    expect(read(torch.full([], 3)).dtype).toBe('float64')
  })
})

describe('arange', () => {
  it.each<[unknown[], torch.DType, number[]]>([
    [[3], 'int64', [0, 1, 2]],
    [[2, 5], 'int64', [2, 3, 4]],
    [[5, 1, -2], 'int64', [5, 3]],
    [[0, 1, 0.25], 'float32', [0, 0.25, 0.5, 0.75]],
    [[0.5, 3], 'float32', [0.5, 1.5, 2.5]],
    [[3n], 'int64', [0, 1, 2]],
    [[3, { dtype: 'float64' }], 'float64', [0, 1, 2]],
    [[1, 3, { dtype: 'int8' }], 'int8', [1, 2]],
    [[0], 'int64', []],
  ])('of %s', (given, dtype, values) => {
    const arange = torch.arange as (...values: unknown[]) => torch.Tensor
    expect(read(arange(...given))).toEqual({ shape: [values.length], dtype, values })
  })

  it('takes requiresGrad', () => {
    using x = torch.arange(3, { dtype: 'float32', requiresGrad: true })
    expect(x.requiresGrad).toBe(true)
  })
})

describe('factories of ATen', () => {
  it('take sizes as an array and spread', () => {
    expect(read(torch.zeros([2, 3])).shape).toEqual([2, 3])
    expect(read(torch.zeros(2, 3)).shape).toEqual([2, 3])
    expect(read(torch.zeros([])).shape).toEqual([])
    expect(read(torch.ones(2)).values).toEqual([1, 1])
    expect(read(torch.empty([0, 4]))).toMatchObject({ shape: [0, 4], values: [] })
  })

  it('follow the default dtype and take options', () => {
    expect(read(torch.ones([1])).dtype).toBe('float32')
    torch.setDefaultDtype('float64')
    expect(read(torch.ones([1])).dtype).toBe('float64')
    expect(read(torch.ones([1], { dtype: 'int16' })).dtype).toBe('int16')
    using leaf = torch.randn([2], { requiresGrad: true })
    expect(leaf.requiresGrad).toBe(true)
    using onMeta = torch.zeros([2, 2], { device: 'meta' })
    expect(onMeta.isMeta).toBe(true)
  })

  it('make what they are named for', () => {
    inScope(() => {
      expect(torch.eye(2).toArray()).toEqual([
        [1, 0],
        [0, 1],
      ])
      expect(torch.linspace(0, 1, 5).toArray()).toEqual([0, 0.25, 0.5, 0.75, 1])
      expect(torch.zerosLike(torch.tensor([1n, 2n])).dtype).toBe('int64')
      expect(torch.fullLike(torch.ones([2]), 3).toArray()).toEqual([3, 3])
      expect(torch.tensor([1n]).newZeros([2]).dtype).toBe('int64')
      const strided = torch.emptyStrided([2, 3], [1, 2])
      expect(strided.stride()).toEqual([1, 2])
      expect(torch.randperm(10).sort()[0].toArray()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    })
  })

  it('refuse wrong sizes and options by name', () => {
    const zeros = torch.zeros as unknown as (...values: unknown[]) => torch.Tensor
    expect(() => zeros([2.5])).toThrow(RangeError)
    expect(() => zeros([2.5])).toThrow(/^zeros: expected size to be a safe whole number, but received 2.5/)
    expect(() => zeros([Number.NaN])).toThrow(RangeError)
    expect(() => zeros(['2'])).toThrow(TypeError)
    expect(() => zeros([2], { dtype: 'float31' })).toThrow(
      /^zeros: expected dtype to be a dtype .* but received 'float31'/,
    )
    expect(() => zeros([2], { device: 'gpu' })).toThrow(/^zeros: expected device to be a device .* but received 'gpu'/)
    expect(() => zeros([2], { layout: 'dense' })).toThrow(/^zeros: expected layout/)
    expect(() => zeros([2], { size: 3 })).toThrow(TypeError)
    expect(() => zeros([-1])).toThrow(torch.TorchError)
  })
})

describe('promoteTypes', () => {
  it.each<[torch.DType, torch.DType, torch.DType]>([
    ['int64', 'float32', 'float32'],
    ['uint8', 'int8', 'int16'],
    ['bool', 'int32', 'int32'],
    ['float16', 'bfloat16', 'float32'],
    ['float64', 'complex64', 'complex128'],
  ])('%s and %s is %s', (first, second, expected) => {
    const before = liveTensors()
    expect(torch.promoteTypes(first, second)).toBe(expected)
    expect(liveTensors()).toBe(before)
  })
})
