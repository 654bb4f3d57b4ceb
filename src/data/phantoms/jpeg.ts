import sharp from 'sharp'
import type { GrayImage } from '../images/gray.js'

/** One channel, 8 bits. */
export async function encodeJpeg({ pixels, width, height }: GrayImage, quality: number): Promise<Buffer> {
  return await sharp(pixels, { raw: { width, height, channels: 1 } })
    .toColourspace('b-w')
    .jpeg({ quality })
    .toBuffer()
}
