import type { Box, GrayImage } from './gray.js'

/** What OpenCV calls nothing: a class with less than this share of the pixels is no class. */
const EPSILON = 1.1920928955078125e-7

/**
 * Otsu's threshold: the value that parts a histogram into two classes with the most variance between them (Otsu 1979; the
 * first such value, as in OpenCV; 0 where there is one value only).
 *
 * @param counts pixels of each value, 256 of them
 */
export function otsuThreshold(counts: Uint32Array): number {
  let pixels = 0
  let sum = 0
  for (let value = 0; value < counts.length; value += 1) {
    pixels += counts[value]!
    sum += value * counts[value]!
  }
  const mean = sum / pixels
  let best = 0
  let threshold = 0
  let below = 0
  let meanBelow = 0
  for (let value = 0; value < counts.length; value += 1) {
    const share = counts[value]! / pixels
    meanBelow *= below
    below += share
    const above = 1 - below
    if (Math.min(below, above) < EPSILON || Math.max(below, above) > 1 - EPSILON) continue
    meanBelow = (meanBelow + value * share) / below
    const meanAbove = (mean - below * meanBelow) / above
    const variance = below * above * ((meanBelow - meanAbove) * (meanBelow - meanAbove))
    if (variance > best) {
      best = variance
      threshold = value
    }
  }
  return threshold
}

/**
 * The box around everything brighter than Otsu's threshold; the whole image where nothing is (all black). Of 16 bits the
 * threshold is found on the upper 8, rounded.
 */
export function otsuBox(image: GrayImage): Box {
  const { width, height } = image
  const pixels = image.pixels instanceof Uint8Array ? image.pixels : upperBits(image.pixels)
  const threshold = otsuThreshold(countsOf(pixels))
  let [top, bottom, left, right] = [height, -1, width, -1]
  for (let row = 0; row < height; row += 1) {
    const start = row * width
    let first = 0
    while (first < width && pixels[start + first]! <= threshold) first += 1
    if (first === width) continue
    let last = width - 1
    while (pixels[start + last]! <= threshold) last -= 1
    if (top > row) top = row
    bottom = row
    if (first < left) left = first
    if (last > right) right = last
  }
  return bottom < 0 ? { top: 0, left: 0, bottom: height - 1, right: width - 1 } : { top, left, bottom, right }
}

/** Four counts of each value, which are added up: equal values in a row would wait for one another. */
function countsOf(pixels: Uint8Array): Uint32Array {
  const counts = new Uint32Array(1024)
  let at = 0
  for (; at + 4 <= pixels.length; at += 4) {
    counts[pixels[at]!]!++
    counts[256 + pixels[at + 1]!]!++
    counts[512 + pixels[at + 2]!]!++
    counts[768 + pixels[at + 3]!]!++
  }
  for (; at < pixels.length; at += 1) counts[pixels[at]!]!++
  return counts
    .subarray(0, 256)
    .map((count, value) => count + counts[256 + value]! + counts[512 + value]! + counts[768 + value]!)
}

function upperBits(pixels: Uint16Array): Uint8Array {
  const upper = new Uint8Array(pixels.length)
  for (let at = 0; at < pixels.length; at += 1) upper[at] = Math.round(pixels[at]! / 257)
  return upper
}

/** What is inside a box. */
export function crop(image: GrayImage, { top, left, bottom, right }: Box): GrayImage {
  const width = right - left + 1
  const height = bottom - top + 1
  const isInside = top >= 0 && left >= 0 && bottom < image.height && right < image.width
  if (!(isInside && width > 0 && height > 0)) {
    throw new RangeError(
      `crop: expected a box inside ${image.width} x ${image.height}, but received rows ${top} to ${bottom}, columns ${left} to ${right}`,
    )
  }
  const pixels = image.pixels instanceof Uint8Array ? new Uint8Array(width * height) : new Uint16Array(width * height)
  for (let row = 0; row < height; row += 1) {
    const start = (top + row) * image.width + left
    pixels.set(image.pixels.subarray(start, start + width), row * width)
  }
  return { width, height, pixels }
}
