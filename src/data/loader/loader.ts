import { dispose, empty, fromTypedArray, keep, scope, type Tensor } from '../../torch/index.js'
import { inputOf } from '../augment/input.js'
import { type Augmentation, drawAugmentation } from '../augment/parameters.js'
import { swapSides } from '../augment/sides.js'
import type { Box, PreparedImage } from '../images/gray.js'
import { Problems } from '../problems.js'
import { Random } from '../random.js'
import type { Dataset } from '../sample.js'
import { imagesOfKind } from '../shards/format.js'
import { PreparedImages } from '../shards/prepared.js'
import type { ShardWriter } from '../shards/writer.js'
import type { Batch, LoaderOptions, LoaderState, LoaderStatistics } from './options.js'
import {
  balancedWeights,
  checkedState,
  cumulative,
  epochOrder,
  identityOf,
  redivided,
  type ShardOptions,
  shardOf,
  shareOf,
  stateAt,
} from './order.js'
import { sourceOf } from './source.js'

export type { Batch, LoaderOptions, LoaderState, LoaderStatistics } from './options.js'

/** The order of an epoch: of all processes, and ours. */
interface Orders {
  readonly epoch: number
  readonly all: Int32Array
  readonly own: Int32Array
}

/** An image of a batch: which, and what was decoded; null where it is prepared already. */
interface Found {
  readonly index: number
  readonly image: PreparedImage | null
}

/** The images of a batch. */
interface Gathered {
  /** The batch's own. */
  readonly images: readonly Tensor[]
  /** In place of them, where all images are in shards: those, and of each image which shard and where in it. */
  readonly shards: readonly Tensor[] | null
  readonly order: Int32Array | undefined
  readonly boxes: readonly Box[]
}

/** A batch before the last stage. */
interface Loaded extends Gathered {
  readonly indices: readonly number[]
  readonly augmentations: readonly Augmentation[] | null
}

/** How many others are tried in place of an image that cannot be read. */
const REPLACEMENTS = 16

/**
 * Batches of a data set: `for await (const batch of loader)` gives the rest of an epoch, and the next time the next one.
 *
 * The same seed gives the same batches on every run, whatever the number of workers and wherever a run was stopped and went
 * on. A file that cannot be read is noted in {@link DataLoader.problems}; in training another image of the epoch takes its
 * place, chosen by seed, epoch and index, and otherwise its batch is smaller.
 */
export class DataLoader implements AsyncIterable<Batch> {
  readonly problems = new Problems()
  readonly #failed = new Set<number>()
  readonly #order: 'sequential' | 'shuffled' | Float64Array
  readonly #shard: ShardOptions
  readonly #identity: string
  readonly #training: boolean
  #prepared: PreparedImages | undefined
  #known: Orders | null = null
  #epoch = 0
  #position = 0
  #iterating = false
  readonly #times = { images: 0, batches: 0, started: Number.NaN, ended: Number.NaN, waiting: 0 }

  /** @throws RangeError for options that do not fit each other, or a data set too small for one batch */
  constructor(
    readonly dataset: Dataset,
    private readonly options: LoaderOptions,
  ) {
    const { training = true, batchSize, seed, rank = 0, worldSize = 1, dropLast = training, prefetch = 2 } = options
    const whole = (name: string, value: number, least: number) => {
      if (Number.isInteger(value) && value >= least) return
      throw new RangeError(`DataLoader: expected ${name} to be a whole number from ${least}, but received ${value}`)
    }
    whole('batchSize', batchSize, 1)
    whole('worldSize', worldSize, 1)
    whole('rank', rank, 0)
    whole('prefetch', prefetch, 0)
    if (rank >= worldSize) throw new RangeError(`DataLoader: expected a rank below ${worldSize}, but received ${rank}`)
    if (options.prepared === undefined && options.decoder === undefined) {
      throw new RangeError('DataLoader: expected prepared images, or a decoder to make them; there is neither')
    }
    checkAlike(dataset, options)
    const { samples } = dataset
    const order = options.order ?? (training ? (dataset.weights ?? 'shuffled') : 'sequential')
    if (typeof order === 'string' && order !== 'balanced') this.#order = order
    else this.#order = cumulative(order === 'balanced' ? balancedWeights(samples) : order, samples.length)
    this.#prepared = options.prepared
    this.#training = training
    this.#shard = { rank, worldSize, batchSize, dropLast }
    const ordered = typeof order === 'string' ? order : 'weighted'
    this.#identity = identityOf(dataset.hash, seed, ordered, this.#shard)
    // of whole batches each process has as many; of others the last processes may have none
    if (this.batchesPerEpoch === 0 && (dropLast || samples.length === 0)) {
      throw new RangeError(
        `DataLoader: expected enough images for a batch of ${batchSize} in each of ${worldSize} processes, but there are ${samples.length}`,
      )
    }
  }

  /** Of this process. */
  get batchesPerEpoch(): number {
    return Math.ceil(shareOf(this.dataset.samples.length, this.#shard) / this.#shard.batchSize)
  }

  get #swapsSides(): boolean {
    return this.options.swapSides ?? this.dataset.kind === 'embed'
  }

  /** Every caption that batches may have, with its share of the images; a missing one is ''. */
  captionShares(): Map<string, number> {
    const { augment = this.#training, flip = true } = this.options
    const isSwapped = augment && flip && this.#swapsSides
    const { samples } = this.dataset
    const shares = new Map<string, number>()
    const each = (isSwapped ? 0.5 : 1) / samples.length
    for (const { caption } of samples) {
      const own = caption ?? ''
      for (const text of isSwapped ? [own, swapSides(own)] : [own]) shares.set(text, (shares.get(text) ?? 0) + each)
    }
    return shares
  }

  /** To go on from with {@link resume}, after the batch that was given last. */
  state(): LoaderState {
    return stateAt(this.#epoch, this.#position, this.batchesPerEpoch, this.#identity)
  }

  /**
   * @param options.redivide goes on at the same place in the data also in batches of another size, or as one of another
   * number of processes. Default: false.
   * @throws where the state is of another data set, seed or order; without `redivide` also of another batch size or number
   * of processes
   */
  resume(state: LoaderState, { redivide = false }: { redivide?: boolean } = {}): void {
    const own = redivide ? redivided(state, this.#identity) : state
    const { epoch, position } = checkedState(own, this.#identity, 'data')
    this.#refuseSecond()
    this.#epoch = epoch
    this.#position = position
  }

  statistics(): LoaderStatistics {
    const { images, batches, started, ended, waiting } = this.#times
    const seconds = batches === 0 ? 0 : (ended - started) / 1000
    return { images, batches, seconds, waiting: waiting / 1000, imagesPerSecond: seconds === 0 ? 0 : images / seconds }
  }

  /** The rest of this epoch. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    const { signal, prefetch = 2, cache } = this.options
    this.#refuseSecond()
    if (cache !== undefined) this.#openCache(cache)
    const { epoch, position } = this.state()
    this.#epoch = epoch
    this.#position = position
    this.#iterating = true
    const count = this.batchesPerEpoch
    const running: Promise<Loaded | null>[] = []
    try {
      for (let next = position; this.#position < count; ) {
        signal?.throwIfAborted()
        const asked = performance.now()
        for (; next < Math.min(count, this.#position + 1 + prefetch); next += 1) {
          const loading = this.#load(epoch, next)
          // told when its turn comes
          loading.catch(() => {})
          running.push(loading)
        }
        const loaded = await abortable(running[0]!, signal)
        running.shift()
        const at = this.#position
        this.#position += 1
        if (loaded === null) continue
        const batch = this.#finish(loaded, epoch, at)
        this.#count(asked, batch.indices.length)
        yield batch
      }
      cache?.flush()
    } finally {
      this.#iterating = false
      for (const loading of running) {
        loading.then(
          (loaded) => loaded !== null && dispose(loaded.images),
          () => {},
        )
      }
    }
  }

  #refuseSecond(): void {
    if (this.#iterating) throw new Error('expected one loop over the batches at a time, but another one goes on')
  }

  #count(asked: number, images: number): void {
    const times = this.#times
    const now = performance.now()
    if (times.batches === 0) times.started = asked
    times.ended = now
    times.waiting += now - asked
    times.images += images
    times.batches += 1
  }

  #orders(epoch: number): Orders {
    if (this.#known?.epoch === epoch) return this.#known
    const all = epochOrder(this.dataset.samples.length, this.#order, this.options.seed, epoch)
    this.#known = { epoch, all, own: shardOf(all, this.#shard) }
    return this.#known
  }

  /** What the cache has by now: an epoch reads what those before it decoded. */
  #openCache(cache: ShardWriter): void {
    cache.flush()
    if (this.#prepared !== this.options.prepared) this.#prepared?.[Symbol.dispose]()
    this.#prepared = PreparedImages.open(cache.folder)
  }

  /** Reads a batch; null where not one of its files can be read. */
  async #load(epoch: number, position: number): Promise<Loaded | null> {
    const { batchSize } = this.#shard
    const { all, own } = this.#orders(epoch)
    const wanted = [...own.subarray(position * batchSize, (position + 1) * batchSize)]
    const read = await Promise.all(
      wanted.map((index, at) => this.#readOrReplace(index, all, [this.#shard.rank, epoch, position, at])),
    )
    const found = read.filter((each) => each !== null)
    if (found.length === 0) return null
    const gathered = this.#gather(found)
    const { augment = this.#training, seed, flip = true } = this.options
    const indices = found.map(({ index }) => index)
    const augmentations = augment ? indices.map((index) => drawAugmentation(index, { seed, epoch, flip })) : null
    return { ...gathered, indices, augmentations }
  }

  /** The images of a batch, in one tensor of pinned memory where a GPU takes them; what was decoded goes into the cache too. */
  #gather(found: readonly Found[]): Gathered {
    const { cache, device = 'cpu' } = this.options
    if (device.startsWith('cpu') && found.every(({ image }) => image === null)) return this.#inShards(found)
    return scope(() => {
      const taken = found.map(({ index, image }) => {
        const { path, row } = this.dataset.samples[index]!
        if (image === null) return this.#prepared!.view(path)
        cache?.add(path, row, image)
        const { width, height, pixels } = image.padded
        return { image: fromTypedArray(pixels, [1, 1, height, width]), box: image.box }
      })
      const images = taken.map(({ image }) => image)
      const boxes = taken.map(({ box }) => box)
      const owned = (device.startsWith('cuda') ? [pinned(images)] : images).map(keep)
      return { images: owned, shards: null, order: undefined, boxes }
    })
  }

  /** Without a tensor for each. */
  #inShards(found: readonly Found[]): Gathered {
    const shards: Tensor[] = []
    const order = new Int32Array(2 * found.length)
    const boxes = found.map(({ index }, at) => {
      const { images, place, box } = this.#prepared!.find(this.dataset.samples[index]!.path)
      let which = shards.indexOf(images)
      if (which < 0) which = shards.push(images) - 1
      order.set([which, place], 2 * at)
      return box
    })
    return { images: [], shards, order, boxes }
  }

  /** An image, or the one that takes its place; null where it is left out. */
  async #readOrReplace(index: number, order: Int32Array, place: readonly number[]): Promise<Found | null> {
    let random: Random | null = null
    for (let candidate = index, tries = 0; ; tries += 1) {
      if (!this.#failed.has(candidate)) {
        try {
          return { index: candidate, image: await this.#read(candidate) }
        } catch (error) {
          this.#fail(candidate, error)
        }
      }
      if (!this.#training) return null
      if (tries === REPLACEMENTS) {
        throw new Error(`expected one of ${tries + 1} images of the epoch to be readable, but none is`)
      }
      random ??= new Random(this.options.seed, 'replace', ...place)
      candidate = order[random.integer(order.length)]!
    }
  }

  async #read(index: number): Promise<PreparedImage | null> {
    const { decoder, signal } = this.options
    const sample = this.dataset.samples[index]!
    if (this.#prepared?.has(sample.path) === true) return null
    if (decoder === undefined) throw new Error('it is not among the prepared images')
    signal?.throwIfAborted()
    return decoder.prepare(await sourceOf(this.dataset, sample))
  }

  /** @throws where there are too many, or where it is not the file's fault */
  #fail(index: number, error: unknown): void {
    this.options.signal?.throwIfAborted()
    if (this.#failed.has(index)) return
    this.#failed.add(index)
    this.problems.add(error instanceof Error ? error.message : String(error), this.dataset.samples[index]!)
    this.problems.check(this.dataset.samples.length, this.options.maxProblems)
  }

  /** The last stage: on the device, over libtorch's threads where that is the CPU. The images are let go. */
  #pixels({ images, shards, order, boxes, augmentations }: Loaded): Tensor {
    const { resize, size, oversample, channels, device = 'cpu' } = this.options
    try {
      const more = augmentations === null ? {} : { augmentations }
      return keep(inputOf(shards ?? images, boxes, { resize, size, oversample, channels, device, order, ...more }))
    } finally {
      dispose(images)
    }
  }

  #finish(loaded: Loaded, epoch: number, position: number): Batch {
    const { dataset } = this
    const { indices, augmentations } = loaded
    const pixels = this.#pixels(loaded)
    const swaps = this.#swapsSides
    const samples = indices.map((index) => dataset.samples[index]!)
    const captions = samples.map(({ caption }, at) =>
      swaps && caption !== null && augmentations?.[at]?.flip === true ? swapSides(caption) : caption,
    )
    return {
      pixels,
      samples,
      captions,
      labels: samples.map(({ label }) => label),
      indices,
      epoch,
      position,
      [Symbol.dispose]: () => pixels.dispose(),
    }
  }
}

/** @throws where prepared images are of another data set, or what is decoded beside them would differ */
function checkAlike({ kind }: Dataset, { prepared, decoder }: LoaderOptions): void {
  const settings = [prepared?.settings, decoder?.settings].filter((each) => each !== undefined)
  const sameKind = prepared === undefined || prepared.kind === imagesOfKind(kind)
  if (sameKind && settings.every((each) => JSON.stringify(each) === JSON.stringify(settings[0]))) return
  throw new Error(
    `DataLoader: expected images of a data set of kind ${kind}, all prepared alike, but received ${prepared} and a decoder of ${JSON.stringify(decoder?.settings)}`,
  )
}

/** Images [1, 1, S, S] as one batch that a GPU copies while it works. */
function pinned(images: readonly Tensor[]): Tensor {
  const batch = empty([images.length, ...images[0]!.shape.slice(1)], { dtype: images[0]!.dtype, pinMemory: true })
  for (const [at, image] of images.entries()) batch.narrow(0, at, 1).copy_(image)
  return batch
}

/** Stops waiting when the signal says so; the work itself goes on to its end. */
async function abortable<Value>(work: Promise<Value>, signal: AbortSignal | undefined): Promise<Value> {
  if (signal === undefined) return work
  let stop = () => {}
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
