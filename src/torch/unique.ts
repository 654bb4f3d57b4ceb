import { operator } from './dispatch.js'
import type { Tensor } from './tensor.js'

export interface UniqueOptions {
  /** Ascending order. Default: true. */
  sorted?: boolean
  /** Look at whole slices along a dimension. Default: at single elements. */
  dim?: number
}

export interface Unique {
  readonly values: Tensor
  /** For each element (or slice) of the input, where its value stands in `values`; int64. */
  readonly inverse: Tensor
  /** How often each value occurs; int64. */
  readonly counts: Tensor
}

const uniqueElements = operator('unique', 'aten::_unique2', [''])
const uniqueSlices = operator('unique', 'aten::unique_dim', [''])

/** The distinct elements of a tensor (or slices along `dim`), with where each came from and how often. */
export function unique(input: Tensor, options: UniqueOptions = {}): Unique {
  const { sorted = true, dim } = options
  const found =
    dim === undefined
      ? uniqueElements.call([input, sorted, true, true])
      : uniqueSlices.call([input, dim, sorted, true, true])
  const [values, inverse, counts] = found as [Tensor, Tensor, Tensor]
  return { values, inverse, counts }
}
