import { full } from '../../factories.js'
import * as ops from '../../ops.generated.js'
import type { Tensor } from '../../tensor.js'
import { emptyParameter, type FactoryOptions, factoryOptions } from '../construct.js'
import { batchNorm } from '../functional.js'
import { constant_, ones_, zeros_ } from '../init.js'
import { Module } from '../module.js'
import type { Parameter } from '../parameter.js'

function resetAffine(weight: Parameter | null, bias: Parameter | null): void {
  if (weight !== null) ones_(weight)
  if (bias !== null) zeros_(bias)
}

export interface LayerNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** Whether to learn a weight (and a bias). Default: true. */
  elementwiseAffine?: boolean
  /** Default: true. */
  bias?: boolean
}

/** Mean 0 and variance 1 over the last dimensions, of normalizedShape. Parameters: weight and bias of normalizedShape. */
export class LayerNorm extends Module {
  weight: Parameter | null
  bias: Parameter | null
  readonly normalizedShape: readonly number[]
  readonly eps: number

  constructor(
    normalizedShape: number | readonly number[],
    { eps = 1e-5, elementwiseAffine = true, bias = true, ...factory }: LayerNormOptions = {},
  ) {
    super()
    this.normalizedShape = typeof normalizedShape === 'number' ? [normalizedShape] : [...normalizedShape]
    this.eps = eps
    this.weight = elementwiseAffine ? emptyParameter(this.normalizedShape, factory) : null
    this.bias = elementwiseAffine && bias ? emptyParameter(this.normalizedShape, factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    resetAffine(this.weight, this.bias)
  }

  forward(input: Tensor): Tensor {
    return ops.layerNorm(input, this.normalizedShape, this.weight, this.bias, this.eps)
  }
}

export interface RMSNormOptions extends FactoryOptions {
  /** Added to the mean of squares. Default: null, the smallest step of the dtype. */
  eps?: number | null
  /** Whether to learn a weight. Default: true. */
  elementwiseAffine?: boolean
}

/** Root mean square 1 over the last dimensions (Zhang and Sennrich 2019). Parameter: weight of normalizedShape. */
export class RMSNorm extends Module {
  weight: Parameter | null
  readonly normalizedShape: readonly number[]
  readonly eps: number | null

  constructor(
    normalizedShape: number | readonly number[],
    { eps = null, elementwiseAffine = true, ...factory }: RMSNormOptions = {},
  ) {
    super()
    this.normalizedShape = typeof normalizedShape === 'number' ? [normalizedShape] : [...normalizedShape]
    this.eps = eps
    this.weight = elementwiseAffine ? emptyParameter(this.normalizedShape, factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    resetAffine(this.weight, null)
  }

  forward(input: Tensor): Tensor {
    return ops.rmsNorm(input, this.normalizedShape, this.weight, this.eps)
  }
}

export interface GroupNormOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** Whether to learn a weight and a bias. Default: true. */
  affine?: boolean
}

/** Mean 0 and variance 1 over groups of channels of [N, C, ...] (Wu and He 2018). Parameters: weight [C], bias [C]. */
export class GroupNorm extends Module {
  weight: Parameter | null
  bias: Parameter | null
  readonly eps: number

  constructor(
    readonly numGroups: number,
    readonly numChannels: number,
    { eps = 1e-5, affine = true, ...factory }: GroupNormOptions = {},
  ) {
    super()
    if (numChannels % numGroups !== 0) {
      throw new RangeError(
        `GroupNorm: expected numChannels to be a multiple of ${numGroups} groups, but received ${numChannels}`,
      )
    }
    this.eps = eps
    this.weight = affine ? emptyParameter([numChannels], factory) : null
    this.bias = affine ? emptyParameter([numChannels], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    resetAffine(this.weight, this.bias)
  }

  forward(input: Tensor): Tensor {
    return ops.groupNorm(input, this.numGroups, this.weight, this.bias, this.eps)
  }
}

export interface BatchNormLayerOptions extends FactoryOptions {
  /** Added to the variance. Default: 1e-5. */
  eps?: number
  /** The newest batch's part in the running statistics; null for the plain average of all batches. Default: 0.1. */
  momentum?: number | null
  /** Whether to learn a weight and a bias. Default: true. */
  affine?: boolean
  /** Whether to keep running statistics, which eval() uses. Default: true. */
  trackRunningStats?: boolean
}

/**
 * Mean 0 and variance 1 for each channel (Ioffe and Szegedy 2015). Parameters: weight [C], bias [C]. Buffers: running_mean
 * [C], running_var [C], num_batches_tracked (int64).
 */
abstract class BatchNorm extends Module {
  weight: Parameter | null
  bias: Parameter | null
  running_mean: Tensor | null
  running_var: Tensor | null
  num_batches_tracked: Tensor | null
  readonly eps: number
  readonly momentum: number | null

  constructor(
    private readonly allowed: readonly number[],
    readonly numFeatures: number,
    { eps = 1e-5, momentum = 0.1, affine = true, trackRunningStats = true, ...factory }: BatchNormLayerOptions,
  ) {
    super()
    this.eps = eps
    this.momentum = momentum
    this.weight = affine ? emptyParameter([numFeatures], factory) : null
    this.bias = affine ? emptyParameter([numFeatures], factory) : null
    const options = factoryOptions(factory)
    const buffer = (name: string, make: () => Tensor) => this.registerBuffer(name, trackRunningStats ? make() : null)
    this.running_mean = buffer('running_mean', () => ops.zeros([numFeatures], options))
    this.running_var = buffer('running_var', () => ops.ones([numFeatures], options))
    this.num_batches_tracked = buffer('num_batches_tracked', () => full([], 0, { ...options, dtype: 'int64' }))
    this.resetParameters()
  }

  /** Forgets the running statistics. */
  resetRunningStats(): void {
    if (this.running_mean !== null) zeros_(this.running_mean)
    if (this.running_var !== null) ones_(this.running_var)
    if (this.num_batches_tracked !== null) constant_(this.num_batches_tracked, 0)
  }

  resetParameters(): void {
    this.resetRunningStats()
    resetAffine(this.weight, this.bias)
  }

  forward(input: Tensor): Tensor {
    if (!this.allowed.includes(input.ndim)) {
      throw new RangeError(
        `${this.constructor.name}: expected input of ${this.allowed.join(' or ')} dimensions, but received shape [${input.shape}]`,
      )
    }
    const { weight, bias, running_mean, running_var, num_batches_tracked, eps } = this
    let momentum = this.momentum ?? 0
    if (this.training && num_batches_tracked !== null) {
      num_batches_tracked.add_(1)
      if (this.momentum === null) momentum = 1 / num_batches_tracked.item()
    }
    const training = this.training || running_mean === null
    return batchNorm(input, running_mean, running_var, { weight, bias, training, momentum, eps })
  }

  override extraRepr(): string {
    const { numFeatures, eps, momentum } = this
    const affine = this.weight !== null
    return `${numFeatures}, eps=${eps}, momentum=${momentum}, affine=${affine}, trackRunningStats=${this.running_mean !== null}`
  }
}

/** Batch normalisation of [N, C] or [N, C, L]. See BatchNorm2d for what it holds. */
export class BatchNorm1d extends BatchNorm {
  constructor(numFeatures: number, options: BatchNormLayerOptions = {}) {
    super([2, 3], numFeatures, options)
  }
}

/**
 * Batch normalisation of [N, C, H, W]. Parameters: weight [C], bias [C]. Buffers: running_mean [C], running_var [C],
 * num_batches_tracked (int64).
 */
export class BatchNorm2d extends BatchNorm {
  constructor(numFeatures: number, options: BatchNormLayerOptions = {}) {
    super([4], numFeatures, options)
  }
}
