import { DataLoader, type Dataset, type Decoder, type PreparedImages, type Sample, withSamples } from '../data/index.js'
import type { Loaded } from './loaded.js'

export interface EncodeOptions {
  /** Default: 64. */
  batchSize?: number
  decoder?: Decoder
  prepared?: PreparedImages
  signal?: AbortSignal
  /** The fraction of the images that may be unreadable. Default: 0.01. */
  maxProblems?: number
  /** How many images are done, of all. */
  onProgress?: (images: number, total: number) => void
}

/** Some of a data set's images in their order, as a model's checkpoint says that it gets them. */
export function evaluationLoader(
  { input, device }: Pick<Loaded, 'input' | 'device'>,
  dataset: Dataset,
  samples: readonly Sample[],
  { batchSize = 64, decoder, prepared, signal, maxProblems }: Omit<EncodeOptions, 'onProgress'>,
): DataLoader {
  return new DataLoader(withSamples(dataset, samples), {
    batchSize,
    seed: 0,
    training: false,
    channels: 3,
    ...input,
    device,
    ...(decoder && { decoder }),
    ...(prepared && { prepared }),
    ...(signal && { signal }),
    ...(maxProblems !== undefined && { maxProblems }),
  })
}
