import { type ImagePooling, pooledFeature } from '../clip/two-tower.js'
import { type AskedClass, promptOf } from '../data/captions/index.js'
import type { Dataset, GrayImage, Sample } from '../data/index.js'
import type { ImageEncoder } from '../models/index.js'
import * as torch from '../torch/index.js'
import { type EncodeOptions, evaluationLoader } from './evaluation-loader.js'
import { LoadedClassifier } from './loaded-classifier.js'
import { type Ensemble, LoadedModel } from './loaded-model.js'
import type { Heat, MapExample, RetrievalExample } from './report/index.js'
import { askedScores, promptsOf, type ZeroShotResult } from './zero-shot.js'

/*
 * Single images for the report: what their scores depend on, and what retrieval finds for them.
 */

/** Images with maps. */
const MAPS = 5
/** Queries each way, and what is shown of each. */
const QUERIES = 3
const FOUND = 5

export interface ExampleSource extends Pick<EncodeOptions, 'decoder' | 'prepared'> {
  readonly dataset: Dataset
}

type Model = LoadedModel | LoadedClassifier

interface LoadedImage {
  /** As the model gets it: [1, 3, S, S], the caller's. */
  readonly pixels: torch.Tensor
  /** As a person sees that. */
  readonly image: GrayImage
}

async function loadImages(
  model: Model,
  samples: readonly Sample[],
  { dataset, ...source }: ExampleSource,
): Promise<LoadedImage[]> {
  const loader = evaluationLoader(model, dataset, samples, { ...source, batchSize: 1 })
  const made: LoadedImage[] = []
  try {
    for await (const batch of loader) {
      using _ = batch
      made.push(
        torch.keep(
          torch.scope(() => {
            const pixels = batch.pixels.clone()
            const gray = pixels.select(0, 0).select(0, 0).add(1).mul(127.5).round().clamp(0, 255).to('uint8').cpu()
            const [height, width] = gray.shape as [number, number]
            return { pixels, image: { width, height, pixels: gray.contiguous().toTypedArray() as Uint8Array } }
          }),
        ),
      )
    }
    return made
  } catch (error) {
    torch.dispose(made.map(({ pixels }) => pixels))
    throw error
  }
}

export type ImageReader = (samples: readonly Sample[]) => Promise<GrayImage[]>

/** Images as a person sees what the model gets. */
export async function grayImages(
  model: Model,
  samples: readonly Sample[],
  source: ExampleSource,
): Promise<GrayImage[]> {
  const loaded = await loadImages(model, samples, source)
  torch.dispose(loaded.map(({ pixels }) => pixels))
  return loaded.map(({ image }) => image)
}

/** Maps of one image of each class (the first ones of the set), for its own class and the best of the others. */
export async function mapExamples(
  model: Model,
  result: ZeroShotResult,
  source: ExampleSource,
  ensemble: Ensemble,
): Promise<MapExample[]> {
  const { predictions, samples } = result
  const { classes } = predictions
  const rows = oneOfEach(predictions.labels, classes.length, predictions.task === 'multi-label').slice(0, MAPS)
  const loaded = await loadImages(
    model,
    rows.map((row) => samples[row]!),
    source,
  )
  try {
    const examples: MapExample[] = []
    for (const [k, each] of loaded.entries()) examples.push(await mapExample(model, result, rows[k]!, each, ensemble))
    return examples
  } finally {
    torch.dispose(loaded.map(({ pixels }) => pixels))
  }
}

async function mapExample(
  model: Model,
  { predictions, prompts, samples }: ZeroShotResult,
  row: number,
  { pixels, image }: LoadedImage,
  ensemble: Ensemble,
): Promise<MapExample> {
  const { classes, scores, labels, task } = predictions
  const { promptPrefix, path } = samples[row]!
  const own = Array.from({ length: classes.length }, (_, c) => scores[row * classes.length + c]!)
  const truth = classes.filter((_, c) =>
    task === 'multi-label' ? labels[row * classes.length + c] === 1 : labels[row] === c,
  )
  const asked = [...new Set([...truth.slice(0, 2).map((name) => classes.indexOf(name)), highest(own, truth, classes)])]
  // the very score that is shown: of all prompts of a class, against its negations, after the image's own prefix
  using encoded = model instanceof LoadedModel ? await model.encodePrompts(promptsOf(prompts, promptPrefix)) : null
  const score: Scorer = (feature) =>
    model instanceof LoadedModel
      ? askedScores(model, model.model.projectImage(feature), encoded!, prompts, ensemble)
      : model.model.classify(feature)
  const maps = heatsOf(model, pixels, asked, score).map(({ column, gradient }) => ({
    prompt: shownPrompts(model, prompts[column], promptPrefix) ?? classes[column]!,
    kind: 'gradient' as const,
    score: own[column]!,
    heat: gradient,
  }))
  const attention = attentionOf(model, pixels)
  return {
    image,
    path,
    truth,
    maps: attention
      ? [...maps, { prompt: 'any prompt', kind: 'attention' as const, score: null, heat: attention }]
      : maps,
  }
}

/** What a score is of: of several prompts the first is told, and how many more there are. */
function shownPrompts(model: Model, asked: AskedClass | undefined, prefix: string | null): string | null {
  if (asked === undefined || !(model instanceof LoadedModel)) return null
  const told = (texts: readonly string[]) => {
    const more = texts.length > 1 ? ` (and ${texts.length - 1} more)` : ''
    return `${model.shownText(promptOf(prefix, texts[0]!))}${more}`
  }
  return asked.negations === undefined
    ? told(asked.prompts)
    : `${told(asked.prompts)}, against: ${told(asked.negations)}`
}

/** The highest class that is not true. */
function highest(scores: readonly number[], truth: readonly string[], classes: readonly string[]): number {
  const others = scores.map((score, k) => (truth.includes(classes[k]!) ? Number.NEGATIVE_INFINITY : score))
  return others.indexOf(Math.max(...others))
}

/** The first image of each class, or with each finding. */
function oneOfEach(labels: Int8Array | Int32Array, count: number, isMulti: boolean): number[] {
  const rows = new Set<number>()
  for (let column = 0; column < count; column += 1) {
    const row = isMulti
      ? Array.from({ length: labels.length / count }, (_, k) => k).findIndex(
          (k) => labels[k * count + column] === 1 && !rows.has(k),
        )
      : labels.indexOf(column)
    if (row >= 0) rows.add(row)
  }
  return [...rows]
}

/** [1, width] to [1, classes]. */
type Scorer = (feature: torch.Tensor) => torch.Tensor

const encoderOf = (model: Model): { encoder: ImageEncoder; pooling: ImagePooling } =>
  model instanceof LoadedClassifier
    ? { encoder: model.model.image, pooling: model.model.imagePooling }
    : { encoder: model.model.image, pooling: model.model.imagePooling }

/**
 * Where a score grows with what a place holds: gradient times activation, summed over channels, what is below zero left
 * out (Grad-CAM's idea: Selvaraju et al. 2017, arXiv 1610.02391; place by place, since transformers do not pool the map).
 */
function heatsOf(
  model: Model,
  pixels: torch.Tensor,
  columns: readonly number[],
  score: Scorer,
): { column: number; gradient: Heat }[] {
  const { encoder, pooling } = encoderOf(model)
  return torch.scope(() => {
    const input = pixels.detach().requiresGrad_(true)
    const features = encoder.forward(input, { hiddenStates: true, checkpoint: false })
    const state = placesOf(features.hiddenStates!, encoder)
    const scores = score(pooledFeature(features, pooling))
    return columns.map((column) => {
      const [gradient] = torch.autograd.grad([scores.select(1, column).sum()], [state], { retainGraph: true })
      return { column, gradient: heatOf(gradient!.mul(state).detach(), features.grid) }
    })
  })
}

/** Rows and columns that a map of a convolutional network has at least. */
const FINE = 6

/**
 * Where places are still places: of a transformer with a class token the tokens before the last block, through which they
 * reach it; of a convolutional network the last map that is fine enough to see something in; else the last tokens.
 */
function placesOf(states: readonly torch.Tensor[], { hasClassToken }: ImageEncoder): torch.Tensor {
  if (hasClassToken) return states.at(-2)!
  const maps = states.filter(({ ndim }) => ndim === 4)
  return maps.findLast((map) => Math.min(map.size(2), map.size(3)) >= FINE) ?? maps[0] ?? states.at(-1)!
}

/** @param product [1, T, D], places last among tokens; or [1, D, h, w] */
function heatOf(product: torch.Tensor, grid: readonly [number, number]): Heat {
  const [rows, columns] = product.ndim === 4 ? [product.size(2), product.size(3)] : grid
  const places =
    product.ndim === 4
      ? product.sum(1).flatten()
      : product
          .sum(2)
          .narrow(1, product.size(1) - rows * columns, rows * columns)
          .flatten()
  return { width: columns, height: rows, values: places.clampMin(0).float().cpu().toTypedArray() as Float32Array }
}

/** What the last block looks at: mean over heads, of the class token where it is the feature, else of all tokens. */
function attentionOf(model: Model, pixels: torch.Tensor): Heat | null {
  const { encoder, pooling } = encoderOf(model)
  if (!encoder.hasClassToken) return null
  return torch.scope(() =>
    torch.noGrad(() => {
      const { attentions, grid } = encoder.forward(pixels, { attentions: true })
      const last = attentions!.at(-1)!.select(0, 0).mean(0)
      const row = pooling === 'cls' ? last.select(0, 0) : last.mean(0)
      const [rows, columns] = grid
      const places = row.narrow(0, row.size(0) - rows * columns, rows * columns)
      return { width: columns, height: rows, values: places.float().cpu().toTypedArray() as Float32Array }
    }),
  )
}

/**
 * The first images with a caption, the captions found for them, and the other way round.
 *
 * @param text [N, D], of each image's own caption
 * @param read null: no image is looked at
 */
export async function retrievalExamples(
  { samples, embeddings }: Pick<ZeroShotResult, 'samples' | 'embeddings'>,
  text: torch.Tensor,
  read: ImageReader | null,
): Promise<RetrievalExample[]> {
  const captions = samples.map(({ caption }) => caption!)
  const queries = firstOfEach(captions).slice(0, QUERIES)
  const cosines = torch.scope(() => {
    const rows = torch.tensor(queries, { dtype: 'int64' })
    return {
      toText: embeddings.indexSelect(0, rows).matmul(text.t()).toTypedArray() as Float32Array,
      toImage: text.indexSelect(0, rows).matmul(embeddings.t()).toTypedArray() as Float32Array,
    }
  })
  const N = samples.length
  const searches = queries.map((query, k) => {
    const own = (all: Float32Array) => all.subarray(k * N, (k + 1) * N)
    const order = (all: Float32Array) => Array.from({ length: N }, (_, row) => row).sort((a, b) => all[b]! - all[a]!)
    const isHit = (row: number) => captions[row] === captions[query]
    const [toText, toImage] = [own(cosines.toText), own(cosines.toImage)]
    // equal captions are one answer
    const told = new Set<string>()
    const texts = order(toText).filter((row) => !told.has(captions[row]!) && told.add(captions[row]!))
    const images = order(toImage)
    return { query, isHit, toText, toImage, texts, images }
  })
  const shown = [...new Set(searches.flatMap(({ query, images }) => [query, ...images.slice(0, FOUND)]))]
  const loaded = await read?.(shown.map((row) => samples[row]!))
  const imageOf = (row: number) => loaded?.[shown.indexOf(row)] ?? null
  return searches.flatMap(({ query, isHit, toText, toImage, texts, images }): RetrievalExample[] => [
    {
      direction: 'image-to-text',
      image: imageOf(query),
      caption: captions[query]!,
      rank: rankOf(toText, isHit),
      found: texts.slice(0, FOUND).map((row) => ({ caption: captions[row]!, score: toText[row]!, hit: isHit(row) })),
    },
    {
      direction: 'text-to-image',
      caption: captions[query]!,
      rank: rankOf(toImage, isHit),
      found: images
        .slice(0, FOUND)
        .map((row) => ({ image: imageOf(row), caption: captions[row]!, score: toImage[row]!, hit: isHit(row) })),
    },
  ])
}

/** Of the best row that is right, from 1, as retrievalRanks() counts: what scores the same and is wrong comes before. */
function rankOf(cosines: Float32Array, isHit: (row: number) => boolean): number {
  const best = cosines.reduce(
    (most, value, row) => (isHit(row) ? Math.max(most, value) : most),
    Number.NEGATIVE_INFINITY,
  )
  return 1 + cosines.reduce((count, value, row) => count + Number(value >= best && !isHit(row)), 0)
}

function firstOfEach(captions: readonly string[]): number[] {
  const seen = new Map<string, number>()
  for (const [row, caption] of captions.entries()) if (!seen.has(caption)) seen.set(caption, row)
  return [...seen.values()]
}
