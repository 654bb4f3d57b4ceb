import type { Device, Tensor } from '../../torch/index.js'
import type { Resize } from '../augment/input.js'
import type { Sample } from '../sample.js'
import type { PreparedImages } from '../shards/prepared.js'
import type { ShardWriter } from '../shards/writer.js'
import type { Decoder } from './decoders.js'
import type { Order } from './order.js'

export interface LoaderOptions {
  /** Images of a batch, for this process. */
  readonly batchSize: number
  readonly seed: number
  /** Augments, shuffles, drops an incomplete last batch, replaces files that fail. Default: true. */
  readonly training?: boolean
  /** Default: by the data set's weights in training, 'shuffled' where it has none; 'sequential' otherwise. */
  readonly order?: Order
  /** Default: as `training`. */
  readonly augment?: boolean
  /** Whether augmentation may flip. Default: true. */
  readonly flip?: boolean
  /** Whether 'left' and 'right' in a caption change places when its image is flipped. Default: for EMBED. */
  readonly swapSides?: boolean
  /** Default: as `training`. Otherwise the last batch may be smaller. */
  readonly dropLast?: boolean
  readonly resize?: Resize
  /** Side of the pixels. Default: 224. */
  readonly size?: number
  /** As of inputOf(). Default: 1. */
  readonly oversample?: number
  readonly channels?: 1 | 3
  /** Default: 'cpu'. With a GPU, images wait for it in pinned memory, and the last stage runs there. */
  readonly device?: Device
  /** Default: 0 of 1. */
  readonly rank?: number
  readonly worldSize?: number
  /** Prepared images. What is not among them is decoded, where there is a decoder, and is a problem otherwise. */
  readonly prepared?: PreparedImages
  readonly decoder?: Decoder
  /** Takes every image that was decoded: the first epoch fills it, later ones read from it. Of one process alone. */
  readonly cache?: ShardWriter
  /** Batches that are made ready ahead of their use. Default: 2. */
  readonly prefetch?: number
  /** Stop when this fraction of the images cannot be read. Default: 0.01. */
  readonly maxProblems?: number
  readonly signal?: AbortSignal
}

export interface Batch extends Disposable {
  /** [B, channels, size, size], float32 from -1 to 1. It belongs to the batch: dispose of that. */
  readonly pixels: Tensor
  readonly samples: readonly Sample[]
  /** Those of the samples, their sides swapped where the image was flipped. */
  readonly captions: readonly (string | null)[]
  readonly labels: readonly (number | null)[]
  /** Of the samples in the data set. */
  readonly indices: readonly number[]
  readonly epoch: number
  /** Which batch of the epoch, from 0; of this process. */
  readonly position: number
}

/** Where a run is: the batch that comes next. */
export interface LoaderState {
  readonly epoch: number
  readonly position: number
  /** What the order depends on: another data set, seed or division would go on with other images. */
  readonly identity: string
}

export interface LoaderStatistics {
  readonly images: number
  readonly batches: number
  /** From the first batch that was asked for to the last that was given. */
  readonly seconds: number
  /** Of those, how long the user of the batches had to wait for them. */
  readonly waiting: number
  readonly imagesPerSecond: number
}
