/*
 * The plain vision transformer: Dosovitskiy et al. 2020 (arXiv 2010.11929); DeiT (Touvron et al. 2021, arXiv 2012.12877) and
 * the encoder of MAE (He et al. 2021, arXiv 2111.06377) are the same network.
 *
 * After transformers' models/vit/modeling_vit.py, models/vit_mae, and timm/models/vision_transformer.py. State-dict names are
 * those of transformers' checkpoints; `timmLayout` leads from timm's (and DeiT's and MAE's own) to them.
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
import { addBranch, addLinear, forwardNormed, isHooked } from './fused.js'
import { Attention, Dense, gridOf, PatchEmbeddings } from './parts.js'
import { PositionCache, type PositionMethod, sinePositions } from './positions.js'

const { nn } = torch
const { dropout } = nn.functional
type Tensor = torch.Tensor

export interface VitConfig {
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
  qkvBias: boolean
  dropout: number
  attentionDropout: number
  /** The last block's; it grows evenly from 0 at the first. Not in transformers. */
  dropPath: number
  /** MAE's position embeddings are sines, and do not train. */
  trainPositions: boolean
  /** Not in transformers: `feature_decoder`. */
  decoder: FeatureDecoderConfig | null
}

/** A small decoder whose patches are the features. */
export interface FeatureDecoderConfig {
  layers: number
  heads: number
}

/** Reads config.json of model_type vit and vit_mae. */
export function readVitConfig(config: Config): VitConfig {
  const modelType = config.modelType
  config.ignore('feature_decoder')
  // heads, the decoder of MAE and its masks: not built
  config.ignore('encoder_stride', 'pooler_output_size', 'pooler_act', 'mask_ratio', 'norm_pix_loss')
  config.ignore(
    ...['num_attention_heads', 'hidden_size', 'num_hidden_layers', 'intermediate_size'].map((n) => `decoder_${n}`),
  )
  return {
    modelType,
    width: config.count('hidden_size', 768),
    layers: config.count('num_hidden_layers', 12),
    heads: config.count('num_attention_heads', 12),
    mlpWidth: config.count('intermediate_size', 3072),
    activation: activationOf(config.string('hidden_act', 'gelu'), modelType),
    eps: config.number('layer_norm_eps', 1e-12),
    imageSize: config.size('image_size', 224),
    patchSize: config.size('patch_size', 16),
    channels: config.count('num_channels', 3),
    qkvBias: config.boolean('qkv_bias', true),
    dropout: config.probability('hidden_dropout_prob', 0),
    attentionDropout: config.probability('attention_probs_dropout_prob', 0),
    dropPath: config.probability('drop_path_rate', 0),
    trainPositions: modelType !== 'vit_mae',
    decoder: config.has('feature_decoder') ? readDecoder(config.part('feature_decoder')) : null,
  }
}

function readDecoder(config: Config): FeatureDecoderConfig {
  const decoder = { layers: config.count('layers', 2), heads: config.count('heads', 6) }
  config.finish()
  return decoder
}

class Embeddings extends nn.Module {
  cls_token: torch.nn.Parameter
  position_embeddings: torch.nn.Parameter
  patch_embeddings: PatchEmbeddings
  readonly #cache = new PositionCache(this)

  constructor(private readonly config: VitConfig) {
    super()
    const { width, trainPositions: requiresGrad } = config
    const [rows, columns] = gridOf(config)
    const start = (shape: readonly number[], options = {}) =>
      nn.init.truncNormal_(new nn.Parameter(torch.empty(shape, nn.factoryOptions()), options), { std: 0.02 })
    this.cls_token = start([1, 1, width])
    this.position_embeddings = start([1, 1 + rows * columns, width], { requiresGrad })
    this.patch_embeddings = new PatchEmbeddings(config)
  }

  forward(
    pixels: Tensor,
    grid: readonly [number, number],
    keep: number,
    method: PositionMethod,
    generator: torch.Generator | null,
  ): { tokens: Tensor; kept: Tensor | null } {
    // [1, 1 + S, D]
    const positions = this.#cache.resize(this.position_embeddings, gridOf(this.config), grid, method)
    const placed = this.patch_embeddings.forward(pixels).add(positions.narrow(1, 1, grid[0] * grid[1]))
    const { patches, kept } = dropPatches(placed, keep, generator)
    const cls = this.cls_token.add(positions.narrow(1, 0, 1)).expand(pixels.size(0), -1, -1)
    return { tokens: dropout(torch.cat([cls, patches], 1), this.config.dropout, this.training), kept }
  }
}

class Layer extends nn.Module {
  attention: Attention
  intermediate: Dense
  output: Dense
  layernorm_before: torch.nn.LayerNorm
  layernorm_after: torch.nn.LayerNorm

  constructor(
    private readonly config: VitConfig,
    readonly dropPath: number,
  ) {
    super()
    const { width, mlpWidth, eps } = config
    this.attention = new Attention(config)
    this.intermediate = new Dense(width, mlpWidth)
    this.output = new Dense(mlpWidth, width)
    this.layernorm_before = new nn.LayerNorm(width, { eps })
    this.layernorm_after = new nn.LayerNorm(width, { eps })
  }

  forward(x: Tensor, maps?: Tensor[]): Tensor {
    const { training, config } = this
    const drops = training && (config.dropout > 0 || this.dropPath > 0)
    const drop = drops
      ? (branch: Tensor) => nn.functional.dropPath(dropout(branch, config.dropout, true), this.dropPath, true)
      : null
    const attended = this.attention.addTo(x, this.layernorm_before, { drop }, maps)
    if (isHooked(this.intermediate) || isHooked(this.output)) {
      const inner = config.activation(this.intermediate.forward(this.layernorm_after.forward(attended)))
      return addBranch(attended, this.output.forward(inner), { drop })
    }
    const inner = forwardNormed(this.layernorm_after, this.intermediate.dense, attended)
    return addLinear(attended, this.output.dense, inner, { activation: config.activation, drop })
  }
}

class Encoder extends nn.Module {
  layer: torch.nn.ModuleList<Layer>

  constructor(config: VitConfig) {
    super()
    const { layers, dropPath } = config
    this.layer = new nn.ModuleList(
      Array.from({ length: layers }, (_, k) => new Layer(config, (dropPath * k) / Math.max(1, layers - 1))),
    )
  }

  /** Its layers are called by the model. */
  forward(x: Tensor): Tensor {
    return runBlocks(this.layer, x, {}, false).tokens
  }
}

/**
 * The branch through which the published CLIP-BERT baseline takes its features: a linear layer, fixed positions (MAE's
 * sines), blocks, a norm; all of random start.
 */
class FeatureDecoder extends nn.Module {
  embed: torch.nn.Linear
  layer: torch.nn.ModuleList<Layer>
  norm: torch.nn.LayerNorm

  constructor(config: VitConfig, { layers, heads }: FeatureDecoderConfig) {
    super()
    const { width, eps } = config
    this.embed = new nn.Linear(width, width)
    this.layer = new nn.ModuleList(Array.from({ length: layers }, () => new Layer({ ...config, heads }, 0)))
    this.norm = new nn.LayerNorm(width, { eps })
    for (const module of this.modules()) {
      if (!(module instanceof nn.Linear)) continue
      nn.init.xavierUniform_(module.weight)
      nn.init.zeros_(module.bias!)
    }
  }

  /** [B, 1 + S, D], the class token first. */
  forward(
    tokens: Tensor,
    grid: readonly [number, number],
    options: ImageForwardOptions,
    checkpointing: boolean,
  ): Tensor {
    const embedded = this.embed.forward(tokens)
    const placed = embedded.add(sinePositions(grid, embedded))
    // maps and states are the encoder's
    const { tokens: decoded } = runBlocks(this.layer, placed, { checkpoint: options.checkpoint }, checkpointing)
    return this.norm.forward(decoded)
  }
}

/** The plain vision transformer, with a class token. */
export class Vit extends ImageEncoder {
  embeddings: Embeddings
  encoder: Encoder
  layernorm: torch.nn.LayerNorm
  /** Where it is there, features after the final norm are its, and `pooled` is the mean of its patches. */
  feature_decoder: FeatureDecoder | null = null
  override readonly modelType: string
  override readonly featureWidth: number
  override readonly imageSize: readonly [number, number]
  override readonly patchSize: readonly [number, number]
  override readonly channels: number
  override readonly takesAnySize = false
  /** How position embeddings come to another grid. Checkpoints with timm's names say 'size-antialias'. */
  positions: PositionMethod = 'size'

  constructor(private readonly config: VitConfig) {
    super()
    this.embeddings = new Embeddings(config)
    this.encoder = new Encoder(config)
    this.layernorm = new nn.LayerNorm(config.width, { eps: config.eps })
    this.modelType = config.modelType
    this.featureWidth = config.width
    this.imageSize = config.imageSize
    this.patchSize = config.patchSize
    this.channels = config.channels
    if (config.decoder !== null) this.addDecoder(config.decoder)
  }

  /** Puts a decoder of random weights behind the encoder. */
  addDecoder(decoder: FeatureDecoderConfig): void {
    this.feature_decoder = new FeatureDecoder(this.config, decoder)
  }

  override forward(pixels: Tensor, options: ImageForwardOptions = {}): ImageFeatures {
    const grid = this.checkPixels(pixels)
    // the decoder has a place for every patch
    if (this.feature_decoder !== null) this.refuseMasking(options)
    const keep = this.keptCount(grid[0] * grid[1], options)
    const { tokens: first, kept } = this.embeddings.forward(
      pixels,
      grid,
      keep,
      this.positions,
      options.generator ?? null,
    )
    const { tokens, hiddenStates, attentions } = runBlocks(this.encoder.layer, first, options, this.checkpointing)
    const prenorm = new Tokens(tokens, 1, 0)
    if (options.norm === false) return new PrenormFeatures(prenorm, grid, kept, hiddenStates, attentions)
    const encoded = this.layernorm.forward(tokens)
    const decoder = this.feature_decoder
    const hidden = decoder === null ? encoded : decoder.forward(encoded, grid, options, this.checkpointing)
    const normed = new Tokens(hidden, 1, 0)
    const pooled = decoder === null ? (normed.cls as Tensor) : normed.patches.mean(1)
    return { prenorm, normed, pooled, hidden, grid, keptPatches: kept, hiddenStates, attentions }
  }
}

const layer = 'encoder.layer.{i}'

/** From timm's names to transformers'; those of DeiT's and MAE's own files are timm's. */
export const timmLayout: RenameTable = [
  { from: 'cls_token', to: 'embeddings.cls_token' },
  { from: 'pos_embed', to: 'embeddings.position_embeddings' },
  { from: 'patch_embed.proj.{p}', to: 'embeddings.patch_embeddings.projection.{p}' },
  {
    from: 'blocks.{i}.attn.qkv.{p}',
    to: ['query', 'key', 'value'].map((part) => `${layer}.attention.attention.${part}.{p}`),
  },
  { from: 'blocks.{i}.attn.proj.{p}', to: `${layer}.attention.output.dense.{p}` },
  { from: 'blocks.{i}.norm1.{p}', to: `${layer}.layernorm_before.{p}` },
  { from: 'blocks.{i}.norm2.{p}', to: `${layer}.layernorm_after.{p}` },
  { from: 'blocks.{i}.mlp.fc1.{p}', to: `${layer}.intermediate.dense.{p}` },
  { from: 'blocks.{i}.mlp.fc2.{p}', to: `${layer}.output.dense.{p}` },
  { from: 'norm.{p}', to: 'layernorm.{p}' },
  { from: 'head.{rest*}', to: null },
  // MAE's decoder
  { from: 'mask_token', to: null },
  { from: 'decoder{rest*}', to: null },
]

/** From the names that transformers 5 has in memory. */
const memoryLayout: RenameTable = [
  ...(['query', 'key', 'value'] as const).map((part) => ({
    from: `layers.{i}.attention.${part[0]}_proj.{p}`,
    to: `${layer}.attention.attention.${part}.{p}`,
  })),
  { from: 'layers.{i}.attention.o_proj.{p}', to: `${layer}.attention.output.dense.{p}` },
  { from: 'layers.{i}.mlp.fc1.{p}', to: `${layer}.intermediate.dense.{p}` },
  { from: 'layers.{i}.mlp.fc2.{p}', to: `${layer}.output.dense.{p}` },
  { from: 'layers.{i}.{rest*}', to: `${layer}.{rest}` },
]

/** Wrappers' names, and heads that are not built. */
const wrappers: RenameTable = [
  { from: 'vit.{rest*}', to: '{rest}' },
  { from: 'deit.{rest*}', to: '{rest}' },
  { from: 'classifier.{rest*}', to: null },
]

/** ViTModel's pooler, which pre-training on images left there: the feature is the class token. */
const pooler: RenameTable = [
  { from: 'pooler.{rest*}', to: null },
  { from: 'embeddings.mask_token', to: null },
]

export const vitLoader: ModelLoader<Vit> = {
  build: (config) => new Vit(readVitConfig(config)),
  rename: () => [wrappers, timmLayout, memoryLayout, pooler],
  loaded: (model, names) => {
    if (names.some((name) => /(^|\.)pos_embed$/.test(name))) model.positions = 'size-antialias'
  },
}
