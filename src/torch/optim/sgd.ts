import { emptyLike } from '../ops.generated.js'
import type { Tensor } from '../tensor.js'
import type { Device } from '../types.js'
import { type DictLike, entryOf, expectOption, isAtLeast } from './check.js'
import { foreachAdd, foreachAdd_, foreachMul_, foreachNeg, fusedSgd_ } from './kernels.js'
import {
  type CommonOptions,
  copyLike,
  Optimizer,
  type OptionValue,
  own,
  ownedZerosLike,
  type ParameterGroup,
  type Parameters,
  type Update,
} from './optimizer.js'

export interface SGDOptions extends CommonOptions {
  /** Default: 1e-3. */
  lr: number
  /** How much of the running sum of gradients stays, each step. Default: 0, no sum. */
  momentum: number
  /** How much of a gradient does not enter the running sum; not of the first one. Default: 0. */
  dampening: number
  /** Times the parameter, added to the gradient. Default: 0. */
  weightDecay: number
  /** Look ahead by the momentum (Sutskever et al. 2013). Default: false. */
  nesterov: boolean
  /** Ascend instead of descend. Default: false. */
  maximize: boolean
}

/** What SGD remembers of a parameter: nothing without momentum, and nothing before the first step. */
export type SGDState = { momentum_buffer?: Tensor | undefined }

const sgdDefaults: SGDOptions = {
  lr: 1e-3,
  momentum: 0,
  dampening: 0,
  weightDecay: 0,
  nesterov: false,
  maximize: false,
}

/**
 * Stochastic gradient descent with momentum, in PyTorch's arithmetic (torch.optim.SGD).
 *
 * The momentum is of the parameter's dtype: see {@link Adam} for what that means in bfloat16 and float16.
 */
export class SGD extends Optimizer<SGDOptions, SGDState> {
  protected readonly aligned = ['momentum_buffer'] as const

  /** @throws RangeError, TypeError for options out of range, and parameters that cannot be trained */
  constructor(parameters: Parameters<SGDOptions>, options: Partial<SGDOptions> = {}) {
    super(parameters, { ...sgdDefaults }, options)
  }

  protected override checkOptions(options: SGDOptions, where: string): void {
    const { lr, momentum, dampening, weightDecay, nesterov, maximize } = options
    expectOption(isAtLeast(0, lr), where, 'lr', 'a number from 0 on', lr)
    expectOption(isAtLeast(0, momentum), where, 'momentum', 'a number from 0 on', momentum)
    expectOption(Number.isFinite(dampening), where, 'dampening', 'a number', dampening)
    expectOption(isAtLeast(0, weightDecay), where, 'weightDecay', 'a number from 0 on', weightDecay)
    expectOption(typeof nesterov === 'boolean', where, 'nesterov', 'true or false', nesterov)
    expectOption(typeof maximize === 'boolean', where, 'maximize', 'true or false', maximize)
    if (nesterov && (momentum <= 0 || dampening !== 0)) {
      throw new RangeError(
        `${where}: expected a momentum above 0 and no dampening with nesterov, but received ${momentum} and ${dampening}`,
      )
    }
  }

  override get supportsScaling(): boolean {
    return this.areAllFused()
  }

  protected override updateGroup(group: ParameterGroup<SGDOptions>): void {
    for (const { implementation, device, items } of this.updates(group, () => ({}))) {
      if (implementation !== 'fused') {
        const wanted = this.unscaled(items)
        if (implementation === 'foreach') this.updateForeach(group, wanted)
        else for (const item of wanted) this.updateSingle(group, item)
        continue
      }
      const { fused, others } = this.forFused(items)
      const isFirst = ({ state }: Update<SGDState>) => group.momentum !== 0 && state.momentum_buffer === undefined
      const first = fused.filter(isFirst)
      const later = fused.filter((item) => !isFirst(item))
      this.updateFused(group, device, first, true)
      this.updateFused(group, device, later, false)
      for (const item of this.unscaled(others)) this.updateSingle(group, item)
    }
  }

  private updateSingle(group: SGDOptions, { parameter, gradient: given, state }: Update<SGDState>): void {
    const { lr, momentum, dampening, weightDecay } = group
    let gradient = group.maximize ? given.neg() : given
    if (weightDecay !== 0) gradient = gradient.add(parameter, { alpha: weightDecay })
    if (momentum !== 0) {
      const buffer = state.momentum_buffer
      if (buffer === undefined) state.momentum_buffer = own(emptyLike(parameter).copy_(gradient))
      else buffer.mul_(momentum).add_(gradient, { alpha: 1 - dampening })
      const moving = state.momentum_buffer!
      gradient = group.nesterov ? gradient.add(moving, { alpha: momentum }) : moving
    }
    parameter.add_(gradient, { alpha: -lr })
  }

  private updateForeach(group: SGDOptions, items: readonly Update<SGDState>[]): void {
    if (items.length === 0) return
    const { lr, momentum, dampening, weightDecay } = group
    const parameters = items.map((item) => item.parameter)
    let gradients: readonly Tensor[] = items.map((item) => item.gradient)
    let areOurs = false
    if (group.maximize) {
      gradients = foreachNeg(gradients)
      areOurs = true
    }
    if (weightDecay !== 0) {
      if (areOurs) foreachAdd_(gradients, parameters, { alpha: weightDecay })
      else gradients = foreachAdd(gradients, parameters, { alpha: weightDecay })
      areOurs = true
    }
    if (momentum !== 0) {
      const moving: Tensor[] = []
      const later: number[] = []
      for (const [index, { parameter, state }] of items.entries()) {
        if (state.momentum_buffer === undefined) {
          state.momentum_buffer = own(emptyLike(parameter).copy_(gradients[index]!))
        } else later.push(index)
        moving.push(state.momentum_buffer)
      }
      if (later.length > 0) {
        const buffers = later.map((index) => moving[index]!)
        foreachMul_(buffers, momentum)
        foreachAdd_(
          buffers,
          later.map((index) => gradients[index]!),
          { alpha: 1 - dampening },
        )
      }
      // PyTorch adds to the gradients themselves where they are not its own copies; ours stay as they are
      if (!group.nesterov) gradients = moving
      else if (areOurs) foreachAdd_(gradients, moving, { alpha: momentum })
      else gradients = foreachAdd(gradients, moving, { alpha: momentum })
    }
    foreachAdd_(parameters, gradients, { alpha: -lr })
  }

  private updateFused(
    group: SGDOptions,
    device: Device,
    given: readonly Update<SGDState>[],
    isFirstStep: boolean,
  ): void {
    if (given.length === 0) return
    const scaling = this.scalingOn(device)
    let isFirst = isFirstStep
    if (isFirst && scaling.foundInf !== null) {
      // The kernel would leave the new buffers unset when it skips. From zeros an ordinary step gives the same as a
      // first one, unless there is dampening: then this one time the device is waited for.
      if (group.dampening === 0) isFirst = false
      else if (scaling.foundInf.item() !== 0) return
    }
    if (isFirstStep) for (const { parameter, state } of given) state.momentum_buffer = ownedZerosLike(parameter)
    fusedSgd_(
      given.map((item) => item.parameter),
      given.map((item) => item.gradient),
      group.momentum === 0 ? [] : given.map((item) => item.state.momentum_buffer!),
      {
        lr: group.lr,
        momentum: group.momentum,
        dampening: group.dampening,
        weightDecay: group.weightDecay,
        nesterov: group.nesterov,
        maximize: group.maximize,
        isFirstStep: isFirst,
        ...scaling,
      },
    )
  }

  protected override restoreState(
    parameter: Tensor,
    _group: ParameterGroup<SGDOptions>,
    saved: DictLike,
    where: string,
  ): SGDState {
    const buffer = entryOf(saved, 'momentum_buffer')
    if (buffer === undefined || buffer === null) return {}
    return { momentum_buffer: copyLike(buffer, parameter, `${where}, momentum_buffer`) }
  }

  protected override extraOptions(): { [option: string]: OptionValue } {
    return { differentiable: false }
  }
}
