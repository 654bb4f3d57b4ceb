import { full } from '../factories.js'
import { maximum } from '../ops.generated.js'
import { Tensor } from '../tensor.js'
import type { Device } from '../types.js'
import { type DictLike, entryOf, expectOption, isAtLeast } from './check.js'
import {
  foreachAdd,
  foreachAdd_,
  foreachAddcdivScalars_,
  foreachAddcmul_,
  foreachAddScalar_,
  foreachAddTensor_,
  foreachDivScalars_,
  foreachLerp_,
  foreachMaximum_,
  foreachMul_,
  foreachNeg,
  foreachSqrt,
  foreachSub_,
  fusedAdam_,
  fusedAdamW_,
} from './kernels.js'
import {
  type CommonOptions,
  copyLike,
  Optimizer,
  type OptionValue,
  own,
  ownedZerosLike,
  type ParameterGroup,
  type Parameters,
  replaceOwned,
  type Update,
} from './optimizer.js'

export interface AdamOptions extends CommonOptions {
  /** Default: 1e-3. */
  lr: number
  /** How much of the running averages of the gradient and of its square stays, each step. Default: [0.9, 0.999]. */
  betas: readonly [number, number]
  /** Added to the root in the denominator. Default: 1e-8. */
  eps: number
  /** Default: 0 for Adam, where it is added to the gradient, and 0.01 for AdamW, where it shrinks the parameter. */
  weightDecay: number
  /** Divide by the largest average of squares so far (Reddi et al. 2018). Default: false. */
  amsgrad: boolean
  /** Ascend instead of descend. Default: false. */
  maximize: boolean
  /** Weight decay apart from the gradient: true for AdamW, always. Default for Adam: false. */
  decoupledWeightDecay: boolean
}

/** What Adam remembers of a parameter. `step` counts, as a float32 tensor of no dimensions like PyTorch's. */
export type AdamState = {
  step: Tensor
  exp_avg: Tensor
  exp_avg_sq: Tensor
  max_exp_avg_sq?: Tensor | undefined
}

const adamDefaults: AdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  amsgrad: false,
  maximize: false,
  decoupledWeightDecay: false,
}

/** The four tensors of an update's arithmetic. Complex ones as pairs of real numbers, as PyTorch has it. */
interface Operands {
  readonly parameter: Tensor
  readonly gradient: Tensor
  readonly average: Tensor
  readonly square: Tensor
  readonly largest: Tensor | undefined
}

function operandsOf({ parameter, gradient, state }: Update<AdamState>): Operands {
  const real = parameter.dtype.startsWith('complex') ? (each: Tensor) => each.viewAsReal() : (each: Tensor) => each
  return {
    parameter: real(parameter),
    gradient: real(gradient),
    average: real(state.exp_avg),
    square: real(state.exp_avg_sq),
    largest: state.max_exp_avg_sq && real(state.max_exp_avg_sq),
  }
}

/**
 * Adam (Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015), in PyTorch's arithmetic.
 *
 * The running averages are of the parameter's dtype, as PyTorch's: with bfloat16 or float16 parameters most small
 * updates round to nothing, and the average of squares cannot decay (0.999 is less than a step of bfloat16 from 1).
 * Train float32 parameters, under autocast where speed is wanted.
 */
export class Adam extends Optimizer<AdamOptions, AdamState> {
  protected readonly aligned = ['exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'] as const

  /** @throws RangeError, TypeError for options out of range, and parameters that cannot be trained */
  constructor(parameters: Parameters<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(parameters, { ...adamDefaults }, options)
  }

  protected override checkOptions(options: AdamOptions, where: string): void {
    const { lr, betas, eps, weightDecay } = options
    expectOption(isAtLeast(0, lr), where, 'lr', 'a number from 0 on', lr)
    const areBetas = Array.isArray(betas) && betas.length === 2 && betas.every((beta) => isAtLeast(0, beta) && beta < 1)
    expectOption(areBetas, where, 'betas', 'two numbers from 0 on and below 1', betas)
    expectOption(isAtLeast(0, eps), where, 'eps', 'a number from 0 on', eps)
    expectOption(isAtLeast(0, weightDecay), where, 'weightDecay', 'a number from 0 on', weightDecay)
    for (const name of ['amsgrad', 'maximize', 'decoupledWeightDecay'] as const) {
      expectOption(typeof options[name] === 'boolean', where, name, 'true or false', options[name])
    }
  }

  override get supportsScaling(): boolean {
    return this.areAllFused()
  }

  protected override updateGroup(group: ParameterGroup<AdamOptions>): void {
    const updates = this.updates(group, (parameter) => ({
      step: own(full([], 0, { dtype: 'float32' })),
      exp_avg: ownedZerosLike(parameter),
      exp_avg_sq: ownedZerosLike(parameter),
      max_exp_avg_sq: group.amsgrad ? ownedZerosLike(parameter) : undefined,
    }))
    for (const { implementation, device, items } of updates) {
      if (group.amsgrad) {
        // switched on after the first steps
        for (const { parameter, state } of items) state.max_exp_avg_sq ??= ownedZerosLike(parameter)
      }
      if (implementation !== 'fused') {
        this.placeSteps(items, 'cpu')
        const wanted = this.unscaled(items)
        if (implementation === 'foreach') this.updateForeach(group, wanted)
        else for (const item of wanted) this.updateSingle(group, item)
        continue
      }
      const { fused, others } = this.forFused(items)
      this.placeSteps(fused, device)
      this.placeSteps(others, 'cpu')
      this.updateFused(group, device, fused)
      for (const item of this.unscaled(others)) this.updateSingle(group, item)
    }
  }

  /** Fused kernels count on the device; the others read the count, which a GPU would have to be waited for. */
  private placeSteps(items: readonly Update<AdamState>[], device: Device): void {
    for (const { state } of items) {
      if (state.step.device !== device) replaceOwned(state, 'step', state.step.to(device))
    }
  }

  private updateSingle(group: AdamOptions, item: Update<AdamState>): void {
    const { lr, eps, weightDecay } = group
    const [beta1, beta2] = group.betas
    let gradient = group.maximize ? item.gradient.neg() : item.gradient
    const step = item.state.step.add_(1).item()
    if (weightDecay !== 0) {
      if (group.decoupledWeightDecay) item.parameter.mul_(1 - lr * weightDecay)
      else gradient = gradient.add(item.parameter, { alpha: weightDecay })
    }
    const { parameter, average, square, largest, ...rest } = operandsOf({ ...item, gradient })
    average.lerp_(rest.gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(rest.gradient, rest.gradient, { value: 1 - beta2 })
    const stepSize = lr / (1 - beta1 ** step)
    const correction = (1 - beta2 ** step) ** 0.5
    const denominatorOf = group.amsgrad && largest !== undefined ? largest.copy_(maximum(largest, square)) : square
    const denominator = denominatorOf.sqrt().div_(correction).add_(eps)
    parameter.addcdiv_(average, denominator, { value: -stepSize })
  }

  private updateForeach(group: AdamOptions, items: readonly Update<AdamState>[]): void {
    if (items.length === 0) return
    const { lr, eps, weightDecay } = group
    const [beta1, beta2] = group.betas
    const operands = items.map(operandsOf)
    const parameters = operands.map((each) => each.parameter)
    const averages = operands.map((each) => each.average)
    const squares = operands.map((each) => each.square)
    let gradients: readonly Tensor[] = operands.map((each) => each.gradient)
    if (group.maximize) gradients = foreachNeg(gradients)
    const steps = items.map((item) => item.state.step)
    // as a tensor: a number would become one for each step count
    foreachAddTensor_(steps, full([], 1, { dtype: 'float32' }), { alpha: 1 })
    if (weightDecay !== 0) {
      if (group.decoupledWeightDecay) foreachMul_(parameters, 1 - lr * weightDecay)
      else if (group.maximize) foreachAdd_(gradients, parameters, { alpha: weightDecay })
      else gradients = foreachAdd(gradients, parameters, { alpha: weightDecay })
    }
    foreachLerp_(averages, gradients, 1 - beta1)
    foreachMul_(squares, beta2)
    foreachAddcmul_(squares, gradients, gradients, 1 - beta2)
    const counts = steps.map((step) => step.item())
    let roots: Tensor[]
    if (group.amsgrad) {
      const largest = operands.map((each) => each.largest!)
      foreachMaximum_(largest, squares)
      roots = foreachSqrt(largest)
    } else roots = foreachSqrt(squares)
    foreachDivScalars_(
      roots,
      counts.map((count) => (1 - beta2 ** count) ** 0.5),
    )
    foreachAddScalar_(roots, eps)
    foreachAddcdivScalars_(
      parameters,
      averages,
      roots,
      counts.map((count) => -(lr / (1 - beta1 ** count))),
    )
  }

  private updateFused(group: AdamOptions, device: Device, items: readonly Update<AdamState>[]): void {
    if (items.length === 0) return
    const steps = items.map((item) => item.state.step)
    const scaling = this.scalingOn(device)
    foreachAddScalar_(steps, 1)
    const update = group.decoupledWeightDecay ? fusedAdamW_ : fusedAdam_
    update(
      items.map((item) => item.parameter),
      items.map((item) => item.gradient),
      items.map((item) => item.state.exp_avg),
      items.map((item) => item.state.exp_avg_sq),
      group.amsgrad ? items.map((item) => item.state.max_exp_avg_sq!) : [],
      steps,
      {
        lr: group.lr,
        beta1: group.betas[0],
        beta2: group.betas[1],
        weightDecay: group.weightDecay,
        eps: group.eps,
        amsgrad: group.amsgrad,
        maximize: group.maximize,
        ...scaling,
      },
    )
    // a step that was skipped does not count
    const { foundInf } = scaling
    if (foundInf !== null) {
      foreachSub_(
        steps,
        steps.map(() => foundInf),
      )
    }
  }

  protected override restoreState(
    parameter: Tensor,
    group: ParameterGroup<AdamOptions>,
    saved: DictLike,
    where: string,
  ): AdamState {
    const copy = (name: string) => copyLike(entryOf(saved, name), parameter, `${where}, ${name}`)
    const step = entryOf(saved, 'step')
    const isCount = typeof step === 'number' || (step instanceof Tensor && step.numel() === 1)
    expectOption(isCount, where, 'step', 'a number or a tensor of one element', step)
    const isFused = group.implementation === 'fused'
    return {
      step: full([], typeof step === 'number' ? step : (step as Tensor).item(), {
        dtype: 'float32',
        device: isFused ? (parameter.device as Device) : 'cpu',
      }),
      exp_avg: copy('exp_avg'),
      exp_avg_sq: copy('exp_avg_sq'),
      max_exp_avg_sq: group.amsgrad ? copy('max_exp_avg_sq') : undefined,
    }
  }

  protected override extraOptions(): { [option: string]: OptionValue } {
    return { capturable: false, differentiable: false }
  }
}

/**
 * Adam with weight decay apart from the gradient (Loshchilov & Hutter, "Decoupled Weight Decay Regularization",
 * ICLR 2019): the parameter is multiplied with 1 - lr * weightDecay, then Adam's step follows. See {@link Adam}.
 */
export class AdamW extends Adam {
  /** @param options weightDecay is 1e-2 here unless given */
  constructor(parameters: Parameters<AdamOptions>, options: Partial<Omit<AdamOptions, 'decoupledWeightDecay'>> = {}) {
    super(parameters, { weightDecay: 1e-2, ...options, decoupledWeightDecay: true })
  }

  protected override checkOptions(options: AdamOptions, where: string): void {
    super.checkOptions(options, where)
    expectOption(
      options.decoupledWeightDecay === true,
      where,
      'decoupledWeightDecay',
      'true',
      options.decoupledWeightDecay,
    )
  }

  protected override fixOptions(options: ParameterGroup<AdamOptions>): void {
    // files from before PyTorch 2.8 do not say it
    options.decoupledWeightDecay = true
  }
}
