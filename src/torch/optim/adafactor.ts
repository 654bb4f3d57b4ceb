import { mul, zeros } from '../ops.generated.js'
import { Tensor } from '../tensor.js'
import type { Device, DType } from '../types.js'
import { type DictLike, entryOf, expectOption, isAtLeast } from './check.js'
import {
  type CommonOptions,
  copyLike,
  Optimizer,
  own,
  type ParameterGroup,
  type Parameters,
  replaceOwned,
  type Update,
} from './optimizer.js'

export interface AdafactorOptions extends CommonOptions {
  /** The rate where relativeStep is false; null otherwise. Default: null. */
  lr: number | null
  /**
   * Added to squared gradients; and the least root mean square of a parameter for scaleParameter. Default: [1e-30,
   * 1e-3].
   */
  eps: readonly [number, number]
  /** The largest root mean square of an update before the rate. Default: 1. */
  clipThreshold: number
  /** The averages of squares keep 1 - step ** decayRate of themselves. Default: -0.8. */
  decayRate: number
  /** How much of a running average of updates stays; null for none, which saves its memory. Default: null. */
  beta1: number | null
  /** Times rate and parameter, taken off it. Default: 0. */
  weightDecay: number
  /** Multiply the rate with the parameter's root mean square. Default: true. */
  scaleParameter: boolean
  /** The rate is min(1e-2, 1 / sqrt(step)). Default: true. */
  relativeStep: boolean
  /** With relativeStep: min(1e-6 step, 1 / sqrt(step)). Default: false. */
  warmupInit: boolean
}

/** What Adafactor remembers of a parameter, by transformers' names. In float32 for bfloat16 and float16. */
export type AdafactorState = {
  step: number
  /** The parameter's root mean square before the step: 0 unless scaleParameter wants it. */
  RMS: Tensor | number
  exp_avg?: Tensor | undefined
  exp_avg_sq_row?: Tensor | undefined
  exp_avg_sq_col?: Tensor | undefined
  exp_avg_sq?: Tensor | undefined
}

const adafactorDefaults: AdafactorOptions = {
  lr: null,
  eps: [1e-30, 1e-3],
  clipThreshold: 1,
  decayRate: -0.8,
  beta1: null,
  weightDecay: 0,
  scaleParameter: true,
  relativeStep: true,
  warmupInit: false,
}

const momentNames = ['exp_avg', 'exp_avg_sq_row', 'exp_avg_sq_col', 'exp_avg_sq'] as const
type MomentName = (typeof momentNames)[number]

function arithmeticDtype(dtype: DType): DType {
  return dtype === 'bfloat16' || dtype === 'float16' ? 'float32' : dtype
}

function rootMeanSquare(tensor: Tensor): Tensor {
  return tensor.norm(2).div_(tensor.numel() ** 0.5)
}

/**
 * Adafactor (Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018), in the
 * arithmetic and with the defaults of transformers' Adafactor: for a matrix the averages of squares are kept by row and
 * by column only. Tensor by tensor; `implementation` has no effect.
 *
 * bfloat16 and float16 parameters are computed in float32 and rounded once, to nearest.
 */
export class Adafactor extends Optimizer<AdafactorOptions, AdafactorState> {
  protected readonly aligned = [] as const

  /**
   * @throws RangeError, TypeError for options out of range or against each other, and parameters that cannot be trained
   */
  constructor(parameters: Parameters<AdafactorOptions>, options: Partial<AdafactorOptions> = {}) {
    super(parameters, { ...adafactorDefaults }, options)
  }

  protected override checkOptions(options: AdafactorOptions, where: string): void {
    const { lr, eps, clipThreshold, decayRate, beta1, weightDecay, relativeStep, warmupInit } = options
    for (const name of ['scaleParameter', 'relativeStep', 'warmupInit'] as const) {
      expectOption(typeof options[name] === 'boolean', where, name, 'true or false', options[name])
    }
    if (relativeStep) expectOption(lr === null, where, 'lr', 'null with relativeStep', lr)
    else expectOption(isAtLeast(0, lr), where, 'lr', 'a number from 0 on without relativeStep', lr)
    expectOption(!warmupInit || relativeStep, where, 'warmupInit', 'false without relativeStep', warmupInit)
    const arePair = Array.isArray(eps) && eps.length === 2 && eps.every((each) => isAtLeast(0, each))
    expectOption(arePair, where, 'eps', 'two numbers from 0 on', eps)
    expectOption(isAtLeast(0, clipThreshold) && clipThreshold > 0, where, 'clipThreshold', 'above 0', clipThreshold)
    expectOption(Number.isFinite(decayRate) && decayRate <= 0, where, 'decayRate', 'a number up to 0', decayRate)
    const isBeta = beta1 === null || (isAtLeast(0, beta1) && beta1 < 1)
    expectOption(isBeta, where, 'beta1', 'null or a number from 0 on and below 1', beta1)
    expectOption(isAtLeast(0, weightDecay), where, 'weightDecay', 'a number from 0 on', weightDecay)
  }

  private momentsFor(parameter: Tensor, group: AdafactorOptions): Map<MomentName, number[]> {
    const shape = parameter.shape
    const moments = new Map<MomentName, number[]>()
    if (group.beta1 !== null) moments.set('exp_avg', shape)
    if (shape.length >= 2) {
      moments.set('exp_avg_sq_row', shape.slice(0, -1))
      moments.set('exp_avg_sq_col', [...shape.slice(0, -2), shape.at(-1)!])
    } else moments.set('exp_avg_sq', shape)
    return moments
  }

  private zeroMoment(parameter: Tensor, shape: readonly number[]): Tensor {
    return zeros(shape, { dtype: arithmeticDtype(parameter.dtype), device: parameter.device as Device })
  }

  private makeState(parameter: Tensor, group: AdafactorOptions): AdafactorState {
    const state: AdafactorState = { step: 0, RMS: 0 }
    for (const [name, shape] of this.momentsFor(parameter, group)) state[name] = own(this.zeroMoment(parameter, shape))
    return state
  }

  protected override updateGroup(group: ParameterGroup<AdafactorOptions>): void {
    for (const { device, items } of this.updates(group, (parameter) => this.makeState(parameter, group))) {
      for (const item of items) {
        const { state } = item
        for (const name of ['RMS', ...momentNames] as const) {
          const moment = state[name]
          if (moment instanceof Tensor && moment.device !== device) replaceOwned(state, name, moment.to(device))
        }
        this.update(group, item)
      }
    }
  }

  /** The rate: a tensor where it depends on the parameter, so that a GPU need not be waited for. */
  private rateOf(group: AdafactorOptions, state: AdafactorState, parameter: Tensor): Tensor | number {
    const atLeast = group.warmupInit ? 1e-6 * state.step : 1e-2
    const rate = group.relativeStep ? Math.min(atLeast, 1 / Math.sqrt(state.step)) : group.lr!
    if (!group.scaleParameter) return rate
    const size = rootMeanSquare(parameter)
    // one tensor for all steps: each that is kept is one more for the finalizer to know
    if (state.RMS instanceof Tensor) state.RMS.copy_(size)
    else state.RMS = own(size.clone())
    return size.clampMin_(group.eps[1]).mul_(rate)
  }

  private update(group: AdafactorOptions, item: Update<AdafactorState>): void {
    const { parameter, state } = item
    const dtype = arithmeticDtype(parameter.dtype)
    const gradient = item.gradient.to(dtype)
    const values = parameter.to(dtype)
    state.step += 1
    const rate = this.rateOf(group, state, values)

    const decay = 1 - state.step ** group.decayRate
    const squares = gradient.square().add_(group.eps[0])
    const row = state.exp_avg_sq_row
    const column = state.exp_avg_sq_col
    let update: Tensor
    if (row !== undefined && column !== undefined) {
      row.mul_(decay).add_(squares.mean(-1), { alpha: 1 - decay })
      column.mul_(decay).add_(squares.mean(-2), { alpha: 1 - decay })
      const byRow = row
        .div(row.mean(-1, { keepdim: true }))
        .rsqrt_()
        .unsqueeze(-1)
      update = mul(byRow, column.unsqueeze(-2).rsqrt()).mul_(gradient)
    } else {
      const average = state.exp_avg_sq!
      average.mul_(decay).add_(squares, { alpha: 1 - decay })
      update = average.rsqrt().mul_(gradient)
    }
    update.div_(rootMeanSquare(update).div_(group.clipThreshold).clampMin_(1))
    if (rate instanceof Tensor) update.mul_(rate)
    else update.mul_(rate)

    if (group.beta1 !== null) {
      // switched on after the first steps
      state.exp_avg ??= own(this.zeroMoment(parameter, parameter.shape))
      update = state.exp_avg.mul_(group.beta1).add_(update, { alpha: 1 - group.beta1 })
    }
    if (group.weightDecay !== 0) {
      if (rate instanceof Tensor) values.addcmul_(values, rate, { value: -group.weightDecay })
      else values.add_(values, { alpha: -group.weightDecay * rate })
    }
    values.sub_(update)
    if (dtype !== parameter.dtype) parameter.copy_(values)
  }

  protected override restoreState(
    parameter: Tensor,
    group: ParameterGroup<AdafactorOptions>,
    saved: DictLike,
    where: string,
  ): AdafactorState {
    const step = entryOf(saved, 'step')
    const count = step instanceof Tensor && step.numel() === 1 ? step.item() : step
    expectOption(isAtLeast(0, count), where, 'step', 'a number from 0 on', count)
    const state: AdafactorState = { step: count as number, RMS: 0 }
    for (const [name, shape] of this.momentsFor(parameter, group)) {
      // a running average that is not there begins later
      if (name === 'exp_avg' && entryOf(saved, name) === undefined) continue
      const like = this.zeroMoment(parameter, shape)
      state[name] = copyLike(entryOf(saved, name), like, `${where}, ${name}`)
    }
    return state
  }
}
