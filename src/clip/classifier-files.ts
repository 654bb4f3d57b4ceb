import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
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
  readJsonObject,
  type WeightSource,
  writeJson,
} from '../models/index.js'
import * as torch from '../torch/index.js'
import { Classifier, type ClassifierStage } from './classifier.js'
import { type ImageInput, imageModel, MODEL_CONFIG, TRAINABLE, under } from './model-files.js'
import type { ImagePooling } from './two-tower.js'

/*
 * The model folder of a classifier: config.json, and trainable.safetensors with the encoder and the head, also where the
 * encoder was frozen, so that the folder is whole by itself.
 */

const FORMAT = 'cleft-classifier'

const classifierConfig = z.object({
  format: z.literal(FORMAT),
  version: z.literal(1),
  /** How it was trained. */
  stage: z.enum(['linear-probe', 'fine-tune']),
  /** 'single': one class an image. 'multi': each finding by itself. */
  task: z.enum(['single', 'multi']),
  classes: z.array(z.string()).min(1),
  image: imageModel,
})

/** Any folder of ours with an image encoder in it. */
const encoderConfig = z.object({ format: z.string().startsWith('cleft-'), image: imageModel })

function formatOf(folder: string): unknown {
  const path = join(folder, MODEL_CONFIG)
  return existsSync(path) && existsSync(join(folder, TRAINABLE)) ? readJsonObject(path).format : undefined
}

/** Whether a folder is a classifier of ours. */
export const isClassifierFolder = (folder: string): boolean => formatOf(folder) === FORMAT

function readConfig<Config extends z.ZodType>(folder: string, schema: Config, what: string): z.output<Config> {
  const path = join(folder, MODEL_CONFIG)
  const parsed = schema.safeParse(readJsonObject(path))
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new TypeError(
    `expected '${path}' to describe ${what}, but at ${issue?.path.join('.') || 'its top'}: ${issue?.message}; is this a model folder of ours?`,
  )
}

/** An image encoder and what it takes to write and feed it. */
export interface EncoderParts {
  readonly encoder: ImageEncoder
  readonly pooling: ImagePooling
  readonly input: ImageInput
  /** The text of its config.json. */
  readonly imageConfig: string
}

interface LoadOptions {
  device?: torch.Device | undefined
  logger?: Logger | undefined
}

/** @throws TypeError where a folder to begin with is a classifier's already */
export function refuseClassifier(folder: string): void {
  if (!isClassifierFolder(folder)) return
  throw new TypeError(
    `from: expected a checkpoint of pre-training, but '${folder}' is a classifier already; give the one that it began with`,
  )
}

/** What a model folder says of its image encoder; a classifier's too. @throws where the folder is none of ours */
export function readEncoderConfig(folder: string): z.output<typeof imageModel> {
  if (isClassifierFolder(folder)) return readConfig(folder, classifierConfig, 'a cleft classifier').image
  return readConfig(folder, encoderConfig, 'a cleft model with an image encoder').image
}

/**
 * The image encoder of a model folder, without its language model.
 *
 * @throws where the folder is none of ours, or is a classifier's already
 */
export async function loadImageEncoder(folder: string, options: LoadOptions = {}): Promise<EncoderParts> {
  refuseClassifier(folder)
  const image = readEncoderConfig(folder)
  const source = await openWeights(join(folder, TRAINABLE))
  try {
    return { ...partsOf(folder, image), encoder: await imageEncoder(folder, image, source, options) }
  } finally {
    source.close?.()
  }
}

function partsOf(folder: string, { pooling, input }: z.output<typeof imageModel>): Omit<EncoderParts, 'encoder'> {
  const { image } = exactJson(configText(folder)) as { image: { config: unknown } }
  return { pooling, input, imageConfig: jsonText(image.config) }
}

async function imageEncoder(
  folder: string,
  { config }: z.output<typeof imageModel>,
  source: WeightSource,
  options: LoadOptions,
): Promise<ImageEncoder> {
  const image = await fromSource(config, under(source, 'image.'), options)
  if (image instanceof ImageEncoder) return image
  throw new TypeError(`${join(folder, MODEL_CONFIG)}: expected an image encoder, but it is a ${image.constructor.name}`)
}

/** Writes config.json and trainable.safetensors, each beside and then renamed. */
export function saveClassifier(
  folder: string,
  model: Classifier,
  { input, imageConfig, stage }: Pick<LoadedClassifierParts, 'input' | 'imageConfig' | 'stage'>,
): void {
  mkdirSync(folder, { recursive: true })
  torch.scope(() => torch.saveSafetensors(model.stateDict(), join(folder, TRAINABLE)))
  const { task, classes, imagePooling: pooling } = model
  const config: z.input<typeof classifierConfig> = {
    format: FORMAT,
    version: 1,
    stage,
    task,
    classes: [...classes],
    image: { config: exactJson(imageConfig), pooling, input },
  }
  writeJson(join(folder, MODEL_CONFIG), config)
}

export interface LoadedClassifierParts extends Omit<EncoderParts, 'encoder'> {
  readonly model: Classifier
  readonly stage: ClassifierStage
}

/** Reads a classifier: in evaluation mode, what is its own of parameters as they train. */
export async function loadClassifier(folder: string, options: LoadOptions = {}): Promise<LoadedClassifierParts> {
  const { task, classes, image, stage } = readConfig(folder, classifierConfig, 'a cleft classifier')
  const source = await openWeights(join(folder, TRAINABLE))
  try {
    const encoder = await imageEncoder(folder, image, source, options)
    const { device } = options
    const model = torch.nn.construct(device === undefined ? {} : { device }, () =>
      torch.scope(() => new Classifier({ image: encoder, classes, task, pooling: image.pooling })),
    )
    loadWeights(model.head, under(source, 'head.'), options)
    return { ...partsOf(folder, image), stage, model: model.eval() }
  } finally {
    source.close?.()
  }
}
