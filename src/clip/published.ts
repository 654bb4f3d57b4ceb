import { ImageEncoder } from '../models/image/index.js'
import {
  configText,
  findPreset,
  fromSource,
  type JsonObject,
  type Logger,
  listPresets,
  loadWeights,
  openWeights,
  selectSource,
  type WeightSource,
} from '../models/index.js'
import type { TextEncoder } from '../models/text/index.js'
import { type AdapterConfig, adapt, loadAdapterState, parseAdapterKey } from '../peft/index.js'
import * as torch from '../torch/index.js'
import type { ProjectionOptions } from './projection.js'
import { TextTower } from './text-tower.js'

/*
 * Checkpoints of the published code (github.com/XYPB/CLEFT): one PyTorch Lightning file with both towers in it, the whole
 * language model too. `img_encoder_q.model.*` has DINOv2's hub names, `text_encoder_q.model.*` the language model's with
 * peft's around them, `*.global_embed.*` are the projections, `logit_scale` the logarithm of the temperature.
 */

/** The parts of a published checkpoint, each under the names that its own library gives. Closed with the file. */
export interface PublishedParts {
  image: WeightSource
  /** The language model without adapters: transformers' names. */
  text: WeightSource
  /** Tensors of adapters by kind of adapter, under peft's names. */
  adapters: ReadonlyMap<'layers' | 'virtual', WeightSource>
  /** Of Linear or of {@link MlpProjection}. */
  imageProjection: WeightSource
  textProjection: WeightSource
  logScale: WeightSource
}

const imagePrefix = 'img_encoder_q.'
const textPrefix = 'text_encoder_q.'

export function isPublished(names: readonly string[]): boolean {
  return names.some((name) => name.startsWith(imagePrefix)) && names.some((name) => name.startsWith(textPrefix))
}

/** Without what peft put around a language model once or twice: `base_model.model.`, `base_model.`, `.base_layer`. */
function innerName(name: string): string {
  return name
    .replace(/^(base_model\.)+/, '')
    .replace(/^model\.(?=(transformer|model|bert|lm_head|base_model|embeddings|encoder|h|layers|wte|wpe|ln_f)\.)/, '')
    .replace(/^(base_model\.)+(model\.)?/, '')
    .replaceAll('.base_layer.', '.')
}

/** Takes a published checkpoint apart. @throws RangeError for tensors that have no place */
export function splitPublished(source: WeightSource): PublishedParts {
  const parts = {
    image: new Map<string, string>(),
    text: new Map<string, string>(),
    layers: new Map<string, string>(),
    virtual: new Map<string, string>(),
    imageProjection: new Map<string, string>(),
    textProjection: new Map<string, string>(),
    logScale: new Map<string, string>(),
  }
  const strangers: string[] = []
  for (const name of source.names) {
    const place = placeOf(name)
    if (place === null) continue
    if (place === undefined) strangers.push(name)
    else parts[place[0]].set(place[1], name)
  }
  if (strangers.length > 0) {
    throw new RangeError(
      `expected tensors of img_encoder_q, text_encoder_q and logit_scale, but ${source.path} also has ${strangers.slice(0, 5).join(', ')}${strangers.length > 5 ? ` and ${strangers.length - 5} more` : ''}; is it a checkpoint of the published CLEFT code?`,
    )
  }
  const select = (names: ReadonlyMap<string, string>) => selectSource(source, names)
  return {
    image: select(parts.image),
    text: select(parts.text),
    adapters: new Map(
      (['layers', 'virtual'] as const)
        .filter((kind) => parts[kind].size > 0)
        .map((kind) => [kind, select(parts[kind])]),
    ),
    imageProjection: select(parts.imageProjection),
    textProjection: select(parts.textProjection),
    logScale: select(parts.logScale),
  }
}

type Place = 'image' | 'text' | 'layers' | 'virtual' | 'imageProjection' | 'textProjection' | 'logScale'

/** Where a tensor belongs and its name there; null: left out; undefined: nobody knows. */
function placeOf(name: string): [Place, string] | null | undefined {
  if (name === 'logit_scale') return ['logScale', name]
  // the local embedding is not used by the method; the rest is the optimizer's
  if (/^(img|text)_encoder_q\.local_embed\./.test(name) || /^(optimizer_states|lr_schedulers|loops)\b/.test(name))
    return null
  const projection = /^(img|text)_encoder_q\.global_embed\.(.+)$/.exec(name)
  if (projection !== null) return [projection[1] === 'img' ? 'imageProjection' : 'textProjection', projection[2]!]
  if (name.startsWith(`${imagePrefix}model.`)) return ['image', name.slice(`${imagePrefix}model.`.length)]
  if (!name.startsWith(`${textPrefix}model.`)) return undefined
  const own = name.slice(`${textPrefix}model.`.length)
  const virtual = /^(?:base_model\.)*prompt_encoder\.[^.]+\.(.+)$/.exec(own)
  if (virtual !== null) return ['virtual', virtual[1]!]
  // a copy of the word embeddings that peft keeps; the ranks that AdaLoRA counts
  if (/^(base_model\.)*word_embeddings\.weight$/.test(own) || /\.ranknum(\.|$)/.test(own)) return null
  if (parseAdapterKey(own) !== null) return ['layers', own]
  return ['text', innerName(own)]
}

export interface PublishedOptions {
  /** The image encoder's preset, folder or config.json. Default: the preset whose tensors are the file's. */
  image?: string | JsonObject
  /** The language model's, likewise. */
  text?: string | JsonObject
  /** LoRA's and AdaLoRA's alpha, which the file does not say. Default: as published, 32 and 8. */
  alpha?: number
  /**
   * Most tokens of a text, which the file does not say. Default: 64, as published for chest X-rays; mammograms have 72, their
   * natural and structural captions 144.
   */
  maximumLength?: number
  /** Whether both towers take gradients as in pre-training: all of the image encoder, the adapters alone. Default: false. */
  trainable?: boolean
  /** Default: as in the file. */
  dtype?: torch.DType | 'auto'
  /** Default: the console. */
  logger?: Logger
}

/** A published model, put together. */
export interface PublishedModel {
  model: TextTower
  /** The text of each tower's config.json. */
  imageConfig: string
  textConfig: string
}

/**
 * Reads a checkpoint of the published code: pre-training and prompt stage, with each of its adapters, or none.
 *
 * The file does not say the number of heads, nor what adapters are scaled by: the presets and the published settings do
 * (LoRA alpha 32), or the options.
 *
 * @throws WeightsMismatchError where a tower's tensors are not the config's
 */
export async function loadPublished(path: string, options: PublishedOptions = {}): Promise<PublishedModel> {
  const source = await openWeights(path)
  try {
    if (!isPublished(source.names)) {
      throw new RangeError(
        `expected a checkpoint of the published CLEFT code, with img_encoder_q.* and text_encoder_q.*, but '${path}' has none; see: npx cleft inspect ${path}`,
      )
    }
    return await assemble(splitPublished(source), options)
  } finally {
    source.close?.()
  }
}

async function assemble(parts: PublishedParts, options: PublishedOptions): Promise<PublishedModel> {
  const { trainable = false, dtype = 'auto', logger } = options
  const imageConfig = await towerConfig('image', options.image, parts.image)
  const textConfig = await towerConfig('text', options.text, parts.text)
  const image = await fromSource(JSON.parse(imageConfig) as JsonObject, parts.image, { dtype, logger })
  if (!(image instanceof ImageEncoder)) {
    throw new TypeError(`expected an image encoder for 'image', but it is a ${image.constructor.name}`)
  }
  // what never trains (DINOv2's mask token) stays so
  if (!trainable) image.requiresGrad_(false)
  const plain = (await fromSource(JSON.parse(textConfig) as JsonObject, parts.text, {
    dtype,
    logger,
  })) as unknown as TextEncoder
  plain.requiresGrad_(false)
  const text = torch.scope(() => putAdapters(plain, parts, options))
  const projection = (from: WeightSource): ProjectionOptions =>
    from.has('head.0.weight') ? { kind: 'mlp', hiddenWidth: shapeOf(from, 'head.0.weight')[0] } : { kind: 'linear' }
  const embeddingWidth = shapeOf(parts.imageProjection, projectionEnd(parts.imageProjection))[0]!
  const model = new TextTower({
    image,
    text,
    embeddingWidth,
    imageProjection: projection(parts.imageProjection),
    textProjection: projection(parts.textProjection),
    maximumLength: options.maximumLength,
  })
  loadWeights(model.image_projection, parts.imageProjection)
  loadWeights(model.text_projection, parts.textProjection)
  torch.scope(() => torch.noGrad(() => model.logit_scale.copy_(parts.logScale.tensor('logit_scale'))))
  model.trainProjections(trainable).eval()
  return { model, imageConfig, textConfig }
}

const projectionEnd = (from: WeightSource): string => (from.has('head.3.weight') ? 'head.3.weight' : 'weight')
const shapeOf = (source: WeightSource, name: string): readonly number[] => source.shape?.(name) ?? []

/** What the tower is built from: as it was given, or the first preset that has just these tensors. */
async function towerConfig(
  kind: 'image' | 'text',
  given: string | JsonObject | undefined,
  source: WeightSource,
): Promise<string> {
  if (given !== undefined) return configText(given)
  const tried: string[] = []
  for (const name of listPresets()) {
    const preset = findPreset(name)
    if (preset?.kind !== kind) continue
    tried.push(name)
    if (await fits(preset.config, source)) return configText(name)
  }
  throw new RangeError(
    `expected the ${kind} tower of '${source.path}' to be one of ${tried.join(', ')}, but its tensors are another model's; give its config.json (--${kind} FOLDER)`,
  )
}

/** Whether a config's model has a source's tensors, by name and shape. */
async function fits(config: JsonObject, source: WeightSource): Promise<boolean> {
  try {
    const model = await fromSource(config, metaSource(source), { device: 'meta', logger: { warn: () => {} } })
    model.dispose()
    return true
  } catch {
    return false
  }
}

/** The same names and shapes, without values. */
function metaSource(source: WeightSource): WeightSource {
  return {
    path: source.path,
    names: source.names,
    has: (name) => source.has(name),
    shape: (name) => shapeOf(source, name),
    tensor: (name) => torch.empty(shapeOf(source, name), { device: 'meta' }),
  }
}

function putAdapters(model: TextEncoder, parts: PublishedParts, { alpha, trainable }: PublishedOptions): TextEncoder {
  const active: string[] = []
  for (const [kind, source] of parts.adapters) {
    const state = new Map(source.names.map((name) => [name, source.tensor(name)]))
    const name = kind === 'layers' ? 'default' : 'prompt'
    if (kind === 'layers') loadAdapterState(model, layersConfig(state, alpha), state, { name, trainable })
    else loadVirtual(model, state, name, trainable)
    active.push(name)
  }
  if (active.length === 0) return model
  const adapted = adapt(model)
  adapted.setAdapter(active, { trainable: trainable ?? false })
  return adapted
}

function loadVirtual(
  model: TextEncoder,
  state: ReadonlyMap<string, torch.Tensor>,
  name: string,
  trainable?: boolean,
): void {
  const embedding = state.get('embedding.weight')
  if (embedding === undefined || state.size !== 1) {
    throw new RangeError(
      `expected prompt_encoder to have embedding.weight alone, but it has ${[...state.keys()].join(', ')}; a prefix with projection is not published, and not read`,
    )
  }
  const numVirtualTokens = embedding.size(0)
  const config: AdapterConfig =
    embedding.size(1) === model.width ? { kind: 'prompt', numVirtualTokens } : { kind: 'prefix', numVirtualTokens }
  loadAdapterState(model, config, new Map([['prompt_embeddings', embedding]]), { name, trainable })
}

/** What an adapter's tensors show of it, and the published settings for what they don't. */
export function layersConfig(state: ReadonlyMap<string, torch.Tensor>, alpha?: number): AdapterConfig {
  const parsed = [...state].map(([key, tensor]) => ({ ...parseAdapterKey(key)!, tensor }))
  const ends = (which: (part: string, tensor: torch.Tensor) => boolean) => [
    ...new Set(
      parsed.filter(({ part, tensor }) => which(part, tensor)).map(({ path }) => path.replace(/^.*\.\d+\./, '')),
    ),
  ]
  const first = (part: string) => parsed.find((each) => each.part === part)?.tensor
  if (first('lora_E') !== undefined) {
    const initR = Math.max(...parsed.filter(({ part }) => part === 'lora_E').map(({ tensor }) => tensor.size(0)))
    return {
      kind: 'adalora',
      initR,
      targetR: 8,
      tinit: 500,
      tfinal: 1500,
      totalStep: 40_000,
      alpha: 8,
      dropout: 0,
      targetModules: ends(() => true),
    }
  }
  if (first('ia3_l') !== undefined) {
    return {
      kind: 'ia3',
      targetModules: ends(() => true),
      // factors on inputs are [1, in]
      feedforwardModules: ends((_, tensor) => tensor.size(0) === 1),
    }
  }
  const r = first('lora_A.weight')?.size(0) ?? 8
  const dora = first('lora_magnitude_vector') !== undefined
  return { kind: 'lora', r, alpha: alpha ?? 32, dropout: 0.1, dora, targetModules: ends(() => true) }
}
