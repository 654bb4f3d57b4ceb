import type { ImageEncoder, ImageForwardOptions } from '../models/image/encoder.js'
import * as torch from '../torch/index.js'
import { type ImagePooling, imageFeature } from './two-tower.js'

const { nn } = torch
type Tensor = torch.Tensor

/** 'single': each image is of one class. 'multi': each finding is there or not. */
export type ClassTask = 'single' | 'multi'

export interface ClassifierOptions {
  image: ImageEncoder
  /** Names of the classes, or of the findings. */
  classes: readonly string[]
  task: ClassTask
  /** Default: 'mean-prenorm'. */
  pooling?: ImagePooling
}

/** An image encoder with a linear layer to the classes in the projection's place. Its own state is `head.weight` and `head.bias`. */
export class Classifier extends nn.Module {
  image: ImageEncoder
  head: torch.nn.Linear
  readonly classes: readonly string[]
  readonly task: ClassTask
  readonly imagePooling: ImagePooling

  constructor({ image, classes, task, pooling = 'mean-prenorm' }: ClassifierOptions) {
    super()
    this.image = image
    this.classes = classes
    this.task = task
    this.imagePooling = pooling
    this.head = new nn.Linear(image.featureWidth, classes.length)
  }

  /** Pooled features before any projection, not normalised: [B, featureWidth]. */
  feature(pixels: Tensor, options: ImageForwardOptions = {}): Tensor {
    return imageFeature(this.image, pixels, this.imagePooling, options)
  }

  /** What a softmax over the classes, or a sigmoid of each finding, makes probabilities of: [B, C], float32. */
  forward(pixels: Tensor, options: ImageForwardOptions = {}): Tensor {
    return this.classify(this.feature(pixels, options))
  }

  /** The same of features that were computed before. */
  classify(feature: Tensor): Tensor {
    return this.head.forward(feature).float()
  }
}

/** What is true of a batch. */
export type ClassTargets =
  | {
      readonly task: 'single'
      /** int64 [B] */
      readonly labels: Tensor
    }
  | {
      readonly task: 'multi'
      /** float32 [B, C]: 1 or 0. */
      readonly values: Tensor
      /** float32 [B, C]: 1 where the value counts, 0 where it is left out. */
      readonly counted: Tensor
    }

/**
 * Cross-entropy, or binary cross-entropy of each finding that counts: the sum. Divided by how many count it is their mean.
 *
 * @param logits [B, C]
 * @returns []
 */
export function classificationLoss(logits: Tensor, targets: ClassTargets): Tensor {
  if (targets.task === 'single') {
    return nn.functional.crossEntropy(logits, targets.labels, { reduction: 'sum' })
  }
  const { values, counted } = targets
  return nn.functional.binaryCrossEntropyWithLogits(logits, values, { weight: counted, reduction: 'sum' })
}
