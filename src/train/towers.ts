import { existsSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fingerprint, loadModel, readModelFiles, type SaveModelOptions, TOKENIZER } from '../clip/model-files.js'
import { TextTower } from '../clip/text-tower.js'
import type { ImagePooling } from '../clip/two-tower.js'
import {
  buildModel,
  configText,
  exactJson,
  freeze,
  fromPretrained,
  ImageEncoder,
  type JsonObject,
  jsonText,
  type Logger,
  openWeights,
  pretrainedFolder,
  type TextEncoder,
  TextTokenizer,
  Vit,
} from '../models/index.js'
import { addAdapter } from '../peft/index.js'
import * as torch from '../torch/index.js'
import { adapterConfig, type FullPretrainOptions } from './options/index.js'
import { applyFreezing } from './parameter-groups.js'
import { usualLength } from './text-length.js'
import { makeWhole, trainsMoreThanSaved } from './whole-adapter.js'

/** A model to be trained, its tokenizer, and what its checkpoints say of it. */
export interface Towers {
  model: TextTower
  tokenizer: TextTokenizer
  files: SaveModelOptions
}

interface Tower {
  model: string | JsonObject
  pretrained?: boolean | undefined
}

/** The text of a tower's config.json. */
export async function configOf({ model }: Tower): Promise<string> {
  if (typeof model !== 'string') return jsonText(model)
  try {
    return configText(model)
  } catch {
    return configText(await pretrainedFolder(model))
  }
}

/** The same of the image encoder, with the decoder that the run puts behind it. */
async function imageConfigOf(image: FullPretrainOptions['image']): Promise<string> {
  const text = await configOf(image)
  return image.decoder === null ? text : jsonText({ ...exactJson(text), feature_decoder: image.decoder })
}

const isFromWeights = ({ model, pretrained }: Tower): boolean => pretrained ?? typeof model === 'string'

async function load(tower: Tower, options: { device: torch.Device; layers?: number; logger?: Logger }) {
  const { device, layers, logger } = options
  const text = layers === undefined ? undefined : { bert: { layers } }
  if (!isFromWeights(tower)) {
    const config = JSON.parse(await configOf(tower)) as JsonObject
    return buildModel(config, { device, text, logger })
  }
  if (typeof tower.model !== 'string') {
    throw new RangeError('pretrained: expected a name or a folder of published weights, but the model is a config')
  }
  return fromPretrained(tower.model, { device, text, logger })
}

/** The image encoder of a run, with what of it is frozen. */
export async function imageTower(
  options: FullPretrainOptions,
  device: torch.Device,
  logger?: Logger,
): Promise<ImageEncoder> {
  const image = await load(options.image, { device, logger })
  if (!(image instanceof ImageEncoder)) {
    throw new TypeError(`image: expected an image encoder, but ${named(options.image)} is a ${image.constructor.name}`)
  }
  const { decoder, maskRatio, checkpointing, frozen } = options.image
  if (decoder !== null) {
    if (!(image instanceof Vit)) {
      throw new TypeError(
        `image.decoder: expected a plain ViT before it, but ${named(options.image)} is another encoder`,
      )
    }
    torch.nn.construct({ device }, () => torch.scope(() => image.addDecoder(decoder)))
  }
  image.maskRatio = maskRatio
  image.checkpointing = checkpointing
  if (frozen) freeze(image)
  return image
}

const named = ({ model }: Tower): string => (typeof model === 'string' ? `'${model}'` : 'the config')

/** The language model of a run, with its adapter. */
export async function textTower(
  options: FullPretrainOptions,
  device: torch.Device,
  logger?: Logger,
): Promise<TextEncoder> {
  const { text, peft, steps } = options
  const model = (await load(text, { device, layers: text.layers, logger })) as unknown as TextEncoder
  if (typeof model.wordEmbeddings !== 'function') {
    throw new TypeError(`text: expected a text encoder, but ${named(text)} is a ${model.constructor.name}`)
  }
  model.running.checkpointing = text.checkpointing
  if (peft === null) {
    // trained as a whole: its own dropout is part of it
    model.running.ownDropout = true
    return model.requiresGrad_(true)
  }
  freeze(model, { ownDropout: text.ownDropout })
  return torch.scope(() => addAdapter(model, adapterConfig(peft, steps)))
}

/** A folder or a file as it is; the folder of what has a model's name. */
export const tokenizerPlace = async (name: string): Promise<string> =>
  existsSync(name) ? name : pretrainedFolder(name)

/** The frozen language model as checkpoints name it, and where its tokenizer is: a folder or a file, and the file. */
async function textFiles({
  text,
  peft,
}: FullPretrainOptions): Promise<{ weights: SaveModelOptions['textWeights']; place: string; tokenizerFile: string }> {
  const isNamed = typeof text.model === 'string'
  const folder = isNamed ? await pretrainedFolder(text.model as string) : null
  const place = text.tokenizer === undefined ? folder : await tokenizerPlace(text.tokenizer)
  if (place === null) {
    throw new RangeError(
      'text.tokenizer: expected a folder with tokenizer.json for a model from a config, but received none',
    )
  }
  const tokenizerFile = existsSync(place) && statSync(place).isDirectory() ? join(place, TOKENIZER) : place
  if (peft === null) return { weights: null, place, tokenizerFile }
  if (folder === null || !isFromWeights(text)) {
    throw new RangeError(
      'peft: expected a language model with published weights below adapters, but it begins from nothing; use peft: null',
    )
  }
  const source = await openWeights(folder)
  const name = existsSync(text.model as string) ? resolve(text.model as string) : (text.model as string)
  const weights = { name, fingerprint: fingerprint(source) }
  source.close?.()
  return { weights, place, tokenizerFile }
}

/** Builds what pre-training trains: both towers, adapters, projections; what is frozen is. */
export async function buildTowers(
  options: FullPretrainOptions,
  device: torch.Device,
  logger?: Logger,
): Promise<Towers> {
  const { weights, place, tokenizerFile } = await textFiles(options)
  const tokenizer = TextTokenizer.open(place)
  const [imageConfig, textConfig] = [await imageConfigOf(options.image), await configOf(options.text)]
  const image = await imageTower(options, device, logger)
  const text = await textTower(options, device, logger)
  if (tokenizer.vocabularySize > text.vocabularySize) {
    throw new RangeError(
      `text: expected a tokenizer of ${text.vocabularySize} tokens at most, as the model has, but '${tokenizerFile}' has ${tokenizer.vocabularySize}; is it another model's?`,
    )
  }
  const model = torch.nn.construct({ device }, () =>
    torch.scope(
      () =>
        new TextTower({
          image,
          text,
          embeddingWidth: options.embeddingWidth,
          imagePooling: options.image.pooling,
          imageProjection: options.image.projection,
          textProjection: options.text.projection,
          pooling: options.text.pooling,
          padToken: tokenizer.padToken,
          maximumLength: options.text.maximumLength,
          usualLength: usualLength(options.data),
          execution: options.text.execution,
        }),
    ),
  )
  freezeUnused(model)
  applyFreezing(model, options)
  model.train()
  return {
    model,
    tokenizer,
    files: {
      imageConfig,
      textConfig,
      textWeights: weights,
      input: { size: options.imageSize, resize: options.resize, oversample: options.oversample },
      tokenizer: readFileSync(tokenizerFile, 'utf8'),
    },
  }
}

/** What the features do not come through, and what so could never get a gradient: the norm after 'mean-prenorm', BERT's pooler. */
export function freezeUnused({ image, text, imagePooling }: TextTower): void {
  freezeUnusedOfImage(image, imagePooling)
  for (const [name, module] of text?.namedChildren() ?? []) if (name === 'pooler') module.requiresGrad_(false)
}

/** The same of the image encoder. */
export function freezeUnusedOfImage(image: ImageEncoder, pooling: ImagePooling): void {
  if (pooling !== 'mean-prenorm') return
  for (const [name, module] of image.namedChildren()) {
    if (/^(post_)?layernorm$/.test(name)) module.requiresGrad_(false)
  }
}

/** The same out of a checkpoint of such a run. */
export async function resumeTowers(
  folder: string,
  options: FullPretrainOptions,
  device: torch.Device,
  logger?: Logger,
): Promise<Towers> {
  const { image, text, peft } = options
  const model = await loadModel(folder, { device, trainable: true, ownDropout: text.ownDropout, logger })
  model.image.maskRatio = image.maskRatio
  model.image.checkpointing = image.checkpointing
  if (image.frozen) freeze(model.image)
  const running = (model.text as TextEncoder).running
  running.checkpointing = text.checkpointing
  if (peft === null) running.ownDropout = true
  model.encoding.execution = text.execution
  if (trainsMoreThanSaved(options)) makeWhole(model, options)
  freezeUnused(model)
  applyFreezing(model, options)
  model.train()
  const files = readModelFiles(folder)
  const { padToken } = model.encoding
  const tokenizer = TextTokenizer.open(join(folder, TOKENIZER), padToken === undefined ? {} : { padToken })
  return { model, tokenizer, files }
}
