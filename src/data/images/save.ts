import sharp from 'sharp'
import { writeFileSafely } from '../../torch/files/file.js'
import { ImageError } from './error.js'
import type { StagedImage } from './stages.js'

/** What {@link saveImage} writes, by the name's ending. */
const ENDING = /\.(png|safetensors)$/i

/**
 * Asked before anything is read, so that no work is lost.
 * @throws ImageError where the name ends in neither .png nor .safetensors
 */
export function checkImagePath(path: string): void {
  if (!ENDING.test(path))
    throw new ImageError(`expected a file to write that ends in .png or .safetensors, but it is ${path}`)
}

/**
 * Writes an image to a PNG (8 or 16 bits, gray) or to a safetensors file (tensor `image`, (height, width), dtype as it is),
 * as a whole or not at all.
 *
 * @throws ImageError for another ending, or for a PNG of values that have a sign or 32 bits
 */
export async function saveImage(image: Pick<StagedImage, 'width' | 'height' | 'pixels'>, path: string): Promise<void> {
  checkImagePath(path)
  const { width, height, pixels } = image
  if (path.toLowerCase().endsWith('.safetensors')) {
    // libtorch is loaded for nothing else here
    const torch = await import('../../torch/index.js')
    using tensor = torch.fromTypedArray(pixels, [height, width])
    torch.saveSafetensors({ image: tensor }, path)
    return
  }
  if (!(pixels instanceof Uint8Array || pixels instanceof Uint16Array)) {
    throw new ImageError(
      'expected 8 or 16 bits without sign for a PNG, but the pixels have more or a sign; use .safetensors',
    )
  }
  const png = await sharp(pixels, { raw: { width, height, channels: 1 }, limitInputPixels: false })
    .toColourspace(pixels instanceof Uint8Array ? 'b-w' : 'grey16')
    .png()
    .toBuffer()
  writeFileSafely(path, (file) => file.write(png))
}
