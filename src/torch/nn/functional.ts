import { callOperator } from '../operators.js'
import * as ops from '../ops.generated.js'
import type { Tensor } from '../tensor.js'

/*
 * `nn.functional`: torch.nn.functional. Where libtorch's operator has the form already, it is exported as it is.
 */

export {
  adaptiveAvgPool1d,
  adaptiveAvgPool2d,
  adaptiveMaxPool2d,
  avgPool2d,
  channelShuffle,
  conv1d,
  conv2d,
  cosineSimilarity,
  elu,
  gelu,
  glu,
  groupNorm,
  hardsigmoid,
  hardswish,
  hardtanh,
  layerNorm,
  leakyRelu,
  logSigmoid,
  logSoftmax,
  maxPool2d,
  mish,
  oneHot,
  pixelShuffle,
  pixelUnshuffle,
  relu,
  relu6,
  rmsNorm,
  scaledDotProductAttention,
  sigmoid,
  silu,
  softmax,
  softplus,
  tanh,
} from '../ops.generated.js'
export type { Reduction, ReductionOptions, Sizes } from './functional/common.js'
export * from './functional/losses.js'
export * from './functional/resample.js'

/**
 * x Wᵀ + b: [..., in] to [..., out]. On the CPU in float32 it is native/linear.cpp's, which is faster on some processors.
 *
 * @param weight [out, in] @param bias [out]; default: none
 */
export function linear(input: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  const isOwn = weight.dtype === 'float32' && weight.device === 'cpu'
  return isOwn ? (callOperator('cleft::linear', input, weight, bias) as Tensor) : ops.linear(input, weight, bias)
}

/** x * sigmoid(1.702 x): the GELU of the first CLIP models. */
export function quickGelu(input: Tensor): Tensor {
  return input.mul(input.mul(1.702).sigmoid())
}

/** Sets elements to 0 with probability p, and multiplies the others by 1 / (1 - p). The input itself where not training. */
export function dropout(input: Tensor, p = 0.5, training = true): Tensor {
  return training && p !== 0 ? ops.dropout(input, p, true) : input
}

/**
 * Sets whole samples (of the first dimension) to 0 with probability p, and multiplies the others by 1 / (1 - p):
 * stochastic depth (Huang et al. 2016) for the branch of a residual block.
 */
export function dropPath(
  input: Tensor,
  p = 0,
  training = true,
  { scaleByKeep = true }: { scaleByKeep?: boolean } = {},
): Tensor {
  if (!(p >= 0 && p <= 1)) throw new RangeError(`dropPath: expected a probability from 0 to 1, but received ${p}`)
  if (p === 0 || !training) return input
  const keep = 1 - p
  const mask = input.newEmpty([input.size(0), ...new Array<number>(input.ndim - 1).fill(1)]).bernoulli_(keep)
  return input.mul(keep > 0 && scaleByKeep ? mask.div_(keep) : mask)
}

export interface EmbeddingOptions {
  /** The row that has no gradient. Default: null, none. */
  paddingIdx?: number | null
  /** Divide gradients by how often a row is used. Default: false. */
  scaleGradByFreq?: boolean
  /** Make the weight's gradient a sparse tensor. Default: false. */
  sparse?: boolean
}

/** The weight's [rows, width] rows at indices (int32 or int64, any shape): [...indices, width]. */
export function embedding(input: Tensor, weight: Tensor, options: EmbeddingOptions = {}): Tensor {
  const { paddingIdx = null, scaleGradByFreq = false, sparse = false } = options
  if (paddingIdx === null) return ops.embedding(weight, input, -1, scaleGradByFreq, sparse)
  const rows = weight.size(0)
  if (!Number.isInteger(paddingIdx) || paddingIdx < -rows || paddingIdx >= rows) {
    throw new RangeError(`embedding: expected paddingIdx from ${-rows} to ${rows - 1}, but received ${paddingIdx}`)
  }
  return ops.embedding(weight, input, paddingIdx < 0 ? rows + paddingIdx : paddingIdx, scaleGradByFreq, sparse)
}

export interface BatchNormOptions {
  /** A factor for each channel. Default: null. */
  weight?: Tensor | null
  /** A summand for each channel. Default: null. */
  bias?: Tensor | null
  /** Take the batch's statistics, and add them to the running ones. Default: false. */
  training?: boolean
  /** The part of the batch in the running statistics. Default: 0.1. */
  momentum?: number
  /** Added to the variance. Default: 1e-5. */
  eps?: number
}

/**
 * Each channel with mean 0 and variance 1.
 *
 * @param input [N, C, ...]
 * @param runningMean [C]; changed in place where training
 * @param runningVar [C]; changed in place where training
 */
export function batchNorm(
  input: Tensor,
  runningMean: Tensor | null,
  runningVar: Tensor | null,
  options: BatchNormOptions = {},
): Tensor {
  const { weight = null, bias = null, training = false, momentum = 0.1, eps = 1e-5 } = options
  if (training && input.numel() === input.size(1)) {
    throw new RangeError(
      `batchNorm: expected more than one value for each channel while training, but received shape [${input.shape}]`,
    )
  }
  return ops.batchNorm(input, weight, bias, runningMean, runningVar, training, momentum, eps, true)
}

export interface NormalizeOptions {
  /** Which norm. Default: 2. */
  p?: number
  /** Default: 1. */
  dim?: number
  /** The least norm to divide by. Default: 1e-12. */
  eps?: number
}

/** Divides by the norm along a dimension. */
export function normalize(input: Tensor, { p = 2, dim = 1, eps = 1e-12 }: NormalizeOptions = {}): Tensor {
  return input.div(ops.linalg.vectorNorm(input, p, [dim], true).clampMin(eps))
}
