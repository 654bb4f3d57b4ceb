import * as torch from '../../torch/index.js'
import { attendSelf } from './attention.js'
import { type AddOptions, addBranch, addLinear, isHooked, type Layer } from './fused.js'

/*
 * Parts that DINOv2, ViT and Swin have in common, under the names of transformers' checkpoints.
 */

const { nn } = torch
type Tensor = torch.Tensor

export interface PatchConfig {
  width: number
  channels: number
  patchSize: readonly [number, number]
}

/** Parameters: projection.{weight, bias}. */
export class PatchEmbeddings extends nn.Module {
  projection: torch.nn.Conv2d

  constructor({ channels, width, patchSize }: PatchConfig) {
    super()
    this.projection = new nn.Conv2d(channels, width, patchSize, { stride: patchSize })
  }

  /** [B, channels, H, W] to [B, H / patch * W / patch, D]. */
  forward(pixels: Tensor): Tensor {
    return this.projection.forward(pixels.to(this.projection.weight.dtype)).flatten(2).transpose(1, 2)
  }
}

/** Rows and columns of patches of the images that a model was trained on. */
export function gridOf(config: {
  imageSize: readonly [number, number]
  patchSize: readonly [number, number]
}): readonly [number, number] {
  const { imageSize, patchSize } = config
  return [Math.floor(imageSize[0] / patchSize[0]), Math.floor(imageSize[1] / patchSize[1])]
}

/** A linear layer under the name `dense`. */
export class Dense extends nn.Module {
  dense: torch.nn.Linear

  constructor(inFeatures: number, outFeatures: number) {
    super()
    this.dense = new nn.Linear(inFeatures, outFeatures)
  }

  forward(x: Tensor): Tensor {
    return this.dense.forward(x)
  }
}

export interface AttentionConfig {
  width: number
  heads: number
  qkvBias: boolean
  attentionDropout: number
}

class SelfAttention extends nn.Module {
  query: torch.nn.Linear
  key: torch.nn.Linear
  value: torch.nn.Linear
  readonly heads: number
  readonly dropout: number

  constructor({ width, heads, qkvBias: bias, attentionDropout }: AttentionConfig) {
    super()
    this.heads = heads
    this.dropout = attentionDropout
    this.query = new nn.Linear(width, width, { bias })
    this.key = new nn.Linear(width, width, { bias })
    this.value = new nn.Linear(width, width, { bias })
  }

  forward(x: Tensor, maps?: Tensor[], norm: Layer | null = null): Tensor {
    const dropout = this.training ? this.dropout : 0
    return attendSelf([this.query, this.key, this.value], x, this.heads, norm, { dropout, maps })
  }
}

/** Parameters: attention.{query, key, value}.*, output.dense.*. */
export class Attention extends nn.Module {
  attention: SelfAttention
  output: Dense

  constructor(config: AttentionConfig) {
    super()
    if (config.width % config.heads !== 0) {
      throw new RangeError(
        `Attention: expected a width that ${config.heads} heads divide, but received ${config.width}; correct config.json`,
      )
    }
    this.attention = new SelfAttention(config)
    this.output = new Dense(config.width, config.width)
  }

  /** [B, T, D]; the attention map [B, heads, T, T] goes to `maps` where given. */
  forward(x: Tensor, maps?: Tensor[]): Tensor {
    return this.output.forward(this.attention.forward(x, maps))
  }

  /** x + gamma * attention(norm(x)): the first half of a block. */
  addTo(x: Tensor, norm: Layer, options: Pick<AddOptions, 'gamma' | 'drop'>, maps?: Tensor[]): Tensor {
    if ([this, this.attention, this.output].some(isHooked)) {
      return addBranch(x, this.forward(norm.forward(x), maps), options)
    }
    return addLinear(x, this.output.dense, this.attention.forward(x, maps, norm), options)
  }
}
