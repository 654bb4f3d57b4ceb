import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

/** An operator as somebody calls it who has no types, or disregards them. */
type Untyped = (...values: unknown[]) => unknown

describe('overloads', () => {
  it('are told apart by the kinds of the arguments', () => {
    inScope(() => {
      const x = torch.tensor([1, 2])
      expect(x.add(1).toArray()).toEqual([2, 3])
      expect(x.add(x).toArray()).toEqual([2, 4])
      expect(torch.add(x, 1).toArray()).toEqual([2, 3])
      expect(x.pow(2).toArray()).toEqual([1, 4])
      expect(torch.pow(2, x).toArray()).toEqual([2, 4])
      expect(x.pow(x).toArray()).toEqual([1, 4])
      expect(x.max().item()).toBe(2)
      expect(x.max(0)[1].item()).toBe(1)
      expect(x.max(torch.tensor([3, 0])).toArray()).toEqual([3, 2])
      expect(x.clamp(1.5).toArray()).toEqual([1.5, 2])
      expect(x.clamp(null, 1.5).toArray()).toEqual([1, 1.5])
      expect(x.clamp(torch.tensor([2, 0])).toArray()).toEqual([2, 2])
      expect(x.to('float64').std({ correction: 0 }).item()).toBe(0.5)
      expect(x.split(1).length).toBe(2)
      expect(
        torch
          .arange(6)
          .split([1, 5])
          .map((each) => each.numel()),
      ).toEqual([1, 5])
    })
  })

  it('are the same after the choice was remembered', () => {
    inScope(() => {
      const x = torch.tensor([1, 2])
      for (let repeat = 0; repeat < 3; repeat += 1) {
        expect(x.mul(2).toArray()).toEqual([2, 4])
        expect(x.mul(x).toArray()).toEqual([1, 4])
        expect(x.mul(2n).toArray()).toEqual([2, 4])
        expect(x.mul(true).dtype).toBe('float32')
        expect(x.mul(torch.float(2)).toArray()).toEqual([2, 4])
        expect(x.sum().item()).toBe(3)
        expect(x.sum(0).item()).toBe(3)
        expect(x.sum([0]).item()).toBe(3)
        expect(x.sum({ dtype: 'float64' }).dtype).toBe('float64')
      }
    })
  })
})

describe('keyword options', () => {
  it('come as a last object, by their names in camel case', () => {
    inScope(() => {
      const x = torch.arange(6, { dtype: 'float32' }).view(2, 3)
      expect(x.sum(1, { keepdim: true }).toArray()).toEqual([[3], [12]])
      expect(x.sum({ dim: 0, dtype: 'float64' } as never).dtype).toBe('float64')
      expect(x.add(x, { alpha: 2 }).toArray()).toEqual([
        [0, 3, 6],
        [9, 12, 15],
      ])
      expect(torch.cat([x, x], { dim: 1 }).shape).toEqual([2, 6])
      expect(x.argmax({ dim: 1 }).toArray()).toEqual([2, 2])
      expect(torch.addmm(torch.ones([2]), x, x.t(), { beta: 0, alpha: 2 }).shape).toEqual([2, 2])
      expect(x.sort({ dim: 1, descending: true })[0].toArray()).toEqual([
        [2, 1, 0],
        [5, 4, 3],
      ])
      expect(torch.zeros([1], { dtype: 'int8', device: 'cpu' }).dtype).toBe('int8')
      expect(torch.linalg.vectorNorm(x, { ord: 1 }).item()).toBe(15)
    })
  })

  it('that are undefined are left out, and null is None', () => {
    inScope(() => {
      const x = torch.ones([2, 2])
      expect(x.sum(1, { keepdim: undefined }).shape).toEqual([2])
      expect(x.sum(null).item()).toBe(4)
      expect(x.mean({ dtype: null }).item()).toBe(1)
      expect(torch.zeros([1], { dtype: undefined }).dtype).toBe('float32')
      expect(torch.zeros([1], { device: null }).device).toBe('cpu')
    })
  })

  it('that do not exist are TypeErrors that say what there is', () => {
    using x = torch.ones([2, 2])
    const sum = x.sum.bind(x) as Untyped
    expect(() => sum(0, { keepDim: true })).toThrow(TypeError)
    expect(() => sum(0, { keepDim: true })).toThrow(/^sum: expected sum\(.*keepdim.*but received/)
    expect(() => sum(0, { keepDim: true })).toThrow(/keepDim: a boolean/)
    expect(() => sum(0, { keepdim: 1 })).toThrow(TypeError)
    expect(() => sum(0, { dim: 1 })).toThrow(TypeError)
    expect(() => (x.add.bind(x) as Untyped)(x, { beta: 1 })).toThrow(/^add: /)
  })

  it('that are wrong name the operator and the argument', () => {
    using x = torch.ones([2, 2])
    const sum = x.sum.bind(x) as Untyped
    expect(() => sum(0, { dtype: 'float31' })).toThrow(RangeError)
    expect(() => sum(0, { dtype: 'float31' })).toThrow(/^sum: expected dtype to be a dtype/)
    expect(() => sum(0.5)).toThrow(RangeError)
    expect(() => sum(0.5)).toThrow(/^sum: expected dim to be a safe whole number, but received 0.5/)
    expect(() => sum(Number.NaN)).toThrow(RangeError)
    expect(() => sum(2 ** 53)).toThrow(RangeError)
  })
})

describe('in-place operators', () => {
  it('return the same object', () => {
    inScope(() => {
      const x = torch.ones([2])
      expect(x.add_(1)).toBe(x)
      expect(x.mul_(x)).toBe(x)
      expect(x.add_(x, { alpha: 2 })).toBe(x)
      expect(x.zero_()).toBe(x)
      expect(x.fill_(3)).toBe(x)
      expect(x.copy_(torch.tensor([5, 6]))).toBe(x)
      expect(x.clamp_(0, 5)).toBe(x)
      expect(x.normal_()).toBe(x)
      expect(x.fill_(1).unsqueeze_(0)).toBe(x)
      expect(x.shape).toEqual([1, 2])
    })
  })

  it('make no handle', () => {
    using x = torch.ones([2])
    const { made } = torch.memory.counters()
    x.add_(1).mul_(x).zero_()
    expect(torch.memory.counters().made).toBe(made)
  })
})

describe('several outputs', () => {
  it('come as an array, by name too where they have names', () => {
    inScope(() => {
      const x = torch.tensor([
        [3, 1],
        [2, 4],
      ])
      const sorted = x.sort(1)
      const [values, indices] = sorted
      expect(values.toArray()).toEqual([
        [1, 3],
        [2, 4],
      ])
      expect(sorted.values).toBe(values)
      expect(sorted.indices).toBe(indices)
      expect(indices.dtype).toBe('int64')
      expect(x.max(1, { keepdim: true }).values.toArray()).toEqual([[3], [4]])
      expect(x.topk(1).indices.toArray()).toEqual([[0], [1]])
      const [q, r] = torch.linalg.qr(x)
      expect(torch.allclose(q.matmul(r), x, { atol: 1e-5 } as never)).toBe(true)
      expect(torch.varMean(x, 1)[1].toArray()).toEqual([2, 3])
      const [unique, inverse, counts] = torch.uniqueDim(torch.tensor([2n, 1n, 2n]), 0, true, true, true)
      expect([unique, inverse, counts].map((each) => each.toArray())).toEqual([
        [1, 2],
        [1, 0, 1],
        [1, 2],
      ])
    })
  })

  it('as a list', () => {
    inScope(() => {
      const parts = torch.arange(5).chunk(2)
      expect(parts.map((each) => each.toArray())).toEqual([
        [0, 1, 2],
        [3, 4],
      ])
      expect(
        torch
          .arange(2)
          .unbind()
          .map((each) => each.item()),
      ).toEqual([0, 1])
      expect(torch.meshgrid([torch.arange(2), torch.arange(3)], { indexing: 'ij' }).map((each) => each.shape)).toEqual([
        [2, 3],
        [2, 3],
      ])
    })
  })

  it('as values of JavaScript', () => {
    inScope(() => {
      const x = torch.tensor([1, 2])
      expect(torch.equal(x, x)).toBe(true)
      expect(x.allclose(x)).toBe(true)
      expect(x.isFloatingPoint()).toBe(true)
      expect(x.isContiguous()).toBe(true)
      expect(x.isNonzero.call(torch.tensor(1))).toBe(true)
    })
  })
})

describe('sizes', () => {
  it('may be an array or spread', () => {
    inScope(() => {
      const x = torch.arange(6)
      expect(x.view(2, 3).shape).toEqual([2, 3])
      expect(x.view([3, 2]).shape).toEqual([3, 2])
      expect(x.view(-1).shape).toEqual([6])
      expect(x.reshape(1, 2, 3, 1).shape).toEqual([1, 2, 3, 1])
      expect(x.view(2, 3).permute(1, 0).shape).toEqual([3, 2])
      expect(x.view(2, 3).permute([1, 0]).shape).toEqual([3, 2])
      expect(x.expand(4, 6).shape).toEqual([4, 6])
      expect(x.repeat(2, 2).shape).toEqual([2, 12])
      expect(x.tile([2]).shape).toEqual([12])
      expect(torch.rand(2, 2).shape).toEqual([2, 2])
      expect(torch.zeros(1, 2, 3, 4, 5, 6, 1).shape).toEqual([1, 2, 3, 4, 5, 6, 1])
      expect(torch.zeros(2, 2, { dtype: 'int8' } as never).dtype).toBe('int8')
      expect(x.view(2, 3).flip(0, 1).at(0, 0).item()).toBe(5)
    })
  })

  it('take one number for both of int[2]', () => {
    inScope(() => {
      const image = torch.arange(16, { dtype: 'float32' }).view(1, 1, 4, 4)
      expect(torch.maxPool2d(image, 2).toArray()).toEqual([
        [
          [
            [5, 7],
            [13, 15],
          ],
        ],
      ])
      expect(torch.maxPool2d(image, [2, 4]).toArray()).toEqual([[[[7], [15]]]])
      expect(torch.conv2d(image, torch.ones([1, 1, 3, 3]), null, 1, 1).shape).toEqual([1, 1, 4, 4])
      expect(torch.conv2d(image, torch.ones([1, 1, 3, 3]), { padding: 'same' }).shape).toEqual([1, 1, 4, 4])
    })
  })
})

describe('lists', () => {
  it('of tensors', () => {
    inScope(() => {
      const x = torch.ones([2])
      expect(torch.cat([x, x.mul(2)]).toArray()).toEqual([1, 1, 2, 2])
      expect(torch.stack([x, x], 1).shape).toEqual([2, 2])
      expect(torch.einsum('ij,j->i', [torch.eye(2), x]).toArray()).toEqual([1, 1])
      expect(() => torch.cat([])).toThrow(torch.TorchError)
      expect(() => (torch.cat as Untyped)([x, 1])).toThrow(TypeError)
      expect(() => (torch.cat as Untyped)(x)).toThrow(/^cat: expected cat\(tensors: Tensor\[\]/)
    })
  })

  it('of tensors and nulls', () => {
    inScope(() => {
      const x = torch.arange(6).view(2, 3)
      const index = torch.tensor([1n])
      expect(torch.index(x, [null, index]).toArray()).toEqual([[1], [4]])
      expect(torch.index(x, [index]).toArray()).toEqual([[3, 4, 5]])
      expect(torch.index(x, [index, null]).toArray()).toEqual([[3, 4, 5]])
    })
  })

  it('of numbers, with bigints', () => {
    inScope(() => {
      expect(torch.zeros([2n, 3] as unknown as number[]).shape).toEqual([2, 3])
      expect(torch.ones([2, 2]).sum([0, 1]).item()).toBe(4)
    })
  })
})

describe('Scalars', () => {
  it('whole numbers are int64, others floats; float() is explicit', () => {
    inScope(() => {
      const whole = torch.tensor([1n, 2n])
      expect(whole.mul(2).dtype).toBe('int64')
      expect(whole.mul(2n).dtype).toBe('int64')
      expect(whole.mul(2.5).dtype).toBe('float32')
      expect(whole.mul(torch.float(2)).dtype).toBe('float32')
      expect(whole.mul(true).dtype).toBe('int64')
      expect(whole.mul({ re: 0, im: 1 }).dtype).toBe('complex64')
      expect(torch.tensor([true]).mul(2).dtype).toBe('int64')
      expect(torch.tensor([1], { dtype: 'bfloat16' }).mul(2.5).dtype).toBe('bfloat16')
      expect(whole.div(2).toArray()).toEqual([0.5, 1])
      expect(whole.add(2n ** 62n).toTypedArray()[0]).toBe(2n ** 62n + 1n)
      expect(whole.eq(1).toArray()).toEqual([true, false])
      expect(torch.tensor([1]).mul(Number.POSITIVE_INFINITY).item()).toBe(Number.POSITIVE_INFINITY)
      expect(torch.tensor([1]).mul(1e300).item()).toBe(Number.POSITIVE_INFINITY)
      expect(Number.isNaN(torch.tensor([1]).add(Number.NaN).item())).toBe(true)
    })
  })

  it('float arguments are always doubles', () => {
    inScope(() => {
      expect(torch.dropout(torch.ones([4]), 0, false).toArray()).toEqual([1, 1, 1, 1])
      expect(torch.layerNorm(torch.tensor([[1, 3]]), [2], { eps: 0 }).toArray()).toEqual([[-1, 1]])
      expect(torch.full([1], 1, { dtype: 'float64' }).add(0.1).item()).toBe(1.1)
    })
  })

  it('bigints must fit 64 bits', () => {
    using x = torch.tensor([1n])
    expect(() => x.add(2n ** 63n)).toThrow(RangeError)
    expect(() => x.add(2n ** 63n)).toThrow(/^add: expected other to fit 64 bits/)
  })
})

describe('wrong arguments', () => {
  it.each<[string, (x: torch.Tensor) => unknown, RegExp]>([
    ['none', (x) => (x.add.bind(x) as Untyped)(), /^add: expected add\(self: Tensor, other: /],
    [
      'too many',
      (x) => (x.relu.bind(x) as Untyped)(1),
      /^relu: expected relu\(self: Tensor\), but received \(a Tensor, a number\)/,
    ],
    [
      'a string for a tensor',
      (x) => (x.matmul.bind(x) as Untyped)('x'),
      /^matmul: .*but received \(a Tensor, a string\)/,
    ],
    ['null for a tensor', (x) => (x.matmul.bind(x) as Untyped)(null), /^matmul: .*but received \(a Tensor, null\)/],
    ['undefined for a tensor', (x) => (x.matmul.bind(x) as Untyped)(undefined), /^matmul: /],
    ['a function', (x) => (x.add.bind(x) as Untyped)(() => 1), /^add: .*a function/],
    ['a plain object', (x) => (torch.matmul as Untyped)(x, { handle: 1 }), /^matmul: /],
    ['a boolean for a number', (x) => (x.sum.bind(x) as Untyped)(true), /^sum: /],
    ['an array of mixed kinds', (x) => (torch.cat as Untyped)([x, 'a']), /^cat: .*a mixed array/],
    ['a typed array', (x) => (x.add.bind(x) as Untyped)(new Float32Array(1)), /^add: /],
    ['a symbol', (x) => (x.add.bind(x) as Untyped)(Symbol('a')), /^add: /],
  ])('%s', (_, run, message) => {
    using x = torch.ones([2])
    const before = liveTensors()
    expect(() => run(x)).toThrow(TypeError)
    expect(() => run(x)).toThrow(message)
    expect(liveTensors()).toBe(before)
  })

  it('of another receiver', () => {
    expect(() => (torch.Tensor.prototype.relu as Untyped).call({})).toThrow(TypeError)
    expect(() => (torch.Tensor.prototype.relu as Untyped).call(undefined)).toThrow(TypeError)
    expect(() => (torch.Tensor.prototype.relu as Untyped).call({ handle: 5 })).toThrow(TypeError)
  })

  it('do not disturb the calls that follow', () => {
    inScope(() => {
      const x = torch.ones([2])
      const bad = torch.ones([3])
      for (let repeat = 0; repeat < 3; repeat += 1) {
        expect(() => x.add(bad)).toThrow(torch.TorchError)
        expect(() => (x.add.bind(x) as Untyped)('a')).toThrow(TypeError)
        expect(x.add(1).toArray()).toEqual([2, 2])
      }
    })
  })
})

describe('callOperator', () => {
  it('calls what has no typed form', () => {
    inScope(() => {
      const x = torch.tensor([[0, 0]])
      expect((torch.callOperator('aten::_softmax', x, -1, false) as torch.Tensor).toArray()).toEqual([[0.5, 0.5]])
      expect((torch.callOperator('aten::add.Tensor', x, x, { alpha: 3 }) as torch.Tensor).shape).toEqual([1, 2])
      expect(torch.callOperator('aten::sym_numel', x)).toBe(2)
    })
  })

  it('says what is not there', () => {
    expect(() => torch.callOperator('aten::nothing_like_it')).toThrow(TypeError)
    expect(() => torch.callOperator('aten::nothing_like_it')).toThrow(
      /^aten::nothing_like_it: expected libtorch .* to have the operator/,
    )
    expect(() => torch.callOperator('aten::add.Nonsense', 1)).toThrow(TypeError)
    expect(() => torch.callOperator('x' as `${string}::${string}`)).toThrow(TypeError)
  })
})
