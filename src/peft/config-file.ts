import type { AdapterConfig, AdapterKind, Resolved } from './config.js'
import { resolveConfig } from './config.js'

/*
 * adapter_config.json as Python's peft writes it, and our config.
 */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json }
export type JsonObject = { readonly [name: string]: Json }

const kinds: Readonly<Record<string, AdapterKind>> = {
  LORA: 'lora',
  ADALORA: 'adalora',
  IA3: 'ia3',
  PREFIX_TUNING: 'prefix',
  PROMPT_TUNING: 'prompt',
}

const targetNames = {
  target_modules: 'targetModules',
  exclude_modules: 'excludeModules',
  layers_to_transform: 'layersToTransform',
  layers_pattern: 'layersPattern',
}
const description = { base_model_name_or_path: 'baseModel', task_type: 'taskType' }
const loraNames = { lora_alpha: 'alpha', lora_dropout: 'dropout' }

/** peft's names and ours. */
const names: Readonly<Record<AdapterKind, Readonly<Record<string, string>>>> = {
  lora: {
    ...description,
    ...targetNames,
    ...loraNames,
    r: 'r',
    use_rslora: 'rslora',
    use_dora: 'dora',
    rank_pattern: 'rankPattern',
    alpha_pattern: 'alphaPattern',
    init_lora_weights: 'initLoraWeights',
  },
  adalora: {
    ...description,
    ...targetNames,
    ...loraNames,
    init_r: 'initR',
    target_r: 'targetR',
    tinit: 'tinit',
    tfinal: 'tfinal',
    deltaT: 'deltaT',
    beta1: 'beta1',
    beta2: 'beta2',
    orth_reg_weight: 'orthRegWeight',
    total_step: 'totalStep',
    rank_pattern: 'rankPattern',
  },
  ia3: {
    ...description,
    target_modules: 'targetModules',
    exclude_modules: 'excludeModules',
    feedforward_modules: 'feedforwardModules',
  },
  prefix: {
    ...description,
    num_virtual_tokens: 'numVirtualTokens',
    encoder_hidden_size: 'encoderHiddenSize',
    prefix_projection: 'prefixProjection',
    init_weights: 'initWeights',
  },
  prompt: {
    ...description,
    num_virtual_tokens: 'numVirtualTokens',
    prompt_tuning_init_text: 'initText',
    tokenizer_name_or_path: 'tokenizer',
  },
}

/** Whatever they say, the adapter computes the same. */
const neutral = new Set(
  (
    'peft_type peft_version auto_mapping revision inference_mode fan_in_fan_out runtime_config megatron_core init_ia3_weights ' +
    'qalora_group_size ensure_weight_tying eva_config corda_config lora_ga_config loftq_config tokenizer_kwargs ' +
    'prompt_tuning_init token_dim num_attention_heads num_layers num_transformer_submodules'
  ).split(' '),
)

/** Features of peft's that we have not: what each says where it is not used. */
const unsupported: Readonly<Record<string, readonly Json[]>> = {
  bias: ['none'],
  modules_to_save: [null],
  lora_bias: [false],
  layer_replication: [null],
  megatron_config: [null],
  trainable_token_indices: [null],
  target_parameters: [null],
  use_qalora: [false],
  use_bdlora: [null, false],
  arrow_config: [null],
  kasa_config: [null],
  velora_config: [null],
  monteclora_config: [null],
  alora_invocation_tokens: [null],
}

/** Ways to start that also change the model's weights: the tensors alone are not the adapter. */
const changesBase = /^(pissa|olora|corda|loftq|lora_ga|mica)/

const isEmpty = (value: Json): boolean =>
  value === null || (typeof value === 'object' && Object.keys(value).length === 0)

function refuseFeature(where: string, name: string, value: Json): never {
  throw new TypeError(
    `${where}: expected an adapter without ${name}, which is not supported, but it says ${JSON.stringify(value)}; merge it in Python, or train without it`,
  )
}

const shown = (value: Json | undefined): string => JSON.stringify(value) ?? 'nothing'

type Test = (value: unknown) => boolean
const isString: Test = (value) => typeof value === 'string'
const isNumber: Test = (value) => typeof value === 'number' && Number.isFinite(value)
const isBoolean: Test = (value) => typeof value === 'boolean'
const isNull: Test = (value) => value === null
const listOf =
  (test: Test): Test =>
  (value) =>
    Array.isArray(value) && value.every(test)
const recordOf =
  (test: Test): Test =>
  (value) =>
    typeof value === 'object' && value !== null && !Array.isArray(value) && Object.values(value).every(test)
const either =
  (...tests: readonly Test[]): Test =>
  (value) =>
    tests.some((test) => test(value))

const modules: readonly [Test, string] = [either(isNull, isString, listOf(isString)), 'names of modules']
const word: readonly [Test, string] = [either(isNull, isString), 'a string or null']
const checks: Readonly<Record<string, readonly [Test, string]>> = {
  targetModules: modules,
  excludeModules: modules,
  feedforwardModules: modules,
  layersPattern: modules,
  layersToTransform: [either(isNull, isNumber, listOf(isNumber)), 'numbers of layers'],
  baseModel: word,
  taskType: word,
  initText: word,
  tokenizer: word,
  initWeights: [(value) => value === null || value === 'zero', "null or 'zero'"],
  encoderHiddenSize: [either(isNull, isNumber), 'a number or null'],
  alphaPattern: [recordOf(isNumber), 'numbers by pattern'],
  initLoraWeights: [either(isBoolean, isString), 'a boolean or a string'],
  rslora: [isBoolean, 'a boolean'],
  dora: [isBoolean, 'a boolean'],
  prefixProjection: [isBoolean, 'a boolean'],
}

function checkValue(where: string, kind: AdapterKind, name: string, own: string, value: Json): void {
  const ranks: readonly [Test, string] =
    kind === 'adalora'
      ? [either(isNull, recordOf(listOf(isBoolean))), 'booleans by module']
      : [recordOf(isNumber), 'numbers by pattern']
  const [test, wanted] = own === 'rankPattern' ? ranks : (checks[own] ?? [isNumber, 'a number'])
  if (!test(value)) throw new TypeError(`${where}: expected ${name} to be ${wanted}, but received ${shown(value)}`)
}

export interface ReadConfig {
  config: Resolved<AdapterConfig>
  /** What the file says beside: the sizes that prefix and prompt adapters were made for. */
  file: JsonObject
}

/**
 * Our config from peft's.
 *
 * @param where for errors @param warn told of options that are not known
 */
export function readAdapterConfig(file: JsonObject, where: string, warn: (line: string) => void): ReadConfig {
  const type = file.peft_type
  const kind = typeof type === 'string' && Object.hasOwn(kinds, type) ? kinds[type] : undefined
  if (kind === undefined) {
    throw new TypeError(`${where}: expected peft_type ${Object.keys(kinds).join(', ')}, but received ${shown(type)}`)
  }
  const known = names[kind]
  const config: Record<string, Json> = { kind }
  const unknown: string[] = []
  for (const [name, value] of Object.entries(file)) {
    const own = Object.hasOwn(known, name) ? known[name] : undefined
    if (own !== undefined) {
      // peft leaves options out by null
      if (value === null && own !== 'taskType') continue
      checkValue(where, kind, name, own, value)
      config[own] = value
    } else if (Object.hasOwn(unsupported, name)) {
      if (!unsupported[name]!.includes(value) && !isEmpty(value)) refuseFeature(where, name, value)
    } else if (!neutral.has(name) && !(kind === 'adalora' && name === 'r') && !ignored(kind, name, value))
      unknown.push(name)
  }
  if (unknown.length > 0) warn(`${where}: ignores options that are not known: ${unknown.join(', ')}`)
  if (kind === 'lora') {
    const init = config.initLoraWeights
    if (typeof init === 'string' && changesBase.test(init.toLowerCase()))
      refuseFeature(where, 'init_lora_weights', init)
    config.initLoraWeights = init === 'gaussian' ? init : true
  }
  if (kind === 'prefix') {
    // the network is not in the file: its result is
    config.prefixProjection = false
    config.initWeights = null
  }
  if (kind !== 'prefix' && kind !== 'prompt' && isEmpty(config.targetModules ?? null)) {
    throw new TypeError(`${where}: expected target_modules, but received ${shown(file.target_modules)}`)
  }
  // dtype and what else a file does not say is left to the defaults
  return { config: resolveConfig(config as unknown as AdapterConfig) as Resolved<AdapterConfig>, file }
}

/** Options of LoRA's that stand in AdaLoRA's file too, and mean nothing where they say what is usual. */
function ignored(kind: AdapterKind, name: string, value: Json): boolean {
  if (kind !== 'adalora') return false
  if (name === 'init_lora_weights' || name === 'alpha_pattern') return true
  if (name === 'use_dora' && value !== false) refuseFeature('adapter_config.json', name, value)
  return name === 'use_dora' || name === 'use_rslora'
}

/** peft's config from ours. `more` is what only the model knows. */
export function writeAdapterConfig(
  config: Resolved<AdapterConfig>,
  more: Readonly<Record<string, Json>>,
): Record<string, Json> {
  const type = Object.entries(kinds).find(([, kind]) => kind === config.kind)![0]
  const own = config as unknown as Readonly<Record<string, Json>>
  const written = Object.entries(names[config.kind]).map(([name, ours]): [string, Json] => [name, own[ours] ?? null])
  const common: Record<string, Json> = {
    peft_type: type,
    auto_mapping: null,
    revision: null,
    inference_mode: true,
    modules_to_save: null,
  }
  const lora: Record<string, Json> =
    config.kind === 'lora' || config.kind === 'adalora' ? { bias: 'none', init_lora_weights: true } : {}
  const all = { ...common, ...lora, ...Object.fromEntries(written), ...more }
  return Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)))
}
