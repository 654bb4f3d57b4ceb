import type { Tensor } from '../../tensor.js'
import type { Reduction, ReductionOptions } from '../functional/common.js'
import {
  type BinaryLogitsOptions,
  binaryCrossEntropyWithLogits,
  type CrossEntropyOptions,
  crossEntropy,
  l1Loss,
  mseLoss,
} from '../functional/losses.js'
import { Module } from '../module.js'

/** nn.functional.crossEntropy() with its options. Buffer: weight [C], where given. */
export class CrossEntropyLoss extends Module {
  weight: Tensor | null
  readonly ignoreIndex: number
  readonly labelSmoothing: number
  readonly reduction: Reduction

  constructor({ weight = null, ignoreIndex = -100, labelSmoothing = 0, reduction = 'mean' }: CrossEntropyOptions = {}) {
    super()
    this.weight = this.registerBuffer('weight', weight)
    this.ignoreIndex = ignoreIndex
    this.labelSmoothing = labelSmoothing
    this.reduction = reduction
  }

  forward(input: Tensor, target: Tensor): Tensor {
    return crossEntropy(input, target, this)
  }
}

/** nn.functional.binaryCrossEntropyWithLogits() with its options. Buffers: weight and pos_weight, where given. */
export class BCEWithLogitsLoss extends Module {
  weight: Tensor | null
  pos_weight: Tensor | null
  readonly reduction: Reduction

  constructor({ weight = null, posWeight = null, reduction = 'mean' }: BinaryLogitsOptions = {}) {
    super()
    this.weight = this.registerBuffer('weight', weight)
    this.pos_weight = this.registerBuffer('pos_weight', posWeight)
    this.reduction = reduction
  }

  forward(input: Tensor, target: Tensor): Tensor {
    const { weight, pos_weight: posWeight, reduction } = this
    return binaryCrossEntropyWithLogits(input, target, { weight, posWeight, reduction })
  }
}

abstract class ReducedLoss extends Module {
  readonly reduction: Reduction

  constructor({ reduction = 'mean' }: ReductionOptions = {}) {
    super()
    this.reduction = reduction
  }
}

/** nn.functional.mseLoss() with its options. */
export class MSELoss extends ReducedLoss {
  forward(input: Tensor, target: Tensor): Tensor {
    return mseLoss(input, target, this)
  }
}

/** nn.functional.l1Loss() with its options. */
export class L1Loss extends ReducedLoss {
  forward(input: Tensor, target: Tensor): Tensor {
    return l1Loss(input, target, this)
  }
}
