import { adapterTensors, type SaveModelOptions, savedNames } from '../clip/model-files.js'
import type { TextTower } from '../clip/text-tower.js'
import { lowerMatrices } from '../models/text/index.js'
import * as torch from '../torch/index.js'

interface LowerOptions {
  readonly precision: 'float32' | 'bfloat16' | 'float16'
  /** Default: both. */
  readonly towers?: readonly ('image' | 'text')[]
  readonly files: Pick<SaveModelOptions, 'textWeights'>
}

/**
 * Keeps the frozen matrices of a model in the precision that autocast computes in, so that no step casts them: half of
 * their memory, and the same products. What trains, adapters, norms and embeddings stay in float32, and so does what
 * checkpoints have: a frozen language model is named there and not saved, and of what is frozen and saved the float32
 * values stay, in the host's memory.
 *
 * @returns these values by name, for {@link SaveModelOptions.masters}
 */
export function lowerFrozen(
  model: TextTower,
  { precision, towers = ['image', 'text'], files }: LowerOptions,
): ReadonlyMap<string, torch.Tensor> {
  const masters = new Map<string, torch.Tensor>()
  if (precision === 'float32') return masters
  const before = new Map(model.namedParameters().map(([name, each]) => [name, torch.keep(each.detach())]))
  const except = adapterTensors(model)
  torch.scope(() => {
    for (const tower of towers) if (model[tower] !== null) lowerMatrices(model[tower], precision, { except })
  })
  const isSaved = savedNames(model, files)
  for (const [name, parameter] of model.namedParameters()) {
    const own = before.get(name)!
    if (isSaved(name) && parameter.dtype !== own.dtype) masters.set(name, torch.keep(torch.scope(() => own.to('cpu'))))
    own.dispose()
  }
  return masters
}
