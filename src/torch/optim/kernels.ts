import { operator } from '../dispatch.js'
import { native } from '../native.js'
import type { Tensor } from '../tensor.js'
import type { Scalar } from '../types.js'

/*
 * The kernels over lists of tensors that optimizers use. They have no place in the public surface (their names begin
 * with an underscore in ATen), and each is bound to one overload, so that nothing is chosen by the kinds of long lists.
 */

type Tensors = readonly Tensor[]

function bind<Values extends readonly unknown[], Result = void>(
  name: string,
  overload: string,
): (...values: Values) => Result {
  const target = operator(name, `aten::${name}`, [overload])
  return (...values) => target.call(values) as Result
}

export const foreachAdd = bind<[Tensors, Tensors, { alpha: Scalar }], Tensor[]>('_foreach_add', 'List')
export const foreachAdd_ = bind<[Tensors, Tensors, { alpha: Scalar }]>('_foreach_add_', 'List')
export const foreachAddScalar_ = bind<[Tensors, Scalar]>('_foreach_add_', 'Scalar')
export const foreachAddTensor_ = bind<[Tensors, Tensor, { alpha: Scalar }]>('_foreach_add_', 'Tensor')
export const foreachSub_ = bind<[Tensors, Tensors]>('_foreach_sub_', 'List')
export const foreachMul_ = bind<[Tensors, Scalar]>('_foreach_mul_', 'Scalar')
export const foreachMulTensor_ = bind<[Tensors, Tensor]>('_foreach_mul_', 'Tensor')
export const foreachDivScalars_ = bind<[Tensors, readonly Scalar[]]>('_foreach_div_', 'ScalarList')
export const foreachNeg = bind<[Tensors], Tensor[]>('_foreach_neg', '')
export const foreachLerp_ = bind<[Tensors, Tensors, Scalar]>('_foreach_lerp_', 'Scalar')
export const foreachAddcmul_ = bind<[Tensors, Tensors, Tensors, Scalar]>('_foreach_addcmul_', 'Scalar')
export const foreachAddcdivScalars_ = bind<[Tensors, Tensors, Tensors, readonly Scalar[]]>(
  '_foreach_addcdiv_',
  'ScalarList',
)
export const foreachMaximum_ = bind<[Tensors, Tensors]>('_foreach_maximum_', 'List')
export const foreachSqrt = bind<[Tensors], Tensor[]>('_foreach_sqrt', '')
export const foreachZero_ = bind<[Tensors]>('_foreach_zero_', '')
export const foreachNorm = bind<[Tensors, Scalar], Tensor[]>('_foreach_norm', 'Scalar')
export const foreachClampMin_ = bind<[Tensors, Scalar]>('_foreach_clamp_min_', 'Scalar')
export const foreachClampMax_ = bind<[Tensors, Scalar]>('_foreach_clamp_max_', 'Scalar')
export const vectorNorm = bind<[Tensor, Scalar], Tensor>('linalg_vector_norm', '')

export interface ScalingArguments {
  /** What the gradients were multiplied with and are divided by, or null. */
  gradScale: Tensor | null
  /** 1 where a gradient is not finite, and nothing is to change; or null. */
  foundInf: Tensor | null
}

export interface FusedAdamArguments extends ScalingArguments {
  lr: number
  beta1: number
  beta2: number
  weightDecay: number
  eps: number
  amsgrad: boolean
  maximize: boolean
}

type FusedAdam = [
  parameters: Tensors,
  gradients: Tensors,
  averages: Tensors,
  squares: Tensors,
  maxima: Tensors,
  steps: Tensors,
  options: FusedAdamArguments,
]
export const fusedAdam_ = bind<FusedAdam>('_fused_adam_', '')
export const fusedAdamW_ = bind<FusedAdam>('_fused_adamw_', '')

export interface FusedSgdArguments extends ScalingArguments {
  lr: number
  momentum: number
  dampening: number
  weightDecay: number
  nesterov: boolean
  maximize: boolean
  isFirstStep: boolean
}
export const fusedSgd_ = bind<[Tensors, Tensors, Tensors, FusedSgdArguments]>('_fused_sgd_', '')

/** Divides gradients by a scale (given as 1 / scale) and sets `foundInf` to 1 where one is not finite. */
export const nonFiniteCheckAndUnscale_ = bind<[Tensors, foundInf: Tensor, inverseScale: Tensor]>(
  '_amp_foreach_non_finite_check_and_unscale_',
  '',
)
/** Changes a scale and its count of good steps by whether something was not finite. */
export const updateScale_ = bind<
  [scale: Tensor, growthTracker: Tensor, foundInf: Tensor, growth: number, backoff: number, interval: number],
  unknown
>('_amp_update_scale_', '')

/** Tensors that list kernels can take together: those of one device and dtype. In order of first appearance. */
export function groupByDeviceAndDtype<T>(items: Iterable<T>, tensorOf: (item: T) => Tensor): T[][] {
  const groups = new Map<number, T[]>()
  for (const item of items) {
    const key = native.traits(tensorOf(item).handle)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [item])
    else group.push(item)
  }
  return [...groups.values()]
}
