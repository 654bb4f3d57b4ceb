import { expect, test } from 'vitest'
import { optim, parameter, torch, valuesOf } from './helpers.js'

const live = () => torch.memory.counters().live

test('averages by the formula, with and without warm-up', () => {
  for (const warmup of [false, true]) {
    const x = parameter([1, -1], [2])
    using ema = new optim.ExponentialMovingAverage([x], { decay: 0.9, warmup })
    let expected = [1, -1]
    const before = live()
    for (let n = 1; n <= 20; n += 1) {
      torch.noGrad(() => x.add_(0.5))
      ema.update()
      const decay = warmup ? Math.min(0.9, (1 + n) / (10 + n)) : 0.9
      const now = valuesOf(x)
      expected = expected.map((each, index) => decay * each + (1 - decay) * now[index]!)
    }
    for (const [index, value] of valuesOf(ema.averages[0]!).entries()) expect(value).toBeCloseTo(expected[index]!, 4)
    expect(ema.numUpdates).toBe(20)
    expect(live()).toBe(before)
    torch.dispose(x)
  }
})

test('made in a scope it lives on; store, copyTo, restore, averaged', () => {
  const x = parameter([1], [1])
  const before = live()
  const ema = torch.scope(() => {
    const made = new optim.ExponentialMovingAverage([x], { decay: 0.5 })
    torch.noGrad(() => x.fill_(3))
    made.update()
    return made
  })
  expect(x.item()).toBe(3)
  torch.scope(() => ema.store())
  ema.copyTo()
  expect(x.item()).toBe(2)
  ema.restore()
  expect(x.item()).toBe(3)
  expect(() => ema.restore()).toThrow(/expected store\(\) to be called first/)
  expect(ema.averaged(() => x.item())).toBe(2)
  expect(() =>
    ema.averaged(() => {
      throw new Error('stop')
    }),
  ).toThrow('stop')
  expect(x.item()).toBe(3)
  const other = parameter([0], [1])
  ema.copyTo([other])
  expect(other.item()).toBe(2)
  expect(() => ema.copyTo([])).toThrow(/expected 1 tensors, but received 0/)
  torch.dispose(other)
  expect(live()).toBe(before + 1)
  ema.dispose()
  expect(live()).toBe(before)
  torch.dispose(x)
})

test('averages of bfloat16 are float32, of whole numbers the last ones', () => {
  torch.scope(() => {
    const x = torch.ones([1], { dtype: 'bfloat16' })
    const steps = torch.tensor([1n])
    using ema = new optim.ExponentialMovingAverage([x, steps], { decay: 0.999 })
    x.zero_()
    steps.fill_(7)
    ema.update()
    expect(ema.averages[0]!.dtype).toBe('float32')
    expect(ema.averages[0]!.item()).toBeCloseTo(0.999, 6)
    expect(ema.averages[1]!.item()).toBe(7)
    ema.copyTo()
    expect(x.dtype).toBe('bfloat16')
  })
})

test('goes on from a state dict', () => {
  torch.scope(() => {
    const x = torch.tensor([1, 2])
    using one = new optim.ExponentialMovingAverage([x], { decay: 0.75, warmup: true })
    x.fill_(5)
    one.update()
    using other = new optim.ExponentialMovingAverage([x], { warmup: true })
    other.loadStateDict(one.stateDict())
    x.fill_(9)
    one.update()
    other.update()
    expect(valuesOf(other.averages[0]!)).toEqual(valuesOf(one.averages[0]!))
    expect(() => other.loadStateDict({ ...one.stateDict(), shadow_params: [] })).toThrow(/expected 1 shadow_params/)
    expect(() => other.loadStateDict({ ...one.stateDict(), shadow_params: [torch.zeros([3])] })).toThrow(/shape \[2\]/)
    expect(() => new optim.ExponentialMovingAverage([x], { decay: 2 })).toThrow(RangeError)
  })
})
