import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { z } from 'zod'
import { ImageEncoder } from '../models/image/index.js'
import {
  configText,
  exactJson,
  fromSource,
  jsonText,
  type Logger,
  loadWeights,
  openWeights,
  type PretrainedOptions,
  pretrainedFolder,
  readJsonObject,
  selectSource,
  type WeightSource,
  writeJson,
} from '../models/index.js'
import type { TextEncoder } from '../models/text/index.js'
import { AdaptedModel, adapt, adapterJson, adapterState, loadAdapterState, readAdapterConfig } from '../peft/index.js'
import * as torch from '../torch/index.js'
import { TextTower } from './text-tower.js'

/*
 * Our model folder: config.json says what the model is, trainable.safetensors has everything of it but the frozen language
 * model, which is named and fingerprinted.
 */

const projection = z.object({ kind: z.enum(['linear', 'mlp']), hiddenWidth: z.number().int().positive().optional() })
const towerConfig = z.record(z.string(), z.unknown()).readonly()

/** What any model folder says of its image encoder. */
export const imageModel = z.object({
  /** What config.json of the image encoder says. */
  config: towerConfig,
  pooling: z.enum(['mean-prenorm', 'cls', 'mean-patches', 'pooled']),
  /** What images become before the encoder: src/data/augment. */
  input: z
    .object({
      size: z.number().int().positive(),
      resize: z.enum(['published', 'crop', 'whole']),
      oversample: z.number().int().positive().default(1),
    })
    .default({ size: 224, resize: 'published', oversample: 1 }),
})

const modelConfig = z.object({
  format: z.literal('cleft-model'),
  version: z.literal(1),
  embeddingWidth: z.number().int().positive(),
  image: imageModel.extend({ projection }),
  text: z.object({
    config: towerConfig,
    /**
     * The frozen language model: a preset, a repository of the hub, or a folder (relative to this one, or absolute). Null
     * where it was trained as a whole, and is in trainable.safetensors.
     */
    weights: z.object({ name: z.string(), fingerprint: z.string() }).nullable(),
    /** adapter_config.json by adapter, as peft has it. */
    adapters: z.record(z.string(), z.record(z.string(), z.unknown())),
    active: z.array(z.string()),
    pooling: z.enum(['first-pad', 'last-token', 'cls', 'mean']),
    padToken: z.number().int().nonnegative(),
    maximumLength: z.number().int().positive(),
    projection,
  }),
})

export type ModelConfig = z.infer<typeof modelConfig>
/** The side of the square in pixels, and how images come to it. */
export type ImageInput = ModelConfig['image']['input']

export const MODEL_CONFIG = 'config.json'
export const TRAINABLE = 'trainable.safetensors'
export const TOKENIZER = 'tokenizer.json'
const adapterPrefix = (name: string) => `text_adapters.${name}.`

/** Whether a folder is a model of ours. */
export function isModelFolder(folder: string): boolean {
  const path = join(folder, MODEL_CONFIG)
  return existsSync(path) && existsSync(join(folder, TRAINABLE)) && readJsonObject(path).format === 'cleft-model'
}

/**
 * SHA-256 over names, shapes and 64 values of each tensor, spread evenly: tells models apart at the cost of a few pages
 * a tensor, whatever the size.
 */
export function fingerprint(source: WeightSource): string {
  const hash = createHash('sha256')
  for (const name of [...source.names].sort()) {
    torch.scope(() => {
      const flat = source.tensor(name).detach().flatten()
      const count = Math.min(64, flat.numel())
      const at = Array.from({ length: count }, (_, k) => Math.floor((k * flat.numel()) / count))
      hash.update(JSON.stringify([name, source.shape?.(name) ?? source.tensor(name).shape]))
      if (count > 0) {
        const values = flat.indexSelect(0, torch.tensor(at, { dtype: 'int64' })).to('float32')
        hash.update(new Uint8Array((values.toTypedArray() as Float32Array).buffer))
      }
    })
  }
  return hash.digest('hex')
}

export interface SaveModelOptions {
  /** The text of each tower's config.json. */
  imageConfig: string
  textConfig: string
  /** Where the frozen language model is: a preset, the hub's name, or a folder. Null: it trains, and is saved too. */
  textWeights: { name: string; fingerprint: string } | null
  /** Default: 224, 'published'. */
  input?: ImageInput
  /** The text of tokenizer.json, to be written beside the model. Default: none. */
  tokenizer?: string
  /** What is saved in place of the model's own tensors, by their names: of those that it has in a lower precision. Default: none. */
  masters?: ReadonlyMap<string, torch.Tensor>
}

/** Writes config.json and trainable.safetensors, each beside and then renamed. */
export function saveModel(folder: string, model: TextTower, options: SaveModelOptions): void {
  const { text } = model
  if (text === null) throw new TypeError('saveModel: expected a model with a language model, but it has none')
  const adapted = text instanceof AdaptedModel ? text : null
  if (adapted !== null && options.textWeights === null) {
    throw new TypeError('saveModel: expected to be told where the language model below the adapters is, but was not')
  }
  const adapters = [...(adapted?.adapters.keys() ?? [])]
  const { pool, padToken = 0, maximumLength } = model.encoding
  const config: ModelConfig = {
    format: 'cleft-model',
    version: 1,
    embeddingWidth: model.embeddingWidth,
    image: {
      input: options.input ?? { size: 224, resize: 'published', oversample: 1 },
      config: exactJson(options.imageConfig),
      pooling: model.imagePooling,
      projection: model.imageProjectionOptions,
    },
    text: {
      config: exactJson(options.textConfig),
      weights: options.textWeights,
      adapters: Object.fromEntries(adapters.map((name) => [name, { ...adapterJson(text, name) }])),
      active: [...(adapted?.active ?? [])],
      pooling: pool,
      padToken,
      maximumLength: maximumLength ?? (text as TextEncoder).maximumPositions,
      projection: model.textProjectionOptions,
    },
  }
  mkdirSync(folder, { recursive: true })
  torch.scope(() => {
    const state = new Map<string, torch.Tensor>()
    const isSaved = savedNames(model, options)
    for (const [name, tensor] of model.stateDict()) {
      if (isSaved(name)) state.set(name, options.masters?.get(name) ?? tensor)
    }
    for (const name of adapters) {
      for (const [key, tensor] of adapterState(text, name)) state.set(adapterPrefix(name) + key, tensor)
    }
    torch.saveSafetensors(state, join(folder, TRAINABLE))
  })
  if (options.tokenizer !== undefined) writeFileSync(join(folder, TOKENIZER), options.tokenizer)
  writeJson(join(folder, MODEL_CONFIG), config)
}

/** Which of the model's tensors a folder has under their own names: all, but for the language model that is frozen. */
export function savedNames(
  model: TextTower,
  { textWeights }: Pick<SaveModelOptions, 'textWeights'>,
): (name: string) => boolean {
  const isWhole = !(model.text instanceof AdaptedModel) && textWeights === null
  const trained = ownTextParameters(model)
  return (name) => !name.startsWith('text.') || isWhole || trained.has(name)
}

/** Of the adapters on the language model. */
export function adapterTensors({ text }: TextTower): Set<torch.Tensor> {
  const adapters = new Set<torch.Tensor>()
  if (!(text instanceof AdaptedModel)) return adapters
  for (const name of text.adapters.keys()) {
    for (const parameter of text.adapterParameters(name).values()) adapters.add(parameter)
    // of a prefix that is made by a projection more trains than is kept
    if (text.prompt_encoder.has(name)) {
      for (const parameter of text.prompt_encoder.get(name).parameters()) adapters.add(parameter)
    }
  }
  return adapters
}

/** Names of the language model's own parameters that trained or train, beside its adapters. */
function ownTextParameters(model: TextTower): Set<string> {
  const { trainedText } = model
  const adapters = adapterTensors(model)
  const trains = model
    .namedParameters()
    .filter(([name, each]) => name.startsWith('text.') && each.requiresGrad && !adapters.has(each))
  return new Set([...trainedText, ...trains.map(([name]) => name)])
}

/** What a model folder says of itself: to write the model again. */
export function readModelFiles(folder: string): SaveModelOptions {
  const { image, text } = exactJson(configText(folder)) as { image: { config: unknown }; text: { config: unknown } }
  const own = readModelConfig(folder)
  const tokenizer = join(folder, TOKENIZER)
  return {
    imageConfig: jsonText(image.config),
    textConfig: jsonText(text.config),
    textWeights: own.text.weights,
    input: own.image.input,
    ...(existsSync(tokenizer) ? { tokenizer: readFileSync(tokenizer, 'utf8') } : {}),
  }
}

/** What config.json of a model folder says. @throws TypeError where it is none of ours */
export function readModelConfig(folder: string): ModelConfig {
  const path = join(folder, MODEL_CONFIG)
  const parsed = modelConfig.safeParse(readJsonObject(path))
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new TypeError(
    `expected '${path}' to describe a cleft model, but at ${issue?.path.join('.') || 'its top'}: ${issue?.message}; is this a model folder of ours?`,
  )
}

export interface LoadModelOptions extends Pick<PretrainedOptions, 'device' | 'dtype' | 'ownDropout'> {
  /** The frozen language model, where it is no longer at the place that the folder names. */
  textFolder?: string
  /** Whether what is not frozen takes gradients. Default: false. */
  trainable?: boolean
  logger?: Logger
}

/**
 * Reads a model folder, and the frozen language model that it names.
 *
 * @throws where the language model is another than the one that the model was trained with
 */
export async function loadModel(folder: string, options: LoadModelOptions = {}): Promise<TextTower> {
  const path = join(folder, MODEL_CONFIG)
  const config = readModelConfig(folder)
  const { trainable = false } = options
  const source = await openWeights(join(folder, TRAINABLE))
  try {
    const image = await fromSource(config.image.config, under(source, 'image.'), options)
    if (!(image instanceof ImageEncoder)) {
      throw new TypeError(`${path}: expected an image encoder, but it is a ${image.constructor.name}`)
    }
    // what never trains (DINOv2's mask token) stays so
    if (!trainable) image.requiresGrad_(false)
    const text = await languageModel(folder, config, source, options)
    return torch.scope(() => {
      for (const [name, json] of Object.entries(config.text.adapters)) {
        const own = under(source, adapterPrefix(name))
        const state = new Map(own.names.map((each) => [each, own.tensor(each)]))
        const { config: adapter } = readAdapterConfig(json as never, path, (line) => options.logger?.warn(line))
        loadAdapterState(text, adapter, state, { name, trainable })
      }
      const { active, pooling, padToken, maximumLength } = config.text
      const adapted = active.length === 0 ? text : adapt(text).setAdapter(active, { trainable })
      const model = new TextTower({
        image,
        text: adapted,
        embeddingWidth: config.embeddingWidth,
        imagePooling: config.image.pooling,
        imageProjection: config.image.projection,
        textProjection: config.text.projection,
        pooling,
        padToken,
        maximumLength,
      })
      for (const part of ['image_projection', 'text_projection'] as const) {
        loadWeights(model[part], under(source, `${part}.`), options)
      }
      torch.noGrad(() => model.logit_scale.copy_(source.tensor('logit_scale')))
      if (config.text.weights !== null) loadTrainedText(model, source, path)
      return model.trainProjections(trainable).eval()
    })
  } finally {
    source.close?.()
  }
}

/** Of a frozen language model what was trained of it. */
function loadTrainedText(model: TextTower, source: WeightSource, path: string): void {
  const parameters = new Map(model.namedParameters())
  for (const name of source.names.filter((each) => each.startsWith('text.'))) {
    const [own, saved] = [parameters.get(name), source.tensor(name)]
    if (own === undefined || own.shape.join() !== saved.shape.join()) {
      throw new TypeError(`${path}: expected a language model with ${name} [${saved.shape}], but it has none such`)
    }
    torch.noGrad(() => own.copy_(saved))
    model.trainedText.add(name)
  }
}

async function languageModel(
  folder: string,
  { text }: ModelConfig,
  own: WeightSource,
  options: LoadModelOptions,
): Promise<TextEncoder> {
  if (text.weights === null) {
    const whole = await fromSource(text.config, under(own, 'text.'), options)
    return whole.requiresGrad_(options.trainable ?? false) as unknown as TextEncoder
  }
  const { name, fingerprint: wanted } = text.weights
  const beside = join(folder, name)
  const place = options.textFolder ?? (!isAbsolute(name) && existsSync(beside) ? beside : name)
  const source = await openWeights(await pretrainedFolder(place))
  try {
    const found = fingerprint(source)
    if (found !== wanted) {
      throw new RangeError(
        `expected the language model that '${folder}' was trained with (fingerprint ${wanted.slice(0, 12)}), but '${place}' is another one (${found.slice(0, 12)}); give its folder by textFolder`,
      )
    }
    return (await fromSource(text.config, source, { ...options, frozen: true })) as unknown as TextEncoder
  } finally {
    source.close?.()
  }
}

/** The tensors whose names begin so, without it. */
export function under(source: WeightSource, prefix: string): WeightSource {
  const own = source.names.filter((name) => name.startsWith(prefix))
  return selectSource(source, new Map(own.map((name) => [name.slice(prefix.length), name])))
}
