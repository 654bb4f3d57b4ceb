import { operator } from '../../dispatch.js'
import * as ops from '../../ops.generated.js'
import type { Tensor } from '../../tensor.js'
import { oneOf, type Reduction, type ReductionOptions, reductionCode } from './common.js'

// images too, where the public nll_loss takes [N, C] alone
const nllLossNd = operator('nllLoss', 'aten::nll_loss_nd', [''])

export interface ClassLossOptions extends ReductionOptions {
  /** A factor for each class, [C]. Default: null, all alike. */
  weight?: Tensor | null
  /** Targets of this class count for nothing. Default: -100. */
  ignoreIndex?: number
}

export interface CrossEntropyOptions extends ClassLossOptions {
  /** The part of the target that is spread over all classes, from 0 to 1. Default: 0. */
  labelSmoothing?: number
}

/**
 * The negative log-likelihood of classes under the softmax of logits.
 *
 * @param input logits [N, C], [C] or [N, C, ...]
 * @param target class indices, int64 [N], [] or [N, ...]; or probabilities of input's shape
 */
export function crossEntropy(input: Tensor, target: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const { weight = null, ignoreIndex = -100, labelSmoothing = 0, reduction } = options
  return ops.crossEntropyLoss(
    input,
    target,
    weight,
    reductionCode('crossEntropy', reduction),
    ignoreIndex,
    labelSmoothing,
  )
}

/**
 * The negative log-likelihood of classes.
 *
 * @param input log-probabilities [N, C], [C] or [N, C, ...]
 * @param target class indices, int64 [N], [] or [N, ...]
 */
export function nllLoss(input: Tensor, target: Tensor, options: ClassLossOptions = {}): Tensor {
  const { weight = null, ignoreIndex = -100, reduction } = options
  return nllLossNd.call([input, target, weight, reductionCode('nllLoss', reduction), ignoreIndex]) as Tensor
}

/** (input - target)², of any shapes that broadcast. */
export function mseLoss(input: Tensor, target: Tensor, { reduction }: ReductionOptions = {}): Tensor {
  return ops.mseLoss(input, target, reductionCode('mseLoss', reduction))
}

/** |input - target|, of any shapes that broadcast. */
export function l1Loss(input: Tensor, target: Tensor, { reduction }: ReductionOptions = {}): Tensor {
  return ops.l1Loss(input, target, reductionCode('l1Loss', reduction))
}

/** d² / (2 beta) where d = |input - target| is below beta, else d - beta / 2. Default of beta: 1. */
export function smoothL1Loss(
  input: Tensor,
  target: Tensor,
  { beta = 1, reduction }: ReductionOptions & { beta?: number } = {},
): Tensor {
  return ops.smoothL1Loss(input, target, reductionCode('smoothL1Loss', reduction), beta)
}

/** d² / 2 where d = |input - target| is below delta, else delta (d - delta / 2). Default of delta: 1. */
export function huberLoss(
  input: Tensor,
  target: Tensor,
  { delta = 1, reduction }: ReductionOptions & { delta?: number } = {},
): Tensor {
  return ops.huberLoss(input, target, reductionCode('huberLoss', reduction), delta)
}

/**
 * The negative log-likelihood of targets under probabilities, both of one shape and between 0 and 1.
 *
 * @param options.weight a factor for each element, which broadcasts
 */
export function binaryCrossEntropy(
  input: Tensor,
  target: Tensor,
  { weight = null, reduction }: ReductionOptions & { weight?: Tensor | null } = {},
): Tensor {
  return ops.binaryCrossEntropy(input, target, weight, reductionCode('binaryCrossEntropy', reduction))
}

export interface BinaryLogitsOptions extends ReductionOptions {
  /** A factor for each element, which broadcasts. Default: null. */
  weight?: Tensor | null
  /** A factor for positive targets, which broadcasts: one for each class, say. Default: null. */
  posWeight?: Tensor | null
}

/** {@link binaryCrossEntropy} of sigmoid(input), computed without overflow. */
export function binaryCrossEntropyWithLogits(input: Tensor, target: Tensor, options: BinaryLogitsOptions = {}): Tensor {
  const { weight = null, posWeight = null, reduction } = options
  const code = reductionCode('binaryCrossEntropyWithLogits', reduction)
  return ops.binaryCrossEntropyWithLogits(input, target, weight, posWeight, code)
}

export interface DivergenceOptions {
  /** 'batchmean' divides the sum by the first dimension: the divergence as it is defined. Default: 'mean'. */
  reduction?: Reduction | 'batchmean'
  /** Whether target holds log-probabilities. Default: false. */
  logTarget?: boolean
}

/** The Kullback-Leibler divergence of target (probabilities) from input (log-probabilities), of one shape. */
export function klDiv(
  input: Tensor,
  target: Tensor,
  { reduction = 'mean', logTarget = false }: DivergenceOptions = {},
): Tensor {
  const code = oneOf('klDiv', 'reduction', ['none', 'mean', 'sum', 'batchmean'], reduction)
  if (reduction !== 'batchmean') return ops.klDiv(input, target, code, { logTarget })
  const sum = ops.klDiv(input, target, reductionCode('klDiv', 'sum'), { logTarget })
  return input.ndim === 0 ? sum : sum.div(input.size(0))
}
