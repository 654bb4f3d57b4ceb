import { type DictLike, entryOf, expectOption, isAtLeast, isDict } from './check.js'
import type { CommonOptions, Optimizer } from './optimizer.js'
import {
  type CosineSettings,
  constantWithWarmup,
  cosineWithWarmup,
  type LinearSettings,
  linearWithWarmup,
  type MultiStepSettings,
  multiStepDecay,
  type Schedule,
  type StepSettings,
  stepDecay,
  type WarmupSettings,
} from './schedules.js'

/** What is needed of an optimizer, whatever its options. */
interface HasGroups {
  readonly paramGroups: Optimizer<CommonOptions>['paramGroups']
}

/** PyTorch's names. */
export interface SchedulerStateDict {
  base_lrs: number[]
  /** The step whose rates are set, counted from 0. */
  last_epoch: number
  _last_lr: number[]
}

/**
 * Sets the rates of an optimizer's groups, each from its own base rate (so that rates by layer stay in proportion).
 *
 * As in PyTorch the constructor sets the rates of step 0, and step() those of the next one: call it after the
 * optimizer's step(). The base rate is the group's `initialLr` where there is one (an earlier scheduler, a loaded state
 * dict), else its `lr`.
 */
export class LRScheduler {
  private readonly baseLrs: number[] = []
  /** A function for each group, made when the group is first seen. */
  private schedules: Schedule[] = []
  private current = 0
  private lastLrs: number[] = []

  /** @param scheduleFor the rates of a group by step, given its base rate and number */
  constructor(
    private readonly optimizer: HasGroups,
    private readonly scheduleFor: (baseLr: number, group: number) => Schedule,
  ) {
    this.apply()
  }

  private apply(): void {
    const name = this.constructor.name
    const rates = this.optimizer.paramGroups.map((group, index) => {
      if (this.baseLrs[index] === undefined) {
        const base = group.initialLr ?? group.lr
        if (base === null) {
          throw new TypeError(
            `${name}: expected groups with a rate, but group ${index} has none; set relativeStep: false`,
          )
        }
        this.baseLrs[index] = base
      }
      this.schedules[index] ??= this.scheduleFor(this.baseLrs[index]!, index)
      const rate = this.schedules[index]!(this.current)
      const what = `the rate of group ${index} at step ${this.current}`
      expectOption(isAtLeast(0, rate), name, what, 'a number from 0 on', rate)
      return rate
    })
    // all or none
    for (const [index, group] of this.optimizer.paramGroups.entries()) {
      group.initialLr ??= this.baseLrs[index]
      group.lr = rates[index]!
    }
    this.lastLrs = rates
  }

  /** The step whose rates are set now, counted from 0. */
  get lastStep(): number {
    return this.current
  }

  /** The groups' base rates. */
  get baseRates(): readonly number[] {
    return this.baseLrs
  }

  /** Sets the rates of the next step: after the optimizer's step(). */
  step(): void {
    this.current += 1
    this.apply()
  }

  /** The rates that are set now, a group each. */
  getLastLr(): number[] {
    return [...this.lastLrs]
  }

  stateDict(): SchedulerStateDict {
    return { base_lrs: [...this.baseLrs], last_epoch: this.current, _last_lr: this.getLastLr() }
  }

  /** Goes on where another scheduler of the same settings was, and sets the rates of that step. */
  loadStateDict(saved: SchedulerStateDict | DictLike): void {
    const where = `${this.constructor.name}.loadStateDict`
    const dict = saved as DictLike
    const read = (name: string): unknown => (isDict(dict) ? entryOf(dict, name) : undefined)
    const step = read('last_epoch')
    const bases = read('base_lrs')
    const isStep = Number.isSafeInteger(step) && (step as number) >= 0
    expectOption(isStep, where, 'last_epoch', 'a whole number from 0 on', step)
    const groups = this.optimizer.paramGroups.length
    const areBases = Array.isArray(bases) && bases.length === groups && bases.every((base) => isAtLeast(0, base))
    expectOption(areBases, where, 'base_lrs', `a rate for each of the ${groups} groups`, bases)
    const all = bases as readonly number[]
    this.baseLrs.splice(0, this.baseLrs.length, ...all)
    for (const [index, group] of this.optimizer.paramGroups.entries()) group.initialLr = all[index]!
    this.schedules = []
    this.current = step as number
    this.apply()
  }
}

/** lrMin is for all groups; one whose base rate is lower (a frozen one with 0) stays at its own. */
function withBase<Settings extends { lrMin?: number }>(settings: Settings, lr: number): Settings & { lr: number } {
  return { ...settings, lr, lrMin: Math.min(settings.lrMin ?? 0, lr) }
}

/** Linear warm-up and then a cosine to lrMin, with restarts on request: see {@link cosineWithWarmup}. */
export class CosineWithWarmup extends LRScheduler {
  constructor(optimizer: HasGroups, settings: Omit<CosineSettings, 'lr'>) {
    super(optimizer, (lr) => cosineWithWarmup(withBase(settings, lr)))
  }
}

/** Linear warm-up and then a line to lrMin: see {@link linearWithWarmup}. */
export class LinearWithWarmup extends LRScheduler {
  constructor(optimizer: HasGroups, settings: Omit<LinearSettings, 'lr'>) {
    super(optimizer, (lr) => linearWithWarmup(withBase(settings, lr)))
  }
}

/** Linear warm-up and then the base rate: see {@link constantWithWarmup}. */
export class ConstantWithWarmup extends LRScheduler {
  constructor(optimizer: HasGroups, settings: Omit<WarmupSettings, 'lr'>) {
    super(optimizer, (lr) => constantWithWarmup(withBase(settings, lr)))
  }
}

/** The base rate. (PyTorch's ConstantLR, which is a factor for some steps, is another thing.) */
export class Constant extends LRScheduler {
  constructor(optimizer: HasGroups) {
    super(optimizer, (lr) => () => lr)
  }
}

/** The base rate times gamma for every stepSize steps: see {@link stepDecay}. */
export class StepLR extends LRScheduler {
  constructor(optimizer: HasGroups, settings: Omit<StepSettings, 'lr'>) {
    super(optimizer, (lr) => stepDecay({ ...settings, lr }))
  }
}

/** The base rate times gamma for every milestone reached: see {@link multiStepDecay}. */
export class MultiStepLR extends LRScheduler {
  constructor(optimizer: HasGroups, settings: Omit<MultiStepSettings, 'lr'>) {
    super(optimizer, (lr) => multiStepDecay({ ...settings, lr }))
  }
}

/** The base rate times what a function of the step gives: one function, or one for each group. */
export class LambdaLR extends LRScheduler {
  constructor(optimizer: HasGroups, factor: Schedule | readonly Schedule[]) {
    if (typeof factor !== 'function' && factor.length !== optimizer.paramGroups.length) {
      throw new RangeError(
        `LambdaLR: expected one function or one for each of the ${optimizer.paramGroups.length} groups, but received ${factor.length}`,
      )
    }
    super(optimizer, (lr, group) => (step) => lr * (typeof factor === 'function' ? factor : factor[group]!)(step))
  }
}
