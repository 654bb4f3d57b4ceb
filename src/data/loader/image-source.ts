import { PreparedImages } from '../shards/prepared.js'
import { DecoderPool } from './decoders.js'

export interface OpenImages {
  /** For a `DataLoader`. */
  readonly source: { readonly prepared: PreparedImages } | { readonly decoder: DecoderPool }
  close(): Promise<void>
}

/**
 * Where images come from: packed shards, or files that threads decode. To be closed.
 *
 * @param options.prepared a folder that `cleft prepare` made
 * @param options.workers threads. Default: one a core
 */
export function imagesOf(options: { prepared?: string | undefined; workers?: number | undefined }): OpenImages {
  const { prepared, workers } = options
  if (prepared !== undefined) {
    const images = PreparedImages.open(prepared)
    return { source: { prepared: images }, close: async () => images[Symbol.dispose]() }
  }
  const decoder = new DecoderPool(workers === undefined ? {} : { workers })
  return { source: { decoder }, close: () => decoder.close() }
}
