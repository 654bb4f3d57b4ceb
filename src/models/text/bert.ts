/*
 * BERT: Devlin et al. 2018, arXiv 1810.04805; Bio_ClinicalBERT (Alsentzer et al. 2019, arXiv 1904.03323) and MiniLM are of
 * this architecture. Names and options are those of transformers' BertModel.
 */
import * as torch from '../../torch/index.js'
import type { Config } from '../config.js'
import type { RenameTable } from '../renames.js'
import { activationOf } from './activations.js'
import { attend } from './attention.js'
import { embedInput, ownDropout, positionsOf, type RunningOptions, type TextInput, type TextOutput } from './encoder.js'
import { type LayerInput, runLayers } from './layers.js'
import { TextModel } from './text-model.js'

const { nn } = torch
type Tensor = torch.Tensor

export interface BertConfig {
  vocabularySize: number
  maximumPositions: number
  tokenTypes: number
  width: number
  layers: number
  heads: number
  innerWidth: number
  activation: string
  normEpsilon: number
  hiddenDropout: number
  attentionDropout: number
  /** Whether there is the dense layer over [CLS]: some files lack it. */
  pooler: boolean
}

export interface BertOptions {
  /** The first layers alone: the published baseline keeps 6 of 12. Default: keep_layers of config.json, else all. */
  layers?: number
  /** Default: true. */
  pooler?: boolean
}

/** Reads config.json of model_type bert. */
export function readBertConfig(config: Config, options: BertOptions = {}): BertConfig {
  const width = config.count('hidden_size', 768)
  const heads = config.count('num_attention_heads', 12)
  const layers = config.count('num_hidden_layers', 12)
  if (width % heads !== 0) {
    throw new RangeError(
      `${config.path}: expected hidden_size to be a multiple of ${heads} heads, but received ${width}`,
    )
  }
  // not transformers': what options.layers says, for presets
  const kept = options.layers ?? (config.has('keep_layers') ? config.count('keep_layers') : layers)
  if (!Number.isInteger(kept) || kept < 1 || kept > layers) {
    throw new RangeError(`BertModel: expected to keep 1 to ${layers} layers, but received ${kept}`)
  }
  config.only('position_embedding_type', ['absolute'])
  config.only('is_decoder', [false])
  config.only('add_cross_attention', [false])
  config.ignore('tie_word_embeddings', 'keep_layers')
  config.ignore(
    'classifier_dropout',
    'directionality',
    'pooler_fc_size',
    'pooler_num_attention_heads',
    'pooler_num_fc_layers',
  )
  config.ignore('pooler_size_per_head', 'pooler_type')
  const read = {
    vocabularySize: config.count('vocab_size', 30522),
    maximumPositions: config.count('max_position_embeddings', 512),
    tokenTypes: config.count('type_vocab_size', 2),
    width,
    layers: kept,
    heads,
    innerWidth: config.count('intermediate_size', 4 * width),
    activation: config.string('hidden_act', 'gelu'),
    normEpsilon: config.number('layer_norm_eps', 1e-12),
    hiddenDropout: config.probability('hidden_dropout_prob', 0.1),
    attentionDropout: config.probability('attention_probs_dropout_prob', 0.1),
    pooler: options.pooler ?? true,
  }
  config.finish()
  return read
}

class Embeddings extends nn.Module {
  word_embeddings: torch.nn.Embedding
  position_embeddings: torch.nn.Embedding
  token_type_embeddings: torch.nn.Embedding
  LayerNorm: torch.nn.LayerNorm

  constructor(
    private readonly config: BertConfig,
    private readonly running: RunningOptions,
  ) {
    super()
    this.word_embeddings = new nn.Embedding(config.vocabularySize, config.width)
    this.position_embeddings = new nn.Embedding(config.maximumPositions, config.width)
    this.token_type_embeddings = new nn.Embedding(config.tokenTypes, config.width)
    this.LayerNorm = new nn.LayerNorm(config.width, { eps: config.normEpsilon })
  }

  /** Words [B, S, D], positions [B or 1, S], types [B, S] or null for type 0. */
  forward(words: Tensor, positions: Tensor, types: Tensor | null): Tensor {
    const ofType =
      types === null ? this.token_type_embeddings.weight.narrow(0, 0, 1) : this.token_type_embeddings.forward(types)
    const sum = words.add(ofType).add(this.position_embeddings.forward(positions))
    return ownDropout(this.LayerNorm.forward(sum), this.config.hiddenDropout, this.training, this.running)
  }
}

class SelfAttention extends nn.Module {
  // adapters put modules of their own in the place of these
  query: torch.nn.Layer
  key: torch.nn.Layer
  value: torch.nn.Layer

  constructor(
    private readonly config: BertConfig,
    private readonly running: RunningOptions,
  ) {
    super()
    this.query = new nn.Linear(config.width, config.width)
    this.key = new nn.Linear(config.width, config.width)
    this.value = new nn.Linear(config.width, config.width)
  }

  forward(x: Tensor, { visibility, prefix, wantWeights }: LayerInput): [Tensor, Tensor | null] {
    const { width, heads, attentionDropout: dropout } = this.config
    const { running, training } = this
    const [batch = 1, length = 1] = x.shape
    // [B, S, D] to [B, S, H, D / H]
    const perHead = (projected: Tensor): Tensor => projected.view([batch, length, heads, width / heads])
    const [query, key, value] = [this.query, this.key, this.value].map((layer) => perHead(layer.forward(x))) as [
      Tensor,
      Tensor,
      Tensor,
    ]
    const scale = 1 / Math.sqrt(width / heads)
    const { output, weights } = attend(query, key, value, {
      scale,
      visibility,
      prefix,
      dropout,
      training,
      running,
      wantWeights,
    })
    return [output, weights]
  }
}

/** A linear layer, a residual and a norm. */
class Output extends nn.Module {
  dense: torch.nn.Layer
  LayerNorm: torch.nn.LayerNorm

  constructor(
    private readonly config: BertConfig,
    inFeatures: number,
    private readonly running: RunningOptions,
  ) {
    super()
    this.dense = new nn.Linear(inFeatures, config.width)
    this.LayerNorm = new nn.LayerNorm(config.width, { eps: config.normEpsilon })
  }

  forward(x: Tensor, residual: Tensor): Tensor {
    const y = ownDropout(this.dense.forward(x), this.config.hiddenDropout, this.training, this.running)
    return this.LayerNorm.forward(y.add(residual))
  }
}

class Attention extends nn.Module {
  self: SelfAttention
  output: Output

  constructor(config: BertConfig, running: RunningOptions) {
    super()
    this.self = new SelfAttention(config, running)
    this.output = new Output(config, config.width, running)
  }

  forward(input: LayerInput): [Tensor, Tensor | null] {
    const { x, wanted } = input
    const [attended, weights] = this.self.forward(x, input)
    const [own, residual] =
      wanted === null ? [attended, x] : [attended.indexSelect(1, wanted), x.indexSelect(1, wanted)]
    return [this.output.forward(own, residual), weights]
  }
}

class Intermediate extends nn.Module {
  dense: torch.nn.Layer
  private readonly activation: (x: Tensor) => Tensor

  constructor(config: BertConfig) {
    super()
    this.dense = new nn.Linear(config.width, config.innerWidth)
    this.activation = activationOf(config.activation, 'bert')
  }

  forward(x: Tensor): Tensor {
    return this.activation(this.dense.forward(x))
  }
}

class Layer extends nn.Module {
  attention: Attention
  intermediate: Intermediate
  output: Output

  constructor(config: BertConfig, running: RunningOptions) {
    super()
    this.attention = new Attention(config, running)
    this.intermediate = new Intermediate(config)
    this.output = new Output(config, config.innerWidth, running)
  }

  forward(input: LayerInput): [Tensor, Tensor | null] {
    const [x, weights] = this.attention.forward(input)
    return [this.output.forward(this.intermediate.forward(x), x), weights]
  }
}

class Encoder extends nn.Module {
  layer: torch.nn.ModuleList<Layer>

  constructor(config: BertConfig, running: RunningOptions) {
    super()
    this.layer = new nn.ModuleList(Array.from({ length: config.layers }, () => new Layer(config, running)))
  }

  forward(): never {
    throw new TypeError('Encoder.forward: expected a call of BertModel.forward, which runs the layers')
  }
}

class Pooler extends nn.Module {
  dense: torch.nn.Layer

  constructor(width: number) {
    super()
    this.dense = new nn.Linear(width, width)
  }

  /** [B, S, D] to [B, D]: of the first token. */
  forward(hidden: Tensor): Tensor {
    return this.dense.forward(hidden.select(1, 0)).tanh()
  }
}

export class BertModel extends TextModel<BertConfig> {
  readonly modelType = 'bert'
  readonly seesRight = true
  embeddings: Embeddings
  encoder: Encoder
  pooler: Pooler | null

  constructor(config: BertConfig) {
    super(config)
    this.embeddings = new Embeddings(config, this.running)
    this.encoder = new Encoder(config, this.running)
    this.pooler = config.pooler ? new Pooler(config.width) : null
  }

  wordEmbeddings(): torch.nn.Embedding {
    return this.embeddings.word_embeddings
  }

  forward(input: TextInput): TextOutput {
    return torch.scope(() => {
      const { embeddings, ...sizes } = embedInput(this, 'BertModel', input)
      const positions = positionsOf(input, sizes, this, 'BertModel')
      const first = this.embeddings.forward(embeddings, positions, input.tokenTypeIds ?? null)
      const output = runLayers(this, 'BertModel', first, input, sizes, {
        extra: [],
        layers: this.encoder.layer,
        run: (layer, given) => layer.forward(given),
        finish: (x) => x,
      })
      const isWhole = this.pooler !== null && input.layout === undefined && input.outputTokens === undefined
      return { ...output, pooled: isWhole ? (this.pooler as Pooler).forward(output.lastHidden) : null }
    })
  }
}

/** From the names in files, with and without a head around the model. `layers` is how many the files have. */
export function bertRenames(layers: number, config: BertConfig): readonly RenameTable[] {
  const left = Array.from({ length: layers - config.layers }, (_, index) => config.layers + index)
  return [
    [{ from: 'bert.{rest*}', to: '{rest*}' }],
    [
      { from: '{rest*}.LayerNorm.gamma', to: '{rest*}.LayerNorm.weight' },
      { from: '{rest*}.LayerNorm.beta', to: '{rest*}.LayerNorm.bias' },
    ],
    [
      // the numbers of the positions, and heads of other tasks
      { from: 'embeddings.position_ids', to: null },
      { from: 'cls.{rest*}', to: null },
      { from: 'classifier.{rest*}', to: null },
      { from: 'qa_outputs.{rest*}', to: null },
      ...(config.pooler ? [] : [{ from: 'pooler.{rest*}', to: null }]),
      ...left.map((layer) => ({ from: `encoder.layer.${layer}.{rest*}`, to: null })),
    ],
  ]
}
