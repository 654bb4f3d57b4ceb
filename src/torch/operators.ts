import { operator } from './dispatch.js'
import type { Tensor } from './tensor.js'
import type { Scalar } from './types.js'

/** What an operator can be given. */
export type OperatorValue =
  | Tensor
  | Scalar
  | string
  | null
  | undefined
  | readonly OperatorValue[]
  | { readonly [name: string]: OperatorValue }

/**
 * Calls any operator of libtorch's dispatcher by its full name, also those that have no typed form: ATen's internals,
 * custom operators.
 *
 * @example torch.callOperator('aten::_softmax', x, -1, false); torch.callOperator('cleft::layer_scale_residual', a, b, g)
 */
export function callOperator(name: `${string}::${string}`, ...values: readonly OperatorValue[]): unknown {
  const dot = name.indexOf('.')
  const base = dot < 0 ? name : name.slice(0, dot)
  return operator(name, base, [dot < 0 ? '' : name.slice(dot + 1)]).call(values)
}
