import { operator } from '../../dispatch.js'
import type { Tensor } from '../../tensor.js'
import { emptyParameter, type FactoryOptions } from '../construct.js'
import { constant_ } from '../init.js'
import { Module } from '../module.js'
import type { Parameter } from '../parameter.js'

const layerScaleResidual = operator('LayerScaleResidual', 'cleft::layer_scale_residual', [''])

/**
 * residual + x * gamma: LayerScale (Touvron et al. 2021) with the residual addition of its block, in one native pass over
 * memory, with a backward of its own. Parameter: gamma [dim], as DINOv2's `ls1.gamma`.
 *
 * The fast kernel is for contiguous float32 on the CPU; all else gets addcmul().
 */
export class LayerScaleResidual extends Module {
  gamma: Parameter
  readonly initValue: number

  /** @param options.initValue what gamma starts as; default: 1e-5 */
  constructor(
    readonly dim: number,
    { initValue = 1e-5, ...factory }: FactoryOptions & { initValue?: number } = {},
  ) {
    super()
    this.initValue = initValue
    this.gamma = emptyParameter([dim], factory)
    this.resetParameters()
  }

  resetParameters(): void {
    constant_(this.gamma, this.initValue)
  }

  /** Both tensors of one shape [..., dim]. */
  forward(residual: Tensor, x: Tensor): Tensor {
    return layerScaleResidual.call([residual, x, this.gamma]) as Tensor
  }
}
