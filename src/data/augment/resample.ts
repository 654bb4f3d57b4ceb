import { embeddingBag, fromTypedArray, type Tensor } from '../../torch/index.js'

/*
 * Antialiased bilinear resampling as PIL does it (Resample.c), of many images at once, each with its own stretch of rows.
 * A row of the result is a weighted sum of a few rows: embeddingBag is that, fused.
 */

/** Which part of one dimension is stretched, and which part of the result is wanted. In pixels. */
export interface Stretch {
  /** The first pixel of the source, and how many. */
  readonly start: number
  readonly length: number
  /** How many pixels the source is stretched to. */
  readonly to: number
  /** The first of them that is wanted. */
  readonly from: number
}

/** PIL keeps weights of 8-bit images as whole numbers of 2^-22. */
const WEIGHT_STEP = 2 ** -22

interface Taps {
  readonly first: Int32Array
  readonly count: Int32Array
  readonly weights: Float64Array
  readonly most: number
}

/** The source pixels of each wanted pixel, and their weights, which sum to 1. */
function tapsOf({ start, length, to, from }: Stretch, wanted: number): Taps {
  const scale = length / to
  const support = Math.max(scale, 1)
  const room = 2 * Math.ceil(support) + 1
  const first = new Int32Array(wanted)
  const count = new Int32Array(wanted)
  const weights = new Float64Array(wanted * room)
  let most = 1
  for (let pixel = 0; pixel < wanted; pixel += 1) {
    const center = (pixel + from + 0.5) * scale
    const begin = Math.max(0, Math.trunc(center - support + 0.5))
    const end = Math.min(length, Math.trunc(center + support + 0.5))
    let sum = 0
    for (let tap = begin; tap < end; tap += 1) {
      const weight = Math.max(0, 1 - Math.abs((tap - center + 0.5) / support))
      weights[pixel * room + tap - begin] = weight
      sum += weight
    }
    for (let tap = 0; tap < end - begin; tap += 1) {
      const weight = weights[pixel * room + tap]! / sum
      weights[pixel * room + tap] = Math.floor(weight / WEIGHT_STEP + 0.5) * WEIGHT_STEP
    }
    first[pixel] = start + begin
    count[pixel] = end - begin
    most = Math.max(most, end - begin)
  }
  return { first, count, weights, most }
}

/**
 * Resamples the rows of images.
 *
 * @param images [N, R, C], float32, contiguous
 * @param stretches one for each image, inside its R rows
 * @param wanted how many rows of each result
 * @returns [N, wanted, C], float32
 */
export function resampleRows(images: Tensor, stretches: readonly Stretch[], wanted: number): Tensor {
  const [number, rows, columns] = images.shape as [number, number, number]
  const taps = stretches.map((stretch) => tapsOf(stretch, wanted))
  const most = Math.max(...taps.map((each) => each.most))
  const indices = new Int32Array(number * wanted * most)
  const weights = new Float32Array(number * wanted * most)
  const offsets = new Int32Array(number * wanted)
  let at = 0
  for (const [image, each] of taps.entries()) {
    const room = each.weights.length / wanted
    for (let pixel = 0; pixel < wanted; pixel += 1) {
      offsets[image * wanted + pixel] = at
      for (let tap = 0; tap < most; tap += 1) {
        // where there are fewer, one that is there, with the weight 0
        const there = tap < each.count[pixel]!
        indices[at] = image * rows + each.first[pixel]! + (there ? tap : 0)
        weights[at] = there ? each.weights[pixel * room + tap]! : 0
        at += 1
      }
    }
  }
  const { device } = images
  const put = (data: Int32Array | Float32Array) => fromTypedArray(data, [data.length]).to(device as 'cpu')
  const [sums] = embeddingBag(
    images.view([number * rows, columns]),
    put(indices),
    put(offsets),
    false,
    0,
    false,
    put(weights),
  ) as [Tensor, ...Tensor[]]
  return sums.view([number, wanted, columns])
}
