import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { writeJson } from '../models/config.js'
import * as torch from '../torch/index.js'
import { adapt } from './adapt.js'
import { keptTriplets } from './attach.js'
import type { AdaLoraConfig, AdapterConfig, Resolved } from './config.js'
import { type Json, type JsonObject, writeAdapterConfig } from './config-file.js'
import { asTextEncoder, headPrefixOf, isTextEncoder, places } from './host.js'
import { fileKey } from './keys.js'
import { linearOf } from './linear.js'
import type { AdaptedModel, Adapter } from './model.js'
import { keyWidth } from './prefix.js'
import { isFeedforward, isTarget } from './targets.js'

type Tensor = torch.Tensor
type Named = string | readonly string[]

export interface SaveAdapterOptions {
  /** Which adapter. Default: 'default'. */
  name?: string
  /**
   * What stands before the model's paths: `transformer.`, `model.` or nothing. Default: as peft writes the adapters of
   * the architecture's language models with head (and '' for BERT and all others).
   */
  headPrefix?: string
  /** adapter_model.safetensors or adapter_model.bin. Default: 'safetensors'. */
  format?: 'safetensors' | 'bin'
}

/** Tensors of an adapter by their names in files. They belong to the scope around. */
export function adapterState(
  model: torch.nn.Module,
  name = 'default',
  headPrefix = headPrefixOf(unwrap(model)),
): Map<string, Tensor> {
  const adapted = adapt(model)
  const adapter = adapted.adapter(name)
  if (adapted.prompt_encoder.has(name)) {
    return new Map([
      ['prompt_embeddings', torch.noGrad(() => adapted.prompt_encoder.get(name).flat().detach().contiguous())],
    ])
  }
  const { config } = adapter
  const pattern = config.kind === 'adalora' ? { ...config, rankPattern: adapted.rankPattern(name) } : null
  const state = new Map<string, Tensor>()
  for (const [path, parameter] of adapted.adapterParameters(name)) {
    const values = parameter.detach()
    state.set(fileKey(headPrefix, path), pattern === null ? values : cutTriplets(path, values, pattern, adapted))
  }
  return state
}

const unwrap = (model: torch.nn.Module): torch.nn.Module => adapt(model).model

/** Without the triplets that AdaLoRA dropped. */
function cutTriplets(name: string, values: Tensor, config: Resolved<AdaLoraConfig>, { model }: AdaptedModel): Tensor {
  const found = /^(.*)\.lora_([AEB])$/.exec(name)
  if (found === null) return values
  const [, path = '', part] = found
  const kept = keptTriplets(config, { path, fullPath: headPrefixOf(model) + path })
  const dim = part === 'B' ? 1 : 0
  // cut before
  if (kept === null || kept.length !== values.shape[dim]) return values
  const index = torch.tensor(
    kept.flatMap((each, position) => (each ? [position] : [])),
    { dtype: 'int64', device: values.device as torch.Device },
  )
  return values.indexSelect(dim, index)
}

/**
 * Names by which peft finds the same modules in a model whose paths have the prefix: as the config has them where that
 * is so, else the ends of the paths, else the paths.
 */
function fileTargets(model: torch.nn.Module, adapter: Adapter, headPrefix: string): Record<string, Json> {
  const { config } = adapter
  if (config.kind === 'prefix' || config.kind === 'prompt') return {}
  const chosen = new Set(adapter.paths)
  const all = places(model)
    .map(({ path }) => path)
    .filter((path) => path !== '')
  const given = config.targetModules ?? []
  const limits = {
    excludeModules: config.excludeModules,
    ...(config.kind === 'ia3'
      ? {}
      : { layersToTransform: config.layersToTransform, layersPattern: config.layersPattern }),
  }
  const fits = (names: Named, options: typeof limits): boolean =>
    all.every((path) => isTarget(headPrefix + path, { ...options, targetModules: names }) === chosen.has(path))
  const isAll = typeof given === 'string' && given.toLowerCase() === 'all-linear'
  const none = { excludeModules: null, layersToTransform: null, layersPattern: null }
  const ends = [...new Set(adapter.paths.map((path) => path.replace(/^.*\.\d+\./, '')))].sort()
  const asGiven = !isAll && fits(given, limits)
  const targets: Named = asGiven ? given : fits(ends, none) ? ends : adapter.paths.map((path) => headPrefix + path)
  const written: Record<string, Json> = {
    target_modules: targets,
    exclude_modules: asGiven ? (config.excludeModules ?? null) : null,
  }
  if (config.kind !== 'ia3') {
    written.layers_to_transform = asGiven ? (config.layersToTransform ?? null) : null
    written.layers_pattern = asGiven ? (config.layersPattern ?? null) : null
    return written
  }
  const inner = config.feedforwardModules ?? []
  const isInner = (path: string): boolean => isFeedforward(headPrefix + path, inner)
  written.feedforward_modules =
    asGiven || typeof targets === 'string'
      ? inner
      : targets.filter((name) =>
          adapter.paths.some((path) => `.${headPrefix}${path}`.endsWith(`.${name}`) && isInner(path)),
        )
  return written
}

/** peft's word for a model whose paths have the prefix. */
function taskType(model: torch.nn.Module, given: string | null, headPrefix: string): string | null {
  if (given !== 'auto') return given
  if (!isTextEncoder(model)) return null
  return headPrefix === '' ? 'FEATURE_EXTRACTION' : 'CAUSAL_LM'
}

/** What peft's config has of the model. */
function modelSizes(
  model: torch.nn.Module,
  config: Resolved<AdapterConfig>,
  paths: readonly string[],
): Record<string, Json> {
  if (config.kind !== 'prefix' && config.kind !== 'prompt') {
    const modules = new Map(places(model).map(({ path, module }) => [path, module]))
    const isTransposed = paths.every((path) => linearOf(modules.get(path)!)?.isTransposed ?? false)
    return { fan_in_fan_out: isTransposed }
  }
  const text = asTextEncoder(model, config.kind)
  const sizes = { num_layers: text.layerCount, num_transformer_submodules: 1 }
  if (config.kind === 'prefix') {
    const width = keyWidth(text)
    return {
      ...sizes,
      token_dim: width,
      num_attention_heads: text.keyValueHeads,
      encoder_hidden_size: config.encoderHiddenSize ?? width,
    }
  }
  const fromText = config.init === 'text' && config.initText !== null && config.tokenizer !== null
  return {
    ...sizes,
    token_dim: text.width,
    num_attention_heads: text.keyValueHeads,
    prompt_tuning_init: fromText ? 'TEXT' : 'RANDOM',
  }
}

/** What adapter_config.json says of an adapter. `headPrefix` as in {@link SaveAdapterOptions}. */
export function adapterJson(
  model: torch.nn.Module,
  name = 'default',
  headPrefix = headPrefixOf(unwrap(model)),
): JsonObject {
  const adapted = adapt(model)
  const adapter = adapted.adapter(name)
  const { config } = adapter
  return writeAdapterConfig(config, {
    ...fileTargets(adapted.model, adapter, headPrefix),
    ...modelSizes(adapted.model, config, adapter.paths),
    task_type: taskType(adapted.model, config.taskType, headPrefix),
    ...(config.kind === 'adalora' ? { rank_pattern: renamedPattern(adapted, name, headPrefix) } : {}),
  })
}

/** Writes adapter_config.json and adapter_model.safetensors as Python's peft does, each beside and then renamed. */
export function saveAdapter(model: torch.nn.Module, folder: string, options: SaveAdapterOptions = {}): void {
  const adapted = adapt(model)
  const { name = 'default', headPrefix = headPrefixOf(adapted.model), format = 'safetensors' } = options
  const json = adapterJson(adapted, name, headPrefix)
  mkdirSync(folder, { recursive: true })
  torch.scope(() => {
    const state = adapterState(adapted, name, headPrefix)
    if (format === 'safetensors') torch.saveSafetensors(state, join(folder, 'adapter_model.safetensors'))
    else torch.save(state, join(folder, 'adapter_model.bin'))
  })
  writeJson(join(folder, 'adapter_config.json'), json)
}

/** AdaLoRA's pattern under the paths that the file has. */
function renamedPattern(adapted: AdaptedModel, name: string, headPrefix: string): Json {
  const pattern = adapted.rankPattern(name)
  if (pattern === null) return null
  const own = headPrefixOf(adapted.model)
  return Object.fromEntries(
    Object.entries(pattern).map(([key, kept]) => [
      headPrefix + (key.startsWith(own) ? key.slice(own.length) : key),
      kept,
    ]),
  )
}
