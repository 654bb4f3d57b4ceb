import * as ops from '../../ops.generated.js'
import type { Tensor } from '../../tensor.js'
import type { Sizes } from '../functional/common.js'
import { Module } from '../module.js'

export interface PoolingOptions {
  /** Default: the kernel's size. */
  stride?: Sizes
  /** Default: 0. */
  padding?: Sizes
  /** Round the output's size up. Default: false. */
  ceilMode?: boolean
}

/** The largest value of each window of [N, C, H, W]. */
export class MaxPool2d extends Module {
  readonly stride: Sizes
  readonly padding: Sizes
  readonly dilation: Sizes
  readonly ceilMode: boolean

  constructor(
    readonly kernelSize: Sizes,
    { stride = kernelSize, padding = 0, dilation = 1, ceilMode = false }: PoolingOptions & { dilation?: Sizes } = {},
  ) {
    super()
    this.stride = stride
    this.padding = padding
    this.dilation = dilation
    this.ceilMode = ceilMode
  }

  forward(input: Tensor): Tensor {
    return ops.maxPool2d(input, this.kernelSize, this.stride, this.padding, this.dilation, this.ceilMode)
  }
}

export interface AvgPoolOptions extends PoolingOptions {
  /** Whether zeros from padding count. Default: true. */
  countIncludePad?: boolean
  /** What to divide sums by. Default: null, the number of values. */
  divisorOverride?: number | null
}

/** The mean of each window of [N, C, H, W]. */
export class AvgPool2d extends Module {
  readonly stride: Sizes
  readonly padding: Sizes
  readonly ceilMode: boolean
  readonly countIncludePad: boolean
  readonly divisorOverride: number | null

  constructor(
    readonly kernelSize: Sizes,
    {
      stride = kernelSize,
      padding = 0,
      ceilMode = false,
      countIncludePad = true,
      divisorOverride = null,
    }: AvgPoolOptions = {},
  ) {
    super()
    this.stride = stride
    this.padding = padding
    this.ceilMode = ceilMode
    this.countIncludePad = countIncludePad
    this.divisorOverride = divisorOverride
  }

  forward(input: Tensor): Tensor {
    const { kernelSize, stride, padding, ceilMode, countIncludePad, divisorOverride } = this
    return ops.avgPool2d(input, kernelSize, stride, padding, ceilMode, countIncludePad, divisorOverride)
  }
}

/** Means over as many windows of [N, C, H, W] as the output is to have: outputSize is [H', W'] or one number for both. */
export class AdaptiveAvgPool2d extends Module {
  readonly outputSize: readonly number[]

  constructor(outputSize: Sizes) {
    super()
    this.outputSize = typeof outputSize === 'number' ? [outputSize, outputSize] : outputSize
  }

  forward(input: Tensor): Tensor {
    return ops.adaptiveAvgPool2d(input, this.outputSize)
  }
}
