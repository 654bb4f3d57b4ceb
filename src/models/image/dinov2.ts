/*
 * DINOv2: Oquab et al. 2023 (arXiv 2304.07193), with registers: Darcet et al. 2023 (arXiv 2309.16588).
 *
 * After github.com/facebookresearch/dinov2 (dinov2/models/vision_transformer.py, "hub") and transformers'
 * models/dinov2/modeling_dinov2.py and models/dinov2_with_registers. State-dict names are those of transformers'
 * checkpoints; `hubLayout` leads from the hub's to them.
 */
import * as torch from '../../torch/index.js'
import type { Config } from '../config.js'
import type { ModelLoader } from '../registry.js'
import type { RenameTable } from '../renames.js'
import { activationOf } from '../text/activations.js'
import {
  dropPatches,
  ImageEncoder,
  type ImageFeatures,
  type ImageForwardOptions,
  PrenormFeatures,
  runBlocks,
  Tokens,
} from './encoder.js'
import { type AddOptions, type Layer as AnyLayer, addBranch, addLinear, forwardNormed, isHooked } from './fused.js'
import { Attention, gridOf, PatchEmbeddings } from './parts.js'
import { PositionCache, type PositionMethod } from './positions.js'

const { nn } = torch
type Tensor = torch.Tensor

export interface Dinov2Config {
  modelType: string
  width: number
  layers: number
  heads: number
  /** Width of the MLP, before SwiGLU takes its two thirds. */
  mlpWidth: number
  swiglu: boolean
  activation: (x: Tensor) => Tensor
  eps: number
  imageSize: readonly [number, number]
  patchSize: readonly [number, number]
  channels: number
  registers: number
  hasMaskToken: boolean
  qkvBias: boolean
  layerScale: number
  dropout: number
  attentionDropout: number
  dropPath: number
  positions: PositionMethod
}

/** Reads config.json of model_type dinov2 and dinov2_with_registers. */
export function readDinov2Config(config: Config): Dinov2Config {
  const modelType = config.modelType
  const hasRegisters = modelType === 'dinov2_with_registers'
  const width = config.count('hidden_size', 768)
  // of backbones, which give maps of features; all tokens are given here
  config.ignore('apply_layernorm', 'reshape_hidden_states', 'out_features', 'out_indices', 'stage_names')
  return {
    modelType,
    width,
    layers: config.count('num_hidden_layers', 12),
    heads: config.count('num_attention_heads', 12),
    mlpWidth: Math.trunc(width * config.number('mlp_ratio', 4)),
    swiglu: config.boolean('use_swiglu_ffn', false),
    activation: activationOf(config.string('hidden_act', 'gelu'), modelType),
    eps: config.number('layer_norm_eps', 1e-6),
    imageSize: config.size('image_size', 224),
    patchSize: config.size('patch_size', hasRegisters ? 16 : 14),
    channels: config.count('num_channels', 3),
    registers: hasRegisters ? config.number('num_register_tokens', 4) : 0,
    hasMaskToken: hasRegisters || config.boolean('use_mask_token', true),
    qkvBias: config.boolean('qkv_bias', true),
    layerScale: config.number('layerscale_value', 1),
    dropout: config.probability('hidden_dropout_prob', 0),
    attentionDropout: config.probability('attention_probs_dropout_prob', 0),
    dropPath: config.probability('drop_path_rate', 0),
    positions: hasRegisters ? 'size-antialias' : 'size',
  }
}

class Embeddings extends nn.Module {
  cls_token: torch.nn.Parameter
  /** Of the pre-training by masks. Nothing here uses it: it is kept for files, and does not train. */
  mask_token: torch.nn.Parameter | null
  register_tokens: torch.nn.Parameter | null
  position_embeddings: torch.nn.Parameter
  patch_embeddings: PatchEmbeddings
  readonly #cache = new PositionCache(this)

  constructor(private readonly config: Dinov2Config) {
    super()
    const { width, registers, hasMaskToken } = config
    const [rows, columns] = gridOf(config)
    this.cls_token = startToken([1, 1, width])
    this.mask_token = hasMaskToken ? new nn.Parameter(torch.zeros([1, width], nn.factoryOptions()), frozen) : null
    this.register_tokens = registers > 0 ? startToken([1, registers, width]) : null
    this.position_embeddings = startToken([1, 1 + rows * columns, width])
    this.patch_embeddings = new PatchEmbeddings(config)
  }

  forward(
    pixels: Tensor,
    grid: readonly [number, number],
    keep: number,
    method: PositionMethod,
    generator: torch.Generator | null,
  ): { tokens: Tensor; kept: Tensor | null } {
    const batch = pixels.size(0)
    // [1, 1 + S, D]
    const positions = this.#cache.resize(this.position_embeddings, gridOf(this.config), grid, method)
    const count = grid[0] * grid[1]
    const placed = this.patch_embeddings.forward(pixels).add(positions.narrow(1, 1, count))
    const { patches, kept } = dropPatches(placed, keep, generator)
    const cls = this.cls_token.add(positions.narrow(1, 0, 1)).expand(batch, -1, -1)
    const registers = this.register_tokens?.expand(batch, -1, -1)
    // class, registers, patches: [B, 1 + R + S, D]
    const tokens = torch.cat(registers === undefined ? [cls, patches] : [cls, registers, patches], 1)
    return { tokens: nn.functional.dropout(tokens, this.config.dropout, this.training), kept }
  }
}

const frozen = { requiresGrad: false }

function startToken(shape: readonly number[]): torch.nn.Parameter {
  const parameter = new nn.Parameter(torch.empty(shape, nn.factoryOptions()))
  return nn.init.truncNormal_(parameter, { std: 0.02 })
}

/** What a branch is scaled with, [D] (Touvron et al. 2021). */
class LayerScale extends nn.Module {
  lambda1: torch.nn.Parameter

  constructor({ width, layerScale }: Dinov2Config) {
    super()
    this.lambda1 = new nn.Parameter(torch.full([width], layerScale, nn.factoryOptions()))
  }

  forward(x: Tensor): Tensor {
    return x.mul(this.lambda1)
  }
}

type BranchOptions = Pick<AddOptions, 'gamma' | 'drop'>

class Mlp extends nn.Module {
  fc1: torch.nn.Linear
  fc2: torch.nn.Linear
  readonly #activation: (x: Tensor) => Tensor

  constructor({ width, mlpWidth, activation }: Dinov2Config) {
    super()
    this.fc1 = new nn.Linear(width, mlpWidth)
    this.fc2 = new nn.Linear(mlpWidth, width)
    this.#activation = activation
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(this.#activation(this.fc1.forward(x)))
  }

  /** x + gamma * mlp(norm(x)): the second half of a block. */
  addTo(x: Tensor, norm: AnyLayer, options: BranchOptions): Tensor {
    if (isHooked(this)) return addBranch(x, this.forward(norm.forward(x)), options)
    return addLinear(x, this.fc2, forwardNormed(norm, this.fc1, x), { ...options, activation: this.#activation })
  }
}

/** silu(gate) * up (Shazeer 2020): of the giant. Two thirds of the MLP's width, up to a multiple of 8. */
class SwiGlu extends nn.Module {
  weights_in: torch.nn.Linear
  weights_out: torch.nn.Linear

  constructor({ width, mlpWidth }: Dinov2Config) {
    super()
    const inner = Math.floor((Math.trunc((mlpWidth * 2) / 3) + 7) / 8) * 8
    this.weights_in = new nn.Linear(width, 2 * inner)
    this.weights_out = new nn.Linear(inner, width)
  }

  forward(x: Tensor): Tensor {
    return this.weights_out.forward(gated(this.weights_in.forward(x)))
  }

  /** x + gamma * mlp(norm(x)): the second half of a block. */
  addTo(x: Tensor, norm: AnyLayer, options: BranchOptions): Tensor {
    if (isHooked(this)) return addBranch(x, this.forward(norm.forward(x)), options)
    return addLinear(x, this.weights_out, gated(forwardNormed(norm, this.weights_in, x)), options)
  }
}

function gated(both: Tensor): Tensor {
  const [gate, up] = both.chunk(2, -1) as [Tensor, Tensor]
  return gate.silu().mul(up)
}

class Layer extends nn.Module {
  norm1: torch.nn.LayerNorm
  attention: Attention
  layer_scale1: LayerScale
  norm2: torch.nn.LayerNorm
  mlp: Mlp | SwiGlu
  layer_scale2: LayerScale
  readonly dropPath: number

  constructor(config: Dinov2Config) {
    super()
    const { width, eps } = config
    this.norm1 = new nn.LayerNorm(width, { eps })
    this.attention = new Attention(config)
    this.layer_scale1 = new LayerScale(config)
    this.norm2 = new nn.LayerNorm(width, { eps })
    this.mlp = config.swiglu ? new SwiGlu(config) : new Mlp(config)
    this.layer_scale2 = new LayerScale(config)
    this.dropPath = config.dropPath
  }

  forward(x: Tensor, maps?: Tensor[]): Tensor {
    const attended = this.attention.addTo(x, this.norm1, this.#branch(this.layer_scale1), maps)
    return this.mlp.addTo(attended, this.norm2, this.#branch(this.layer_scale2))
  }

  #branch(scale: LayerScale): BranchOptions {
    // a whole sample's branch is dropped: before or after its scaling is the same
    const drops = this.dropPath > 0 && this.training
    const drop = drops ? (branch: Tensor) => nn.functional.dropPath(branch, this.dropPath, true) : null
    if (!isHooked(scale)) return { gamma: scale.lambda1, drop }
    return { drop: (branch) => scale.forward(drop === null ? branch : drop(branch)) }
  }
}

class Encoder extends nn.Module {
  layer: torch.nn.ModuleList<Layer>

  constructor(config: Dinov2Config) {
    super()
    this.layer = new nn.ModuleList(Array.from({ length: config.layers }, () => new Layer(config)))
  }

  /** Its layers are called by the model. */
  forward(x: Tensor): Tensor {
    return runBlocks(this.layer, x, {}, false).tokens
  }
}

/** DINOv2's vision transformer, with or without registers. */
export class Dinov2 extends ImageEncoder {
  embeddings: Embeddings
  encoder: Encoder
  layernorm: torch.nn.LayerNorm
  override readonly modelType: string
  override readonly featureWidth: number
  override readonly imageSize: readonly [number, number]
  override readonly patchSize: readonly [number, number]
  override readonly channels: number
  override readonly takesAnySize = false
  override readonly registerCount: number
  /** How position embeddings come to another grid. Checkpoints in the hub's layout, without registers, say 'scale-offset'. */
  positions: PositionMethod

  constructor(config: Dinov2Config) {
    super()
    this.embeddings = new Embeddings(config)
    this.encoder = new Encoder(config)
    this.layernorm = new nn.LayerNorm(config.width, { eps: config.eps })
    this.modelType = config.modelType
    this.featureWidth = config.width
    this.imageSize = config.imageSize
    this.patchSize = config.patchSize
    this.channels = config.channels
    this.registerCount = config.registers
    this.positions = config.positions
  }

  override forward(pixels: Tensor, options: ImageForwardOptions = {}): ImageFeatures {
    const grid = this.checkPixels(pixels)
    const keep = this.keptCount(grid[0] * grid[1], options)
    const { tokens: first, kept } = this.embeddings.forward(
      pixels,
      grid,
      keep,
      this.positions,
      options.generator ?? null,
    )
    const run = runBlocks(this.encoder.layer, first, options, this.checkpointing)
    const prenorm = new Tokens(run.tokens, 1, this.registerCount)
    const { hiddenStates, attentions } = run
    if (options.norm === false) return new PrenormFeatures(prenorm, grid, kept, hiddenStates, attentions)
    const hidden = this.layernorm.forward(run.tokens)
    const normed = new Tokens(hidden, 1, this.registerCount)
    const pooled = normed.cls as Tensor
    return { prenorm, normed, pooled, hidden, grid, keptPatches: kept, hiddenStates, attentions }
  }
}

const layer = 'encoder.layer.{i}'

/** From the hub's names (cls_token, blocks.{i}.attn.qkv ...) to transformers'. */
export const hubLayout: RenameTable = [
  { from: 'cls_token', to: 'embeddings.cls_token' },
  { from: 'mask_token', to: 'embeddings.mask_token' },
  { from: 'register_tokens', to: 'embeddings.register_tokens' },
  { from: 'pos_embed', to: 'embeddings.position_embeddings' },
  { from: 'patch_embed.proj.{p}', to: 'embeddings.patch_embeddings.projection.{p}' },
  {
    from: 'blocks.{i}.attn.qkv.{p}',
    to: ['query', 'key', 'value'].map((part) => `${layer}.attention.attention.${part}.{p}`),
  },
  { from: 'blocks.{i}.attn.proj.{p}', to: `${layer}.attention.output.dense.{p}` },
  { from: 'blocks.{i}.ls1.gamma', to: `${layer}.layer_scale1.lambda1` },
  { from: 'blocks.{i}.ls2.gamma', to: `${layer}.layer_scale2.lambda1` },
  { from: 'blocks.{i}.mlp.w12.{p}', to: `${layer}.mlp.weights_in.{p}` },
  { from: 'blocks.{i}.mlp.w3.{p}', to: `${layer}.mlp.weights_out.{p}` },
  // norm1, norm2, mlp.fc1, mlp.fc2
  { from: 'blocks.{i}.{rest*}', to: `${layer}.{rest}` },
  { from: 'norm.{p}', to: 'layernorm.{p}' },
  { from: 'head.{rest*}', to: null },
]

/** From the names that transformers 5 has in memory. */
const memoryLayout: RenameTable = [
  ...(['query', 'key', 'value'] as const).map((part) => ({
    from: `${layer}.attention.${part[0]}_proj.{p}`,
    to: `${layer}.attention.attention.${part}.{p}`,
  })),
  { from: `${layer}.attention.o_proj.{p}`, to: `${layer}.attention.output.dense.{p}` },
  {
    from: [`${layer}.mlp.gate_proj.{p}`, `${layer}.mlp.up_proj.{p}`],
    to: `${layer}.mlp.weights_in.{p}`,
  },
  { from: `${layer}.mlp.down_proj.{p}`, to: `${layer}.mlp.weights_out.{p}` },
]

/** Wrappers' names, and heads that are not built. */
const wrappers: RenameTable = [
  { from: 'dinov2.{rest*}', to: '{rest}' },
  { from: 'dinov2_with_registers.{rest*}', to: '{rest}' },
  { from: 'backbone.{rest*}', to: '{rest}' },
  { from: 'classifier.{rest*}', to: null },
]

/** The hub's grouped blocks of large models: blocks.{chunk}.{i}. */
const chunks: RenameTable = [{ from: 'blocks.{chunk}.{i}.{rest*}', to: 'blocks.{i}.{rest}' }]

function isHubLayout(names: readonly string[]): boolean {
  return names.some((name) => /(^|\.)pos_embed$/.test(name))
}

/** Whether blocks have two numbers: blocks.0.7.norm1.weight. */
function isChunked(names: readonly string[]): boolean {
  return names.some((name) => /(^|\.)blocks\.\d+\.\d+\./.test(name))
}

/** From each of the layouts that checkpoints have to transformers' names, by the names that are there. */
export function dinov2Renames(names: readonly string[]): readonly RenameTable[] {
  return [wrappers, ...(isChunked(names) ? [chunks] : []), hubLayout, memoryLayout]
}

export const dinov2Loader: ModelLoader<Dinov2> = {
  build: (config) => new Dinov2(readDinov2Config(config)),
  rename: dinov2Renames,
  optional: { 'embeddings.mask_token': 0 },
  loaded: (model, names) => {
    if (isHubLayout(names) && model.registerCount === 0) model.positions = 'scale-offset'
  },
}
