/*
 * CLIP's vision transformer: Radford et al. 2021 (arXiv 2103.00020): a norm before the blocks, quick GELU, no bias at the
 * patches.
 *
 * After transformers' models/clip/modeling_clip.py and github.com/openai/CLIP (clip/model.py). State-dict names are those of
 * transformers' CLIPVisionModel; `openaiLayout` leads from OpenAI's (and open_clip's) to them.
 */
import * as torch from '../../torch/index.js'
import type { Config } from '../config.js'
import type { ModelLoader } from '../registry.js'
import type { RenameTable } from '../renames.js'
import { activationOf } from '../text/activations.js'
import { attendSelf } from './attention.js'
import {
  dropPatches,
  ImageEncoder,
  type ImageFeatures,
  type ImageForwardOptions,
  PrenormFeatures,
  runBlocks,
  Tokens,
} from './encoder.js'
import { type Layer as AnyLayer, addLinear, forwardNormed, isHooked } from './fused.js'
import { gridOf } from './parts.js'
import { PositionCache, type PositionMethod } from './positions.js'

const { nn } = torch
type Tensor = torch.Tensor

export interface ClipVitConfig {
  modelType: string
  width: number
  layers: number
  heads: number
  mlpWidth: number
  activation: (x: Tensor) => Tensor
  eps: number
  imageSize: readonly [number, number]
  patchSize: readonly [number, number]
  channels: number
  attentionDropout: number
}

/** Reads config.json of model_type clip_vision_model, or the vision_config of clip's. */
export function readClipVitConfig(config: Config): ClipVitConfig {
  const isWhole = config.modelType === 'clip'
  const vision = isWhole ? config.part('vision_config') : config
  if (isWhole)
    config.ignore('text_config', 'projection_dim', 'logit_scale_init_value', 'text_config_dict', 'vision_config_dict')
  vision.ignore('projection_dim', 'dropout')
  const read = {
    modelType: 'clip_vision_model',
    width: vision.count('hidden_size', 768),
    layers: vision.count('num_hidden_layers', 12),
    heads: vision.count('num_attention_heads', 12),
    mlpWidth: vision.count('intermediate_size', 3072),
    activation: activationOf(vision.string('hidden_act', 'quick_gelu'), 'clip_vision_model'),
    eps: vision.number('layer_norm_eps', 1e-5),
    imageSize: vision.size('image_size', 224),
    patchSize: vision.size('patch_size', 32),
    channels: vision.count('num_channels', 3),
    attentionDropout: vision.probability('attention_dropout', 0),
  }
  if (isWhole) vision.finish()
  return read
}

class Embeddings extends nn.Module {
  class_embedding: torch.nn.Parameter
  patch_embedding: torch.nn.Conv2d
  position_embedding: torch.nn.Embedding
  readonly #cache = new PositionCache(this)

  constructor(private readonly config: ClipVitConfig) {
    super()
    const { width, channels, patchSize } = config
    const [rows, columns] = gridOf(config)
    this.class_embedding = nn.init.normal_(
      new nn.Parameter(torch.empty([width], nn.factoryOptions())),
      0,
      width ** -0.5,
    )
    this.patch_embedding = new nn.Conv2d(channels, width, patchSize, { stride: patchSize, bias: false })
    this.position_embedding = new nn.Embedding(1 + rows * columns, width)
    nn.init.normal_(this.position_embedding.weight, 0, 0.02)
  }

  forward(
    pixels: Tensor,
    grid: readonly [number, number],
    keep: number,
    method: PositionMethod,
    generator: torch.Generator | null,
  ): { tokens: Tensor; kept: Tensor | null } {
    const [batch, count] = [pixels.size(0), grid[0] * grid[1]]
    // as a table [1 + S, D] in files; [1, 1 + S, D] here
    const positions = this.#cache.resize(this.position_embedding.weight.unsqueeze(0), gridOf(this.config), grid, method)
    // [B, 3, H, W] to [B, D, rows, columns] to [B, S, D]
    const embedded = this.patch_embedding
      .forward(pixels.to(this.patch_embedding.weight.dtype))
      .flatten(2)
      .transpose(1, 2)
    const { patches, kept } = dropPatches(embedded.add(positions.narrow(1, 1, count)), keep, generator)
    const cls = this.class_embedding.add(positions.narrow(1, 0, 1)).expand(batch, -1, -1)
    return { tokens: torch.cat([cls, patches], 1), kept }
  }
}

class Attention extends nn.Module {
  k_proj: torch.nn.Linear
  v_proj: torch.nn.Linear
  q_proj: torch.nn.Linear
  out_proj: torch.nn.Linear

  constructor(private readonly config: ClipVitConfig) {
    super()
    const { width } = config
    this.k_proj = new nn.Linear(width, width)
    this.v_proj = new nn.Linear(width, width)
    this.q_proj = new nn.Linear(width, width)
    this.out_proj = new nn.Linear(width, width)
  }

  forward(x: Tensor, maps?: Tensor[]): Tensor {
    return this.out_proj.forward(this.#mixed(x, null, maps))
  }

  /** x + attention(norm(x)): the first half of a block. */
  addTo(x: Tensor, norm: AnyLayer, maps?: Tensor[]): Tensor {
    if (isHooked(this)) return x.add(this.forward(norm.forward(x), maps))
    return addLinear(x, this.out_proj, this.#mixed(x, norm, maps))
  }

  #mixed(x: Tensor, norm: AnyLayer | null, maps?: Tensor[]): Tensor {
    const { heads, attentionDropout } = this.config
    const dropout = this.training ? attentionDropout : 0
    return attendSelf([this.q_proj, this.k_proj, this.v_proj], x, heads, norm, { dropout, maps })
  }
}

class Mlp extends nn.Module {
  fc1: torch.nn.Linear
  fc2: torch.nn.Linear
  readonly #activation: (x: Tensor) => Tensor

  constructor({ width, mlpWidth, activation }: ClipVitConfig) {
    super()
    this.fc1 = new nn.Linear(width, mlpWidth)
    this.fc2 = new nn.Linear(mlpWidth, width)
    this.#activation = activation
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(this.#activation(this.fc1.forward(x)))
  }

  /** x + mlp(norm(x)): the second half of a block. */
  addTo(x: Tensor, norm: AnyLayer): Tensor {
    if (isHooked(this)) return x.add(this.forward(norm.forward(x)))
    return addLinear(x, this.fc2, forwardNormed(norm, this.fc1, x), { activation: this.#activation })
  }
}

class Layer extends nn.Module {
  self_attn: Attention
  layer_norm1: torch.nn.LayerNorm
  mlp: Mlp
  layer_norm2: torch.nn.LayerNorm

  constructor(config: ClipVitConfig) {
    super()
    const { width, eps } = config
    this.self_attn = new Attention(config)
    this.layer_norm1 = new nn.LayerNorm(width, { eps })
    this.mlp = new Mlp(config)
    this.layer_norm2 = new nn.LayerNorm(width, { eps })
  }

  forward(x: Tensor, maps?: Tensor[]): Tensor {
    return this.mlp.addTo(this.self_attn.addTo(x, this.layer_norm1, maps), this.layer_norm2)
  }
}

class Encoder extends nn.Module {
  layers: torch.nn.ModuleList<Layer>

  constructor(config: ClipVitConfig) {
    super()
    this.layers = new nn.ModuleList(Array.from({ length: config.layers }, () => new Layer(config)))
  }

  /** Its layers are called by the model. */
  forward(x: Tensor): Tensor {
    return runBlocks(this.layers, x, {}, false).tokens
  }
}

/**
 * CLIP's vision transformer. `pooled` is the class token after the last norm, before CLIP's own projection, which is not
 * built. `hidden` is before that norm, as transformers has it.
 */
export class ClipVit extends ImageEncoder {
  embeddings: Embeddings
  /** The name has this spelling in all files. */
  pre_layrnorm: torch.nn.LayerNorm
  encoder: Encoder
  post_layernorm: torch.nn.LayerNorm
  override readonly modelType: string
  override readonly featureWidth: number
  override readonly imageSize: readonly [number, number]
  override readonly patchSize: readonly [number, number]
  override readonly channels: number
  override readonly takesAnySize = false
  /** How position embeddings come to another grid. */
  positions: PositionMethod = 'size'

  constructor(config: ClipVitConfig) {
    super()
    const { width, eps } = config
    if (width % config.heads !== 0) {
      throw new RangeError(`ClipVit: expected a width that ${config.heads} heads divide, but received ${width}`)
    }
    this.embeddings = new Embeddings(config)
    this.pre_layrnorm = new nn.LayerNorm(width, { eps })
    this.encoder = new Encoder(config)
    this.post_layernorm = new nn.LayerNorm(width, { eps })
    this.modelType = config.modelType
    this.featureWidth = width
    this.imageSize = config.imageSize
    this.patchSize = config.patchSize
    this.channels = config.channels
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
    const start = this.pre_layrnorm.forward(first)
    const { tokens, hiddenStates, attentions } = runBlocks(this.encoder.layers, start, options, this.checkpointing)
    const prenorm = new Tokens(tokens, 1, 0)
    if (options.norm === false) return new PrenormFeatures(prenorm, grid, kept, hiddenStates, attentions)
    const normed = new Tokens(this.post_layernorm.forward(tokens), 1, 0)
    const pooled = normed.cls as Tensor
    return { prenorm, normed, pooled, hidden: tokens, grid, keptPatches: kept, hiddenStates, attentions }
  }
}

const block = 'visual.transformer.resblocks.{i}'
const layer = 'encoder.layers.{i}'

/** From OpenAI's names to transformers'. */
export const openaiLayout: RenameTable = [
  { from: 'visual.class_embedding', to: 'embeddings.class_embedding' },
  { from: 'visual.positional_embedding', to: 'embeddings.position_embedding.weight' },
  { from: 'visual.conv1.weight', to: 'embeddings.patch_embedding.weight' },
  { from: 'visual.ln_pre.{p}', to: 'pre_layrnorm.{p}' },
  { from: 'visual.ln_post.{p}', to: 'post_layernorm.{p}' },
  { from: `${block}.attn.in_proj_weight`, to: ['q', 'k', 'v'].map((part) => `${layer}.self_attn.${part}_proj.weight`) },
  { from: `${block}.attn.in_proj_bias`, to: ['q', 'k', 'v'].map((part) => `${layer}.self_attn.${part}_proj.bias`) },
  { from: `${block}.attn.out_proj.{p}`, to: `${layer}.self_attn.out_proj.{p}` },
  { from: `${block}.ln_1.{p}`, to: `${layer}.layer_norm1.{p}` },
  { from: `${block}.ln_2.{p}`, to: `${layer}.layer_norm2.{p}` },
  { from: `${block}.mlp.c_fc.{p}`, to: `${layer}.mlp.fc1.{p}` },
  { from: `${block}.mlp.c_proj.{p}`, to: `${layer}.mlp.fc2.{p}` },
  // the projection, and the text's tower
  { from: 'visual.proj', to: null },
  ...['transformer.{rest*}', 'token_embedding.weight', 'positional_embedding', 'ln_final.{p}'].map((from) => ({
    from,
    to: null,
  })),
  ...[
    'text_projection',
    'logit_scale',
    'logit_bias',
    'input_resolution',
    'context_length',
    'vocab_size',
    'attn_mask',
  ].map((from) => ({ from, to: null })),
]

/** The names of a whole CLIPModel, and a buffer of old files. */
const wholeModel: RenameTable = [
  { from: 'vision_model.embeddings.position_ids', to: null },
  { from: 'embeddings.position_ids', to: null },
  { from: 'vision_model.{rest*}', to: '{rest}' },
  ...['text_model.{rest*}', 'visual_projection.{p}', 'text_projection.{p}'].map((from) => ({ from, to: null })),
]

export const clipVitLoader: ModelLoader<ClipVit> = {
  build: (config) => new ClipVit(readClipVitConfig(config)),
  rename: () => [wholeModel, openaiLayout],
}
