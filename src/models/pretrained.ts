import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as torch from '../torch/index.js'
import {
  CONFIG_NAME,
  Config,
  consoleLogger,
  exactJson,
  type JsonObject,
  jsonText,
  type Logger,
  readConfig,
  readJsonObject,
} from './config.js'
import { freeze } from './freeze.js'
import { type HubOptions, hubSnapshot, isRepositoryName } from './hub.js'
import { findPreset, listPresets, type Preset } from './presets.js'
import { loaderOf, registerModel } from './registry.js'
import type { TextModelOptions } from './text/index.js'
import { loadWeights, openWeights, type WeightSource } from './weights.js'

const { nn } = torch

export { registerModel } from './registry.js'

export interface BuildModelOptions {
  /** Default: the default dtype, float32. */
  dtype?: torch.DType
  /** Default: 'cpu'. 'meta' takes no memory: for sizes and names. */
  device?: torch.Device
  /** Folders with presets (JSON files), looked through before those of CLEFT_PRESETS and the package's. */
  presetFolders?: readonly string[]
  /** What a text model's config.json leaves open: `{ bert: { layers: 6 } }`. */
  text?: TextModelOptions
  /** Options of config.json to set, over those that it has: `{ drop_path_rate: 0.1 }`. */
  config?: JsonObject
  /** Default: the console. */
  logger?: Logger
}

export interface PretrainedOptions extends Omit<BuildModelOptions, 'dtype'>, HubOptions {
  /** What floating-point weights become; 'auto': as in the file. Default: float32. */
  dtype?: torch.DType | 'auto'
  /** Not trained: no gradients, and evaluation mode for good (see freeze()). Default: false. */
  frozen?: boolean
  /** A frozen model's own dropout is on while what holds it trains: the published CLEFT code. Default: false. */
  ownDropout?: boolean
}

/** All families of models. They are imported with the first use. */
async function registerAll(): Promise<void> {
  await import('./image/index.js')
  const text = await import('./text/index.js')
  for (const type of text.textModelTypes) {
    registerModel(type, {
      build: (config, options) => text.buildTextModel(config, options.text),
      load: (config, source, options) =>
        text.textModelFrom(config, source, {
          ...options.text,
          dtype: options.dtype,
          device: options.device,
          trainable: true,
        }),
    })
  }
}

let registered: Promise<void> | undefined

function registerOnce(): Promise<void> {
  registered ??= registerAll()
  return registered
}

interface Found {
  /** With config.json and weights. */
  folder: string
  preset: Preset | null
}

/** What a name means: a folder, a preset, or a repository of the hub. */
async function find(name: string, options: PretrainedOptions): Promise<Found> {
  if (existsSync(name) && statSync(name).isDirectory()) return { folder: name, preset: null }
  const preset = findPreset(name, options.presetFolders)
  if (preset?.folder) return { folder: preset.folder, preset }
  if (preset?.repository) {
    const revision = options.revision ?? preset.revision
    return { folder: await hubSnapshot(preset.repository, { ...options, revision }), preset }
  }
  if (isRepositoryName(name) && name.includes('/')) return { folder: await hubSnapshot(name, options), preset: null }
  const known = listPresets(options.presetFolders).join(', ')
  throw new Error(
    `fromPretrained: expected a folder, a repository of the hub (owner/name) or a preset (${known}), but received '${name}'`,
  )
}

/** The folder with the weights of a folder, a preset or a repository of the hub; downloaded where it is not there. */
export async function pretrainedFolder(name: string, options: PretrainedOptions = {}): Promise<string> {
  return (await find(name, options)).folder
}

function configOf({ folder, preset }: Found, { config = {}, logger = consoleLogger }: PretrainedOptions): Config {
  const own: JsonObject = existsSync(join(folder, CONFIG_NAME)) ? readConfig(folder) : {}
  // timm's config.json, say, has no model_type
  const base = 'model_type' in own || preset === null ? own : preset.config
  if (!('model_type' in base) && !('model_type' in config)) {
    throw new Error(
      `fromPretrained: expected '${join(folder, CONFIG_NAME)}' with a model_type, but there is none; write one, or use a preset`,
    )
  }
  return new Config({ ...base, ...config }, logger, join(folder, CONFIG_NAME))
}

/**
 * A model with its published weights, in evaluation mode.
 *
 * Weights are mapped into memory and cast one by one on the way, so that it takes its own size in the wanted dtype; those
 * that need no cast stay the file's own pages.
 *
 * @param name a folder with config.json and weights; else a preset ('dinov2_vitb14_reg', a JSON file of the user); else a
 *   repository of the hub ('facebook/dinov2-base'), from the hub's cache where it is there, else downloaded
 * @example const encoder = await fromPretrained('dinov2_vitb14_reg', { dtype: 'bfloat16', device: 'cuda', frozen: true })
 */
export async function fromPretrained(name: string, options: PretrainedOptions = {}): Promise<torch.nn.Module> {
  await registerOnce()
  const found = await find(name, options)
  const config = configOf(found, options)
  const source = await openWeights(found.folder)
  try {
    const model = modelFrom(config, source, options)
    return options.frozen ? freeze(model, options) : model
  } finally {
    source.close?.()
  }
}

/**
 * The model of a config, filled from tensors that are there already, under its published names: part of another
 * checkpoint, say. In evaluation mode; the source stays open.
 *
 * @param base what config.json would say; a preset or a folder with one
 */
export async function fromSource(
  base: string | JsonObject,
  source: WeightSource,
  options: PretrainedOptions = {},
): Promise<torch.nn.Module> {
  await registerOnce()
  const own = typeof base === 'string' ? readNamedConfig(base, options) : base
  const model = modelFrom(new Config({ ...own, ...options.config }, options.logger), source, options)
  return options.frozen ? freeze(model, options) : model
}

/** The model of a config, filled from a source: in evaluation mode. */
function modelFrom(config: Config, source: WeightSource, options: PretrainedOptions): torch.nn.Module {
  const { dtype = torch.getDefaultDtype(), device } = options
  const loader = loaderOf(config.modelType)
  if (loader.load !== undefined) {
    const model = loader.load(config, source, { dtype, device, text: options.text })
    config.finish()
    return model.eval()
  }
  const model = nn.onMeta(() => torch.scope(() => loader.build(config, options)))
  config.finish()
  const rename = loader.rename?.(source.names, model) ?? []
  loadWeights(model, source, { rename, dtype, device, optional: loader.optional })
  loader.loaded?.(model, source.names)
  return model.eval()
}

/**
 * A model without its published weights: with those that its layers start with, or, on 'meta', without any.
 *
 * @param name a preset, a folder with config.json, or what config.json would say
 */
export async function buildModel(name: string | JsonObject, options: BuildModelOptions = {}): Promise<torch.nn.Module> {
  const { dtype, device, logger = consoleLogger } = options
  await registerOnce()
  const base = typeof name === 'string' ? readNamedConfig(name, options) : name
  const config = new Config({ ...base, ...options.config }, logger)
  const model = nn.construct({ dtype, device }, () =>
    torch.scope(() => loaderOf(config.modelType).build(config, options)),
  )
  config.finish()
  return model
}

/** The config.json of a folder, or what a preset has in its place. */
export function readNamedConfig(name: string, options: Pick<BuildModelOptions, 'presetFolders'> = {}): JsonObject {
  return JSON.parse(configText(name, options)) as JsonObject
}

/** The same as text, with its numbers as they are written (see exactJson). */
export function configText(name: string | JsonObject, options: Pick<BuildModelOptions, 'presetFolders'> = {}): string {
  if (typeof name !== 'string') return jsonText(name)
  const path = join(name, CONFIG_NAME)
  if (existsSync(path)) {
    readJsonObject(path)
    return readFileSync(path, 'utf8')
  }
  const preset = findPreset(name, options.presetFolders)
  if (preset !== null) return jsonText(exactJson(readFileSync(preset.path, 'utf8')).config)
  throw new Error(
    `expected a folder with ${CONFIG_NAME} or a preset (${listPresets(options.presetFolders).join(', ')}), but received '${name}'`,
  )
}
