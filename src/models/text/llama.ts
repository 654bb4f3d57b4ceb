/*
 * LLaMA: Touvron et al. 2023, arXiv 2302.13971; grouped queries as in LLaMA 2 (arXiv 2307.09288). Meditron-7B (Chen et al.
 * 2023, arXiv 2311.16079) and SmolLM2 are of this architecture. Names and options are those of transformers' LlamaModel.
 */
import * as torch from '../../torch/index.js'
import type { Config } from '../config.js'
import type { RenameTable } from '../renames.js'
import { activationOf } from './activations.js'
import { attend } from './attention.js'
import { embedInput, positionsOf, type RunningOptions, type TextInput, type TextOutput } from './encoder.js'
import { type LayerInput, runLayers } from './layers.js'
import { type Rope, readRope, rotate, rotations } from './rope.js'
import { TextModel } from './text-model.js'

const { nn } = torch
type Tensor = torch.Tensor

export interface LlamaConfig {
  vocabularySize: number
  maximumPositions: number
  width: number
  layers: number
  heads: number
  keyValueHeads: number
  headWidth: number
  innerWidth: number
  activation: string
  normEpsilon: number
  attentionBias: boolean
  feedForwardBias: boolean
  attentionDropout: number
  rope: Rope
}

/** Reads config.json of model_type llama. */
export function readLlamaConfig(config: Config): LlamaConfig {
  const width = config.count('hidden_size', 4096)
  const heads = config.count('num_attention_heads', 32)
  const keyValueHeads = config.count('num_key_value_heads', heads)
  if (heads % keyValueHeads !== 0) {
    throw new RangeError(
      `${config.path}: expected num_attention_heads to be a multiple of ${keyValueHeads} key and value heads, but received ${heads}`,
    )
  }
  const headWidth = config.count('head_dim', width / heads)
  if (headWidth % 2 !== 0) {
    throw new RangeError(`${config.path}: expected an even head_dim for rotary positions, but received ${headWidth}`)
  }
  const maximumPositions = config.count('max_position_embeddings', 2048)
  config.only<number | null>('sliding_window', [null])
  // how the weights were split in pre-training: the product is the same
  config.ignore('tie_word_embeddings', 'pretraining_tp', 'is_llama_config', 'transformers.js_config')
  config.only('rope_interleaved', [false])
  const read = {
    vocabularySize: config.count('vocab_size', 32000),
    maximumPositions,
    width,
    layers: config.count('num_hidden_layers', 32),
    heads,
    keyValueHeads,
    headWidth,
    innerWidth: config.count('intermediate_size', 11008),
    activation: config.string('hidden_act', 'silu'),
    normEpsilon: config.number('rms_norm_eps', 1e-6),
    attentionBias: config.boolean('attention_bias', false),
    feedForwardBias: config.boolean('mlp_bias', false),
    attentionDropout: config.probability('attention_dropout', 0),
    rope: readRope(config, headWidth, maximumPositions),
  }
  config.finish()
  return read
}

/** Root mean square 1 over the last dimension (Zhang and Sennrich 2019), computed in float32 whatever comes. */
class RMSNorm extends nn.Module {
  weight: torch.nn.Parameter

  constructor(
    width: number,
    private readonly eps: number,
  ) {
    super()
    this.weight = torch.scope(() => new nn.Parameter(torch.ones([width], nn.factoryOptions())))
  }

  forward(x: Tensor): Tensor {
    const { weight, eps } = this
    if (x.dtype === 'float32' && weight.dtype === 'float32') return torch.rmsNorm(x, weight.shape, weight, eps)
    const wide = x.to('float32')
    return wide
      .mul(wide.square().mean(-1, { keepdim: true }).add(eps).rsqrt())
      .to(x.dtype)
      .mul(weight)
  }
}

class Attention extends nn.Module {
  // adapters put modules of their own in the place of these
  q_proj: torch.nn.Layer
  k_proj: torch.nn.Layer
  v_proj: torch.nn.Layer
  o_proj: torch.nn.Layer

  constructor(
    private readonly config: LlamaConfig,
    private readonly running: RunningOptions,
  ) {
    super()
    const { width, heads, keyValueHeads, headWidth, attentionBias: bias } = config
    this.q_proj = new nn.Linear(width, heads * headWidth, { bias })
    this.k_proj = new nn.Linear(width, keyValueHeads * headWidth, { bias })
    this.v_proj = new nn.Linear(width, keyValueHeads * headWidth, { bias })
    this.o_proj = new nn.Linear(heads * headWidth, width, { bias })
  }

  forward(x: Tensor, { visibility, prefix, wanted, wantWeights, extra }: LayerInput): [Tensor, Tensor | null] {
    const { heads, keyValueHeads, headWidth, attentionDropout } = this.config
    const { running, training } = this
    const [batch = 1, length = 1] = x.shape
    const [cosine, sine] = extra as readonly [Tensor, Tensor]
    // [B, S, H d] to [B, S, H, d]
    const query = rotate(this.q_proj.forward(x).view([batch, length, heads, headWidth]), cosine, sine)
    const key = rotate(this.k_proj.forward(x).view([batch, length, keyValueHeads, headWidth]), cosine, sine)
    const value = this.v_proj.forward(x).view([batch, length, keyValueHeads, headWidth])
    const scale = 1 / Math.sqrt(headWidth)
    const { output, weights } = attend(query, key, value, {
      scale,
      visibility,
      prefix,
      dropout: attentionDropout,
      training,
      running,
      wantWeights,
    })
    return [this.o_proj.forward(wanted === null ? output : output.indexSelect(1, wanted)), weights]
  }
}

class MLP extends nn.Module {
  gate_proj: torch.nn.Layer
  up_proj: torch.nn.Layer
  down_proj: torch.nn.Layer
  private readonly activation: (x: Tensor) => Tensor

  constructor({ width, innerWidth, activation, feedForwardBias: bias }: LlamaConfig) {
    super()
    this.gate_proj = new nn.Linear(width, innerWidth, { bias })
    this.up_proj = new nn.Linear(width, innerWidth, { bias })
    this.down_proj = new nn.Linear(innerWidth, width, { bias })
    this.activation = activationOf(activation, 'llama')
  }

  forward(x: Tensor): Tensor {
    return this.down_proj.forward(this.activation(this.gate_proj.forward(x)).mul(this.up_proj.forward(x)))
  }
}

class DecoderLayer extends nn.Module {
  self_attn: Attention
  mlp: MLP
  input_layernorm: RMSNorm
  post_attention_layernorm: RMSNorm

  constructor(config: LlamaConfig, running: RunningOptions) {
    super()
    this.self_attn = new Attention(config, running)
    this.mlp = new MLP(config)
    this.input_layernorm = new RMSNorm(config.width, config.normEpsilon)
    this.post_attention_layernorm = new RMSNorm(config.width, config.normEpsilon)
  }

  forward(input: LayerInput): [Tensor, Tensor | null] {
    const { x, wanted } = input
    const [attended, weights] = this.self_attn.forward(this.input_layernorm.forward(x), input)
    const y = (wanted === null ? x : x.indexSelect(1, wanted)).add(attended)
    return [y.add(this.mlp.forward(this.post_attention_layernorm.forward(y))), weights]
  }
}

export class LlamaModel extends TextModel<LlamaConfig> {
  readonly modelType = 'llama'
  readonly seesRight = false
  embed_tokens: torch.nn.Embedding
  layers: torch.nn.ModuleList<DecoderLayer>
  norm: RMSNorm

  constructor(config: LlamaConfig) {
    super(config)
    this.embed_tokens = new nn.Embedding(config.vocabularySize, config.width)
    this.layers = new nn.ModuleList(Array.from({ length: config.layers }, () => new DecoderLayer(config, this.running)))
    this.norm = new RMSNorm(config.width, config.normEpsilon)
  }

  wordEmbeddings(): torch.nn.Embedding {
    return this.embed_tokens
  }

  forward(input: TextInput): TextOutput {
    return torch.scope(() => {
      const { embeddings, ...sizes } = embedInput(this, 'LlamaModel', input)
      const extra = rotations(this.config.rope, positionsOf(input, sizes, this, 'LlamaModel'), embeddings.dtype)
      return runLayers(this, 'LlamaModel', embeddings, input, sizes, {
        extra,
        layers: this.layers,
        run: (layer, given) => layer.forward(given),
        finish: (x) => this.norm.forward(x),
      })
    })
  }
}

/** From the names in files, with and without a head around the model. */
export const llamaRenames: readonly RenameTable[] = [
  [{ from: 'model.{rest*}', to: '{rest*}' }],
  [
    { from: 'lm_head.weight', to: null },
    // what config.json gives
    { from: 'layers.{i}.self_attn.rotary_emb.inv_freq', to: null },
    { from: 'rotary_emb.inv_freq', to: null },
  ],
]
