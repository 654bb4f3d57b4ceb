import type { TextTower } from '../../clip/text-tower.js'
import { type ImagePooling, imageFeature } from '../../clip/two-tower.js'
import { type ImageEncoder, type JsonObject, planText, type TextEncoder } from '../../models/index.js'
import * as torch from '../../torch/index.js'
import { seeded } from '../random-stream.js'
import { along, type Figures, type ProbeOptions, probe } from './probe.js'

/*
 * Both towers of a model with two and with three of their layers, at two numbers of images and of texts: what the plan of any
 * stage is made of.
 */

/** The figures of both towers by size: of images, and of texts. */
export interface Measured {
  image(images: number, checkpointing: boolean): Figures
  text(batchSize: number): Figures
  tokens(batchSize: number): number
  /** Of the scores and what their loss makes of them. */
  scores(batchSize: number): number
  /** Of the batch itself. */
  batch(batchSize: number): number
  /** At the peak before the first step, where features are computed once; else null. */
  readonly features: number | null
}

export const LAYERS = [2, 3] as const
export const IMAGES = [4, 8] as const
/** Tokens that are computed for a measurement at most; more are extrapolated. */
const TOKENS = 1200

/** A configuration with fewer layers; as it is where they are not all alike, or few. */
export function withLayers(
  config: JsonObject,
  layers: number,
  limit?: number,
): { config: JsonObject; full: number | null } {
  const key = ['num_hidden_layers', 'n_layer'].find((each) => typeof config[each] === 'number')
  if (key === undefined) return { config, full: null }
  const own = Math.min(config[key] as number, limit ?? Number.POSITIVE_INFINITY)
  if (own <= LAYERS[1]) return { config: { ...config, [key]: own }, full: null }
  return { config: { ...config, [key]: layers }, full: own }
}

/** A model with few layers, and how many the whole one has; null: it has all of them. */
export interface SmallModel<Model> {
  readonly model: Model
  readonly image: number | null
  readonly text: number | null
  /** Bytes that its frozen weights have beside themselves on a CPU: see lowerFrozen. */
  readonly masters?: number
}

/**
 * Measures models with few layers, and gives what a whole one has. The models stay until that is disposed of: how many
 * tokens texts are is asked of them.
 *
 * @param of figures by name: of a part of the model that has as many layers as the image encoder, or the language model
 */
export async function measureLayers<Model extends torch.nn.Module, Name extends string>(
  small: (layers: number) => Promise<SmallModel<Model>>,
  of: (small: SmallModel<Model>) => Promise<Readonly<Record<Name, readonly ['image' | 'text', Figures]>>>,
): Promise<Readonly<Record<Name, Figures>> & Disposable> {
  const models: Model[] = []
  const free = () => {
    for (const model of models) model.dispose()
  }
  const found: Readonly<Record<Name, readonly ['image' | 'text', Figures]>>[] = []
  let whole: { image: number | null; text: number | null } = { image: null, text: null }
  for (const layers of LAYERS) {
    const made = await seeded(0, () => small(layers))
    models.push(made.model)
    found.push(await of(made))
    whole = made
    if (whole.image === null && whole.text === null) break
  }
  const [first, last] = [found[0]!, found.at(-1)!]
  const names = Object.keys(first) as Name[]
  const figures = Object.fromEntries(
    names.map((name) => {
      const [tower, few] = first[name]
      const layers = whole[tower]
      return [name, layers === null ? few : along(LAYERS[0], few, LAYERS[1], last[name][1], layers)]
    }),
  ) as Record<Name, Figures>
  return { ...figures, [Symbol.dispose]: free }
}

export const NO_FIGURES: Figures = { trainable: 0, frozen: 0, caches: 0, kept: 0, peak: 0 }

/** Figures at a size, of those at two. */
export const between =
  (from: number, a: Figures, to: number, b: Figures) =>
  (at: number): Figures =>
    along(from, a, to, b, at)

/** Figures at both numbers of images, without checkpointing and with it. */
export const withCheckpointing = <Found>(at: (images: number, checkpointing: boolean) => Found) => ({
  few: at(IMAGES[0], false),
  more: at(IMAGES[1], false),
  fewAgain: at(IMAGES[0], true),
  moreAgain: at(IMAGES[1], true),
})

/** Figures by the number of images, of what {@link withCheckpointing} measured. */
export function imageFigures(
  found: Readonly<Record<keyof ReturnType<typeof withCheckpointing>, Figures>>,
): Measured['image'] {
  const plain = between(IMAGES[0], found.few, IMAGES[1], found.more)
  const again = between(IMAGES[0], found.fewAgain, IMAGES[1], found.moreAgain)
  return (images, checkpointing) => (checkpointing ? again : plain)(images)
}

/** Of images on their way to a feature, by their number. */
export function probeImages(
  model: torch.nn.Module & { image: ImageEncoder },
  {
    pooling,
    imageSize,
    images,
    parts,
    finish,
  }: {
    readonly pooling: ImagePooling
    readonly imageSize: number
    readonly images: number
    /** Modules beside the encoder whose weights count too. */
    readonly parts: readonly torch.nn.Module[]
    readonly finish: (feature: torch.Tensor) => torch.Tensor
  },
  given: ProbeOptions,
): Figures {
  return torch.scope(() => {
    const pixels = torch.zeros([images, model.image.channels, imageSize, imageSize])
    return probe([model.image, ...parts], given, () =>
      finish(imageFeature(model.image, pixels, pooling, { generator: new torch.Generator() })),
    )
  })
}

export interface TextProbes {
  /** Of a batch, cut to what is measured in seconds, and half of it. */
  readonly few: { readonly ids: (readonly number[])[]; readonly tokens: number }
  readonly more: { readonly ids: (readonly number[])[]; readonly tokens: number }
  /** Tokens that are computed for a batch of some size. */
  readonly tokensOf: (batchSize: number) => number
}

/** @param textsOf the texts of a batch of some size */
export function textProbes(
  model: TextTower,
  batchSize: number,
  textsOf: (batchSize: number) => (readonly number[])[],
): TextProbes {
  const count = (ids: (readonly number[])[]): number => {
    const plan = planText(model.text as TextEncoder, ids, model.encoding)
    return plan.rows * plan.length
  }
  let ids = textsOf(batchSize)
  while (ids.length > 2 && count(ids) > TOKENS) ids = ids.slice(0, ids.length >> 1)
  const half = ids.slice(0, Math.max(1, ids.length >> 1))
  const counts = new Map<number, number>()
  return {
    few: { ids: half, tokens: count(half) },
    more: { ids, tokens: count(ids) },
    tokensOf(size) {
      if (!counts.has(size)) counts.set(size, count(textsOf(size)))
      return counts.get(size)!
    },
  }
}

/** Of texts on their way to an embedding. */
export function probeTexts(model: TextTower, ids: (readonly number[])[], given: ProbeOptions): Figures {
  return torch.scope(() => probe([model.text!, model.text_projection], given, () => model.encodeText(ids)))
}
