import { isGradEnabled } from '../modes.js'
import { native } from '../native.js'
import { BatchNorm1d, BatchNorm2d } from '../nn/layers/normalization.js'
import { Module } from '../nn/module.js'
import { collectTensors } from '../scope.js'
import type { Tensor } from '../tensor.js'
import { broadcast } from './collectives.js'
import { BUCKET_BYTES, FIRST_BUCKET_BYTES } from './gradient-mean.js'
import { type GroupOptions, type ProcessGroup, worldGroup } from './group.js'
import type { NativeReducer } from './native.js'

export interface DataParallelOptions extends GroupOptions {
  /** Gradients are reduced together in buckets of about this many bytes. Default: 25 MiB. */
  bucketBytes?: number
  /** The first bucket is smaller, so that reducing starts early. Default: 1 MiB. */
  firstBucketBytes?: number
  /** Let gradients be views of the buckets, which saves their memory and a copy. Default: false. */
  gradientAsBucketView?: boolean
}

/**
 * Trains copies of a module on several ranks as one: gradients are averaged over the ranks while backward() runs, by
 * libtorch's own DDP Reducer. The parameters and buffers of all ranks become rank 0's here.
 *
 * With a loss that is the mean over a rank's batch, each gradient is that of the mean over the joined batch. After
 * forward() comes one backward(), on all ranks. Optimizers take the module's own parameters.
 */
export class DistributedDataParallel<Wrapped extends Module> extends Module {
  readonly #group: ProcessGroup
  readonly #reducer: NativeReducer
  #synchronises = true

  /**
   * @throws TypeError where nothing is to be trained
   * @throws TorchError where the ranks' modules differ in their parameters
   */
  constructor(
    readonly module: Wrapped,
    options: DataParallelOptions = {},
  ) {
    super()
    this.#group = options.group ?? worldGroup()
    const trained = module.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
    if (trained.length === 0) {
      throw new TypeError('DistributedDataParallel: expected a parameter that requires a gradient, but there is none')
    }
    // Checks first that all ranks have the same parameters.
    this.#reducer = native.newReducer(
      this.#group.handle,
      trained.map(([, parameter]) => parameter.handle),
      trained.map(([name]) => name),
      options.bucketBytes ?? BUCKET_BYTES,
      options.firstBucketBytes ?? FIRST_BUCKET_BYTES,
      options.gradientAsBucketView ?? false,
    )
    const works = [...module.parameters(), ...module.buffers()].map((each) => broadcast(each, { group: this.#group }))
    for (const work of works) work.wait()
  }

  forward(...inputs: Parameters<Wrapped['forward']>): ReturnType<Wrapped['forward']> {
    const reduces = this.#synchronises && isGradEnabled()
    this.#refuseBatchStatistics()
    if (reduces) native.reducerForward(this.#reducer)
    const output = this.module.forward(...inputs) as ReturnType<Wrapped['forward']>
    if (reduces) {
      const outputs: Tensor[] = [...collectTensors(output)]
      native.reducerBackward(
        this.#reducer,
        outputs.map((each) => each.handle),
      )
    }
    return output
  }

  /** Batch statistics of a rank's own batch are not those of the joined one: the ranks would train something else. */
  #refuseBatchStatistics(): void {
    if (this.#group.size === 1) return
    const found = this.module
      .namedModules()
      .find(([, each]) => (each instanceof BatchNorm1d || each instanceof BatchNorm2d) && each.training)
    if (found === undefined) return
    throw new TypeError(
      `DistributedDataParallel: expected no batch normalisation in training mode, whose statistics would be each rank's own, but '${found[0]}' is one; put it into eval(), or use LayerNorm`,
    )
  }

  /**
   * Runs forward() and backward() without reducing: gradients add up on each rank, until those of a backward() outside
   * are reduced with them.
   */
  noSync<Result>(run: () => Result): Result {
    const before = this.#synchronises
    this.#synchronises = false
    try {
      return run()
    } finally {
      this.#synchronises = before
    }
  }

  /**
   * To be called after backward(): that all gradients were reduced.
   *
   * @throws TypeError that names the parameters which backward() did not reach
   */
  checkReduced(): void {
    native.reducerCheck(this.#reducer)
  }

  /** Ends the averaging; the module stays as it is. */
  override dispose(): void {
    native.disposeReducer(this.#reducer)
  }
}
