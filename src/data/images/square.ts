import { resizeByArea } from './area.js'
import type { GrayImage } from './gray.js'

/** Side of the square that the published code makes first (datasets/utils.py, resize_img). */
export const PADDED_SIZE = 256

/**
 * The longest side to `size` by area, the other in proportion (rounded down, 1 at least), then zeros on both sides of it,
 * the odd one at the right or the bottom.
 *
 * @param image (height, width)
 * @param size side of the square, in pixels. Default: 256.
 * @param lookup as of {@link resizeByArea}
 * @returns (size, size)
 */
export function padToSquare(
  image: GrayImage,
  size: number = PADDED_SIZE,
  lookup: Uint8Array | Uint16Array | null = null,
): GrayImage {
  if (!(Number.isInteger(size) && size >= 1 && size <= 16384)) {
    throw new RangeError(`padToSquare: expected a size from 1 to 16384, but received ${size}`)
  }
  const isHigh = image.height >= image.width
  const other = isHigh ? image.width : image.height
  // in the published order of operations: it decides where the product falls just below a whole number
  const shorter = Math.max(1, Math.trunc(other * (size / (isHigh ? image.height : image.width))))
  const [width, height] = isHigh ? [shorter, size] : [size, shorter]
  const resized = resizeByArea(image, width, height, lookup)
  if (shorter === size) return resized
  const padding = Math.floor((size - shorter) / 2)
  const pixels = resized.pixels instanceof Uint8Array ? new Uint8Array(size * size) : new Uint16Array(size * size)
  if (isHigh) {
    for (let row = 0; row < size; row += 1) {
      pixels.set(resized.pixels.subarray(row * width, (row + 1) * width), row * size + padding)
    }
  } else {
    pixels.set(resized.pixels, padding * size)
  }
  return { width: size, height: size, pixels }
}
