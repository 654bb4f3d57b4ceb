import * as torch from '../torch/index.js'

const { nn } = torch
type Tensor = torch.Tensor

/*
 * The contrastive objective (CLIP: Radford et al. 2021, arXiv 2103.00020). Nothing here has a state.
 */

/** ln(1 / 0.07), where the logarithm of the temperature starts. */
export const START_LOG_SCALE = Math.log(1 / 0.07)
/** Where it ends. */
export const MAX_LOG_SCALE = Math.log(100)

export interface TargetOptions {
  /** 'identity': each image's own caption alone is right. 'same-caption': equal captions are all right. Default: 'identity'. */
  targets?: 'identity' | 'same-caption'
  /** For 'same-caption': each pair's caption, or its number. */
  captions?: readonly (string | number)[]
  /** In place of both: what {@link lossTarget} made of them. */
  target?: Tensor
}

export interface ContrastiveResult {
  /** Cross-entropy image to text plus text to image. */
  loss: Tensor
  /** cosine x exp(logScale), images by texts, float32. */
  scores: Tensor
}

/**
 * cosine x exp(logScale), [images, texts], in float32 also inside autocast: in bfloat16 scores would tie.
 *
 * @param image [images, D], of any length
 * @param text [texts, D]
 * @param logScale one value
 */
export function similarityScores(image: Tensor, text: Tensor, logScale: Tensor): Tensor {
  if (image.ndim !== 2 || text.ndim !== 2 || image.size(1) !== text.size(1)) {
    throw new RangeError(
      `similarityScores: expected features [images, D] and [texts, D], but received [${image.shape}] and [${text.shape}]`,
    )
  }
  const device = image.isCuda ? 'cuda' : 'cpu'
  return torch.autocast({ device, enabled: false }, () => {
    const [i, t] = [image, text].map((each) => nn.functional.normalize(wide(each), { dim: -1 })) as [Tensor, Tensor]
    return i.matmul(t.t()).mul(wide(logScale).exp())
  })
}

/** At least float32. */
function wide(tensor: Tensor): Tensor {
  return tensor.dtype === 'float64' ? tensor : tensor.float()
}

/**
 * Cross-entropy of the scores both ways, added up.
 *
 * @param image [B, D]
 * @param text [B, D], the captions in the images' order
 */
export function contrastiveLoss(
  image: Tensor,
  text: Tensor,
  logScale: Tensor,
  options: TargetOptions = {},
): ContrastiveResult {
  const scores = similarityScores(image, text, logScale)
  if (scores.size(0) !== scores.size(1)) {
    throw new RangeError(
      `contrastiveLoss: expected a caption for each image, but received ${scores.size(0)} images and ${scores.size(1)} captions`,
    )
  }
  return { loss: lossOfScores(scores, options), scores }
}

/** {@link contrastiveLoss} of scores [B, B]. */
export function lossOfScores(scores: Tensor, options: TargetOptions = {}): Tensor {
  // the same for both directions: equality is symmetric
  const target = targetOf(scores, options)
  if (target.size(0) !== scores.size(0)) {
    throw new RangeError(`target: expected what is right for ${scores.size(0)} pairs, but received [${target.shape}]`)
  }
  const { crossEntropy } = nn.functional
  return crossEntropy(scores, target).add(crossEntropy(scores.t(), target))
}

export interface CorpusOptions extends TargetOptions {
  /** For each image, which text of the corpus is its own. */
  owners: readonly number[]
  /** The logarithm of each text's share of the training set, [M], which image to text is then given. Default: none. */
  logShares?: Tensor | null
}

/**
 * Cross-entropy image to text against every text of a corpus, plus text to image against the batch.
 *
 * The corpus has each text once, so that image to text has one right answer whatever the targets; they are those of text
 * to image.
 *
 * @param image [B, D]
 * @param corpus [M, D], distinct texts
 * @returns scores within the batch, [B, B]
 */
export function corpusLoss(image: Tensor, corpus: Tensor, logScale: Tensor, options: CorpusOptions): ContrastiveResult {
  const { owners, logShares = null } = options
  const all = similarityScores(image, corpus, logScale)
  const [images, texts] = all.shape as [number, number]
  if (owners.length !== images || !owners.every((each) => Number.isInteger(each) && each >= 0 && each < texts)) {
    throw new RangeError(
      `corpusLoss: expected one of ${texts} texts for each of ${images} images, but received [${owners}]`,
    )
  }
  if (logShares !== null && logShares.shape.join() !== String(texts)) {
    throw new RangeError(`corpusLoss: expected logShares [${texts}], but received [${logShares.shape}]`)
  }
  const own = torch.tensor([...owners], { dtype: 'int64', device: all.device as torch.Device })
  const scores = all.indexSelect(1, own)
  const { crossEntropy } = nn.functional
  const toText = crossEntropy(logShares === null ? all : all.add(logShares), own)
  return { loss: toText.add(crossEntropy(scores.t(), targetOf(scores, options))), scores }
}

function targetOf(scores: Tensor, options: TargetOptions): Tensor {
  return options.target ?? lossTarget(scores.size(0), options, scores)
}

/** What is right for scores [B, B]: classes [B], or shares [B, B] in the dtype, on the device. */
export function lossTarget(
  count: number,
  options: TargetOptions,
  { device, dtype }: { device: string; dtype: torch.DType },
): Tensor {
  if (count === 0) throw new RangeError('contrastiveLoss: expected one pair at least, but the batch is empty')
  const equal = equalCaptions(count, options)
  if (equal === null) return torch.arange(count, { device: device as torch.Device })
  return torch.fromTypedArray(sharesOf(equal, count), [count, count], { device: device as torch.Device, dtype })
}

/** Numbers of captions: equal ones are the same. Null for 'identity'. */
function equalCaptions(
  count: number,
  { targets = 'identity', captions }: TargetOptions,
): readonly (string | number)[] | null {
  if (targets === 'identity') return null
  if (targets !== 'same-caption') {
    throw new RangeError(`targets: expected 'identity' or 'same-caption', but received '${String(targets)}'`)
  }
  if (captions?.length === count) return captions
  throw new RangeError(
    `targets: expected a caption for each of ${count} pairs with 'same-caption', but received ${captions?.length ?? 'none'}`,
  )
}

/** Row i: 1 / n at the n captions that are like caption i. */
function sharesOf(captions: readonly (string | number)[], count: number): Float32Array {
  const counts = new Map<string | number, number>()
  for (const caption of captions) counts.set(caption, (counts.get(caption) ?? 0) + 1)
  return Float32Array.from({ length: count * count }, (_, k) => {
    const [row, column] = [captions[Math.floor(k / count)]!, captions[k % count]!]
    return row === column ? 1 / counts.get(row)! : 0
  })
}

/**
 * How often what belongs to a query is among its k best, in percent, averaged over image to text and text to image.
 *
 * @param scores [B, B]
 * @param k more than there are counts as all
 */
export function retrievalAccuracy(scores: Tensor, k: number, options: TargetOptions = {}): number {
  const count = scores.size(0)
  if (!(Number.isInteger(k) && k > 0)) throw new RangeError(`retrievalAccuracy: expected k above 0, but received ${k}`)
  if (count === 0 || count !== scores.size(1)) {
    throw new RangeError(`retrievalAccuracy: expected scores [B, B], but received [${scores.shape}]`)
  }
  const captions = equalCaptions(count, options)
  const isRight = (query: number, found: number) =>
    captions === null ? query === found : captions[query] === captions[found]
  const best = Math.min(k, count)
  const hits = [scores, scores.t()].map((each) => {
    const found = torch.scope(() => torch.noGrad(() => each.topk(best, 1).indices.toTypedArray()))
    let sum = 0
    for (let query = 0; query < count; query += 1) {
      const row = Array.from(found.subarray(query * best, (query + 1) * best), Number)
      if (row.some((each) => isRight(query, each))) sum += 1
    }
    return sum
  })
  return ((hits[0]! + hits[1]!) / (2 * count)) * 100
}
