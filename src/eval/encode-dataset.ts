import type { Dataset, Sample } from '../data/index.js'
import type * as torch from '../torch/index.js'
import { type EncodeOptions, encodeAll, evaluationLoader } from './evaluation-loader.js'
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
  options: EncodeOptions,
): Promise<EncodedDataset> {
  const loader = evaluationLoader(model, dataset, samples, options)
  const { tensors, ...found } = await encodeAll(loader, (pixels) => [model.encodePixels(pixels)], options)
  return { ...found, embeddings: tensors[0]! }
}
