import { TextTower } from '../../clip/text-tower.js'
import { imageFeature } from '../../clip/two-tower.js'
import { type DatasetSpec, openDataset, Random } from '../../data/index.js'
import { type JsonObject, planText, type TextEncoder, TextTokenizer } from '../../models/index.js'
import * as torch from '../../torch/index.js'
import { CaptionTokens } from '../caption-tokens.js'
import type { FullPretrainOptions } from '../options/index.js'
import { applyFreezing } from '../parameter-groups.js'
import { seeded } from '../random-stream.js'
import { configOf, freezeUnused, imageTower, textTower, tokenizerPlace } from '../towers.js'
import { along, type Figures, type ProbeOptions, probe } from './probe.js'

/*
 * The memory of a training step before there is one: both towers are measured on the CPU with two and three of their layers,
 * a few images, and the texts that a batch has (see probe.ts), and what a run keeps beside them is counted.
 */

/** Bytes, at the step's peak. */
export interface StepMemory {
  readonly weights: number
  readonly optimizer: number
  /** Moving averages of what trains. */
  readonly averages: number
  readonly gradients: number
  /** Copies of weights in the precision that is computed in, and the like. */
  readonly caches: number
  /** What images and texts leave for the way back, and what a layer works with. */
  readonly activations: number
  /** Of the step, and those that are made ready ahead. */
  readonly batches: number
  readonly total: number
}

/** How a batch goes through. */
export interface Shape {
  readonly batchSize: number
  readonly microBatch: number
  readonly checkpointing: boolean
}

export interface Suggestion extends Shape {
  readonly total: number
  readonly why: string
}

export interface Plan {
  /** Whose kernels were planned with. */
  readonly device: 'cpu' | 'cuda'
  readonly shape: Shape
  /** Of the texts of a step: tokens that the language model computes. */
  readonly tokens: number
  readonly memory: StepMemory
  /** What the device has, where that is known. */
  readonly available: number | null
  readonly fits: boolean | null
  readonly suggestions: readonly Suggestion[]
  /** What was assumed. */
  readonly notes: readonly string[]
}

/** The figures of both towers by size: of images, and of texts. */
export interface Measured {
  image(images: number, checkpointing: boolean): Figures
  text(batchSize: number): Figures
  tokens(batchSize: number): number
}

/** The part that has to stay free: the allocator's rounding, kernels' workspaces. */
const MARGIN = 0.92
const LAYERS = [2, 3] as const
const IMAGES = [4, 8] as const
/** Tokens that are computed for a measurement at most; more are extrapolated. */
const TOKENS = 1200
/** Batches that are on the device at a time: the one in use, and the next one. */
const LOADED = 2

export interface PlanOptions {
  /** Bytes that the device has. */
  readonly available: number | null
  readonly device: 'cpu' | 'cuda'
}

/** Plans a pre-training step. */
export async function planPretraining(options: FullPretrainOptions, { available, device }: PlanOptions): Promise<Plan> {
  const notes: string[] = []
  const captions = await captionsOf(options, notes)
  const measured = await measure(options, device, captions, notes)
  const { batchSize, microBatch = batchSize } = options
  const shape = { batchSize, microBatch: Math.min(microBatch, batchSize), checkpointing: options.image.checkpointing }
  const memory = stepMemory(measured, options, shape)
  return {
    device,
    shape,
    tokens: Math.round(measured.tokens(batchSize)),
    memory,
    available,
    fits: available === null ? null : memory.total <= available * MARGIN,
    suggestions: available === null ? [] : suggest(measured, options, shape, available * MARGIN),
    notes,
  }
}

/** What a step takes in some shape. */
export function stepMemory(measured: Measured, options: FullPretrainOptions, shape: Shape): StepMemory {
  const { batchSize, microBatch, checkpointing } = shape
  const { optimizer, ema, imageSize } = options
  const [image, text] = [measured.image(microBatch, checkpointing), measured.text(batchSize)]
  const gradients = image.trainable + text.trainable
  const isSplit = microBatch < batchSize
  const scores = 6 * batchSize * batchSize * 4
  // the text goes back first; the images of an unsplit batch wait meanwhile
  const begin = [
    { activations: (isSplit ? 0 : image.kept) + text.peak + scores, gradients: 0 },
    { activations: image.peak, gradients: isSplit ? gradients : text.trainable },
    // the end of the backward: all gradients, and little more than a layer's work
    { activations: Math.max(image.peak - image.kept, 0), gradients },
  ]
  const most = begin.reduce((a, b) => (b.activations + b.gradients > a.activations + a.gradients ? b : a))
  const states = optimizer.type === 'adamw' ? 2 : optimizer.momentum > 0 ? 1 : 0
  const parts = {
    weights: image.trainable + image.frozen + text.trainable + text.frozen,
    optimizer: states * gradients,
    averages: ema === null ? 0 : gradients,
    gradients: most.gradients,
    caches: image.caches + text.caches,
    activations: most.activations,
    batches: LOADED * batchSize * 3 * imageSize ** 2 * 4,
  }
  return { ...parts, total: Object.values(parts).reduce((sum, bytes) => sum + bytes, 0) }
}

/** The largest of ascending sizes for which something holds, where it holds for all below; 0 for none. */
function largest(limit: number, fits: (size: number) => boolean): number {
  let [low, high] = [0, 1]
  while (high <= limit && fits(high)) [low, high] = [high, high * 2]
  high = Math.min(high, limit + 1)
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (fits(middle)) low = middle
    else high = middle
  }
  return low
}

function suggest(measured: Measured, options: FullPretrainOptions, given: Shape, available: number): Suggestion[] {
  const total = (shape: Shape) => stepMemory(measured, options, shape).total
  const found: Suggestion[] = []
  const add = (shape: Shape, why: string) => {
    if (shape.batchSize > 0 && shape.microBatch > 0) found.push({ ...shape, total: total(shape), why })
  }
  const whole = (checkpointing: boolean) =>
    largest(8192, (batchSize) => total({ batchSize, microBatch: batchSize, checkpointing }) <= available)
  const plain = whole(false)
  add({ batchSize: plain, microBatch: plain, checkpointing: false }, 'the largest batch in one piece')
  const again = whole(true)
  add(
    { batchSize: again, microBatch: again, checkpointing: true },
    'the largest with image.checkpointing, a third slower',
  )
  if (plain >= given.batchSize) return found
  for (const checkpointing of [false, true]) {
    const limit = largest(
      given.batchSize - 1,
      (each) => total({ batchSize: given.batchSize, microBatch: each, checkpointing }) <= available,
    )
    if (limit === 0) continue
    // parts of one size
    const microBatch = Math.ceil(given.batchSize / Math.ceil(given.batchSize / limit))
    const how = checkpointing ? ' with image.checkpointing' : ''
    add({ ...given, microBatch, checkpointing }, `the batch as it is, accumulated in parts (microBatch)${how}`)
    break
  }
  return found
}

/** Captions as a step might draw them. */
async function captionsOf({ data, maxProblems }: FullPretrainOptions, notes: string[]): Promise<string[]> {
  try {
    const dataset = await openDataset({ maxProblems, ...data } as unknown as DatasetSpec)
    return dataset.samples.map(({ caption }) => caption ?? '')
  } catch (error) {
    notes.push(
      `captions: the data could not be read (${error instanceof Error ? error.message.split('\n')[0] : error}); all captions are assumed to differ, with 14 words each`,
    )
    const random = new Random(0)
    const word = () => `w${random.integer(200)}`
    return Array.from({ length: 8192 }, () => Array.from({ length: 14 }, word).join(' '))
  }
}

type Encode = (captions: readonly string[]) => Promise<(readonly number[])[]>

/** Captions to token ids; where the tokenizer is not here, a token a word. */
async function encoder(
  { text }: FullPretrainOptions,
  model: TextTower,
  notes: string[],
): Promise<{ encode: Encode; padToken: number }> {
  const place = text.tokenizer ?? (typeof text.model === 'string' ? text.model : null)
  const limit = model.encoding.maximumLength!
  try {
    if (place === null) throw new Error('the model is a configuration, and text.tokenizer is not given')
    const tokenizer = TextTokenizer.open(await tokenizerPlace(place))
    const tokens = new CaptionTokens(tokenizer, limit)
    return { encode: (captions) => tokens.encode(captions), padToken: tokenizer.padToken }
  } catch (error) {
    notes.push(
      `tokens: the tokenizer is not here (${error instanceof Error ? error.message.split('\n')[0] : error}); a token for each word is assumed`,
    )
    const known = new Map<string, number>()
    const idOf = (word: string) => {
      if (!known.has(word)) known.set(word, 1 + (known.size % ((model.text as TextEncoder).vocabularySize - 1)))
      return known.get(word)!
    }
    const encode: Encode = async (captions) =>
      captions.map((caption) => caption.split(/\s+/).filter(Boolean).slice(0, limit).map(idOf))
    return { encode, padToken: 0 }
  }
}

/** A configuration with fewer layers; as it is where they are not all alike, or few. */
function withLayers(config: JsonObject, layers: number, limit?: number): { config: JsonObject; full: number | null } {
  const key = ['num_hidden_layers', 'n_layer'].find((each) => typeof config[each] === 'number')
  if (key === undefined) return { config, full: null }
  const own = Math.min(config[key] as number, limit ?? Number.POSITIVE_INFINITY)
  if (own <= LAYERS[1]) return { config: { ...config, [key]: own }, full: null }
  return { config: { ...config, [key]: layers }, full: own }
}

/** Both towers with few layers, as a run would make them. */
async function smallModel(options: FullPretrainOptions, layers: number) {
  // patterns of names may name layers that a smaller model lacks
  const isWhole = options.freeze.length + options.unfreeze.length > 0
  const [imageConfig, textConfig] = [options.image, options.text].map(configOf)
  const image = withLayers(JSON.parse(await imageConfig!) as JsonObject, isWhole ? 1e9 : layers)
  const text = withLayers(JSON.parse(await textConfig!) as JsonObject, isWhole ? 1e9 : layers, options.text.layers)
  const small: FullPretrainOptions = {
    ...options,
    image: { ...options.image, model: isWhole ? JSON.parse(await imageConfig!) : image.config, pretrained: false },
    text: {
      ...options.text,
      model: isWhole ? JSON.parse(await textConfig!) : text.config,
      pretrained: false,
      layers: isWhole ? options.text.layers : undefined,
    },
  }
  const [imageModel, textModel] = [await imageTower(small, 'cpu'), await textTower(small, 'cpu')]
  const model = torch.nn.construct({ device: 'cpu' }, () =>
    torch.scope(
      () =>
        new TextTower({
          image: imageModel,
          text: textModel,
          embeddingWidth: options.embeddingWidth,
          imagePooling: options.image.pooling,
          imageProjection: options.image.projection,
          textProjection: options.text.projection,
          pooling: options.text.pooling,
          maximumLength: options.text.maximumLength,
          execution: options.text.execution,
        }),
    ),
  )
  freezeUnused(model)
  applyFreezing(model, options)
  model.train()
  return { model, image: isWhole ? null : image.full, text: isWhole ? null : text.full }
}

/** Images' figures at both numbers of images, with and without checkpointing. */
type ImageFigures = Readonly<Record<'plain' | 'checkpointed', readonly [Figures, Figures]>>

interface Measurement {
  readonly image: ImageFigures
  /** At fewer and more texts. */
  readonly text: readonly [Figures, Figures]
}

async function measure(
  options: FullPretrainOptions,
  device: PlanOptions['device'],
  captions: readonly string[],
  notes: string[],
): Promise<Measured> {
  const given = { precision: options.precision, device }
  const found: Measurement[] = []
  let imageLayers: number | null = null
  let textLayers: number | null = null
  let texts: TextProbes | null = null
  for (const layers of LAYERS) {
    const { model, image, text } = await seeded(0, () => smallModel(options, layers))
    ;[imageLayers, textLayers] = [image, text]
    texts ??= await textProbes(options, model, captions, notes)
    model.encoding.padToken = texts.padToken
    found.push({
      image: measureImages(model, options.imageSize, given),
      text: [measureText(model, texts.few, given), measureText(model, texts.more, given)],
    })
    model.dispose()
    if (image === null && text === null) break
  }
  const first = found[0]!
  const last = found.at(-1)!
  const deep = (layers: number | null, few: Figures, more: Figures) =>
    layers === null ? few : along(LAYERS[0], few, LAYERS[1], more, layers)
  const { tokensOf, few, more } = texts!
  return {
    image(images, checkpointing) {
      const key = checkpointing ? 'checkpointed' : 'plain'
      const at = (index: 0 | 1) => deep(imageLayers, first.image[key][index], last.image[key][index])
      return along(IMAGES[0], at(0), IMAGES[1], at(1), images)
    },
    text(batchSize) {
      const at = (index: 0 | 1) => deep(textLayers, first.text[index], last.text[index])
      return along(few.tokens, at(0), more.tokens, at(1), tokensOf(batchSize))
    },
    tokens: tokensOf,
  }
}

function measureImages(model: TextTower, imageSize: number, given: ProbeOptions): ImageFigures {
  const at = (images: number) =>
    torch.scope(() => {
      const pixels = torch.zeros([images, model.image.channels, imageSize, imageSize])
      return probe([model.image, model.image_projection], given, () =>
        model.projectImage(imageFeature(model.image, pixels, model.imagePooling, { generator: new torch.Generator() })),
      )
    })
  const both = (checkpointing: boolean): [Figures, Figures] => {
    model.image.checkpointing = checkpointing
    return [at(IMAGES[0]), at(IMAGES[1])]
  }
  return { plain: both(false), checkpointed: both(true) }
}

interface TextProbe {
  readonly ids: (readonly number[])[]
  readonly tokens: number
}

interface TextProbes {
  readonly few: TextProbe
  readonly more: TextProbe
  readonly tokensOf: (batchSize: number) => number
  readonly padToken: number
}

/** Texts of a batch, and half of them, cut to what is measured in seconds; and how many tokens a batch of some size has. */
async function textProbes(
  options: FullPretrainOptions,
  model: TextTower,
  captions: readonly string[],
  notes: string[],
): Promise<TextProbes> {
  const { encode, padToken } = await encoder(options, model, notes)
  model.encoding.padToken = padToken
  const random = new Random(options.seed)
  const isCorpus = options.negatives === 'corpus'
  const pool = isCorpus ? [...new Set(captions)] : captions
  const drawn = Array.from({ length: isCorpus ? pool.length : 8192 }, (_, index) =>
    isCorpus ? pool[index]! : (pool[random.integer(pool.length)] ?? ''),
  )
  const ids = await encode(drawn)
  const count = (texts: number): number => {
    const plan = planText(model.text as TextEncoder, ids.slice(0, texts), model.encoding)
    return plan.rows * plan.length
  }
  let texts = isCorpus ? ids.length : Math.min(options.batchSize, ids.length)
  while (texts > 2 && count(texts) > TOKENS) texts >>= 1
  const half = Math.max(1, texts >> 1)
  const counts = new Map<number, number>()
  const tokensOf = (batchSize: number): number => {
    const size = isCorpus ? ids.length : Math.min(batchSize, ids.length)
    if (!counts.has(size)) counts.set(size, count(size))
    return counts.get(size)!
  }
  return {
    few: { ids: ids.slice(0, half), tokens: count(half) },
    more: { ids: ids.slice(0, texts), tokens: count(texts) },
    tokensOf,
    padToken,
  }
}

function measureText(model: TextTower, { ids }: TextProbe, given: ProbeOptions): Figures {
  return torch.scope(() => probe([model.text!, model.text_projection], given, () => model.encodeText(ids)))
}
