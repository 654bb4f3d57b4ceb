import { Random } from '../random.js'
import type { Sample } from '../sample.js'
import type { LoaderState } from './options.js'

/**
 * In which order images are seen: as they are; shuffled anew in each epoch; drawn with replacement so that every class is as
 * frequent, or by given weights (one for each sample), as many as there are samples.
 */
export type Order = 'sequential' | 'shuffled' | 'balanced' | ArrayLike<number>

export interface ShardOptions {
  /** This process, from 0. */
  readonly rank: number
  readonly worldSize: number
  /** Images of a batch. */
  readonly batchSize: number
  /** Whether only whole batches are used, and as many by every process. */
  readonly dropLast: boolean
}

/** Weights with which every class is drawn as often. @throws where a sample has no class */
export function balancedWeights(samples: readonly Sample[]): number[] {
  const counts = new Map<number, number>()
  for (const { label, row, path } of samples) {
    if (label === null) {
      throw new Error(`expected a class for every sample to balance them, but row ${row}, ${path}, has none or several`)
    }
    counts.set(label, (counts.get(label) ?? 0) + 1)
  }
  return samples.map(({ label }) => 1 / counts.get(label!)!)
}

/** The running sum of weights. @throws RangeError where they are not numbers from 0, one for each sample */
export function cumulative(weights: ArrayLike<number>, count: number): Float64Array {
  const sums = new Float64Array(weights.length)
  let sum = 0
  for (let at = 0; at < weights.length; at += 1) {
    const weight = weights[at]!
    if (!(weight >= 0 && Number.isFinite(weight))) {
      throw new RangeError(`expected weights that are numbers from 0, but weight ${at} is ${weight}`)
    }
    sum += weight
    sums[at] = sum
  }
  if (weights.length !== count || !(sum > 0)) {
    throw new RangeError(
      `expected a weight for each of ${count} samples and one of them above 0, but received ${weights.length} with a sum of ${sum}`,
    )
  }
  return sums
}

/** The order of one epoch, for all processes. It depends on seed and epoch alone. */
export function epochOrder(
  count: number,
  order: 'sequential' | 'shuffled' | Float64Array,
  seed: number,
  epoch: number,
): Int32Array {
  const indices = Int32Array.from({ length: count }, (_, index) => index)
  if (order === 'sequential') return indices
  if (order === 'shuffled') return Int32Array.from(new Random(seed, 'shuffle', epoch).shuffle([...indices]))
  const random = new Random(seed, 'draw', epoch)
  const sum = order.at(-1)!
  return indices.map(() => firstAbove(order, random.uniform(0, sum)))
}

/** The first place whose running sum is above a value: one with a weight of 0 is never it. */
function firstAbove(sums: Float64Array, value: number): number {
  let low = 0
  let high = sums.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if (sums[middle]! > value) high = middle
    else low = middle + 1
  }
  return low
}

/** How many images a process sees in an epoch. */
export function shareOf(count: number, { rank, worldSize, batchSize, dropLast }: ShardOptions): number {
  if (dropLast) return Math.floor(count / worldSize / batchSize) * batchSize
  const whole = Math.floor(count / batchSize)
  const rest = whole % worldSize === rank ? count % batchSize : 0
  return Math.max(0, Math.ceil((whole - rank) / worldSize)) * batchSize + rest
}

/**
 * What a process sees of an epoch's order: every image is some process's, but for an incomplete last batch that is dropped.
 *
 * Where whole batches are used, the processes' batches of one step are together the batch that one process with as many
 * images would have, dealt out image by image. Otherwise the batches are those that one process would have, dealt out batch
 * by batch: {@link batchNumber}.
 */
export function shardOf(order: Int32Array, options: ShardOptions): Int32Array {
  const { rank, worldSize, batchSize, dropLast } = options
  const share = shareOf(order.length, options)
  const place = dropLast
    ? (at: number) => at * worldSize + rank
    : (at: number) => batchNumber(Math.floor(at / batchSize), options) * batchSize + (at % batchSize)
  return Int32Array.from({ length: share }, (_, at) => order[place(at)]!)
}

/** Which batch a process' own is among those of all, where batches are dealt out as they are. */
export function batchNumber(position: number, { rank, worldSize }: Pick<ShardOptions, 'rank' | 'worldSize'>): number {
  return position * worldSize + rank
}

/** Where a run is that gave so many batches of an epoch; after the last one, at the next epoch's first. */
export function stateAt(epoch: number, position: number, batchesPerEpoch: number, identity: string): LoaderState {
  const isOver = position >= batchesPerEpoch
  return { epoch: isOver ? epoch + 1 : epoch, position: isOver ? 0 : position, identity }
}

const DIVISION = /^(.*) (\d+) (\d+) (whole|all)$/

/** What a loader's batches depend on; the last three are how they are divided, which {@link redivided} may change. */
export function identityOf(hash: string, seed: number, order: string, options: Omit<ShardOptions, 'rank'>): string {
  const { batchSize, worldSize, dropLast } = options
  return [hash, seed, order, batchSize, worldSize, dropLast ? 'whole' : 'all'].join(' ')
}

/**
 * A state of the same data in batches of another size, or of another number of processes: where as many images of the epoch
 * have been seen, or up to a batch fewer. States of other data are given back as they are.
 */
export function redivided(state: LoaderState, wanted: string): LoaderState {
  const [before, after] = [DIVISION.exec(state.identity), DIVISION.exec(wanted)]
  if (before === null || after === null || before[1] !== after[1] || before[4] !== after[4]) return state
  const perStep = (match: RegExpExecArray) => Number(match[2]) * Number(match[3])
  const position = Math.floor((state.position * perStep(before)) / perStep(after))
  return { epoch: state.epoch, position, identity: wanted }
}

/**
 * A state that is of the same batches.
 *
 * @param what they are of, in words: 'data'
 * @throws where it is of others, or is no state
 */
export function checkedState(state: LoaderState, wanted: string, what: string): LoaderState {
  const { epoch, position, identity } = state
  if (identity !== wanted) {
    throw new Error(
      `expected to go on with the same ${what}, seed and batches (${wanted}), but the state is of others (${identity})`,
    )
  }
  if (!(Number.isInteger(epoch) && epoch >= 0 && Number.isInteger(position) && position >= 0)) {
    throw new RangeError(`expected an epoch and a position from 0, but received ${epoch} and ${position}`)
  }
  return state
}
