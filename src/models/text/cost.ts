import * as torch from '../../torch/index.js'
import type { TextEncoder } from './encoder.js'
import type { TextPlan } from './plan.js'

/*
 * What a plan costs. The figures are those of two CPU cores; a GPU has all of them some hundred times higher, and what
 * counts is how they stand to each other.
 */

/** Operations a second in matrix products, and in attention over short texts. */
const PRODUCT_RATE = 1.5e11
const ATTENTION_RATE = 2e10
/** Bytes a second out of memory: weights are read once, however few the tokens are. */
const READING_RATE = 1.5e10
/** The kernels of one more part of attention in one layer. */
const PART_SECONDS = 6e-5

const elements = new WeakMap<TextEncoder, number>()

/** Elements of the matrices that each token goes through. */
function matrixElements(model: TextEncoder): number {
  let sum = elements.get(model)
  if (sum === undefined) {
    sum = 0
    for (const module of model.modules()) {
      if (module instanceof torch.nn.Embedding) continue
      for (const [, parameter] of module.ownParameters()) if (parameter.ndim === 2) sum += parameter.numel()
    }
    elements.set(model, sum)
  }
  return sum
}

/** An estimate of the seconds of a forward, to compare plans by. */
export function costOf(plan: TextPlan, model: TextEncoder): number {
  const matrices = matrixElements(model)
  const tokens = plan.rows * plan.length
  const products = Math.max((2 * matrices * tokens) / PRODUCT_RATE, (4 * matrices) / READING_RATE)
  const attention = (4 * plan.pairs * model.width * model.layerCount) / ATTENTION_RATE
  const parts = (plan.layout?.parts.length ?? 1) * model.layerCount * PART_SECONDS
  return products + attention + parts
}
