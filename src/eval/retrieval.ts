import * as torch from '../torch/index.js'
import type { Measure } from './measures.js'

type Tensor = torch.Tensor

/*
 * Image-text retrieval: every image against the captions of the whole test set, and every caption against its images. A
 * caption that is equal to one's own is as right as one's own.
 */

export const RECALL_AT = [1, 5, 10] as const

export interface Retrieved {
  readonly index: number
  readonly score: number
  /** Its caption equals the query's. */
  readonly hit: boolean
}

export interface RetrievalResult {
  /** [N], in the order of the samples. */
  readonly captions: readonly string[]
  readonly patients: readonly string[]
  /** [N] for each image the rank of the first caption that is right, from 1. */
  readonly imageToText: Int32Array
  /** [N] for each caption the rank of the first image that is right, from 1. */
  readonly textToImage: Int32Array
  /** What R@1 a random order would have: how likely a random item is right, the mean over queries. */
  readonly chance: number
}

/** Scores at a time: 16 MiB, and some times that for what is made of them. */
const CHUNK = 2 ** 22

/**
 * Ranks by cosine. What scores the same as the first that is right is counted before it, so that a model that says the same
 * of everything finds nothing.
 *
 * @param image [N, D], not necessarily of length 1; computed in float32
 * @param text [N, D], of the same samples
 * @param captions [N]
 */
export function retrievalRanks(
  image: Tensor,
  text: Tensor,
  { captions, patients }: { captions: readonly string[]; patients: readonly string[] },
): RetrievalResult {
  checkFeatures(image, text, captions)
  if (patients.length !== captions.length) {
    throw new RangeError(`retrieval: expected ${captions.length} patients, but received ${patients.length}`)
  }
  const groups = groupsOf(captions)
  return torch.noGrad(() =>
    torch.scope(() => {
      const [images, texts] = [normalized(image), normalized(text)]
      const group = torch.tensor(Array.from(groups, BigInt), { dtype: 'int64', device: image.device as torch.Device })
      return {
        captions,
        patients,
        imageToText: firstHits(images, texts, group),
        textToImage: firstHits(texts, images, group),
        chance: chanceOf(groups),
      }
    }),
  )
}

function checkFeatures(image: Tensor, text: Tensor, captions: readonly string[]): void {
  const N = captions.length
  if (N === 0) throw new RangeError('retrieval: expected one caption at least, but received none')
  if (
    image.ndim !== 2 ||
    text.ndim !== 2 ||
    image.size(0) !== N ||
    text.size(0) !== N ||
    image.size(1) !== text.size(1)
  ) {
    throw new RangeError(
      `retrieval: expected features [${N}, D] of images and of texts, but received [${image.shape}] and [${text.shape}]`,
    )
  }
}

function normalized(features: Tensor): Tensor {
  const wide = features.detach().float()
  if (!wide.isfinite().all().item()) {
    throw new RangeError('retrieval: expected finite features, but some are not')
  }
  return torch.nn.functional.normalize(wide, { dim: -1 })
}

/** Equal captions have equal numbers. */
function groupsOf(captions: readonly string[]): number[] {
  const numbers = new Map<string, number>()
  return captions.map((caption) => {
    const known = numbers.get(caption) ?? numbers.size
    numbers.set(caption, known)
    return known
  })
}

/** For each query the number of wrong items that score at least as high as its best right one, plus 1. */
function firstHits(queries: Tensor, items: Tensor, group: Tensor): Int32Array {
  const N = queries.size(0)
  const ranks = new Int32Array(N)
  const rows = Math.max(1, Math.floor(CHUNK / N))
  for (let start = 0; start < N; start += rows) {
    const length = Math.min(rows, N - start)
    torch.scope(() => {
      const scores = queries.narrow(0, start, length).matmul(items.t())
      const isRight = group.narrow(0, start, length).unsqueeze(1).eq(group.unsqueeze(0))
      const best = scores.maskedFill(isRight, Number.NEGATIVE_INFINITY)
      const right = scores.maskedFill(isRight.logicalNot(), Number.NEGATIVE_INFINITY).amax(1, true)
      const before = best.ge(right).sum(1)
      ranks.set(
        Array.from(before.cpu().toTypedArray() as BigInt64Array, (count) => Number(count) + 1),
        start,
      )
    })
  }
  return ranks
}

/** How likely a random item is right, the mean over queries. */
function chanceOf(groups: readonly number[]): number {
  const sizes = new Map<number, number>()
  for (const group of groups) sizes.set(group, (sizes.get(group) ?? 0) + 1)
  return groups.reduce((total, group) => total + sizes.get(group)!, 0) / groups.length ** 2
}

/** What was found first for one image (or, with the features exchanged, one caption): for examples in a report. */
export function topRetrieved(
  query: number,
  {
    queries,
    items,
    captions,
    count = 5,
  }: { queries: Tensor; items: Tensor; captions: readonly string[]; count?: number },
): Retrieved[] {
  return torch.noGrad(() =>
    torch.scope(() => {
      const scores = normalized(items)
        .matmul(normalized(queries.narrow(0, query, 1)).t())
        .reshape([-1])
      const { values, indices } = scores.topk(Math.min(count, items.size(0)))
      const found = indices.cpu().toTypedArray() as BigInt64Array
      const cosines = values.cpu().toTypedArray() as Float32Array
      return Array.from(found, (index, k) => ({
        index: Number(index),
        score: cosines[k]!,
        hit: captions[Number(index)] === captions[query],
      }))
    }),
  )
}

export const retrievalMetrics = [
  'imageToTextR1',
  'imageToTextR5',
  'imageToTextR10',
  'textToImageR1',
  'textToImageR5',
  'textToImageR10',
  'meanR1',
  'meanR5',
  'meanR10',
] as const
export type RetrievalMetric = (typeof retrievalMetrics)[number]

/** Recall at 1, 5 and 10 both ways and their means, for the bootstrap: queries are resampled, what is searched stays. */
export function measureRetrieval({ imageToText, textToImage }: RetrievalResult): Measure {
  const atMost = RECALL_AT.length
  return {
    size: retrievalMetrics.length,
    evaluate(weights, out) {
      let total = 0
      out.fill(0)
      for (let row = 0; row < weights.length; row += 1) {
        const weight = weights[row]!
        total += weight
        for (let k = 0; k < atMost; k += 1) {
          if (imageToText[row]! <= RECALL_AT[k]!) out[k]! += weight
          if (textToImage[row]! <= RECALL_AT[k]!) out[atMost + k]! += weight
        }
      }
      for (let k = 0; k < 2 * atMost; k += 1) out[k]! /= total
      for (let k = 0; k < atMost; k += 1) out[2 * atMost + k] = (out[k]! + out[atMost + k]!) / 2
    },
  }
}
