import { Random } from '../data/random.js'
import type { Measure } from './measures.js'

/*
 * Intervals by the bootstrap over patients: images of one patient are alike, so whole patients are drawn with replacement,
 * as many as there are, and each metric is computed anew (Efron and Tibshirani 1993, chapters 8, 13, 15). The interval is
 * from the 2.5th to the 97.5th percentile.
 *
 * A resample in which a metric is not defined (a class that the test set has was not drawn) is left out for that metric, and
 * the estimate says how many were used; with less than half of them there is no interval. Nor is there with one patient.
 */

export interface BootstrapOptions {
  /** Default: 2,000. */
  resamples?: number
  /** Default: 0. */
  seed?: number
  /** Default: 0.95. */
  confidence?: number
  /** Called between resamples, some times a second at most. */
  onProgress?: (done: number) => void
  signal?: AbortSignal
}

export const DEFAULT_RESAMPLES = 2000

/** A metric with its interval. */
export interface Estimate {
  /** Null where it is not defined. */
  readonly value: number | null
  readonly low: number | null
  readonly high: number | null
  /** Resamples in which it is defined. */
  readonly resamples: number
}

/** What a comparison says of one metric. */
export interface Difference extends Estimate {
  /**
   * Two-sided, by where 0 lies among the resampled differences: twice the smaller part on one side of it, with one added to
   * counts (Davison and Hinkley 1997, 4.2), so that it is never 0. Not adjusted for several comparisons.
   */
  readonly p: number | null
}

/** Values of one metric over the resamples. */
export type Column = Float64Array

/** Patients by number, from 0 in the order they first appear. */
export function clustersOf(patients: readonly string[]): { clusters: Int32Array; count: number } {
  const numbers = new Map<string, number>()
  const clusters = Int32Array.from(patients, (patient) => {
    const known = numbers.get(patient)
    if (known !== undefined) return known
    numbers.set(patient, numbers.size)
    return numbers.size - 1
  })
  return { clusters, count: numbers.size }
}

/** How long the event loop waits at most. */
const TURN_MS = 50

/**
 * Evaluates measures of the same samples on the same resamples.
 *
 * @param patients [N]
 * @returns for each measure, for each of its numbers, its value in each resample
 */
export async function resample(
  measures: readonly Measure[],
  patients: readonly string[],
  { resamples = DEFAULT_RESAMPLES, seed = 0, onProgress, signal }: BootstrapOptions = {},
): Promise<Column[][]> {
  if (!(Number.isInteger(resamples) && resamples > 0)) {
    throw new RangeError(`bootstrap: expected a number of resamples above 0, but received ${resamples}`)
  }
  const { clusters, count } = clustersOf(patients)
  const random = new Random(seed, 'bootstrap')
  const drawn = new Int32Array(count)
  const weights = new Int32Array(patients.length)
  const outs = measures.map(({ size }) => new Float64Array(size))
  const columns = measures.map(({ size }) => Array.from({ length: size }, () => new Float64Array(resamples)))
  let turn = performance.now()
  for (let b = 0; b < resamples; b += 1) {
    drawn.fill(0)
    for (let k = 0; k < count; k += 1) drawn[random.integer(count)]! += 1
    for (let row = 0; row < weights.length; row += 1) weights[row] = drawn[clusters[row]!]!
    for (const [m, measure] of measures.entries()) {
      measure.evaluate(weights, outs[m]!)
      for (const [k, column] of columns[m]!.entries()) column[b] = outs[m]![k]!
    }
    if (performance.now() - turn < TURN_MS) continue
    onProgress?.(b + 1)
    await new Promise((resolve) => setImmediate(resolve))
    signal?.throwIfAborted()
    turn = performance.now()
  }
  return columns
}

/** The measure with every sample counted once. */
export function evaluateOnce(measure: Measure, samples: number): Float64Array {
  const out = new Float64Array(measure.size)
  measure.evaluate(new Int32Array(samples).fill(1), out)
  return out
}

/** An estimate from the value on the test set and those on the resamples. */
export function estimateOf(value: number, column: Column, patients: number, confidence = 0.95): Estimate {
  if (!(confidence > 0 && confidence < 1)) {
    throw new RangeError(`bootstrap: expected a confidence between 0 and 1, but received ${confidence}`)
  }
  const defined = column.filter((each) => !Number.isNaN(each)).sort()
  const known = Number.isNaN(value) ? null : value
  if (known === null || patients < 2 || defined.length < column.length / 2) {
    return { value: known, low: null, high: null, resamples: defined.length }
  }
  return {
    value: known,
    low: quantile(defined, (1 - confidence) / 2),
    high: quantile(defined, (1 + confidence) / 2),
    resamples: defined.length,
  }
}

/** With linear interpolation between values, as numpy does by default. */
function quantile(sorted: Float64Array, part: number): number {
  const place = part * (sorted.length - 1)
  const below = Math.floor(place)
  const low = sorted[below]!
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!
  return low + (place - below) * (high - low)
}

/** `b` minus `a`, both on the same resamples. */
export function differenceOf(
  values: { a: number; b: number },
  columns: { a: Column; b: Column },
  patients: number,
  confidence = 0.95,
): Difference {
  const differences = columns.b.map((each, k) => each - columns.a[k]!)
  const estimate = estimateOf(values.b - values.a, differences, patients, confidence)
  if (estimate.low === null) return { ...estimate, p: null }
  const below = differences.filter((each) => each <= 0).length
  const above = differences.filter((each) => each >= 0).length
  return { ...estimate, p: Math.min(1, (2 * (1 + Math.min(below, above))) / (estimate.resamples + 1)) }
}
