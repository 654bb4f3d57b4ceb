import * as torch from '../../torch/index.js'
import { Config, type JsonObject, type Logger, readConfig } from '../config.js'
import type { RenameTable } from '../renames.js'
import { loadWeights, openWeights, type WeightSource } from '../weights.js'
import { BertModel, type BertOptions, bertRenames, readBertConfig } from './bert.js'
import type { TextEncoder } from './encoder.js'
import { GPT2Model, gpt2Renames, readGPT2Config } from './gpt2.js'
import { LlamaModel, llamaRenames, readLlamaConfig } from './llama.js'

const { nn } = torch

/** What a config.json leaves open. */
export interface TextModelOptions {
  /** Of BERT: the first layers alone, and whether there is a pooler. Default: all; where the file has one. */
  bert?: BertOptions
}

interface Built {
  model: TextEncoder
  /** From the names of the checkpoint to the model's. */
  rename: readonly RenameTable[]
}

/** By model_type: a model with the weights that its layers start with, or (inside nn.onMeta) without memory. */
const builders: Readonly<Record<string, (config: Config, options: TextModelOptions) => Built>> = {
  gpt2: (config) => ({ model: new GPT2Model(readGPT2Config(config)), rename: gpt2Renames }),
  llama: (config) => ({ model: new LlamaModel(readLlamaConfig(config)), rename: llamaRenames }),
  bert: (config, { bert }) => {
    const read = readBertConfig(config, bert)
    return { model: new BertModel(read), rename: bertRenames(config.count('num_hidden_layers', 12), read) }
  },
}

export const textModelTypes: readonly string[] = Object.keys(builders)

function build(config: Config, options: TextModelOptions): Built {
  const type = config.modelType
  const builder = Object.hasOwn(builders, type) ? builders[type] : undefined
  if (builder === undefined) {
    throw new RangeError(
      `${config.path}: expected model_type ${textModelTypes.join(', ')}, but received '${type}', which is no text model`,
    )
  }
  return builder(config, options)
}

/** The model of a config.json, with the weights that its layers start with, or (inside nn.onMeta) without memory. */
export function buildTextModel(config: Config | JsonObject, options: TextModelOptions = {}): TextEncoder {
  return build(config instanceof Config ? config : new Config(config), options).model
}

export interface LoadTextModelOptions extends TextModelOptions {
  /** Default: 'auto', as in the file. */
  dtype?: torch.DType | 'auto'
  /** Default: 'cpu'. */
  device?: torch.Device
  /** Whether the weights take gradients. Default: false, the model is frozen. */
  trainable?: boolean
  logger?: Logger
}

/** The model of a config, filled from a checkpoint under its published names: in eval mode, and frozen. */
export function textModelFrom(config: Config, source: WeightSource, options: LoadTextModelOptions = {}): TextEncoder {
  const { dtype = 'auto', device, trainable = false } = options
  const hasPooler = source.names.some((name) => /^(bert\.)?pooler\./.test(name))
  const { model, rename } = nn.onMeta(() => build(config, { bert: { pooler: hasPooler, ...options.bert } }))
  loadWeights(model, source, { rename, dtype, device })
  model.requiresGrad_(trainable).eval()
  return model
}

/**
 * A text model of a folder as transformers saves it (config.json, and weights whole or in shards). Weights are mapped into
 * memory, and converted one by one where another dtype is asked for.
 */
export async function loadTextModel(folder: string, options: LoadTextModelOptions = {}): Promise<TextEncoder> {
  const config = new Config(readConfig(folder), options.logger)
  const source = await openWeights(folder)
  try {
    return textModelFrom(config, source, options)
  } finally {
    source.close?.()
  }
}

/**
 * Keeps the frozen weights of linear layers in a lower precision, and everything else as it is. Under autocast the products
 * are those of float32 weights, which autocast lowers at each use; norms, embeddings and the sums of the layers stay in
 * float32.
 *
 * @param options.except parameters whose layers stay as they are
 */
export function lowerMatrices<Model extends torch.nn.Module>(
  model: Model,
  dtype: torch.DType,
  { except = new Set() }: { except?: ReadonlySet<torch.Tensor> } = {},
): Model {
  for (const module of frozenMatrices(model)) {
    if (!module.ownParameters().some(([, each]) => except.has(each))) module.to(dtype)
  }
  return model
}

/** Linear layers, whose class may be any, that take no gradients. */
function frozenMatrices(model: torch.nn.Module): torch.nn.Module[] {
  return model.modules().filter((module) => {
    if (module instanceof nn.Embedding || module.children().length > 0) return false
    const own = module.ownParameters()
    const isMatrix = own.some(([name, { ndim }]) => name === 'weight' && ndim === 2)
    return isMatrix && own.every(([, { requiresGrad }]) => !requiresGrad)
  })
}
