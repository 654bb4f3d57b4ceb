import { parentPort, workerData } from 'node:worker_threads'
import type { prepareImage } from '../images/index.js'
import type { DecodeReply, DecodeRequest, PrepareSettings } from './decoders.js'

/*
 * A thread of DecoderPool: prepares the images that it is sent.
 */

interface ImageModule {
  readonly prepareImage: typeof prepareImage
}

const { settings, module } = workerData as { settings: PrepareSettings; module?: string }
const imported = import(module ?? new URL('../images/index.js', import.meta.url).href) as Promise<ImageModule>
// every request says so
imported.catch(() => {})

/** Pixels with memory of their own, which can change threads without being copied. */
function own(pixels: Uint8Array | Uint16Array): Uint8Array | Uint16Array {
  const { buffer, byteLength } = pixels
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? pixels : pixels.slice()
}

async function answer({ id, source }: DecodeRequest): Promise<void> {
  try {
    const { prepareImage } = await imported
    const { padded, box, warnings } = await prepareImage(source, settings)
    const pixels = own(padded.pixels)
    parentPort!.postMessage({ id, pixels, box, warnings } satisfies DecodeReply, [pixels.buffer as ArrayBuffer])
  } catch (error) {
    const reply: DecodeReply = { id, error: error instanceof Error ? error.message : String(error) }
    parentPort!.postMessage(reply)
  }
}

parentPort!.on('message', (request: DecodeRequest) => void answer(request))
