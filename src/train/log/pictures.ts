import { type Batch, contactSheet, type GrayImage } from '../../data/index.js'
import * as torch from '../../torch/index.js'
import type { ImageEvent } from '../events.js'

/** Images shown. */
const SHOWN = 16

/** The first images of a batch as the model gets them, augmented and cut, with their captions. */
export async function inputPicture(batch: Batch, step: number): Promise<ImageEvent> {
  const images = torch.scope(() => {
    const count = Math.min(SHOWN, batch.pixels.size(0))
    // from -1 to 1, [count, H, W]
    const gray = batch.pixels.narrow(0, 0, count).select(1, 0).add(1).mul(127.5).round().clamp(0, 255).to('uint8').cpu()
    const [, height, width] = gray.shape as [number, number, number]
    const pixels = gray.contiguous().toTypedArray() as Uint8Array
    return Array.from(
      { length: count },
      (_, k): GrayImage => ({ width, height, pixels: pixels.slice(k * width * height, (k + 1) * width * height) }),
    )
  })
  const items = images.map((image, k) => ({ image, caption: batch.captions[k] ?? '' }))
  const sheet = await contactSheet(items, { tile: 224 })
  // width and height stand in the header of a PNG
  return {
    type: 'image',
    step,
    name: 'input',
    width: sheet.readUInt32BE(16),
    height: sheet.readUInt32BE(20),
    png: sheet,
  }
}
