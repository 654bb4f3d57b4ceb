/*
 * Samples from the highest score to the lowest: what ROC and precision-recall curves, their areas and thresholds come from.
 */

/** Sorted once; areas for any weights of the samples then take one pass. */
export class Ranking {
  /** Index of the sample, from the highest score down. */
  readonly samples: Int32Array
  /** Whether it is positive, in the same order. */
  readonly positive: Uint8Array
  /** Whether the next one scores lower: samples of one score are on the same side of every threshold. */
  readonly lastOfTie: Uint8Array
  /** In the same order. */
  readonly scores: Float64Array

  /**
   * @param truth 1, 0, or -1 for a sample to leave out
   * @param scoreOf of a sample
   * @param sampleOf which weight counts for an entry of `truth`. Default: its own index
   */
  constructor(
    truth: ArrayLike<number>,
    scoreOf: (index: number) => number,
    sampleOf: (index: number) => number = (index) => index,
  ) {
    const counted: number[] = []
    for (let k = 0; k < truth.length; k += 1) if (truth[k]! >= 0) counted.push(k)
    const values = Float64Array.from({ length: truth.length }, (_, k) => (truth[k]! >= 0 ? scoreOf(k) : 0))
    const order = Int32Array.from(counted).sort((a, b) => values[b]! - values[a]! || a - b)
    this.samples = order.map(sampleOf)
    this.positive = Uint8Array.from(order, (k) => truth[k]!)
    this.scores = Float64Array.from(order, (k) => values[k]!)
    this.lastOfTie = Uint8Array.from(order, (_, k) => Number(this.scores[k] !== this.scores[k + 1]))
  }

  /**
   * The areas under the ROC curve (pairs in the right order, ties half) and under the precision-recall curve (average
   * precision: the mean of precision over positives, no interpolation), as scikit-learn has them. NaN where there are not
   * both positive and negative samples, or for the second not one positive.
   *
   * @param weights how often each sample counts, whole numbers. Default: once.
   */
  areas(weights?: ArrayLike<number>): { auc: number; averagePrecision: number } {
    const { samples, positive, lastOfTie } = this
    /** Pairs in the right order, counted twice, so that a tie is 1. */
    let twicePairs = 0
    let precisionSum = 0
    let [positives, negatives, tiedPositives, tiedNegatives] = [0, 0, 0, 0]
    for (let k = 0; k < samples.length; k += 1) {
      const weight = weights === undefined ? 1 : weights[samples[k]!]!
      // no branch: it would be guessed wrong half of the time
      const own = weight * positive[k]!
      tiedPositives += own
      tiedNegatives += weight - own
      if (lastOfTie[k] === 0) continue
      twicePairs += tiedNegatives * (2 * positives + tiedPositives)
      positives += tiedPositives
      negatives += tiedNegatives
      if (tiedPositives > 0) precisionSum += (tiedPositives * positives) / (positives + negatives)
      tiedPositives = 0
      tiedNegatives = 0
    }
    return { auc: twicePairs / (2 * positives * negatives), averagePrecision: precisionSum / positives }
  }

  /** Positives and negatives at or above each distinct score, from the highest down. */
  counts(): { thresholds: number[]; truePositives: number[]; falsePositives: number[] } {
    const thresholds: number[] = []
    const truePositives: number[] = []
    const falsePositives: number[] = []
    let [above, wrong] = [0, 0]
    for (let k = 0; k < this.samples.length; k += 1) {
      if (this.positive[k] === 1) above += 1
      else wrong += 1
      if (this.lastOfTie[k] === 0) continue
      thresholds.push(this.scores[k]!)
      truePositives.push(above)
      falsePositives.push(wrong)
    }
    return { thresholds, truePositives, falsePositives }
  }
}

export interface RocCurve {
  /** A sample at or above it is called positive. The first is Infinity: none is. */
  readonly thresholds: readonly number[]
  /** 1 - specificity */
  readonly falsePositiveRate: readonly number[]
  /** Sensitivity */
  readonly truePositiveRate: readonly number[]
}

/** Every point of the ROC curve, from (0, 0) to (1, 1). Rates are NaN where there are no positives, or no negatives. */
export function rocCurve(ranking: Ranking): RocCurve {
  const { thresholds, truePositives, falsePositives } = ranking.counts()
  const [positives, negatives] = [truePositives.at(-1) ?? 0, falsePositives.at(-1) ?? 0]
  return {
    thresholds: [Number.POSITIVE_INFINITY, ...thresholds],
    falsePositiveRate: [0, ...falsePositives].map((count) => count / negatives),
    truePositiveRate: [0, ...truePositives].map((count) => count / positives),
  }
}

export interface PrecisionRecallCurve {
  readonly thresholds: readonly number[]
  readonly precision: readonly number[]
  readonly recall: readonly number[]
}

/** Every point, from the highest threshold down: recall rises. */
export function precisionRecallCurve(ranking: Ranking): PrecisionRecallCurve {
  const { thresholds, truePositives, falsePositives } = ranking.counts()
  const positives = truePositives.at(-1) ?? 0
  return {
    thresholds,
    precision: truePositives.map((count, k) => count / (count + falsePositives[k]!)),
    recall: truePositives.map((count) => count / positives),
  }
}

/**
 * How a threshold is chosen: 'youden' has the greatest sensitivity + specificity, the highest such threshold; a sensitivity
 * takes the highest threshold that reaches it.
 */
export type ThresholdRule = 'youden' | { readonly sensitivity: number }

/** The threshold, one of the scores, at or above which a sample is positive; null where positives or negatives lack. */
export function chooseThreshold(ranking: Ranking, rule: ThresholdRule): number | null {
  const { thresholds, truePositives, falsePositives } = ranking.counts()
  const [positives, negatives] = [truePositives.at(-1) ?? 0, falsePositives.at(-1) ?? 0]
  if (positives === 0 || negatives === 0) return null
  if (rule !== 'youden') {
    const { sensitivity } = rule
    if (!(sensitivity > 0 && sensitivity <= 1)) {
      throw new RangeError(`chooseThreshold: expected a sensitivity above 0 and up to 1, but received ${sensitivity}`)
    }
    // compared as counts, with room for the rounding of 0.9 * 10
    return thresholds[truePositives.findIndex((count) => count >= sensitivity * positives - 1e-9)]!
  }
  let best = 0
  // both sides times positives * negatives: whole numbers, so that ties are ties
  const gain = (k: number) => truePositives[k]! * negatives - falsePositives[k]! * positives
  for (let k = 1; k < thresholds.length; k += 1) if (gain(k) > gain(best)) best = k
  return thresholds[best]!
}
