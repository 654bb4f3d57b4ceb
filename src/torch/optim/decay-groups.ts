import type { Tensor } from '../tensor.js'

export interface DecayGroupOptions {
  /** Of matrices and larger tensors. */
  weightDecay: number
}

export interface DecayGroup {
  params: Tensor[]
  weightDecay: number
}

/**
 * Two groups for an optimizer: tensors of two dimensions and more decay, biases, norms, factors and temperatures do not.
 * What requires no gradient is left out.
 */
export function decayGroups(parameters: Iterable<Tensor>, { weightDecay }: DecayGroupOptions): DecayGroup[] {
  const trained = [...new Set(parameters)].filter(({ requiresGrad }) => requiresGrad)
  const decays = (each: Tensor) => each.ndim >= 2
  const groups = [
    { params: trained.filter(decays), weightDecay },
    { params: trained.filter((each) => !decays(each)), weightDecay: 0 },
  ]
  return groups.filter(({ params }) => params.length > 0)
}
