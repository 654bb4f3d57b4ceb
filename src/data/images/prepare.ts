import type { PreparedImage } from './gray.js'
import { otsuBox } from './otsu.js'
import { type ReadOptions, readImage } from './read.js'
import { index, type ScaleOptions } from './scale.js'
import { PADDED_SIZE, padToSquare } from './square.js'

export interface PrepareOptions extends ReadOptions, ScaleOptions {
  /** Side of the square, in pixels. Default: 256. */
  size?: number
}

/**
 * From a file to what training starts from: read, scaled to 8 or 16 bits, the longest side to `size` by area, zeros around,
 * and Otsu's box.
 *
 * @throws ImageError as {@link readImage}
 */
export async function prepareImage(source: string | Uint8Array, options: PrepareOptions = {}): Promise<PreparedImage> {
  const stored = await readImage(source, options)
  const { image, lookup } = index(stored, options)
  const padded = padToSquare(image, options.size ?? PADDED_SIZE, lookup)
  return { padded, box: otsuBox(padded), warnings: stored.warnings }
}
