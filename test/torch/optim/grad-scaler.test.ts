import { describe, expect, test } from 'vitest'
import { optim, parameter, torch, valuesOf } from './helpers.js'

const makers = {
  'sgd fused': (x: torch.Tensor) => new optim.SGD([x], { lr: 0.5, momentum: 0.5 }),
  'sgd fused, dampening': (x: torch.Tensor) => new optim.SGD([x], { lr: 0.5, momentum: 0.5, dampening: 0.5 }),
  'sgd single': (x: torch.Tensor) => new optim.SGD([x], { lr: 0.5, momentum: 0.5, implementation: 'single' }),
  'adamw fused': (x: torch.Tensor) => new optim.AdamW([x], { lr: 0.5 }),
  'adamw foreach': (x: torch.Tensor) => new optim.AdamW([x], { lr: 0.5, implementation: 'foreach' }),
}

describe.each(Object.entries(makers))('%s', (_, make) => {
  test.each([false, true])(
    'skips what is not finite, and else is as without a scaler; unscaled before: %s',
    (unscaleFirst) => {
      const [x, plain] = [parameter([1, 2], [2]), parameter([1, 2], [2])]
      const [optimizer, other] = [make(x), make(plain)]
      const scaler = new optim.GradScaler({ initScale: 1024, growthInterval: 2 })
      const iterate = (factor: number) =>
        torch.scope(() => {
          optimizer.zeroGrad()
          scaler.scale(x.mul(x).sum().mul(factor)).backward()
          if (unscaleFirst) {
            scaler.unscale_(optimizer)
            if (Number.isFinite(factor)) expect(valuesOf(x.grad!)).toEqual(valuesOf(x).map((each) => 2 * each * factor))
          }
          scaler.step(optimizer)
          scaler.update()
        })
      const iteratePlain = () =>
        torch.scope(() => {
          other.zeroGrad()
          plain.mul(plain).sum().backward()
          other.step()
        })
      const before = valuesOf(x)
      // the very first step is one to skip
      iterate(Infinity)
      expect(valuesOf(x)).toEqual(before)
      expect(scaler.getScale()).toBe(512)
      iterate(1)
      iteratePlain()
      expect(scaler.getGrowthTracker()).toBe(1)
      iterate(1)
      iteratePlain()
      expect(valuesOf(x)).toEqual(valuesOf(plain))
      expect(scaler.getScale()).toBe(1024)
      expect(scaler.getGrowthTracker()).toBe(0)
      const middle = valuesOf(x)
      const live = torch.memory.counters().live
      iterate(NaN)
      expect(valuesOf(x)).toEqual(middle)
      expect(scaler.getScale()).toBe(512)
      iterate(1)
      iteratePlain()
      expect(valuesOf(x)).toEqual(valuesOf(plain))
      for (let k = 0; k < 10; k += 1) iterate(0.125)
      expect(torch.memory.counters().live).toBe(live)
      scaler.dispose()
      for (const each of [optimizer, other]) each.dispose()
      torch.dispose([x, plain])
    },
  )
})

test('its tensors are its own, and it goes on from a state dict', () => {
  const x = parameter([1], [1])
  const optimizer = new optim.SGD([x], { lr: 0.1 })
  const before = torch.memory.counters().live
  const scaler = torch.scope(() => {
    const made = new optim.GradScaler({ initScale: 8, growthInterval: 1, growthFactor: 4 })
    made.scale(x.sum()).backward()
    made.step(optimizer)
    return made
  })
  scaler.update()
  expect(scaler.getScale()).toBe(32)
  const saved = scaler.stateDict()
  expect(saved).toEqual({ scale: 32, growth_factor: 4, backoff_factor: 0.5, growth_interval: 1, _growth_tracker: 0 })
  const other = new optim.GradScaler()
  other.loadStateDict(saved)
  expect(other.stateDict()).toEqual(saved)
  expect(torch.scope(() => other.scale(torch.tensor(2)).item())).toBe(64)
  other.update(3)
  expect(other.getScale()).toBe(3)
  expect(() => other.loadStateDict({ ...(saved as optim.GradScalerStateDict), growth_factor: 0.5 })).toThrow(
    /growthFactor/,
  )
  expect(() => other.loadStateDict({})).toThrow(/scale to be a number/)
  expect(other.getScale()).toBe(3)
  scaler.dispose()
  other.dispose()
  x.grad = null
  expect(torch.memory.counters().live).toBe(before)
  torch.dispose(x)
})

test('not enabled: everything passes through', () => {
  torch.scope(() => {
    const x = torch.tensor([1]).requiresGrad_()
    const optimizer = new optim.SGD([x], { lr: 0.5 })
    const scaler = new optim.GradScaler({ enabled: false })
    const loss = x.sum()
    expect(scaler.scale(loss)).toBe(loss)
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    expect(x.item()).toBe(0.5)
    expect(scaler.getScale()).toBe(1)
    expect(scaler.stateDict()).toEqual({})
  })
})

test('calls in a wrong order', () => {
  torch.scope(() => {
    const x = torch.tensor([1]).requiresGrad_()
    const optimizer = new optim.SGD([x], { lr: 0.5, implementation: 'single' })
    using scaler = new optim.GradScaler()
    expect(() => scaler.step(optimizer)).toThrow(/expected scale\(loss\) to be called first/)
    expect(() => scaler.update()).toThrow(/expected scale/)
    scaler.scale(x.sum()).backward()
    expect(() => scaler.update()).toThrow(/expected step\(\) or unscale_/)
    scaler.unscale_(optimizer)
    expect(() => scaler.unscale_(optimizer)).toThrow(/called already/)
    scaler.step(optimizer)
    expect(() => scaler.step(optimizer)).toThrow(/called twice/)
    expect(() => scaler.unscale_(optimizer)).toThrow(/step\(\) was called/)
    scaler.update()
    const half = torch.ones([1], { dtype: 'float16' }).requiresGrad_()
    half.grad = torch.ones([1], { dtype: 'float16' })
    expect(() => scaler.unscale_(new optim.SGD([half]))).toThrow(/float16/)
    expect(() => new optim.GradScaler({ growthFactor: 1 })).toThrow(/growthFactor/)
    expect(() => new optim.GradScaler({ backoffFactor: 1 })).toThrow(/backoffFactor/)
    expect(() => new optim.GradScaler({ growthInterval: 0.5 })).toThrow(/growthInterval/)
  })
})
