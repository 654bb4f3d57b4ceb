import { calibrationBin } from './metrics.js'

/** How many bins of equal width the calibration error and the diagrams have. */
export const CALIBRATION_BINS = 15

export interface CalibrationBin {
  /** Probabilities in (low, high]. */
  readonly low: number
  readonly high: number
  readonly samples: number
  /** Null where no sample is in it. */
  readonly meanProbability: number | null
  /** The part of them that it was true for. */
  readonly observed: number | null
}

/** Probabilities of something against whether it was so, by bins. */
export class Calibration {
  /** [N] -1 for a sample that is left out. */
  readonly #bins: Int8Array
  readonly #probabilities: Float64Array
  readonly #truth: Int8Array
  /** Truth minus probability. */
  readonly #errors: Float64Array
  readonly #sums = new Float64Array(CALIBRATION_BINS)

  /** @param truth 1, 0, or -1 for a sample to leave out */
  constructor(probabilities: Float64Array, truth: Int8Array) {
    this.#probabilities = probabilities
    this.#truth = truth
    this.#errors = probabilities.map((value, row) => truth[row]! - value)
    this.#bins = truth.map((label, row) => (label < 0 ? -1 : calibrationBin(probabilities[row]!, CALIBRATION_BINS)))
  }

  /** The mean distance of probability and truth over bins, weighted by their samples. */
  error(weights: Int32Array): number {
    const [bins, errors, sums] = [this.#bins, this.#errors, this.#sums]
    sums.fill(0)
    let total = 0
    for (let row = 0; row < bins.length; row += 1) {
      const bin = bins[row]!
      if (bin < 0) continue
      sums[bin]! += weights[row]! * errors[row]!
      total += weights[row]!
    }
    let gaps = 0
    for (let bin = 0; bin < CALIBRATION_BINS; bin += 1) gaps += Math.abs(sums[bin]!)
    return gaps / total
  }

  table(): CalibrationBin[] {
    return Array.from({ length: CALIBRATION_BINS }, (_, bin) => {
      let [samples, probabilities, positives] = [0, 0, 0]
      for (let row = 0; row < this.#bins.length; row += 1) {
        if (this.#bins[row] !== bin) continue
        samples += 1
        probabilities += this.#probabilities[row]!
        positives += this.#truth[row]!
      }
      return {
        low: bin / CALIBRATION_BINS,
        high: (bin + 1) / CALIBRATION_BINS,
        samples,
        meanProbability: samples === 0 ? null : probabilities / samples,
        observed: samples === 0 ? null : positives / samples,
      }
    })
  }
}
