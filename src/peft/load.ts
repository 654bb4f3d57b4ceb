import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import { type AdaptedTextModel, adapt } from './adapt.js'
import { type AdapterConfig, type Resolved, resolveConfig } from './config.js'
import { type JsonObject, readAdapterConfig } from './config-file.js'
import { asTextEncoder, headPrefixOf, places, type TextEncoder } from './host.js'
import { alignPaths, parseKey } from './keys.js'
import type { AdaptedModel } from './model.js'
import { keyWidth } from './prefix.js'

type Tensor = torch.Tensor

export interface LoadAdapterOptions {
  /** What the adapter is called from now on. Default: 'default'. */
  name?: string
  /** Whether its parameters train. Default: false. */
  trainable?: boolean
  /** Dtype of its parameters. Default: float32 (float64 where the layer is). */
  dtype?: torch.DType
  /** Told of options that are not known. Default: a warning of the process. */
  warn?: (line: string) => void
}

const longestConfig = 16_000_000

function readJson(path: string): JsonObject {
  if (!existsSync(path))
    throw new RangeError(
      `loadAdapter: expected a file ${path}, but there is none; give the folder that peft's save_pretrained wrote`,
    )
  const { size } = statSync(path)
  if (size > longestConfig)
    throw new RangeError(`loadAdapter: expected ${path} to have at most ${longestConfig} bytes, but it has ${size}`)
  let json: unknown
  try {
    json = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new SyntaxError(`loadAdapter: expected JSON in ${path}, but ${(error as Error).message}`)
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new TypeError(
      `loadAdapter: expected an object in ${path}, but received ${Array.isArray(json) ? 'an array' : String(json)}`,
    )
  return json as JsonObject
}

/** Tensors of a folder's adapter_model.safetensors or .bin. */
async function readTensors(folder: string): Promise<Map<string, Tensor>> {
  const [safe, pickled] = ['adapter_model.safetensors', 'adapter_model.bin'].map((name) => join(folder, name)) as [
    string,
    string,
  ]
  if (existsSync(safe)) {
    using file = torch.openSafetensors(safe)
    return new Map(file.names.map((name) => [name, file.tensor(name)]))
  }
  if (existsSync(pickled)) return torch.toStateDict(await torch.load(pickled))
  throw new RangeError(
    `loadAdapter: expected adapter_model.safetensors or adapter_model.bin in ${folder}, but there is neither`,
  )
}

/** What an adapter's folder holds, before any model. The tensors are the caller's. */
export async function readAdapterFiles(folder: string): Promise<{ json: JsonObject; tensors: Map<string, Tensor> }> {
  return { json: readJson(join(folder, 'adapter_config.json')), tensors: await readTensors(folder) }
}

const shown = (names: readonly string[]): string =>
  names.length > 12 ? `${names.slice(0, 12).join(', ')} and ${names.length - 12} more` : names.join(', ')

const shape = (tensor: Tensor): string => `[${tensor.shape.join(', ')}]`

/** How an adapter differs from a model: one error that says it all. */
function refuse(where: string, model: nn.Module, problems: readonly string[]): never {
  throw new RangeError(`${where}: expected an adapter for this ${model.constructor.name}, but ${problems.join('; ')}`)
}

/** Keys and values, or embeddings, of virtual tokens. */
function virtualProblems(
  model: TextEncoder,
  config: Resolved<AdapterConfig>,
  file: JsonObject,
  values: Tensor,
): string[] {
  const isPrefix = config.kind === 'prefix'
  const pairs: [string, number][] = isPrefix
    ? [
        ['num_layers', model.layerCount],
        ['num_attention_heads', model.keyValueHeads],
        ['token_dim', keyWidth(model)],
      ]
    : [['token_dim', model.width]]
  const different = pairs.filter(([name, own]) => typeof file[name] === 'number' && file[name] !== own)
  const problems = different.map(([name, own]) => `${name} is ${String(file[name])} where the model has ${own}`)
  const count = config.kind === 'prefix' || config.kind === 'prompt' ? config.numVirtualTokens : 0
  const wanted = [count, isPrefix ? 2 * model.layerCount * keyWidth(model) : model.width]
  if (values.shape.join() !== wanted.join())
    problems.push(`prompt_embeddings has shape ${shape(values)} instead of [${wanted.join(', ')}]`)
  return problems
}

const virtualNames = ['prompt_embeddings', 'embedding.weight']

function loadVirtual(
  adapted: AdaptedModel,
  config: Resolved<AdapterConfig>,
  file: JsonObject,
  tensors: ReadonlyMap<string, Tensor>,
  name: string,
  where: string,
): void {
  const model = asTextEncoder(adapted.model, config.kind)
  const isKnown = (key: string): boolean =>
    virtualNames.some((each) => key === each || key.endsWith(`.${each}`)) && !key.includes('word_embeddings')
  const found = [...tensors].filter(([key]) => isKnown(key))
  const others = [...tensors.keys()].filter((key) => !isKnown(key))
  if (found.length !== 1 || others.length > 0) {
    refuse(where, model, [`its tensors are ${shown([...tensors.keys()])} instead of prompt_embeddings alone`])
  }
  const [, values] = found[0]!
  const problems = virtualProblems(model, config, file, values)
  if (problems.length > 0) refuse(where, model, problems)
  const unset: Resolved<AdapterConfig> = config.kind === 'prompt' ? { ...config, init: 'random' } : config
  nn.construct({ initialize: false }, () => adapted.addAdapter(unset, name))
  torch.noGrad(() => adapted.prompt_encoder.get(name).embedding.weight.copy_(values))
}

function loadLayers(
  adapted: AdaptedModel,
  config: Resolved<AdapterConfig>,
  tensors: ReadonlyMap<string, Tensor>,
  name: string,
  where: string,
): void {
  const { model } = adapted
  const parsed = [...tensors].map(([key, values]) => ({ key, values, parts: parseKey(key) }))
  const strangers = parsed.filter(({ parts }) => parts === null).map(({ key }) => key)
  if (strangers.length > 0)
    refuse(where, model, [`these tensors are not of a ${config.kind} adapter: ${shown(strangers)}`])
  const own = new Set(places(model).map(({ path }) => path))
  const align = alignPaths(
    parsed.flatMap(({ parts }) => (parts === null ? [] : [parts.path])),
    own,
  )
  const given = new Map<string, { key: string; values: Tensor }>(
    parsed.flatMap(({ key, values, parts }) =>
      parts === null ? [] : [[`${align(parts.path)}.${parts.part}`, { key, values }] as const],
    ),
  )
  const lost = [
    ...new Set(parsed.flatMap(({ parts }) => (parts === null || own.has(align(parts.path)) ? [] : [parts.path]))),
  ]
  if (lost.length > 0)
    refuse(where, model, [`it has tensors for ${lost.length} modules that the model has not: ${shown(lost)}`])
  try {
    nn.construct({ initialize: false }, () =>
      adapted.addAdapter(alignPattern(config, align, headPrefixOf(model)), name),
    )
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error
    refuse(where, model, [error.message.replace(/^\w+: /, '')])
  }
  try {
    const wanted = adapted.adapterParameters(name)
    const extra = [...given].filter(([path]) => !wanted.has(path)).map(([, { key }]) => key)
    const missing = [...wanted.keys()].filter((path) => !given.has(path))
    const misshapen = [...wanted].flatMap(([path, parameter]) => {
      const values = given.get(path)?.values
      if (values === undefined || values.shape.join() === parameter.shape.join()) return []
      return [`${path} has shape ${shape(values)} instead of ${shape(parameter)}`]
    })
    const problems = [
      ...(extra.length > 0 ? [`${extra.length} tensors match no module that its config names: ${shown(extra)}`] : []),
      ...(missing.length > 0 ? [`${missing.length} tensors are missing: ${shown(missing)}`] : []),
      ...(misshapen.length > 0 ? [shown(misshapen)] : []),
    ]
    if (problems.length > 0) refuse(where, model, problems)
    torch.noGrad(() => {
      for (const [path, parameter] of wanted) parameter.copy_(given.get(path)!.values)
    })
  } catch (error) {
    adapted.removeAdapter(name)
    throw error
  }
}

/** AdaLoRA's pattern under the model's own paths. */
function alignPattern(
  config: Resolved<AdapterConfig>,
  align: (path: string) => string,
  headPrefix: string,
): Resolved<AdapterConfig> {
  if (config.kind !== 'adalora' || config.rankPattern === null) return config
  const renamed = Object.entries(config.rankPattern).map(([key, kept]): [string, readonly boolean[]] => {
    const parts = parseKey(key)
    return [parts === null ? key : `${headPrefix}${align(parts.path)}.lora_E`, kept]
  })
  return { ...config, rankPattern: Object.fromEntries(renamed) }
}

export interface LoadStateOptions {
  /** What the adapter is called. Default: 'default'. */
  name?: string
  /** Whether its parameters train. Default: false. */
  trainable?: boolean
}

/**
 * Puts an adapter on a model whose tensors come from anywhere: part of another checkpoint, for example. Names as in
 * {@link loadAdapter}; what else may stand before them (`text_encoder_q.model.`) does no harm.
 *
 * @param state the adapter's tensors alone; they are copied
 */
export function loadAdapterState(
  model: TextEncoder,
  config: AdapterConfig,
  state: ReadonlyMap<string, Tensor>,
  options?: LoadStateOptions,
): AdaptedTextModel
export function loadAdapterState<Model extends nn.Module>(
  model: Model | AdaptedModel<Model>,
  config: AdapterConfig,
  state: ReadonlyMap<string, Tensor>,
  options?: LoadStateOptions,
): AdaptedModel<Model>
export function loadAdapterState(
  model: nn.Module,
  config: AdapterConfig,
  state: ReadonlyMap<string, Tensor>,
  options: LoadStateOptions = {},
): AdaptedModel {
  return putOn(model, resolveConfig(config), {}, state, 'loadAdapterState', options)
}

function putOn(
  model: nn.Module,
  config: Resolved<AdapterConfig>,
  file: JsonObject,
  state: ReadonlyMap<string, Tensor>,
  where: string,
  { name = 'default', trainable = false }: LoadStateOptions,
): AdaptedModel {
  const adapted = adapt(model)
  if (adapted.adapters.has(name)) {
    throw new RangeError(`${where}: expected a new name, but there is an adapter '${name}'; give another by { name }`)
  }
  if (config.kind === 'prefix' || config.kind === 'prompt') loadVirtual(adapted, config, file, state, name, where)
  else loadLayers(adapted, config, state, name, where)
  if (!trainable) {
    for (const parameter of adapted.adapterParameters(name).values()) parameter.requiresGrad_(false)
    if (adapted.adapters.size === 1) adapted.eval()
  }
  return adapted
}

/**
 * Reads an adapter that Python's peft (or saveAdapter) wrote, and puts it on a model; where it is the first, it is
 * active at once; where it does not train, in evaluation mode. Nothing is changed where the adapter does not fit: the
 * error says the whole difference.
 *
 * Names with and without `base_model.model.`, the head's prefix, `.base_layer` and the adapter's name are the same. A
 * prefix that a projection made is loaded as its result.
 */
export function loadAdapter(model: TextEncoder, folder: string, options?: LoadAdapterOptions): Promise<AdaptedTextModel>
export function loadAdapter<Model extends nn.Module>(
  model: Model | AdaptedModel<Model>,
  folder: string,
  options?: LoadAdapterOptions,
): Promise<AdaptedModel<Model>>
export async function loadAdapter(
  model: nn.Module,
  folder: string,
  options: LoadAdapterOptions = {},
): Promise<AdaptedModel> {
  const { name = 'default', trainable = false, dtype, warn = (line) => process.emitWarning(line) } = options
  const where = `loadAdapter (${folder})`
  const { json, tensors } = await readAdapterFiles(folder)
  try {
    const { config, file } = readAdapterConfig(json, where, warn)
    const typed = 'dtype' in config ? { ...config, dtype: dtype ?? null } : config
    return putOn(model, typed, file, tensors, where, { name, trainable })
  } finally {
    torch.dispose(tensors)
  }
}
