import { DataLoader, type Dataset, type Decoder, type PreparedImages, type Sample } from '../data/index.js'
import * as torch from '../torch/index.js'
import type { LoadedModel } from './loaded-model.js'

export interface EncodeOptions {
  /** Default: 64. */
  batchSize?: number
  decoder?: Decoder
  prepared?: PreparedImages
  signal?: AbortSignal
  /** How many images are done, of all. */
  onProgress?: (images: number, total: number) => void
}

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
  { batchSize = 64, decoder, prepared, signal, onProgress }: EncodeOptions,
): Promise<EncodedDataset> {
  // a data set's own fields, also where they are getters
  const { kind, root, findings, classes, problems, hash, open } = dataset
  const loader = new DataLoader(
    { kind, root, findings, classes, problems, hash, samples, ...(open && { open }) },
    {
      batchSize,
      seed: 0,
      training: false,
      channels: 3,
      ...model.input,
      device: model.device,
      ...(decoder && { decoder }),
      ...(prepared && { prepared }),
      ...(signal && { signal }),
    },
  )
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
