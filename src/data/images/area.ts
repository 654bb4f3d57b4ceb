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

/** Of one side: target i is the mean of the sources from first[i] to last[i], the outer two weighed. */
interface Cells {
  readonly first: Int32Array
  readonly last: Int32Array
  readonly firstWeight: Float64Array
  /** 0 where first and last are one. */
  readonly lastWeight: Float64Array
  /** One over the sum of the weights. */
  readonly scale: Float64Array
}

function cellsOf(source: number, target: number): Cells {
  const ratio = source / target
  const first = new Int32Array(target)
  const last = new Int32Array(target)
  const firstWeight = new Float64Array(target)
  const lastWeight = new Float64Array(target)
  const scale = new Float64Array(target)
  for (let i = 0; i < target; i += 1) {
    const start = i * ratio
    const end = Math.min(start + ratio, source)
    const from = Math.min(Math.floor(start + SLIVER), source - 1)
    const to = Math.max(from, Math.ceil(end - SLIVER) - 1)
    const covered = (weight: number) => (weight > 1 - SLIVER ? 1 : weight)
    first[i] = from
    last[i] = to
    firstWeight[i] = to === from ? 1 : covered(from + 1 - start)
    lastWeight[i] = to === from ? 0 : covered(end - to)
    scale[i] = 1 / (firstWeight[i]! + lastWeight[i]! + Math.max(0, to - from - 1))
  }
  return { first, last, firstWeight, lastWeight, scale }
}

/** Adds `weight` times the means of one row's cells to `sums`. */
function addRow(pixels: Samples, start: number, cells: Cells, weight: number, sums: Float64Array): void {
  const { first, last, firstWeight, lastWeight, scale } = cells
  for (let i = 0; i < sums.length; i += 1) {
    const from = start + first[i]!
    const to = start + last[i]!
    let whole = 0
    for (let at = from + 1; at < to; at += 1) whole += pixels[at]!
    sums[i] = sums[i]! + weight * scale[i]! * (firstWeight[i]! * pixels[from]! + whole + lastWeight[i]! * pixels[to]!)
  }
}

/** The same for what a table has in place of each value. */
function addLookedUpRow(
  pixels: Samples,
  lookup: Samples,
  start: number,
  cells: Cells,
  weight: number,
  sums: Float64Array,
): void {
  const { first, last, firstWeight, lastWeight, scale } = cells
  for (let i = 0; i < sums.length; i += 1) {
    const from = start + first[i]!
    const to = start + last[i]!
    let whole = 0
    for (let at = from + 1; at < to; at += 1) whole += lookup[pixels[at]!]!
    const outer = firstWeight[i]! * lookup[pixels[from]!]! + lastWeight[i]! * lookup[pixels[to]!]!
    sums[i] = sums[i]! + weight * scale[i]! * (outer + whole)
  }
}

function shrink(image: GrayImage, lookup: Samples | null, target: Samples, width: number, height: number): void {
  const { pixels } = image
  const columns = cellsOf(image.width, width)
  const rows = cellsOf(image.height, height)
  // the one case in which OpenCV rounds half up
  const isHalved = image.width === 2 * width && image.height === 2 * height
  const sums = new Float64Array(width)
  for (let row = 0; row < height; row += 1) {
    sums.fill(0)
    const from = rows.first[row]!
    const to = rows.last[row]!
    const scale = rows.scale[row]!
    for (let at = from; at <= to; at += 1) {
      const weight = scale * (at === from ? rows.firstWeight[row]! : at === to ? rows.lastWeight[row]! : 1)
      if (lookup === null) addRow(pixels, at * image.width, columns, weight, sums)
      else addLookedUpRow(pixels, lookup, at * image.width, columns, weight, sums)
    }
    const start = row * width
    if (isHalved) for (let i = 0; i < width; i += 1) target[start + i] = sums[i]! + 0.5
    else for (let i = 0; i < width; i += 1) target[start + i] = sums[i]! + ROUND - ROUND
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
  // both sides must shrink (or stay), or OpenCV interpolates in both
  const resize = image.width >= width && image.height >= height ? shrink : grow
  resize(image, lookup, pixels, width, height)
  return { width, height, pixels }
}
