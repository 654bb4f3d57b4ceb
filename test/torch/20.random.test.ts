import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

/** torch.manual_seed(0), then torch.rand(3), torch.randint(0, 100, (3,)), torch.randperm(5), torch.randn(3) */
const expected = {
  rand: [0.49625658988952637, 0.7682217955589294, 0.08847743272781372],
  randint: [60, 63, 79],
  randperm: [2, 4, 3, 1, 0],
  randn: [0.1603812575340271, -0.6064512133598328, -0.7830641269683838],
}

describe('the default generator', () => {
  it('draws the same numbers from the same seed', () => {
    inScope(() => {
      torch.manualSeed(42)
      const first = torch.randn([4])
      torch.manualSeed(42)
      expect(torch.randn([4]).equal(first)).toBe(true)
      expect(torch.randn([4]).equal(first)).toBe(false)
      torch.manualSeed(43)
      expect(torch.randn([4]).equal(first)).toBe(false)
    })
  })

  it("draws PyTorch's own numbers", () => {
    inScope(() => {
      torch.manualSeed(0)
      expect(torch.rand([3]).toArray()).toEqual(expected.rand)
      expect(torch.randint(0, 100, [3]).toArray()).toEqual(expected.randint)
      expect(torch.randperm(5).toArray()).toEqual(expected.randperm)
      const normal = torch.randn([3]).toArray() as number[]
      for (const [index, value] of normal.entries()) expect(value).toBeCloseTo(expected.randn[index]!, 6)
    })
  })

  it('takes large seeds, and says what it started from', () => {
    torch.manualSeed(2n ** 64n - 1n)
    expect(torch.initialSeed()).toBe(2n ** 64n - 1n)
    torch.manualSeed(7)
    expect(torch.initialSeed()).toBe(7n)
    torch.manualSeed(-1n)
    expect(torch.initialSeed()).toBe(2n ** 64n - 1n)
  })

  it('gives its state out and takes it back', () => {
    inScope(() => {
      torch.manualSeed(5)
      torch.randn([3])
      const state = torch.getRngState()
      expect(state.dtype).toBe('uint8')
      const first = torch.randn([5])
      torch.setRngState(state)
      expect(torch.randn([5]).equal(first)).toBe(true)
      // through bytes, as a checkpoint on disk does
      torch.setRngState(state)
      const bytes = torch.getRngState().toTypedArray()
      torch.setRngState(torch.tensor(bytes))
      expect(torch.randn([5]).equal(first)).toBe(true)
    })
  })

  it.each<[string, () => void, new () => Error]>([
    ['a fraction', () => torch.manualSeed(1.5), RangeError],
    ['a string', () => torch.manualSeed('1' as unknown as number), TypeError],
    ['2^64', () => torch.manualSeed(2n ** 64n), RangeError],
    ['a state that is none', () => torch.setRngState(5 as unknown as torch.Tensor), TypeError],
    ['a state of floats', () => torch.scope(() => torch.setRngState(torch.zeros([5056]))), TypeError],
    [
      'a short state',
      () => torch.scope(() => torch.setRngState(torch.zeros([3], { dtype: 'uint8' }))),
      torch.TorchError,
    ],
    ['a device that has none', () => torch.initialSeed('nowhere' as torch.Device), RangeError],
  ])('refuses %s', (_, run, kind) => {
    expect(run).toThrow(kind)
  })
})

describe('Generator', () => {
  it('is independent of the default one, and of others', () => {
    inScope(() => {
      const a = new torch.Generator().manualSeed(1)
      const b = new torch.Generator().manualSeed(1)
      torch.manualSeed(1)
      const first = torch.randn([4], { generator: a })
      torch.randn([100])
      expect(torch.randn([4], { generator: b }).equal(first)).toBe(true)
      torch.manualSeed(9)
      const fromDefault = torch.randn([4])
      torch.manualSeed(9)
      torch.randn([4], { generator: a })
      expect(torch.randn([4]).equal(fromDefault)).toBe(true)
    })
  })

  it('is taken by every random operator', () => {
    inScope(() => {
      const generator = new torch.Generator()
      const x = torch.full([6], 0.5)
      const draws: (() => torch.Tensor)[] = [
        () => torch.rand([4], { generator }),
        () => torch.randint(0, 1000, [4], { generator }),
        () => torch.randperm(10, { generator }),
        () => torch.bernoulli(x, { generator }),
        () => torch.multinomial(x, 3, { generator }),
        () => torch.zeros([4]).normal_(0, 1, { generator }),
        () => torch.zeros([4]).uniform_(0, 1, { generator }),
        () => torch.normal(x, 1, { generator }),
      ]
      for (const draw of draws) {
        generator.manualSeed(3)
        const first = draw()
        generator.manualSeed(3)
        expect(draw().equal(first), draw.toString()).toBe(true)
      }
    })
  })

  it('has a state, a seed and a device', () => {
    inScope(() => {
      const generator = new torch.Generator().manualSeed(11)
      expect([generator.initialSeed(), generator.device]).toEqual([11n, 'cpu'])
      torch.rand([3], { generator })
      const state = generator.getState()
      const first = torch.rand([3], { generator })
      const other = new torch.Generator().setState(state)
      expect(torch.rand([3], { generator: other }).equal(first)).toBe(true)
      expect(generator.setState(state)).toBe(generator)
    })
  })

  it('is no tensor and leaks none', () => {
    const before = liveTensors()
    const generator = new torch.Generator().manualSeed(1)
    torch.rand([2], { generator }).dispose()
    generator.getState().dispose()
    expect(liveTensors()).toBe(before)
    expect(() => torch.rand([2], { generator: {} as torch.Generator })).toThrow(TypeError)
    expect(() => torch.rand([2], { generator: 5 as unknown as torch.Generator })).toThrow(/^rand: /)
    expect(() => new torch.Generator('nowhere' as torch.Device)).toThrow(RangeError)
  })
})
