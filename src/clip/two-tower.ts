import type { ImageEncoder, ImageFeatures, ImageForwardOptions } from '../models/image/encoder.js'
import * as torch from '../torch/index.js'
import { type ContrastiveResult, contrastiveLoss, MAX_LOG_SCALE, START_LOG_SCALE, type TargetOptions } from './loss.js'
import { makeProjection, type Projection, type ProjectionOptions } from './projection.js'

const { nn } = torch
type Tensor = torch.Tensor

/**
 * How tokens become one feature:
 * - 'mean-prenorm' (the published recipe): the mean over all tokens before the final norm
 * - 'cls': the class token after it
 * - 'mean-patches': the mean of the patches after it
 * - 'pooled': what the encoder itself says
 */
export type ImagePooling = 'mean-prenorm' | 'cls' | 'mean-patches' | 'pooled'

/** The feature of images, [B, featureWidth]. */
export function imageFeature(
  encoder: ImageEncoder,
  pixels: Tensor,
  pooling: ImagePooling = 'mean-prenorm',
  options: ImageForwardOptions = {},
): Tensor {
  return torch.scope(() => {
    const features = encoder.forward(pixels, pooling === 'mean-prenorm' ? { ...options, norm: false } : options)
    return pooledFeature(features, pooling)
  })
}

/** One feature of an image's tokens, [B, featureWidth]. */
export function pooledFeature(features: ImageFeatures, pooling: ImagePooling): Tensor {
  if (pooling === 'mean-prenorm') return features.prenorm.all.mean(1)
  if (pooling === 'pooled') return features.pooled
  if (pooling === 'mean-patches') return features.normed.patches.mean(1)
  if (pooling !== 'cls') {
    throw new RangeError(
      `imageFeature: expected pooling 'mean-prenorm', 'cls', 'mean-patches' or 'pooled', but received '${String(pooling)}'`,
    )
  }
  const { cls } = features.normed
  if (cls !== null) return cls
  throw new RangeError(
    `imageFeature: expected an encoder with a class token for pooling 'cls', but this one has none; use 'pooled'`,
  )
}

export interface TwoTowerOptions<TextInput> {
  image: ImageEncoder
  /** The width of the text's features. */
  textWidth: number
  /** The pooled features [B, textWidth] of a batch of texts. */
  textFeature: (input: TextInput) => Tensor
  /** The model behind textFeature, whose parameters are part of this module's. Default: null. */
  text?: torch.nn.Module | null
  /** The width of the common space. Default: 512. */
  embeddingWidth?: number
  imagePooling?: ImagePooling
  imageProjection?: ProjectionOptions
  textProjection?: ProjectionOptions
}

/**
 * Two encoders, their projections into one space and the temperature: CLIP's form, and CLEFT's.
 *
 * Its own state has the names image_projection.*, text_projection.* and logit_scale (the logarithm, as published).
 */
export class TwoTower<TextInput> extends nn.Module {
  image: ImageEncoder
  text: torch.nn.Module | null
  image_projection: Projection
  text_projection: Projection
  logit_scale: torch.nn.Parameter
  readonly imagePooling: ImagePooling
  readonly embeddingWidth: number
  readonly imageProjectionOptions: ProjectionOptions & Required<Pick<ProjectionOptions, 'kind'>>
  readonly textProjectionOptions: ProjectionOptions & Required<Pick<ProjectionOptions, 'kind'>>
  readonly #textFeature: (input: TextInput) => Tensor

  constructor(options: TwoTowerOptions<TextInput>) {
    super()
    const { image, text = null, textWidth, embeddingWidth = 512, imagePooling = 'mean-prenorm' } = options
    this.image = image
    this.text = text
    this.imagePooling = imagePooling
    this.embeddingWidth = embeddingWidth
    this.imageProjectionOptions = { ...options.imageProjection, kind: options.imageProjection?.kind ?? 'linear' }
    this.textProjectionOptions = { ...options.textProjection, kind: options.textProjection?.kind ?? 'linear' }
    this.#textFeature = options.textFeature
    this.image_projection = makeProjection(image.featureWidth, embeddingWidth, options.imageProjection)
    this.text_projection = makeProjection(textWidth, embeddingWidth, options.textProjection)
    this.logit_scale = new nn.Parameter(torch.full([], START_LOG_SCALE, { ...nn.factoryOptions(), dtype: 'float32' }))
  }

  /** Embeddings of images, of length 1: [B, embeddingWidth]. */
  encodeImage(pixels: Tensor, options: ImageForwardOptions = {}): Tensor {
    return this.projectImage(imageFeature(this.image, pixels, this.imagePooling, options))
  }

  /** Embeddings of features that were computed before. */
  projectImage(feature: Tensor): Tensor {
    return unit(this.image_projection.forward(feature))
  }

  /** Embeddings of texts, of length 1: [B, embeddingWidth]. */
  encodeText(input: TextInput): Tensor {
    return this.projectText(this.textFeature(input))
  }

  /** The features of texts before the projection, [B, textWidth]. */
  textFeature(input: TextInput): Tensor {
    return this.#textFeature(input)
  }

  /** Embeddings of features that were computed before. */
  projectText(feature: Tensor): Tensor {
    return unit(this.text_projection.forward(feature))
  }

  /** The contrastive loss of pairs, and what it is made of. */
  forward(
    pixels: Tensor,
    texts: TextInput,
    options: TargetOptions & ImageForwardOptions = {},
  ): ContrastiveResult & { imageEmbedding: Tensor; textEmbedding: Tensor } {
    const imageEmbedding = this.encodeImage(pixels, options)
    const textEmbedding = this.encodeText(texts)
    const { loss, scores } = contrastiveLoss(imageEmbedding, textEmbedding, this.logit_scale, options)
    return { loss, scores, imageEmbedding, textEmbedding }
  }

  /** Whether the projections and the temperature take gradients: what is neither encoder's. */
  trainProjections(trainable = true): this {
    for (const part of [this.image_projection, this.text_projection]) part.requiresGrad_(trainable)
    this.logit_scale.requiresGrad_(trainable)
    return this
  }

  /** Keeps exp(logit_scale) at 100 or below: to be called after each step of the optimizer. */
  clampLogScale(): void {
    torch.noGrad(() => {
      this.logit_scale.clampMax_(MAX_LOG_SCALE)
    })
  }
}

/** Of length 1, in float32. */
function unit(embedding: Tensor): Tensor {
  return nn.functional.normalize(embedding.float(), { dim: -1 })
}
