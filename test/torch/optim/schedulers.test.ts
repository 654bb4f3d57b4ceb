import { describe, expect, test } from 'vitest'
import { optim, torch } from './helpers.js'

describe('schedules', () => {
  test('linear warm-up from lrMin, then a cosine to lrMin: the method of CLEFT', () => {
    const [lr, lrMin, warmupSteps, totalSteps] = [4e-5, 1e-8, 4000, 40000]
    const rate = optim.cosineWithWarmup({ lr, lrMin, warmupSteps, totalSteps })
    for (const k of [0, 1, 2000, 3999]) expect(rate(k)).toBeCloseTo(lrMin + ((lr - lrMin) * k) / warmupSteps, 15)
    expect(rate(0)).toBe(lrMin)
    expect(rate(4000)).toBe(lr)
    expect(rate(22000)).toBeCloseTo((lr + lrMin) / 2, 15)
    for (const k of [4001, 10000, 39999]) {
      const cosine = Math.cos((Math.PI * (k - warmupSteps)) / (totalSteps - warmupSteps))
      expect(rate(k)).toBeCloseTo(lrMin + ((lr - lrMin) * (1 + cosine)) / 2, 15)
    }
    for (const k of [40000, 50000]) expect(rate(k)).toBe(lrMin)
  })

  test('restarts', () => {
    const settings = { lr: 1, lrMin: 0.1, warmupSteps: 2, totalSteps: 10 }
    const once = optim.cosineWithWarmup(settings)
    const again = optim.cosineWithWarmup({ ...settings, restarts: true })
    for (let k = 0; k < 30; k += 1) expect(again(k)).toBe(once(k % 10))
    const growing = optim.cosineWithWarmup({ ...settings, restarts: { multiplier: 2, decay: 0.5, warmup: 'first' } })
    const second = optim.cosineWithWarmup({ lr: 0.5, lrMin: 0.1, totalSteps: 20 })
    for (let k = 0; k < 10; k += 1) expect(growing(k)).toBe(once(k))
    for (let k = 0; k < 20; k += 1) expect(growing(10 + k)).toBe(second(k))
    expect(growing(30)).toBe(0.25)
  })

  test('linear, constant, step, multi-step', () => {
    const linear = optim.linearWithWarmup({ lr: 1, warmupSteps: 2, totalSteps: 6 })
    expect([0, 1, 2, 3, 4, 5, 6, 7].map(linear)).toEqual([0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0])
    const constant = optim.constantWithWarmup({ lr: 1, lrMin: 0.5, warmupSteps: 2 })
    expect([0, 1, 2, 100].map(constant)).toEqual([0.5, 0.75, 1, 1])
    const step = optim.stepDecay({ lr: 1, stepSize: 2, gamma: 0.5 })
    expect([0, 1, 2, 3, 4].map(step)).toEqual([1, 1, 0.5, 0.5, 0.25])
    const several = optim.multiStepDecay({ lr: 1, milestones: [3, 1], gamma: 0.5 })
    expect([0, 1, 2, 3, 4].map(several)).toEqual([1, 0.5, 0.5, 0.25, 0.25])
  })

  test('bad settings', () => {
    const good = { lr: 1, totalSteps: 10 }
    expect(() => optim.cosineWithWarmup({ ...good, lr: -1 })).toThrow(/cosineWithWarmup: expected lr/)
    expect(() => optim.cosineWithWarmup({ ...good, lrMin: 2 })).toThrow(/lrMin/)
    expect(() => optim.cosineWithWarmup({ ...good, warmupSteps: 11 })).toThrow(/totalSteps/)
    expect(() => optim.cosineWithWarmup({ lr: 1 } as never)).toThrow(/totalSteps/)
    expect(() => optim.cosineWithWarmup({ ...good, warmupSteps: 0.5 })).toThrow(/warmupSteps/)
    expect(() => optim.cosineWithWarmup({ ...good, restarts: { multiplier: 0.5 } })).toThrow(/multiplier/)
    expect(() => optim.stepDecay({ lr: 1, stepSize: 0 })).toThrow(/stepSize/)
    expect(() => optim.multiStepDecay({ lr: 1, milestones: [0.5] })).toThrow(/milestones/)
  })
})

function twoGroups() {
  const params = [0, 0].map(() => torch.zeros([1]).requiresGrad_())
  return new optim.SGD([
    { params: [params[0]!], lr: 1 },
    { params: [params[1]!], lr: 0.1 },
  ])
}

const rates = (optimizer: optim.SGD) => optimizer.paramGroups.map((group) => group.lr)

describe('schedulers', () => {
  test('each group goes from its own rate', () => {
    torch.scope(() => {
      const optimizer = twoGroups()
      const settings = { lrMin: 1e-3, warmupSteps: 3, totalSteps: 10 }
      const scheduler = new optim.CosineWithWarmup(optimizer, settings)
      const expected = [1, 0.1].map((lr) => optim.cosineWithWarmup({ lr, ...settings }))
      for (let k = 0; k < 15; k += 1) {
        expect(scheduler.lastStep).toBe(k)
        expect(rates(optimizer)).toEqual(expected.map((each) => each(k)))
        expect(scheduler.getLastLr()).toEqual(rates(optimizer))
        optimizer.step()
        scheduler.step()
      }
    })
  })

  test('all kinds', () => {
    torch.scope(() => {
      const kinds: [(optimizer: optim.SGD) => optim.LRScheduler, number[]][] = [
        [(each) => new optim.Constant(each), [1, 1, 1, 1]],
        [(each) => new optim.ConstantWithWarmup(each, { warmupSteps: 2 }), [0, 0.5, 1, 1]],
        [(each) => new optim.LinearWithWarmup(each, { totalSteps: 4 }), [1, 0.75, 0.5, 0.25]],
        [(each) => new optim.StepLR(each, { stepSize: 2, gamma: 0.5 }), [1, 1, 0.5, 0.5]],
        [(each) => new optim.MultiStepLR(each, { milestones: [1, 3], gamma: 0.5 }), [1, 0.5, 0.5, 0.25]],
        [(each) => new optim.LambdaLR(each, (step) => 1 / (1 + step)), [1, 1 / 2, 1 / 3, 1 / 4]],
        [(each) => new optim.LambdaLR(each, [(step) => 2 ** step, () => 3]), [1, 2, 4, 8]],
      ]
      for (const [make, expected] of kinds) {
        const optimizer = twoGroups()
        const scheduler = make(optimizer)
        for (const rate of expected) {
          expect(optimizer.paramGroups[0]!.lr).toBeCloseTo(rate, 15)
          scheduler.step()
        }
      }
      expect(() => new optim.LambdaLR(twoGroups(), [(step) => step])).toThrow(/one for each of the 2 groups/)
      expect(() => new optim.LambdaLR(twoGroups(), () => NaN)).toThrow(/the rate of group 0 at step 0/)
    })
  })

  test('a frozen group stays frozen, and a group that comes later goes along', () => {
    torch.scope(() => {
      const frozen = torch.zeros([1]).requiresGrad_()
      const optimizer = new optim.SGD([{ params: [frozen], lr: 0 }])
      const scheduler = new optim.LinearWithWarmup(optimizer, { lrMin: 0.1, totalSteps: 4 })
      optimizer.addParamGroup({ params: [torch.zeros([1]).requiresGrad_()], lr: 1.1 })
      scheduler.step()
      expect(optimizer.paramGroups.map((group) => group.lr)).toEqual([0, 0.1 + 0.75])
      expect(scheduler.baseRates).toEqual([0, 1.1])
    })
  })

  test('goes on from a state dict, together with the optimizer or alone', () => {
    torch.scope(() => {
      const settings = { warmupSteps: 3, totalSteps: 10 }
      const optimizer = twoGroups()
      const scheduler = new optim.CosineWithWarmup(optimizer, settings)
      for (let k = 0; k < 5; k += 1) scheduler.step()
      const saved = { optimizer: optimizer.stateDict(), scheduler: scheduler.stateDict() }
      expect(saved.scheduler).toEqual({ base_lrs: [1, 0.1], last_epoch: 5, _last_lr: rates(optimizer) })
      expect(saved.optimizer.param_groups.map((group) => group.initial_lr)).toEqual([1, 0.1])
      const other = twoGroups()
      for (const group of other.paramGroups) group.lr = 7
      other.loadStateDict(saved.optimizer)
      expect(rates(other)).toEqual(rates(optimizer))
      const resumed = new optim.CosineWithWarmup(other, settings)
      resumed.loadStateDict(saved.scheduler)
      for (let k = 0; k < 5; k += 1) {
        expect(rates(other)).toEqual(rates(optimizer))
        scheduler.step()
        resumed.step()
      }
      expect(() => resumed.loadStateDict({ ...saved.scheduler, base_lrs: [1] })).toThrow(
        /a rate for each of the 2 groups/,
      )
      expect(() => resumed.loadStateDict({})).toThrow(/last_epoch/)
    })
  })

  test('works on AdamW, and Adafactor where it has a rate', () => {
    torch.scope(() => {
      const x = torch.zeros([1]).requiresGrad_()
      const adamw = new optim.AdamW([x], { lr: 1 })
      new optim.StepLR(adamw, { stepSize: 1 }).step()
      expect(adamw.paramGroups[0]!.lr).toBe(0.1)
      expect(() => new optim.Constant(new optim.Adafactor([x]))).toThrow(/group 0 has none/)
    })
  })
})
