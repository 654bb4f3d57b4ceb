import { expectOption, isAtLeast } from './check.js'

/*
 * Learning rates as functions of the step, counted from 0: the rate of the first step is schedule(0). Nothing here
 * knows of optimizers or tensors.
 */

export type Schedule = (step: number) => number

/** What schedules from one rate to another share. */
export interface WarmupSettings {
  /** The highest rate. */
  lr: number
  /** The lowest one: where warm-up begins and decay ends. Not above lr. Default: 0. */
  lrMin?: number
  /** Steps from lrMin to lr, linearly: step k has lrMin + (lr - lrMin) k / warmupSteps. Default: 0. */
  warmupSteps?: number
}

export interface RestartSettings {
  /** How much longer each cycle is than the one before. From 1 on. Default: 1. */
  multiplier?: number
  /** What the highest rate is multiplied with, each cycle. Above 0, up to 1. Default: 1. */
  decay?: number
  /** Whether each cycle warms up, or the first one only. Default: 'each'. */
  warmup?: 'each' | 'first'
}

export interface CosineSettings extends WarmupSettings {
  /** Steps until lrMin is reached, warm-up included: of the first cycle, where there are restarts. */
  totalSteps: number
  /** Begin again after each cycle, for ever. Default: false, it stays at lrMin. */
  restarts?: boolean | RestartSettings
}

function isCount(low: number, value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= low
}

/** @internal */
export function checkWarmup(
  settings: WarmupSettings & { totalSteps?: number },
  where: string,
): Required<WarmupSettings> {
  const { lr, lrMin = 0, warmupSteps = 0, totalSteps } = settings
  expectOption(isAtLeast(0, lr), where, 'lr', 'a number from 0 on', lr)
  expectOption(isAtLeast(0, lrMin) && lrMin <= lr, where, 'lrMin', `a number from 0 to lr, ${lr},`, lrMin)
  expectOption(isCount(0, warmupSteps), where, 'warmupSteps', 'a whole number from 0 on', warmupSteps)
  if (totalSteps !== undefined) {
    const isTotal = isCount(1, totalSteps) && totalSteps >= warmupSteps
    expectOption(isTotal, where, 'totalSteps', `a whole number from 1 and warmupSteps, ${warmupSteps}, on`, totalSteps)
  }
  return { lr, lrMin, warmupSteps }
}

function warmed(step: number, { lr, lrMin, warmupSteps }: Required<WarmupSettings>): number {
  return lrMin + ((lr - lrMin) * step) / warmupSteps
}

/**
 * Linear warm-up and then half a cosine from lr to lrMin, where it stays; or cycles of that (Loshchilov & Hutter,
 * "SGDR", ICLR 2017, with warm-up in each cycle).
 *
 * @example
 * const rate = cosineWithWarmup({ lr: 4e-5, lrMin: 1e-8, warmupSteps: 4000, totalSteps: 40000 })
 * rate(0) // 1e-8; rate(4000) is 4e-5, rate(40000) 1e-8
 */
export function cosineWithWarmup(settings: CosineSettings): Schedule {
  const where = 'cosineWithWarmup'
  const checked = checkWarmup(settings, where)
  const { totalSteps, restarts = false } = settings
  expectOption(totalSteps !== undefined, where, 'totalSteps', 'a whole number', totalSteps)
  const { multiplier = 1, decay = 1, warmup = 'each' } = typeof restarts === 'boolean' ? {} : restarts
  expectOption(isAtLeast(1, multiplier), where, 'restarts.multiplier', 'a number from 1 on', multiplier)
  expectOption(isAtLeast(0, decay) && decay > 0 && decay <= 1, where, 'restarts.decay', 'above 0 and up to 1', decay)
  expectOption(warmup === 'each' || warmup === 'first', where, 'restarts.warmup', "'each' or 'first'", warmup)
  const { lr, lrMin } = checked
  return (step) => {
    let inCycle = step
    let length = totalSteps
    let warmupSteps = checked.warmupSteps
    let highest = lr
    while (restarts !== false && inCycle >= length) {
      inCycle -= length
      length = Math.round(length * multiplier)
      highest = Math.max(lrMin, highest * decay)
      if (warmup === 'first') warmupSteps = 0
    }
    if (inCycle < warmupSteps) return warmed(inCycle, { lr: highest, lrMin, warmupSteps })
    if (inCycle >= length) return lrMin
    const progress = (inCycle - warmupSteps) / (length - warmupSteps)
    return lrMin + (highest - lrMin) * 0.5 * (1 + Math.cos(Math.PI * progress))
  }
}

export interface LinearSettings extends WarmupSettings {
  /** Steps until lrMin is reached, warm-up included. */
  totalSteps: number
}

/** Linear warm-up and then a straight line from lr to lrMin, where it stays. */
export function linearWithWarmup(settings: LinearSettings): Schedule {
  const where = 'linearWithWarmup'
  const checked = checkWarmup(settings, where)
  const { totalSteps } = settings
  expectOption(totalSteps !== undefined, where, 'totalSteps', 'a whole number', totalSteps)
  const { lr, lrMin, warmupSteps } = checked
  return (step) => {
    if (step < warmupSteps) return warmed(step, checked)
    if (step >= totalSteps) return lrMin
    return lrMin + ((lr - lrMin) * (totalSteps - step)) / (totalSteps - warmupSteps)
  }
}

/** Linear warm-up, and lr from then on. */
export function constantWithWarmup(settings: WarmupSettings): Schedule {
  const checked = checkWarmup(settings, 'constantWithWarmup')
  return (step) => (step < checked.warmupSteps ? warmed(step, checked) : checked.lr)
}

export interface StepSettings {
  lr: number
  /** Steps between changes. */
  stepSize: number
  /** What the rate is multiplied with at each change. Default: 0.1. */
  gamma?: number
}

/** lr times gamma for every stepSize steps. */
export function stepDecay({ lr, stepSize, gamma = 0.1 }: StepSettings): Schedule {
  expectOption(isAtLeast(0, lr), 'stepDecay', 'lr', 'a number from 0 on', lr)
  expectOption(isCount(1, stepSize), 'stepDecay', 'stepSize', 'a whole number from 1 on', stepSize)
  expectOption(isAtLeast(0, gamma), 'stepDecay', 'gamma', 'a number from 0 on', gamma)
  return (step) => lr * gamma ** Math.floor(step / stepSize)
}

export interface MultiStepSettings {
  lr: number
  /** The steps at which the rate changes. */
  milestones: readonly number[]
  /** What the rate is multiplied with at each. Default: 0.1. */
  gamma?: number
}

/** lr times gamma for every milestone that was reached. */
export function multiStepDecay({ lr, milestones, gamma = 0.1 }: MultiStepSettings): Schedule {
  expectOption(isAtLeast(0, lr), 'multiStepDecay', 'lr', 'a number from 0 on', lr)
  const areCounts = Array.isArray(milestones) && milestones.every((each) => isCount(0, each))
  expectOption(areCounts, 'multiStepDecay', 'milestones', 'whole numbers from 0 on', milestones)
  expectOption(isAtLeast(0, gamma), 'multiStepDecay', 'gamma', 'a number from 0 on', gamma)
  const sorted = [...milestones]
  return (step) => lr * gamma ** sorted.filter((milestone) => milestone <= step).length
}
