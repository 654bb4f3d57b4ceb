import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

type TensorIndex = { readonly tensor: torch.TensorData; readonly dtype: torch.DType }
type EncodedIndex = torch.Index | TensorIndex

interface Fixture {
  readonly reads: readonly { shape: number[]; indices: EncodedIndex[]; result: unknown; resultShape: number[] }[]
  readonly writes: readonly {
    shape: number[]
    indices: EncodedIndex[]
    value: number | torch.Nested<number>
    result: unknown
  }[]
  readonly errors: readonly { shape: number[]; indices: EncodedIndex[]; message: string }[]
}

const fixture: Fixture = JSON.parse(readFileSync(new URL('./fixtures/indexing.json', import.meta.url), 'utf8'))

function decode(index: EncodedIndex): torch.Index {
  const isTensor = typeof index === 'object' && index !== null && 'tensor' in index
  return isTensor ? torch.tensor(index.tensor, { dtype: index.dtype }) : (index as torch.Index)
}

function base(shape: readonly number[]): torch.Tensor {
  return torch.arange(shape.reduce((product, size) => product * size, 1)).reshape(shape)
}

const named = <T extends { shape: number[]; indices: EncodedIndex[] }>(cases: readonly T[]): [string, T][] =>
  cases.map((each) => [`[${each.shape}] at (${each.indices.map((index) => JSON.stringify(index)).join(', ')})`, each])

describe('at reads as PyTorch', () => {
  it.each(named(fixture.reads))('%s', (_, { shape, indices, result, resultShape }) => {
    inScope(() => {
      const found = base(shape).at(...indices.map(decode))
      expect(found.shape).toEqual(resultShape)
      expect(found.toArray()).toEqual(result)
    })
  })
})

describe('setAt writes as PyTorch', () => {
  it.each(named(fixture.writes))('%s', (_, { shape, indices, value, result }) => {
    inScope(() => {
      const x = base(shape).double()
      const given = typeof value === 'number' ? value : torch.tensor(value, { dtype: 'float64' })
      expect(x.setAt(indices.map(decode), given)).toBe(x)
      expect(x.toArray()).toEqual(result)
    })
  })
})

describe('refuses what PyTorch refuses', () => {
  it.each(named(fixture.errors))('%s', (_, { shape, indices }) => {
    inScope(() => {
      const x = base(shape)
      const decoded = indices.map(decode)
      expect(() => x.at(...decoded)).toThrow()
      expect(() => x.setAt(decoded, 0)).toThrow()
    })
  })

  it('with its words', () => {
    using x = torch.zeros([3, 4])
    expect(() => x.at(3)).toThrow('index 3 is out of bounds for dimension 0 with size 3')
    expect(() => x.at(0, 0, 0)).toThrow(/too many indices/)
  })
})

describe('slice', () => {
  it('is a slice of Python', () => {
    inScope(() => {
      const x = torch.arange(7)
      expect(x.at(torch.slice(3)).toArray()).toEqual([0, 1, 2])
      expect(x.at(torch.slice(2, 4)).toArray()).toEqual([2, 3])
      expect(x.at(torch.slice(1, null, 3)).toArray()).toEqual([1, 4])
      expect(x.at(torch.slice(-2, null)).toArray()).toEqual([5, 6])
      expect(x.at(torch.slice()).toArray()).toEqual([0, 1, 2, 3, 4, 5, 6])
    })
  })

  it('refuses steps below one and words that are none', () => {
    using x = torch.arange(7)
    expect(() => x.at('::0')).toThrow(RangeError)
    expect(() => x.at(torch.slice(null, null, -1))).toThrow(
      /^at: expected the step of a slice to be greater than zero; use flip/,
    )
    expect(() => x.at('::-1')).toThrow(Error)
    for (const text of ['', 'a', '1', '1;2', '1:2:3:4', '-:2', '1.5:']) {
      expect(() => x.at(text), text).toThrow(TypeError)
      expect(() => x.at(text), text).toThrow(`but received the string '${text}'`)
    }
    expect(() => x.at(torch.slice(0.5, 2))).toThrow(RangeError)
  })
})

describe('at', () => {
  it('is a view for numbers and slices, a copy for masks and tensors', () => {
    inScope(() => {
      const x = torch.zeros([4, 2])
      x.at('1:3', 0).fill_(5)
      expect(x.toArray()).toEqual([
        [0, 0],
        [5, 0],
        [5, 0],
        [0, 0],
      ])
      expect(x.at(1).sharesStorage(x)).toBe(true)
      expect(x.at([1]).sharesStorage(x)).toBe(false)
    })
  })

  it('refuses what is no index, by name', () => {
    using x = torch.zeros([3])
    const at = (index: unknown) => () => x.at(index as torch.Index)
    expect(at(1.5)).toThrow(RangeError)
    expect(at(1.5)).toThrow('at: expected an index to be a whole number, but received 1.5')
    expect(at(Number.NaN)).toThrow(RangeError)
    expect(at(2 ** 53)).toThrow(RangeError)
    expect(at(undefined)).toThrow(TypeError)
    expect(at({})).toThrow(/^at: expected an index to be/)
    expect(at(() => 1)).toThrow(TypeError)
    expect(at([[1], [2, 3]])).toThrow(RangeError)
    expect(at([1.5])).toThrow(RangeError)
    expect(() => x.setAt(undefined as unknown as number, 1)).toThrow(/^setAt: expected an index/)
    const disposed = torch.tensor([0n])
    disposed.dispose()
    expect(at(disposed)).toThrow(/^at: expected an index to be a live Tensor/)
  })

  it('frees what arrays of indices became', () => {
    using x = torch.zeros([3])
    const before = liveTensors()
    x.at([0, 2]).dispose()
    x.setAt([[0, 1]], 3)
    expect(() => x.at([7])).toThrow()
    expect(() => x.at([0], {} as torch.Index)).toThrow(TypeError)
    expect(liveTensors()).toBe(before)
  })

  it('has gradients', () => {
    inScope(() => {
      const x = torch.ones([3]).requiresGrad_()
      x.at([0, 0, 2]).sum().backward()
      expect(x.grad!.toArray()).toEqual([2, 0, 1])
      const y = torch.ones([3]).requiresGrad_()
      const copy = y.mul(1).setAt(1, 5)
      copy.mul(copy).sum().backward()
      expect(y.grad!.toArray()).toEqual([2, 0, 2])
    })
  })
})

describe('setAt', () => {
  it('casts a value to the dtype of the tensor', () => {
    inScope(() => {
      const x = torch.zeros([2], { dtype: 'int64' })
      x.setAt(0, 2n ** 62n)
      expect(x.toTypedArray()[0]).toBe(2n ** 62n)
      x.setAt(1, torch.tensor(3.7))
      expect(x.toTypedArray()[1]).toBe(3n)
      expect(torch.zeros([1], { dtype: 'bool' }).setAt(0, true).toArray()).toEqual([true])
      expect(torch.zeros([1], { dtype: 'complex64' }).setAt(0, { re: 1, im: 2 }).toArray()).toEqual([{ re: 1, im: 2 }])
      expect(torch.zeros([1]).setAt(0, torch.float(2)).toArray()).toEqual([2])
    })
  })

  it('does not add up where an index stands twice', () => {
    inScope(() => {
      const x = torch.zeros([2])
      x.setAt([[0, 0]], torch.tensor([1, 1]))
      expect(x.toArray()).toEqual([1, 0])
      x.indexPut_([torch.tensor([0n, 0n])], torch.tensor([1, 1]), { accumulate: true })
      expect(x.toArray()).toEqual([3, 0])
    })
  })

  it('refuses shapes that do not broadcast, and wrong kinds', () => {
    using x = torch.zeros([2, 3])
    using value = torch.zeros([2])
    expect(() => x.setAt(0, value)).toThrow(torch.TorchError)
    expect(() => x.setAt(0, 'a' as unknown as number)).toThrow(/^setAt: expected value/)
    expect(() => x.setAt(0, 'a' as unknown as number)).toThrow(TypeError)
  })
})

describe('operators that index', () => {
  it('take lists with nulls', () => {
    inScope(() => {
      const x = torch.arange(6).view(2, 3)
      expect(torch.index(x, [null, torch.tensor([0n, 2n])]).toArray()).toEqual([
        [0, 2],
        [3, 5],
      ])
      expect(x.indexSelect(1, torch.tensor([2n])).toArray()).toEqual([[2], [5]])
      expect(x.gather(1, torch.tensor([[0n], [1n]])).toArray()).toEqual([[0], [4]])
      expect(x.maskedFill(x.gt(2), -1).toArray()).toEqual([
        [0, 1, 2],
        [-1, -1, -1],
      ])
      expect(x.where(x.gt(2), 0).toArray()).toEqual([
        [0, 0, 0],
        [3, 4, 5],
      ])
    })
  })
})
