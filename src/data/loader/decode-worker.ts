import { workerData } from 'node:worker_threads'
import type { prepareImage } from '../images/index.js'
import { answerAll } from './answer.js'
import type { DecodeData, DecodeReply, ImageSource } from './decoders.js'

/*
 * A thread of DecoderPool: prepares images.
 */

interface ImageModule {
  readonly prepareImage: typeof prepareImage
}

const { settings, module } = workerData as DecodeData
const imported = import(module ?? new URL('../images/index.js', import.meta.url).href) as Promise<ImageModule>
// every answer says so
imported.catch(() => {})

/** Pixels with memory of their own, which can change threads without being copied. */
function own(pixels: Uint8Array | Uint16Array): Uint8Array | Uint16Array {
  const { buffer, byteLength } = pixels
  return buffer instanceof ArrayBuffer && buffer.byteLength === byteLength ? pixels : pixels.slice()
}

answerAll<ImageSource, DecodeReply>(async (source) => {
  const { prepareImage } = await imported
  const { padded, box, warnings } = await prepareImage(source, settings)
  const pixels = own(padded.pixels)
  return { reply: { pixels, box, warnings }, transfer: [pixels.buffer as ArrayBuffer] }
})
