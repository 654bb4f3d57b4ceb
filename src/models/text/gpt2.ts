/*
 * GPT-2: Radford et al. 2019, Language models are unsupervised multitask learners; BioMedLM (Bolton et al. 2024, arXiv
 * 2403.18421) is of this architecture, with scale_attn_by_inverse_layer_idx. Names and options are those of
 * transformers' GPT2Model.
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

export interface GPT2Config {
  vocabularySize: number
  maximumPositions: number
  width: number
  layers: number
  heads: number
  /** Of the layer's feed-forward part. */
  innerWidth: number
  activation: string
  normEpsilon: number
  /** Divide scores by sqrt(headWidth). */
  scaleScores: boolean
  /** Divide the scores of layer i, from 0, by i + 1 too. */
  scaleByLayer: boolean
  embeddingDropout: number
  attentionDropout: number
  residualDropout: number
}

/** Reads config.json of model_type gpt2. */
export function readGPT2Config(config: Config): GPT2Config {
  const width = config.count('n_embd', 768)
  const heads = config.count('n_head', 12)
  if (width % heads !== 0) {
    throw new RangeError(`${config.path}: expected n_embd to be a multiple of ${heads} heads, but received ${width}`)
  }
  config.only('add_cross_attention', [false])
  config.ignore('tie_word_embeddings')
  // reordering and upcasting change the rounding of half precision only
  config.ignore(
    'n_ctx',
    'reorder_and_upcast_attn',
    'summary_activation',
    'summary_first_dropout',
    'summary_proj_to_labels',
  )
  config.ignore('summary_type', 'summary_use_proj')
  const read = {
    vocabularySize: config.count('vocab_size', 50257),
    maximumPositions: config.count('n_positions', 1024),
    width,
    layers: config.count('n_layer', 12),
    heads,
    innerWidth: config.count('n_inner', 4 * width),
    activation: config.string('activation_function', 'gelu_new'),
    normEpsilon: config.number('layer_norm_epsilon', 1e-5),
    scaleScores: config.boolean('scale_attn_weights', true),
    scaleByLayer: config.boolean('scale_attn_by_inverse_layer_idx', false),
    embeddingDropout: config.probability('embd_pdrop', 0.1),
    attentionDropout: config.probability('attn_pdrop', 0.1),
    residualDropout: config.probability('resid_pdrop', 0.1),
  }
  config.finish()
  return read
}

/** GPT-2's linear layer, x W + b: the weight is [inFeatures, outFeatures], the transpose of Linear's. */
export class Conv1D extends nn.Module {
  weight: torch.nn.Parameter
  bias: torch.nn.Parameter

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
  ) {
    super()
    const options = nn.factoryOptions()
    this.weight = torch.scope(() => new nn.Parameter(torch.empty([inFeatures, outFeatures], options)))
    this.bias = torch.scope(() => new nn.Parameter(torch.zeros([outFeatures], options)))
    if (!this.weight.isMeta) nn.init.normal_(this.weight, 0, 0.02)
  }

  forward(x: Tensor): Tensor {
    return torch.nn.functional.linear(x, this.weight.t(), this.bias)
  }

  override extraRepr(): string {
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}`
  }
}

class Attention extends nn.Module {
  // adapters put modules of their own in the place of these
  c_attn: torch.nn.Layer
  c_proj: torch.nn.Layer
  private readonly scale: number

  constructor(
    private readonly config: GPT2Config,
    layer: number,
    private readonly running: RunningOptions,
  ) {
    super()
    const { width, heads, scaleScores, scaleByLayer } = config
    this.c_attn = new Conv1D(width, 3 * width)
    this.c_proj = new Conv1D(width, width)
    this.scale = (scaleScores ? 1 / Math.sqrt(width / heads) : 1) / (scaleByLayer ? layer + 1 : 1)
  }

  forward(x: Tensor, { visibility, prefix, wanted, wantWeights }: LayerInput): [Tensor, Tensor | null] {
    const { width, heads, attentionDropout, residualDropout } = this.config
    const [batch = 1, length = 1] = x.shape
    // [B, S, 3 D] to three of [B, S, H, D / H]
    const [query, key, value] = this.c_attn
      .forward(x)
      .split(width, 2)
      .map((each) => each.view([batch, length, heads, width / heads])) as [Tensor, Tensor, Tensor]
    const { scale, running, training } = this
    const { output, weights } = attend(query, key, value, {
      scale,
      visibility,
      prefix,
      dropout: attentionDropout,
      training,
      running,
      wantWeights,
    })
    const projected = this.c_proj.forward(wanted === null ? output : output.indexSelect(1, wanted))
    return [ownDropout(projected, residualDropout, training, running), weights]
  }
}

class MLP extends nn.Module {
  c_fc: torch.nn.Layer
  c_proj: torch.nn.Layer
  private readonly activation: (x: Tensor) => Tensor

  constructor(
    private readonly config: GPT2Config,
    private readonly running: RunningOptions,
  ) {
    super()
    this.c_fc = new Conv1D(config.width, config.innerWidth)
    this.c_proj = new Conv1D(config.innerWidth, config.width)
    this.activation = activationOf(config.activation, 'gpt2')
  }

  forward(x: Tensor): Tensor {
    const y = this.c_proj.forward(this.activation(this.c_fc.forward(x)))
    return ownDropout(y, this.config.residualDropout, this.training, this.running)
  }
}

class Block extends nn.Module {
  ln_1: torch.nn.LayerNorm
  attn: Attention
  ln_2: torch.nn.LayerNorm
  mlp: MLP

  constructor(config: GPT2Config, layer: number, running: RunningOptions) {
    super()
    this.ln_1 = new nn.LayerNorm(config.width, { eps: config.normEpsilon })
    this.attn = new Attention(config, layer, running)
    this.ln_2 = new nn.LayerNorm(config.width, { eps: config.normEpsilon })
    this.mlp = new MLP(config, running)
  }

  forward(input: LayerInput): [Tensor, Tensor | null] {
    const { x, wanted } = input
    const [attended, weights] = this.attn.forward(this.ln_1.forward(x), input)
    const y = (wanted === null ? x : x.indexSelect(1, wanted)).add(attended)
    return [y.add(this.mlp.forward(this.ln_2.forward(y))), weights]
  }
}

export class GPT2Model extends TextModel<GPT2Config> {
  readonly modelType = 'gpt2'
  readonly seesRight = false
  wte: torch.nn.Embedding
  wpe: torch.nn.Embedding
  h: torch.nn.ModuleList<Block>
  ln_f: torch.nn.LayerNorm

  constructor(config: GPT2Config) {
    super(config)
    this.wte = new nn.Embedding(config.vocabularySize, config.width)
    this.wpe = new nn.Embedding(config.maximumPositions, config.width)
    this.h = new nn.ModuleList(
      Array.from({ length: config.layers }, (_, layer) => new Block(config, layer, this.running)),
    )
    this.ln_f = new nn.LayerNorm(config.width, { eps: config.normEpsilon })
  }

  wordEmbeddings(): torch.nn.Embedding {
    return this.wte
  }

  forward(input: TextInput): TextOutput {
    return torch.scope(() => {
      const { embeddings, ...sizes } = embedInput(this, 'GPT2Model', input)
      const positions = positionsOf(input, sizes, this, 'GPT2Model')
      // [B, S, D] + [B or 1, S, D]
      const first = ownDropout(
        embeddings.add(this.wpe.forward(positions)),
        this.config.embeddingDropout,
        this.training,
        this.running,
      )
      return runLayers(this, 'GPT2Model', first, input, sizes, {
        extra: [],
        layers: this.h,
        run: (block, given) => block.forward(given),
        finish: (x) => this.ln_f.forward(x),
      })
    })
  }
}

/** From the names in files, with and without a head around the model. */
export const gpt2Renames: readonly RenameTable[] = [
  [{ from: 'transformer.{rest*}', to: '{rest*}' }],
  [
    // the causal mask, which old files keep
    { from: 'h.{i}.attn.bias', to: null },
    { from: 'h.{i}.attn.masked_bias', to: null },
    // the head is wte
    { from: 'lm_head.weight', to: null },
  ],
]
