import { DecoderPool, PreparedImages } from '../data/index.js'

/** Where a run's images come from: packed shards, or files that threads decode. To be closed. */
export function imagesOf({ prepared, workers }: { prepared?: string | undefined; workers?: number | undefined }) {
  if (prepared !== undefined) {
    const images = PreparedImages.open(prepared)
    return { source: { prepared: images }, close: async () => images[Symbol.dispose]() }
  }
  const decoder = new DecoderPool(workers === undefined ? {} : { workers })
  return { source: { decoder }, close: () => decoder.close() }
}
