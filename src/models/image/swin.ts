/*
 * Swin: Liu et al. 2021 (arXiv 2103.14030): attention in windows that shift from block to block, with relative position
 * biases; patches are merged between stages.
 *
 * After github.com/microsoft/Swin-Transformer (models/swin_transformer.py) and transformers' models/swin/modeling_swin.py,
 * whose state-dict names these are; `microsoftLayout` leads from the original's to them.
 */
import * as torch from '../../torch/index.js'
import type { Config } from '../config.js'
import type { ModelLoader } from '../registry.js'
import type { RenameTable } from '../renames.js'
import { activationOf } from '../text/activations.js'
import { mergeHeads, projectHeads } from './attention.js'
import { ImageEncoder, type ImageFeatures, type ImageForwardOptions, PrenormFeatures, Tokens } from './encoder.js'
import { Dense, gridOf, PatchEmbeddings } from './parts.js'
import { resizePositions } from './positions.js'
import { fromWindows, padToWindows, relativePositionIndex, shiftMask, toWindows } from './windows.js'

const { nn } = torch
const { dropout, pad } = nn.functional
type Tensor = torch.Tensor
type Grid = readonly [number, number]

export interface SwinConfig {
  width: number
  depths: readonly number[]
  heads: readonly number[]
  window: number
  mlpRatio: number
  qkvBias: boolean
  activation: (x: Tensor) => Tensor
  eps: number
  imageSize: Grid
  patchSize: Grid
  channels: number
  dropout: number
  attentionDropout: number
  /** The last block's; it grows evenly from 0 at the first. */
  dropPath: number
  absolutePositions: boolean
}

/** Reads config.json of model_type swin. */
export function readSwinConfig(config: Config): SwinConfig {
  config.ignore(
    'num_layers',
    'hidden_size',
    'encoder_stride',
    'out_features',
    'out_indices',
    'stage_names',
    'path_norm',
  )
  const depths = config.counts('depths', [2, 2, 6, 2])
  const heads = config.counts('num_heads', [3, 6, 12, 24])
  const width = config.count('embed_dim', 96)
  if (depths.length !== heads.length || heads.some((count, stage) => (width << stage) % count !== 0)) {
    throw new RangeError(
      `swin: expected heads for each stage that divide its width, but config.json says depths ${depths}, num_heads ${heads} and embed_dim ${width}`,
    )
  }
  return {
    width,
    depths,
    heads,
    window: config.count('window_size', 7),
    mlpRatio: config.number('mlp_ratio', 4),
    qkvBias: config.boolean('qkv_bias', true),
    activation: activationOf(config.string('hidden_act', 'gelu'), 'swin'),
    eps: config.number('layer_norm_eps', 1e-5),
    imageSize: config.size('image_size', 224),
    patchSize: config.size('patch_size', 4),
    channels: config.count('num_channels', 3),
    dropout: config.probability('hidden_dropout_prob', 0),
    attentionDropout: config.probability('attention_probs_dropout_prob', 0),
    dropPath: config.probability('drop_path_rate', 0.1),
    absolutePositions: config.boolean('use_absolute_embeddings', false),
  }
}

class Embeddings extends nn.Module {
  patch_embeddings: PatchEmbeddings
  position_embeddings: torch.nn.Parameter | null
  norm: torch.nn.LayerNorm

  constructor(private readonly config: SwinConfig) {
    super()
    const [rows, columns] = gridOf(config)
    this.patch_embeddings = new PatchEmbeddings(config)
    this.position_embeddings = config.absolutePositions
      ? new nn.Parameter(torch.zeros([1, rows * columns, config.width], nn.factoryOptions()))
      : null
    this.norm = new nn.LayerNorm(config.width)
  }

  forward(pixels: Tensor): { tokens: Tensor; grid: Grid } {
    const [down, right] = this.config.patchSize
    const missing = (size: number, step: number) => (step - (size % step)) % step
    // zeros up to whole patches
    const whole = pad(pixels, [0, missing(pixels.size(3), right), 0, missing(pixels.size(2), down)])
    const grid: Grid = [whole.size(2) / down, whole.size(3) / right]
    // [B, rows * columns, D]
    const tokens = this.norm.forward(this.patch_embeddings.forward(whole))
    const positions = this.position_embeddings
    const placed =
      positions === null ? tokens : tokens.add(resizePositions(positions, gridOf(this.config), grid, 'size', 0))
    return { tokens: dropout(placed, this.config.dropout, this.training), grid }
  }
}

class WindowAttention extends nn.Module {
  query: torch.nn.Linear
  key: torch.nn.Linear
  value: torch.nn.Linear
  relative_position_bias_table: torch.nn.Parameter
  #index: Tensor | undefined

  constructor(
    width: number,
    readonly heads: number,
    private readonly config: SwinConfig,
  ) {
    super()
    const { qkvBias: bias, window } = config
    this.query = new nn.Linear(width, width, { bias })
    this.key = new nn.Linear(width, width, { bias })
    this.value = new nn.Linear(width, width, { bias })
    const table = torch.empty([(2 * window - 1) ** 2, heads], nn.factoryOptions())
    this.relative_position_bias_table = nn.init.truncNormal_(new nn.Parameter(table), { std: 0.02 })
  }

  /** [heads, N, N] where N is the window's area. */
  private bias(): Tensor {
    const { window } = this.config
    const table = this.relative_position_bias_table
    if (this.#index === undefined || !this.#index.isAlive || this.#index.device !== table.device) {
      this.#index?.dispose()
      this.#index = torch.keep(relativePositionIndex(window, table.device as torch.Device))
    }
    // [N * N, heads] to [heads, N, N]
    return table
      .indexSelect(0, this.#index)
      .view([window ** 2, window ** 2, -1])
      .permute(2, 0, 1)
  }

  /**
   * @param x [B * windows, N, D]
   * @param mask [windows, N, N], added to scores
   */
  forward(x: Tensor, mask: Tensor | null, maps?: Tensor[]): Tensor {
    const [q, k, v] = projectHeads([this.query, this.key, this.value], x, this.heads) as [Tensor, Tensor, Tensor]
    // [B * windows, heads, N, N]
    const scores = q
      .mul(1 / Math.sqrt(q.size(-1)))
      .matmul(k.mT)
      .add(this.bias())
    const masked =
      mask === null
        ? scores
        : scores
            .unflatten(0, [-1, mask.size(0)])
            .add(mask.unsqueeze(1))
            .flatten(0, 1)
    const weights = masked.softmax(-1, 'float32').to(v.dtype)
    maps?.push(weights)
    return mergeHeads(dropout(weights, this.config.attentionDropout, this.training).matmul(v))
  }
}

class Attention extends nn.Module {
  self: WindowAttention
  output: Dense

  constructor(width: number, heads: number, config: SwinConfig) {
    super()
    this.self = new WindowAttention(width, heads, config)
    this.output = new Dense(width, width)
  }

  forward(x: Tensor, mask: Tensor | null, maps?: Tensor[]): Tensor {
    return this.output.forward(this.self.forward(x, mask, maps))
  }
}

class Block extends nn.Module {
  attention: Attention
  intermediate: Dense
  output: Dense
  layernorm_before: torch.nn.LayerNorm
  layernorm_after: torch.nn.LayerNorm

  constructor(
    width: number,
    heads: number,
    private readonly config: SwinConfig,
    readonly isShifted: boolean,
    readonly dropPath: number,
  ) {
    super()
    const inner = Math.trunc(width * config.mlpRatio)
    this.attention = new Attention(width, heads, config)
    this.intermediate = new Dense(width, inner)
    this.output = new Dense(inner, width)
    this.layernorm_before = new nn.LayerNorm(width, { eps: config.eps })
    this.layernorm_after = new nn.LayerNorm(width, { eps: config.eps })
  }

  /** [B, rows * columns, D] */
  forward(x: Tensor, grid: Grid, maps?: Tensor[]): Tensor {
    const { window } = this.config
    // one window over the whole grid needs no shift
    const shift = this.isShifted && Math.min(...grid) > window ? Math.floor(window / 2) : 0
    const drop = (branch: Tensor) =>
      nn.functional.dropPath(dropout(branch, this.config.dropout, this.training), this.dropPath, this.training)
    // [B, rows * columns, D] to [B, rows, columns, D], padded to whole windows
    const map = padToWindows(this.layernorm_before.forward(x).unflatten(1, grid), window)
    const padded: Grid = [map.size(1), map.size(2)]
    const moved = shift === 0 ? map : map.roll([-shift, -shift], [1, 2])
    const mask = shift === 0 ? null : shiftMask(padded, window, shift, map)
    const attended = fromWindows(this.attention.forward(toWindows(moved, window), mask, maps), padded, window)
    const back = shift === 0 ? attended : attended.roll([shift, shift], [1, 2])
    // without the padding: [B, rows, columns, D] to [B, rows * columns, D]
    const cut = back.narrow(1, 0, grid[0]).narrow(2, 0, grid[1]).reshape(x.shape)
    const middle = x.add(drop(cut))
    const inner = this.config.activation(this.intermediate.forward(this.layernorm_after.forward(middle)))
    return middle.add(drop(this.output.forward(inner)))
  }
}

/** Four neighbours become one token, of twice the width. */
class PatchMerging extends nn.Module {
  reduction: torch.nn.Linear
  norm: torch.nn.LayerNorm

  constructor(width: number) {
    super()
    this.reduction = new nn.Linear(4 * width, 2 * width, { bias: false })
    this.norm = new nn.LayerNorm(4 * width)
  }

  /** [B, rows * columns, D] to [B, rows / 2 * columns / 2, 2 D], rounded up. */
  forward(x: Tensor, grid: Grid): Tensor {
    const map = padToWindows(x.unflatten(1, grid), 2)
    const [batch, rows, columns, width] = map.shape as [number, number, number, number]
    // [B, rows / 2, 2 (row), columns / 2, 2 (column), D] to [B, rows / 2, columns / 2, 2 (column), 2 (row), D]
    const four = map.view([batch, rows / 2, 2, columns / 2, 2, width]).permute(0, 1, 3, 4, 2, 5)
    return this.reduction.forward(this.norm.forward(four.reshape([batch, (rows * columns) / 4, 4 * width])))
  }
}

class Stage extends nn.Module {
  blocks: torch.nn.ModuleList<Block>
  downsample: PatchMerging | null

  constructor(config: SwinConfig, index: number) {
    super()
    const { depths, heads, dropPath } = config
    const width = config.width << index
    const total = depths.reduce((sum, depth) => sum + depth, 0)
    const before = depths.slice(0, index).reduce((sum, depth) => sum + depth, 0)
    this.blocks = new nn.ModuleList(
      Array.from({ length: depths[index]! }, (_, k) => {
        return new Block(width, heads[index]!, config, k % 2 === 1, (dropPath * (before + k)) / Math.max(1, total - 1))
      }),
    )
    this.downsample = index < depths.length - 1 ? new PatchMerging(width) : null
  }

  forward(x: Tensor, grid: Grid, run: (block: Block, x: Tensor, grid: Grid) => Tensor): Tensor {
    let tokens = x
    for (const block of this.blocks) tokens = run(block, tokens, grid)
    return this.downsample?.forward(tokens, grid) ?? tokens
  }
}

class Encoder extends nn.Module {
  layers: torch.nn.ModuleList<Stage>

  constructor(config: SwinConfig) {
    super()
    this.layers = new nn.ModuleList(config.depths.map((_, index) => new Stage(config, index)))
  }

  /** Its stages are called by the model. */
  forward(): never {
    throw new TypeError('Swin: expected a call of the model itself, but its list of stages was called')
  }
}

/** Swin. Its patches are those of the last stage; `pooled` is their mean after the norm; there is no class token. */
export class Swin extends ImageEncoder {
  embeddings: Embeddings
  encoder: Encoder
  layernorm: torch.nn.LayerNorm
  override readonly modelType = 'swin'
  override readonly featureWidth: number
  override readonly imageSize: Grid
  override readonly patchSize: Grid
  override readonly channels: number
  override readonly takesAnySize = true
  override readonly hasClassToken = false
  readonly window: number

  constructor(config: SwinConfig) {
    super()
    const { width, depths, patchSize } = config
    const merged = 2 ** (depths.length - 1)
    this.embeddings = new Embeddings(config)
    this.encoder = new Encoder(config)
    this.featureWidth = width * merged
    this.layernorm = new nn.LayerNorm(this.featureWidth, { eps: config.eps })
    this.imageSize = config.imageSize
    this.patchSize = [patchSize[0] * merged, patchSize[1] * merged]
    this.channels = config.channels
    this.window = config.window
  }

  override forward(pixels: Tensor, options: ImageForwardOptions = {}): ImageFeatures {
    this.checkPixels(pixels)
    this.refuseMasking(options)
    const { checkpoint = this.checkpointing } = options
    const maps: Tensor[] | undefined = options.attentions ? [] : undefined
    const isCheckpointed = checkpoint && maps === undefined && torch.isGradEnabled()
    let { tokens, grid } = this.embeddings.forward(pixels)
    const states: Tensor[] = [tokens]
    for (const stage of this.encoder.layers) {
      if (Math.min(...grid) < this.window) {
        throw new RangeError(
          `Swin: expected images whose maps are at least ${this.window} wide in each stage, but ${pixels.size(2)} x ${pixels.size(3)} pixels make one of ${grid[0]} x ${grid[1]}`,
        )
      }
      tokens = stage.forward(tokens, grid, (block, x, size) =>
        isCheckpointed
          ? torch.autograd.checkpoint((each: Tensor) => block.forward(each, size), [x])
          : block.forward(x, size, maps),
      )
      if (stage.downsample !== null) grid = [Math.ceil(grid[0] / 2), Math.ceil(grid[1] / 2)]
      states.push(tokens)
    }
    const prenorm = new Tokens(tokens, 0, 0)
    const hiddenStates = options.hiddenStates ? states : null
    const attentions = maps ?? null
    if (options.norm === false) return new PrenormFeatures(prenorm, grid, null, hiddenStates, attentions)
    const hidden = this.layernorm.forward(tokens)
    const normed = new Tokens(hidden, 0, 0)
    return { prenorm, normed, pooled: hidden.mean(1), hidden, grid, keptPatches: null, hiddenStates, attentions }
  }
}

const block = 'layers.{s}.blocks.{i}'
const target = 'encoder.layers.{s}.blocks.{i}'

/** From the original's names to transformers'. */
export const microsoftLayout: RenameTable = [
  { from: 'patch_embed.proj.{p}', to: 'embeddings.patch_embeddings.projection.{p}' },
  { from: 'patch_embed.norm.{p}', to: 'embeddings.norm.{p}' },
  { from: 'absolute_pos_embed', to: 'embeddings.position_embeddings' },
  {
    from: `${block}.attn.qkv.{p}`,
    to: ['query', 'key', 'value'].map((part) => `${target}.attention.self.${part}.{p}`),
  },
  { from: `${block}.attn.proj.{p}`, to: `${target}.attention.output.dense.{p}` },
  { from: `${block}.attn.relative_position_bias_table`, to: `${target}.attention.self.relative_position_bias_table` },
  { from: `${block}.norm1.{p}`, to: `${target}.layernorm_before.{p}` },
  { from: `${block}.norm2.{p}`, to: `${target}.layernorm_after.{p}` },
  { from: `${block}.mlp.fc1.{p}`, to: `${target}.intermediate.dense.{p}` },
  { from: `${block}.mlp.fc2.{p}`, to: `${target}.output.dense.{p}` },
  { from: 'layers.{s}.downsample.{rest*}', to: 'encoder.layers.{s}.downsample.{rest}' },
  { from: 'norm.{p}', to: 'layernorm.{p}' },
  // buffers that are computed, and the head
  { from: `${block}.attn.relative_position_index`, to: null },
  { from: `${block}.attn_mask`, to: null },
  { from: 'head.{rest*}', to: null },
]

const wrappers: RenameTable = [
  { from: 'swin.{rest*}', to: '{rest}' },
  { from: 'classifier.{rest*}', to: null },
]

const buffers: RenameTable = [
  { from: `${target}.attention.self.relative_position_index`, to: null },
  { from: 'embeddings.mask_token', to: null },
]

export const swinLoader: ModelLoader<Swin> = {
  build: (config) => new Swin(readSwinConfig(config)),
  rename: () => [wrappers, microsoftLayout, buffers],
}
