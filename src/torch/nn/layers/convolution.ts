import * as ops from '../../ops.generated.js'
import type { Tensor } from '../../tensor.js'
import { emptyParameter, type FactoryOptions } from '../construct.js'
import { expandSizes, type Sizes } from '../functional/common.js'
import { Module } from '../module.js'
import type { Parameter } from '../parameter.js'
import { resetLinear } from './linear.js'

export interface ConvolutionOptions extends FactoryOptions {
  /** Default: 1. */
  stride?: Sizes
  /** Zeros on both sides; 'same' keeps the size (with stride 1), 'valid' is none. Default: 0. */
  padding?: Sizes | 'same' | 'valid'
  /** Default: 1. */
  dilation?: Sizes
  /** Into how many groups the channels fall, each with its own weights. Default: 1. */
  groups?: number
  /** Default: true. */
  bias?: boolean
}

/** What Conv1d and Conv2d share. They pad with zeros; for other modes use nn.functional.pad() before. */
abstract class Convolution extends Module {
  weight: Parameter
  bias: Parameter | null
  readonly kernelSize: readonly number[]
  readonly stride: readonly number[]
  readonly padding: readonly number[] | 'same' | 'valid'
  readonly dilation: readonly number[]
  readonly groups: number

  constructor(
    dimensions: number,
    readonly inChannels: number,
    readonly outChannels: number,
    kernelSize: Sizes,
    { stride = 1, padding = 0, dilation = 1, groups = 1, bias = true, ...factory }: ConvolutionOptions,
  ) {
    super()
    const name = this.constructor.name
    if (!(groups > 0 && inChannels % groups === 0 && outChannels % groups === 0)) {
      throw new RangeError(
        `${name}: expected inChannels and outChannels to be multiples of groups, but received ${inChannels}, ${outChannels} and ${groups}`,
      )
    }
    this.kernelSize = expandSizes(name, 'kernelSize', kernelSize, dimensions)
    this.stride = expandSizes(name, 'stride', stride, dimensions)
    this.padding = typeof padding === 'string' ? padding : expandSizes(name, 'padding', padding, dimensions)
    this.dilation = expandSizes(name, 'dilation', dilation, dimensions)
    this.groups = groups
    if (padding === 'same' && this.stride.some((each) => each !== 1)) {
      throw new RangeError(`${name}: expected stride 1 with padding 'same', but received [${this.stride}]`)
    }
    this.weight = emptyParameter([outChannels, inChannels / groups, ...this.kernelSize], factory)
    this.bias = bias ? emptyParameter([outChannels], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    resetLinear(this.weight, this.bias)
  }

  override extraRepr(): string {
    return this.bias === null ? super.extraRepr() : `${super.extraRepr()}, bias=true`
  }
}

/** [N, inChannels, L] (or without N) to [N, outChannels, L']. Parameters: weight [out, in / groups, kernel], bias [out]. */
export class Conv1d extends Convolution {
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: ConvolutionOptions = {}) {
    super(1, inChannels, outChannels, kernelSize, options)
  }

  forward(input: Tensor): Tensor {
    const { weight, bias, stride, padding, dilation, groups } = this
    return typeof padding === 'string'
      ? ops.conv1d(input, weight, bias, stride, padding, dilation, groups)
      : ops.conv1d(input, weight, bias, stride, padding, dilation, groups)
  }
}

/** [N, inChannels, H, W] (or without N) to [N, outChannels, H', W']. Parameters: weight [out, in / groups, ...kernel], bias [out]. */
export class Conv2d extends Convolution {
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options: ConvolutionOptions = {}) {
    super(2, inChannels, outChannels, kernelSize, options)
  }

  forward(input: Tensor): Tensor {
    const { weight, bias, stride, padding, dilation, groups } = this
    return typeof padding === 'string'
      ? ops.conv2d(input, weight, bias, stride, padding, dilation, groups)
      : ops.conv2d(input, weight, bias, stride, padding, dilation, groups)
  }
}
