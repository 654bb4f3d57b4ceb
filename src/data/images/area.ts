import type { GrayImage } from './gray.js'

/*
 * Resampling by area as OpenCV's INTER_AREA does it, so that images become what the published code makes of them: each pixel
 * of a smaller image is the mean of what it covers of the larger one. Where a side grows, OpenCV does something else under
 * the same name: it interpolates only in those targets that lie across the border of two pixels.
 */

/** Whole pixels within this much (OpenCV's own threshold): rounding leaves no slivers. */
const SLIVER = 1e-3
/** Adding and taking away 1.5 x 2^52 rounds half to even, as OpenCV does. */
const ROUND = 6755399441055744

type Samples = Uint8Array | Uint16Array

/** Where the pixels of a smaller side begin in a larger one, and where the last ends: whole pixels and fractions of one. */
interface Edges {
  readonly pixel: Int32Array
  readonly fraction: Float64Array
}

function edgesOf(source: number, target: number): Edges {
  const edges = { pixel: new Int32Array(target + 1), fraction: new Float64Array(target + 1) }
  for (let i = 0; i <= target; i += 1) {
    const at = i * (source / target)
    const whole = Math.floor(at + SLIVER)
    edges.pixel[i] = whole
    edges.fraction[i] = at - whole < SLIVER ? 0 : at - whole
  }
  return edges
}

/** Sums of columns. Doubles only where 32 bits would not do: they take twice the time. */
type Sums = Int32Array | Float64Array

/** Adds four rows to the sums of the columns at once: what takes the time is the sums going to memory and back. */
function addFourRows(pixels: Samples, start: number, sums: Sums, width: number): void {
  const [second, third, fourth] = [start + width, start + 2 * width, start + 3 * width]
  for (let at = 0; at < width; at += 1) {
    sums[at] = sums[at]! + pixels[start + at]! + pixels[second + at]! + pixels[third + at]! + pixels[fourth + at]!
  }
}

function addRow(pixels: Samples, start: number, sums: Sums, width: number): void {
  for (let at = 0; at < width; at += 1) sums[at] = sums[at]! + pixels[start + at]!
}

/** The same four rows, for what a table has in place of each value. */
function addFourLookedUpRows(pixels: Samples, lookup: Samples, start: number, sums: Sums, width: number): void {
  const [second, third, fourth] = [start + width, start + 2 * width, start + 3 * width]
  for (let at = 0; at < width; at += 1) {
    const upper = lookup[pixels[start + at]!]! + lookup[pixels[second + at]!]!
    sums[at] = sums[at]! + upper + lookup[pixels[third + at]!]! + lookup[pixels[fourth + at]!]!
  }
}

function addLookedUpRow(pixels: Samples, lookup: Samples, start: number, sums: Sums, width: number): void {
  for (let at = 0; at < width; at += 1) sums[at] = sums[at]! + lookup[pixels[start + at]!]!
}

/** Rows of which a part counts: the one above and the one below the sums. */
interface Parts {
  readonly above: number
  readonly aboveWeight: number
  readonly below: number
  readonly belowWeight: number
}

/** The sums of columns with the partial rows: each, and all before it. */
function finishColumns(
  pixels: Samples,
  lookup: Samples | null,
  sums: Sums,
  { above, aboveWeight, below, belowWeight }: Parts,
  columns: Float64Array,
  before: Float64Array,
): void {
  const width = columns.length - 1
  let all = 0
  for (let at = 0; at < width; at += 1) {
    const upper = pixels[above + at]!
    const lower = pixels[below + at]!
    const sum =
      lookup === null
        ? sums[at]! + aboveWeight * upper + belowWeight * lower
        : sums[at]! + aboveWeight * lookup[upper]! + belowWeight * lookup[lower]!
    columns[at] = sum
    before[at] = all
    all += sum
  }
  before[width] = all
}

function shrink(image: GrayImage, lookup: Samples | null, target: Samples, width: number, height: number): void {
  const { pixels } = image
  const columnEdges = edgesOf(image.width, width)
  const rowEdges = edgesOf(image.height, height)
  const scale = (width * height) / (image.width * image.height)
  // the one case in which OpenCV rounds half up
  const isHalved = image.width === 2 * width && image.height === 2 * height
  const sums = image.height / height < 32768 ? new Int32Array(image.width) : new Float64Array(image.width)
  // one more than there are columns: the last target ends there
  const columns = new Float64Array(image.width + 1)
  const before = new Float64Array(image.width + 1)
  for (let row = 0; row < height; row += 1) {
    const [start, end] = [rowEdges.pixel[row]!, rowEdges.pixel[row + 1]!]
    const isWhole = rowEdges.fraction[row] === 0
    const parts = {
      above: start * image.width,
      aboveWeight: isWhole ? 0 : 1 - rowEdges.fraction[row]!,
      below: Math.min(end, image.height - 1) * image.width,
      belowWeight: rowEdges.fraction[row + 1]!,
    }
    sums.fill(0)
    let at = isWhole ? start : start + 1
    for (; at + 4 <= end; at += 4) {
      if (lookup === null) addFourRows(pixels, at * image.width, sums, image.width)
      else addFourLookedUpRows(pixels, lookup, at * image.width, sums, image.width)
    }
    for (; at < end; at += 1) {
      if (lookup === null) addRow(pixels, at * image.width, sums, image.width)
      else addLookedUpRow(pixels, lookup, at * image.width, sums, image.width)
    }
    finishColumns(pixels, lookup, sums, parts, columns, before)
    writeRow(columns, before, columnEdges, scale, isHalved, target, row * width)
  }
}

/** A row of targets: the difference of what is before the end and before the beginning of each. */
function writeRow(
  columns: Float64Array,
  before: Float64Array,
  { pixel, fraction }: Edges,
  scale: number,
  isHalfUp: boolean,
  target: Samples,
  start: number,
): void {
  const [raise, lower] = isHalfUp ? [0.5, 0] : [ROUND, ROUND]
  let last = 0
  for (let i = 1; i < pixel.length; i += 1) {
    const at = pixel[i]!
    const next = before[at]! + fraction[i]! * columns[at]!
    target[start + i - 1] = (next - last) * scale + raise - lower
    last = next
  }
}

/** Of one side that grows: target i is (1 - fraction[i]) of source[i] and fraction[i] of the next. */
function stepsOf(source: number, target: number): { source: Int32Array; fraction: Float64Array } {
  const steps = { source: new Int32Array(target), fraction: new Float64Array(target) }
  for (let i = 0; i < target; i += 1) {
    const at = Math.floor(i * (source / target))
    const beyond = i + 1 - (at + 1) * (target / source)
    steps.source[i] = Math.min(at, source - 1)
    steps.fraction[i] = beyond <= 0 || at >= source - 1 ? 0 : beyond - Math.floor(beyond)
  }
  return steps
}

function grow(image: GrayImage, lookup: Samples | null, target: Samples, width: number, height: number): void {
  const columns = stepsOf(image.width, width)
  const rows = stepsOf(image.height, height)
  const value = (at: number) => (lookup === null ? image.pixels[at]! : lookup[image.pixels[at]!]!)
  for (let row = 0; row < height; row += 1) {
    const upper = rows.source[row]! * image.width
    const lower = Math.min(rows.source[row]! + 1, image.height - 1) * image.width
    const down = rows.fraction[row]!
    for (let column = 0; column < width; column += 1) {
      const left = columns.source[column]!
      const next = Math.min(left + 1, image.width - 1)
      const right = columns.fraction[column]!
      const above = value(upper + left) * (1 - right) + value(upper + next) * right
      const below = value(lower + left) * (1 - right) + value(lower + next) * right
      target[row * width + column] = above * (1 - down) + below * down + ROUND - ROUND
    }
  }
}

function copy({ pixels }: GrayImage, lookup: Samples | null, target: Samples): void {
  if (lookup === null) target.set(pixels)
  else for (let at = 0; at < target.length; at += 1) target[at] = lookup[pixels[at]!]!
}

/**
 * @param image (height, width)
 * @param lookup what stands for each value, as if the image had been put through it before; null: the values themselves
 * @returns (height, width) of the given size, 8 bits where the values are
 */
export function resizeByArea(
  image: GrayImage,
  width: number,
  height: number,
  lookup: Samples | null = null,
): GrayImage {
  const is8Bit = (lookup ?? image.pixels) instanceof Uint8Array
  const pixels = is8Bit ? new Uint8Array(width * height) : new Uint16Array(width * height)
  if (image.width === width && image.height === height) {
    copy(image, lookup, pixels)
    return { width, height, pixels }
  }
  // both sides must shrink (or stay), or OpenCV interpolates in both
  const resize = image.width >= width && image.height >= height ? shrink : grow
  resize(image, lookup, pixels, width, height)
  return { width, height, pixels }
}
