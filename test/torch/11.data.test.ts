import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

describe('toTypedArray', () => {
  it.each<[torch.DType, torch.TypedArray]>([
    ['float32', new Float32Array([0, 1, 2])],
    ['float64', new Float64Array([0, 1, 2])],
    ['float16', new Float32Array([0, 1, 2])],
    ['bfloat16', new Float32Array([0, 1, 2])],
    ['float8_e4m3fn', new Float32Array([0, 1, 2])],
    ['float8_e5m2', new Float32Array([0, 1, 2])],
    ['int64', new BigInt64Array([0n, 1n, 2n])],
    ['int32', new Int32Array([0, 1, 2])],
    ['int16', new Int16Array([0, 1, 2])],
    ['int8', new Int8Array([0, 1, 2])],
    ['uint8', new Uint8Array([0, 1, 2])],
    ['uint16', new Uint16Array([0, 1, 2])],
    ['uint32', new Uint32Array([0, 1, 2])],
    ['uint64', new BigUint64Array([0n, 1n, 2n])],
    ['bool', new Uint8Array([0, 1, 1])],
    ['complex64', new Float32Array([0, 0, 1, 0, 2, 0])],
    ['complex128', new Float64Array([0, 0, 1, 0, 2, 0])],
    ['complex32', new Float32Array([0, 0, 1, 0, 2, 0])],
  ])('of %s', async (dtype, expected) => {
    using tensor = torch.tensor([0, 1, 2]).to(dtype)
    expect(tensor.toTypedArray()).toEqual(expected)
    expect(await tensor.toTypedArrayAsync()).toEqual(expected)
  })

  it('goes row by row, whatever the strides', () => {
    inScope(() => {
      const matrix = torch.arange(6).view(2, 3)
      expect([...matrix.t().toTypedArray()].map(Number)).toEqual([0, 3, 1, 4, 2, 5])
      expect([...matrix.at(':', '::2').toTypedArray()].map(Number)).toEqual([0, 2, 3, 5])
      expect([...torch.ones([1]).expand([3]).toTypedArray()]).toEqual([1, 1, 1])
    })
  })

  it('is a copy', () => {
    using tensor = torch.ones([2])
    tensor.toTypedArray()[0] = 5
    expect(tensor.toArray()).toEqual([1, 1])
    const values = tensor.toTypedArray()
    tensor.fill_(3)
    expect([...values]).toEqual([1, 1])
  })

  it('resolves conjugates, negatives and sparse tensors', () => {
    inScope(() => {
      const z = torch.tensor([{ re: 1, im: 2 }])
      expect([...z.conj().toTypedArray()]).toEqual([1, -2])
      expect([...torch.imag(z.conj()).toTypedArray()]).toEqual([-2])
      expect([...torch.eye(2).toSparse().toTypedArray()]).toEqual([1, 0, 0, 1])
    })
  })

  it('works for a tensor in a graph and for none', () => {
    inScope(() => {
      expect([...torch.ones([1]).requiresGrad_().mul(2).toTypedArray()]).toEqual([2])
      expect(torch.zeros([0, 3]).toTypedArray().length).toBe(0)
      expect(() => torch.zeros([2], { device: 'meta' }).toTypedArray()).toThrow(torch.TorchError)
    })
  })
})

describe('toTypedArrayAsync', () => {
  it('gives the values of the moment of the call', async () => {
    using tensor = torch.arange(1000).to('float32')
    const promise = tensor.toTypedArrayAsync()
    tensor.fill_(-1)
    const values = await promise
    expect([values[0], values[999]]).toEqual([0, 999])
  })

  it('does not need the tensor any more', async () => {
    const before = liveTensors()
    const tensor = torch.tensor([1n, 2n])
    const promise = tensor.toTypedArrayAsync()
    tensor.dispose()
    expect(liveTensors()).toBe(before)
    expect(await promise).toEqual(new BigInt64Array([1n, 2n]))
  })

  it('several at once, of views too', async () => {
    using tensor = torch.arange(6).view(2, 3)
    const promises = torch.scope(() =>
      [tensor.t(), tensor.at(1), tensor.at('...', 0)].map((each) => each.toTypedArrayAsync()),
    )
    const values = (await Promise.all(promises)).map((each) => [...each].map(Number))
    expect(values).toEqual([
      [0, 3, 1, 4, 2, 5],
      [3, 4, 5],
      [0, 3],
    ])
  })
})

describe('toArray', () => {
  it('nests as the shape does', () => {
    inScope(() => {
      expect(torch.arange(4).view(2, 1, 2).toArray()).toEqual([[[0, 1]], [[2, 3]]])
      expect(torch.tensor(1.5).toArray()).toBe(1.5)
      expect(torch.tensor([[true], [false]]).toArray()).toEqual([[true], [false]])
      expect(torch.tensor(true).toArray()).toBe(true)
      expect(torch.tensor([{ re: 1, im: 2 }]).toArray()).toEqual([{ re: 1, im: 2 }])
      expect(torch.zeros([2, 0]).toArray()).toEqual([[], []])
      expect(torch.zeros([0, 2]).toArray()).toEqual([])
      expect(torch.tensor([0.5], { dtype: 'bfloat16' }).toArray()).toEqual([0.5])
      expect(torch.tensor([Number.NaN, Number.POSITIVE_INFINITY, -0]).toArray()).toEqual([
        Number.NaN,
        Number.POSITIVE_INFINITY,
        -0,
      ])
    })
  })

  it('refuses an int64 that numbers do not hold', () => {
    using tensor = torch.tensor([1n, 2n ** 53n])
    expect(() => tensor.toArray()).toThrow(RangeError)
    expect(() => tensor.toArray()).toThrow('9007199254740992; use toTypedArray()')
  })
})

describe('item', () => {
  it('is the one value as a number', () => {
    inScope(() => {
      expect(torch.tensor(2.5).item()).toBe(2.5)
      expect(torch.tensor([[3n]]).item()).toBe(3)
      expect(torch.tensor(true).item()).toBe(1)
      expect(torch.tensor([0.1], { dtype: 'bfloat16' }).item()).toBe(0.10009765625)
      expect(torch.tensor(2 ** 53 - 1, { dtype: 'int64' }).item()).toBe(2 ** 53 - 1)
      expect(torch.tensor(4294967295, { dtype: 'uint32' }).item()).toBe(4294967295)
      expect(torch.tensor(0.1, { dtype: 'float64' }).item()).toBe(0.1)
      expect(Number(torch.tensor(4).requiresGrad_().mul(2))).toBe(8)
    })
  })

  it('refuses what is not one number', () => {
    inScope(() => {
      expect(() => torch.zeros([2]).item()).toThrow(RangeError)
      expect(() => torch.zeros([2]).item()).toThrow(
        /^item: expected a tensor of one element, but received one of shape \[2\]/,
      )
      expect(() => torch.zeros([0]).item()).toThrow(RangeError)
      expect(() => torch.tensor(2n ** 60n).item()).toThrow('use itemBigInt()')
      expect(() => torch.tensor({ re: 1, im: 0 }).item()).toThrow('use itemComplex()')
    })
  })

  it('as a bigint', () => {
    inScope(() => {
      expect(torch.tensor(2n ** 60n).itemBigInt()).toBe(2n ** 60n)
      expect(torch.tensor(2n ** 64n - 1n, { dtype: 'uint64' }).itemBigInt()).toBe(2n ** 64n - 1n)
      expect(torch.tensor(-7n).itemBigInt()).toBe(-7n)
      expect(torch.tensor(3).itemBigInt()).toBe(3n)
      expect(() => torch.tensor(3.5).itemBigInt()).toThrow(TypeError)
      expect(() => torch.tensor(Number.NaN).itemBigInt()).toThrow(TypeError)
    })
  })

  it('as a complex number', () => {
    inScope(() => {
      expect(torch.tensor({ re: 1, im: -2 }).itemComplex()).toEqual({ re: 1, im: -2 })
      expect(torch.tensor(3).itemComplex()).toEqual({ re: 3, im: 0 })
    })
  })

  it('in arithmetic of JavaScript', () => {
    using x = torch.tensor(3)
    expect((x as unknown as number) * 2).toBe(6)
    expect(`${x}`).toBe('tensor(3.)')
  })
})

describe('what a tensor is', () => {
  it('shape, strides, bytes', () => {
    inScope(() => {
      const x = torch.zeros([2, 3, 4], { dtype: 'float64' })
      expect([x.shape, x.stride(), x.ndim, x.dim(), x.numel()]).toEqual([[2, 3, 4], [12, 4, 1], 3, 3, 24])
      expect([x.nbytes, x.elementSize(), x.storageBytes(), x.storageOffset()]).toEqual([192, 8, 192, 0])
      expect([x.dtype, x.device, x.layout, x.isCuda, x.isMeta]).toEqual(['float64', 'cpu', 'strided', false, false])
      expect([x.size(0), x.size(-1), x.size()]).toEqual([2, 4, [2, 3, 4]])
      const part = x.at(1, ':', '2:')
      expect([part.storageOffset(), part.sharesStorage(x), part.storageBytes()]).toEqual([14, true, 192])
      expect(x.sharesStorage(x.clone())).toBe(false)
      expect([x.isSame(x), x.isSame(x.detach())]).toEqual([true, false])
      expect(torch.eye(2).toSparse().layout).toBe('sparse_coo')
    })
  })

  it('refuses dimensions that are not there', () => {
    using x = torch.zeros([2, 3])
    expect(() => x.size(2)).toThrow(RangeError)
    expect(() => x.size(2)).toThrow('size: expected dim from -2 to 1 for a tensor of shape [2,3], but received 2')
    expect(() => x.size(-3)).toThrow(RangeError)
    expect(() => x.size(0.5)).toThrow(RangeError)
  })
})

describe('to', () => {
  it('changes dtype and device', () => {
    inScope(() => {
      const x = torch.tensor([1.7, -1.7])
      expect(x.to('int64').toArray()).toEqual([1, -1])
      expect(x.to({ dtype: 'float64' }).dtype).toBe('float64')
      expect(x.to('meta').device).toBe('meta')
      expect(x.to(torch.zeros([1], { dtype: 'int8' })).dtype).toBe('int8')
      expect(
        [x.double(), x.half(), x.bfloat16(), x.long(), x.int(), x.bool(), x.float()].map((each) => each.dtype),
      ).toEqual(['float64', 'float16', 'bfloat16', 'int64', 'int32', 'bool', 'float32'])
    })
  })

  it('is the same memory where nothing changes, and a copy where one is asked for', () => {
    inScope(() => {
      const x = torch.ones([2])
      expect(x.to('float32').sharesStorage(x)).toBe(true)
      expect(x.to('float32', { copy: true }).sharesStorage(x)).toBe(false)
      expect(x.to({ memoryFormat: 'contiguous_format' }).toArray()).toEqual([1, 1])
    })
  })

  it('refuses what is neither', () => {
    using x = torch.ones([2])
    expect(() => x.to('float33' as torch.DType)).toThrow(RangeError)
    expect(() => x.to('float33' as torch.DType)).toThrow(/^to: expected device to be a device/)
    expect(() => x.to({ dtype: 5 as unknown as torch.DType })).toThrow(TypeError)
  })
})
