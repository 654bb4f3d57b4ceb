import type { LoaderState, Sample } from '../data/index.js'
import { checkedState, cumulative, epochOrder, stateAt } from '../data/loader/order.js'
import type * as torch from '../torch/index.js'
import type { FeatureTable } from './feature-cache.js'
import type { Batches, TaskBatch } from './task.js'

export interface FeatureBatch extends TaskBatch {
  /** [B, width], float32, on the device. It belongs to the batch: dispose of that. */
  readonly features: torch.Tensor
  readonly samples: readonly Sample[]
  /** Of the samples in the table. */
  readonly indices: readonly number[]
}

export interface FeatureBatchOptions {
  readonly batchSize: number
  readonly seed: number
  /** Default: 'cpu'. */
  readonly device?: torch.Device
  /**
   * Default: by the table's weights, 'shuffled' where it has none; an incomplete last batch is dropped. 'sequential': all, in
   * the table's order.
   */
  readonly order?: 'sequential' | 'shuffled'
}

/** Batches of features, in the orders that `DataLoader` draws: the same seed gives the same ones wherever a run goes on. */
export class FeatureBatches implements Batches<FeatureBatch> {
  readonly #order: 'sequential' | 'shuffled' | Float64Array
  readonly #identity: string
  #epoch = 0
  #position = 0

  /** @throws RangeError for a batch that is larger than the data */
  constructor(
    readonly table: FeatureTable,
    private readonly options: FeatureBatchOptions,
  ) {
    const { batchSize, seed, order } = options
    const { weights, samples, key } = table
    this.#order = order ?? (weights === null ? 'shuffled' : cumulative(weights, samples.length))
    this.#identity = [key, seed, typeof this.#order === 'string' ? this.#order : 'weighted', batchSize].join(' ')
    if (this.batchesPerEpoch === 0) {
      throw new RangeError(
        `batchSize: expected as many images as there are, ${samples.length}, at most, but received ${batchSize}`,
      )
    }
  }

  get batchesPerEpoch(): number {
    const whole = this.table.samples.length / this.options.batchSize
    return this.#order === 'sequential' ? Math.ceil(whole) : Math.floor(whole)
  }

  state(): LoaderState {
    return stateAt(this.#epoch, this.#position, this.batchesPerEpoch, this.#identity)
  }

  /** @throws where the state is of other features, another seed, order or batch size */
  resume(state: unknown): void {
    const { epoch, position } = checkedState(state as LoaderState, this.#identity, 'features')
    this.#epoch = epoch
    this.#position = position
  }

  /** The rest of this epoch. */
  async *[Symbol.asyncIterator](): AsyncGenerator<FeatureBatch, void, undefined> {
    const { batchSize, seed, device } = this.options
    const { epoch, position } = this.state()
    this.#epoch = epoch
    this.#position = position
    const order = epochOrder(this.table.samples.length, this.#order, seed, epoch)
    while (this.#position < this.batchesPerEpoch) {
      const start = this.#position * batchSize
      const indices = [...order.subarray(start, start + batchSize)]
      this.#position += 1
      const features = this.table.gather(indices, device)
      yield {
        features,
        samples: indices.map((index) => this.table.samples[index]!),
        indices,
        epoch,
        [Symbol.dispose]: () => features.dispose(),
      }
    }
  }
}
