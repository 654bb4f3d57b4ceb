import type { Dataset, Sample } from '../data/index.js'
import * as torch from '../torch/index.js'
import { type EncodeOptions, evaluationLoader } from './evaluation-loader.js'
import type { LoadedModel } from './loaded-model.js'

export interface EncodedDataset {
  /** Those that could be read. */
  readonly samples: readonly Sample[]
  /** [N, D] float32 on the CPU, in the samples' order; the caller's. */
  readonly embeddings: torch.Tensor
  readonly unreadable: number
}

/** Embeddings of some of a data set's images. */
export async function encodeDataset(
  model: LoadedModel,
  dataset: Dataset,
  samples: readonly Sample[],
  { onProgress, ...options }: EncodeOptions,
): Promise<EncodedDataset> {
  const loader = evaluationLoader(model, dataset, samples, options)
  using scope = new torch.Scope()
  const parts: torch.Tensor[] = []
  const found: Sample[] = []
  for await (const batch of loader) {
    using _ = batch
    parts.push(scope.run(() => torch.scope(() => model.encodePixels(batch.pixels).cpu())))
    found.push(...batch.samples)
    onProgress?.(found.length, samples.length)
    await new Promise(setImmediate)
  }
  if (found.length === 0) throw new Error('expected images that can be read, but there are none')
  return {
    samples: found,
    embeddings: torch.keep(scope.run(() => torch.cat(parts, 0))),
    unreadable: loader.problems.count,
  }
}
