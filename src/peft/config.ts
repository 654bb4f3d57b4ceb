import type { DType } from '../torch/index.js'

/*
 * What an adapter is made from. The names are ours in camel case; adapter_config.json has Python's peft's
 * (config-file.ts).
 */

/** Which modules an adapter is put on. */
export interface TargetOptions {
  /**
   * Modules by name: a list of names, each of which matches a module of that path or of a path that ends with a dot and
   * the name (`c_proj` matches both projections of GPT-2, `mlp.c_proj` the MLP's alone); one string is a regular
   * expression for the whole path; 'all-linear' is every linear layer but the output head. Paths count with and without
   * the language model head's prefix (`transformer.h.0...` and `h.0...`).
   * Default: what peft takes for the architecture (GPT-2 c_attn; LLaMA q_proj, v_proj; BERT query, value).
   */
  targetModules?: string | readonly string[] | null
  /** Modules that are left out, written like `targetModules`. Default: none. */
  excludeModules?: string | readonly string[] | null
  /** Numbers of the layers that get the adapter; not with a regular expression. Default: all. */
  layersToTransform?: number | readonly number[] | null
  /** Under which name the layers stand ('h', 'layers'), where `layersToTransform` is given. Default: any. */
  layersPattern?: string | readonly string[] | null
}

/** What stands in the file for others to read, and changes nothing here. */
export interface DescriptionOptions {
  /** Name or folder of the model that the adapter is for. Default: null. */
  baseModel?: string | null
  /**
   * peft's word for what the model does. Default: 'auto', CAUSAL_LM where the names in the file are those of a
   * language model with head, FEATURE_EXTRACTION for other text models, null for others.
   */
  taskType?: string | null
}

interface LoraShared extends TargetOptions, DescriptionOptions {
  /** Updates are multiplied by alpha / r. Default: 8. */
  alpha?: number
  /** Probability with which an element of the adapter's input is dropped in training. Default: 0. */
  dropout?: number
  /** Dtype of the adapter's parameters. Default: float32 (float64 where the layer is), also over a bfloat16 layer. */
  dtype?: DType | null
}

/** LoRA (Hu et al. 2021, arXiv 2106.09685): y = W x + s B A dropout(x), s = alpha / r. */
export interface LoraConfig extends LoraShared {
  kind: 'lora'
  /** Rank of the update. Default: 8. */
  r?: number
  /** s = alpha / sqrt(r) (rank-stabilised: Kalajdzievski 2023, arXiv 2312.03732). Default: false. */
  rslora?: boolean
  /** Train direction and magnitude apart (DoRA: Liu et al. 2024, arXiv 2402.09353). Default: false. */
  dora?: boolean
  /** Other ranks for modules whose path ends in a regular expression. Default: none. */
  rankPattern?: Readonly<Record<string, number>>
  /** Other alphas, likewise. Default: none. */
  alphaPattern?: Readonly<Record<string, number>>
  /** A: kaiming-uniform (true) or normal with deviation 1 / r ('gaussian'); B zero. Default: true. */
  initLoraWeights?: true | 'gaussian'
}

/** AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): updates B diag(E) A whose ranks are moved to where they matter. */
export interface AdaLoraConfig extends LoraShared {
  kind: 'adalora'
  /** Rank at first, of each module. Default: 12. */
  initR?: number
  /** Mean rank at the end. Default: 8. */
  targetR?: number
  /** Steps before the ranks begin to shrink. Default: 0. */
  tinit?: number
  /** Steps at the end in which they rest. Default: 0. */
  tfinal?: number
  /** Steps from one reallocation to the next. Default: 1. */
  deltaT?: number
  /** Smoothing of the importances. Default: 0.85. */
  beta1?: number
  /** Smoothing of their deviations. Default: 0.85. */
  beta2?: number
  /** Weight of the orthogonality loss. Default: 0.5. */
  orthRegWeight?: number
  /** Steps of the whole training. */
  totalStep: number
  /** Which triplets are kept, by the path of `lora_E`: written by the rank allocator. Default: null. */
  rankPattern?: Readonly<Record<string, readonly boolean[]>> | null
}

/**
 * (IA)3 (Liu et al. 2022, arXiv 2205.05638): learned factors on the outputs, or on the inputs of feed-forward modules.
 */
export interface Ia3Config extends TargetOptions, DescriptionOptions {
  kind: 'ia3'
  /**
   * Which targets get factors on their inputs: ends of paths (without a dot in front: `dense` also ends `xdense`), a
   * subset of `targetModules` where both are lists; one string is a regular expression for the whole path.
   * Default: what peft takes for the architecture (GPT-2 mlp.c_proj, LLaMA down_proj, BERT output.dense).
   */
  feedforwardModules?: string | readonly string[] | null
  /** Dtype of the factors. Default: float32 (float64 where the layer is). */
  dtype?: DType | null
}

/** Prefix tuning (Li and Liang 2021, arXiv 2101.00190): learned keys and values in front of every layer's. */
export interface PrefixConfig extends DescriptionOptions {
  kind: 'prefix'
  /** Number of virtual tokens. */
  numVirtualTokens: number
  /**
   * Make the prefix from shorter embeddings by a small network, which is not saved: only its result is. Default: false.
   */
  prefixProjection?: boolean
  /** Width of that network. Default: the width of the keys. */
  encoderHiddenSize?: number | null
  /** 'zero' starts with keys and values of zeros. Default: null (normal). */
  initWeights?: 'zero' | null
}

/** Prompt tuning (Lester et al. 2021, arXiv 2104.08691): learned embeddings before those of the words. */
export interface PromptConfig extends DescriptionOptions {
  kind: 'prompt'
  /** Number of virtual tokens. */
  numVirtualTokens: number
  /** Start from N(0, 1), from the embeddings of `initTokens`, or from those of random tokens. Default: 'random'. */
  init?: 'random' | 'text' | 'sample-vocab'
  /** Token ids of a text, with `init: 'text'`: repeated and cut to the number of virtual tokens. */
  initTokens?: readonly number[] | null
  /** That text, for the file. Default: null. */
  initText?: string | null
  /** Its tokenizer, for the file. Default: null. */
  tokenizer?: string | null
}

export type AdapterConfig = LoraConfig | AdaLoraConfig | Ia3Config | PrefixConfig | PromptConfig
export type AdapterKind = AdapterConfig['kind']

const targetDefaults = { targetModules: null, excludeModules: null, layersToTransform: null, layersPattern: null }
const descriptionDefaults = { baseModel: null, taskType: 'auto' }

/** What is taken for options that are not given. */
export const adapterDefaults = {
  lora: {
    ...targetDefaults,
    ...descriptionDefaults,
    r: 8,
    alpha: 8,
    dropout: 0,
    dtype: null,
    rslora: false,
    dora: false,
    rankPattern: {},
    alphaPattern: {},
    initLoraWeights: true,
  },
  adalora: {
    ...targetDefaults,
    ...descriptionDefaults,
    initR: 12,
    targetR: 8,
    alpha: 8,
    dropout: 0,
    dtype: null,
    tinit: 0,
    tfinal: 0,
    deltaT: 1,
    beta1: 0.85,
    beta2: 0.85,
    orthRegWeight: 0.5,
    rankPattern: null,
  },
  ia3: { ...targetDefaults, ...descriptionDefaults, feedforwardModules: null, dtype: null },
  prefix: { ...descriptionDefaults, prefixProjection: false, encoderHiddenSize: null, initWeights: null },
  prompt: { ...descriptionDefaults, init: 'random', initTokens: null, initText: null, tokenizer: null },
} as const satisfies { [Kind in AdapterKind]: Partial<Extract<AdapterConfig, { kind: Kind }>> }

/** A config with nothing left out. */
export type Resolved<Config extends AdapterConfig> = Required<Config>

function check(holds: boolean, what: string, given: unknown): void {
  if (!holds)
    throw new RangeError(`addAdapter: expected ${what}, but received ${JSON.stringify(given) ?? String(given)}`)
}

const isCount = (value: number, least = 1): boolean => Number.isSafeInteger(value) && value >= least

function checkTargets(config: Required<TargetOptions>): void {
  const { targetModules, layersToTransform, layersPattern } = config
  const isEmpty = targetModules !== null && targetModules.length === 0
  check(!isEmpty, 'targetModules to name a module at least', targetModules)
  check(
    layersToTransform === null || typeof targetModules !== 'string' || targetModules === 'all-linear',
    'layersToTransform only beside a list of targetModules, since a regular expression can name the layers itself',
    layersToTransform,
  )
  check(
    layersPattern === null || layersPattern.length === 0 || layersToTransform !== null,
    'layersToTransform beside layersPattern',
    layersPattern,
  )
}

function checkLora(config: Resolved<LoraConfig>): void {
  check(isCount(config.r), 'r to be a whole number from 1', config.r)
  for (const rank of Object.values(config.rankPattern)) check(isCount(rank), 'ranks of rankPattern from 1', rank)
  const init: unknown = config.initLoraWeights
  check(init === true || init === 'gaussian', "initLoraWeights to be true or 'gaussian'", init)
}

function checkAdaLora(config: Resolved<AdaLoraConfig>): void {
  const { initR, targetR, tinit, tfinal, totalStep, deltaT, beta1, beta2, orthRegWeight } = config
  check(isCount(initR, 0), 'initR to be a whole number', initR)
  check(isCount(targetR, 0), 'targetR to be a whole number', targetR)
  check(isCount(totalStep), 'totalStep (the number of training steps) from 1', totalStep)
  check(isCount(deltaT), 'deltaT to be a whole number from 1', deltaT)
  check(beta1 > 0 && beta1 < 1, 'beta1 between 0 and 1', beta1)
  check(beta2 > 0 && beta2 < 1, 'beta2 between 0 and 1', beta2)
  check(orthRegWeight >= 0, 'orthRegWeight from 0', orthRegWeight)
  check(tinit < totalStep - tfinal, 'tinit below totalStep - tfinal, so that ranks have time to shrink', tinit)
}

/** Fills in what is not given and refuses what cannot be. */
export function resolveConfig<Config extends AdapterConfig>(config: Config): Resolved<Config> {
  const defaults: object | undefined = Object.hasOwn(adapterDefaults, config.kind)
    ? adapterDefaults[config.kind]
    : undefined
  check(defaults !== undefined, `kind to be one of '${Object.keys(adapterDefaults).join("', '")}'`, config.kind)
  const given = Object.entries(config).filter(([, value]) => value !== undefined)
  const full = { ...defaults, ...Object.fromEntries(given) } as unknown as Resolved<AdapterConfig>
  if ('targetModules' in full) checkTargets(full)
  if (full.kind === 'lora' || full.kind === 'adalora') {
    check(full.dropout >= 0 && full.dropout < 1, 'dropout from 0 to below 1', full.dropout)
    check(Number.isFinite(full.alpha), 'alpha to be a number', full.alpha)
  }
  if (full.kind === 'lora') checkLora(full)
  if (full.kind === 'adalora') checkAdaLora(full)
  if (full.kind === 'ia3') {
    const { targetModules: targets, feedforwardModules: inner } = full
    if (Array.isArray(targets) && Array.isArray(inner)) {
      check(
        inner.every((name) => targets.includes(name)),
        'feedforwardModules to be among the targetModules',
        inner,
      )
    }
  }
  if (full.kind === 'prefix' || full.kind === 'prompt') {
    check(isCount(full.numVirtualTokens), 'numVirtualTokens to be a whole number from 1', full.numVirtualTokens)
  }
  if (full.kind === 'prompt' && full.init === 'text') {
    check((full.initTokens?.length ?? 0) > 0, "initTokens (the text's token ids) with init 'text'", full.initTokens)
  }
  return full as unknown as Resolved<Config>
}
