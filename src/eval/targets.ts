import { argmaxRows } from './metrics.js'
import { type LabelRules, type Predictions, rankingScores, truthOf } from './predictions.js'
import { chooseThreshold, Ranking, type ThresholdRule } from './ranking.js'

/*
 * The questions with yes and no in a set of predictions: each class against all others, each finding, the positive class.
 */

/** Of one class against all others, of one finding. */
export const classMetrics = ['auc', 'auprc', 'f1', 'sensitivity', 'specificity', 'ppv', 'npv'] as const
export type ClassMetric = (typeof classMetrics)[number]

export interface Target {
  readonly name: string
  /** Column of the scores. */
  readonly column: number
  /** [N] 1, 0, or -1 for a sample that is left out. */
  readonly truth: Int8Array
  readonly ranking: Ranking
  /** At or above it a sample is called positive, on the scale of {@link rankingScores}; null: there is none. */
  readonly threshold: number | null
  /** [N] 1 where the sample is called positive; null: nothing decides. */
  readonly called: Uint8Array | null
}

/**
 * What calls a sample positive: 'validation' (a threshold for each class, from the validation set), 'highest-score' (one
 * class an image), 'probability-0.5' (each finding by itself), 'none' where a finding's scores are no probabilities and no
 * threshold is known.
 */
export type DecisionSource = 'validation' | 'highest-score' | 'probability-0.5' | 'none'

/** @param hasThresholds whether there are thresholds from a validation set */
export function decisionSourceOf({ task, scale }: Predictions, hasThresholds: boolean): DecisionSource {
  if (hasThresholds) return 'validation'
  if (task !== 'multi-label') return 'highest-score'
  return scale === 'score' ? 'none' : 'probability-0.5'
}

/** Of a binary task only the second class: the first one's curves are the same, mirrored. */
function targetColumns({ task, classes }: Predictions): number[] {
  return task === 'binary' ? [1] : classes.map((_, k) => k)
}

/** @param thresholds for each target; null where none could be chosen. Default: no validation set. */
export function targetsOf(
  predictions: Predictions,
  rules: LabelRules = {},
  thresholds: readonly (number | null)[] | null = null,
): Target[] {
  const { classes, scale } = predictions
  const source = decisionSourceOf(predictions, thresholds !== null)
  const ranked = rankingScores(predictions)
  const C = classes.length
  const decided = source === 'highest-score' ? argmaxRows(predictions.scores, C) : null
  const columns = targetColumns(predictions)
  if (thresholds && thresholds.length !== columns.length) {
    throw new RangeError(
      `expected a threshold for each of ${columns.length} classes, but received ${thresholds.length}`,
    )
  }
  return columns.map((column, k) => {
    const truth = truthOf(predictions, column, rules)
    const scoreOf = (row: number) => ranked[row * C + column]!
    // even odds are a log-odds of 0
    const halfway = source === 'probability-0.5' ? (scale === 'probability' ? 0.5 : 0) : null
    const threshold = thresholds ? thresholds[k]! : halfway
    const called = decided
      ? Uint8Array.from(decided, (found) => Number(found === column))
      : threshold === null
        ? null
        : Uint8Array.from(truth, (_, row) => Number(scoreOf(row) >= threshold))
    return { name: classes[column]!, column, truth, ranking: new Ranking(truth, scoreOf), threshold, called }
  })
}

/** For each target the threshold that the rule chooses on these predictions, those of a validation set. */
export function thresholdsOf(validation: Predictions, rule: ThresholdRule, rules: LabelRules = {}): (number | null)[] {
  return targetsOf(validation, rules).map(({ ranking }) => chooseThreshold(ranking, rule))
}

/** True positives, false positives, false negatives, true negatives. */
export type Counts = readonly [tp: number, fp: number, fn: number, tn: number]

export function countDecisions(truth: Int8Array, called: Uint8Array, weights: Int32Array): Counts {
  // indexed by truth and decision instead of branches, which would be guessed wrong half of the time
  const counts = [0, 0, 0, 0, 0, 0]
  for (let row = 0; row < truth.length; row += 1) counts[2 * truth[row]! + called[row]! + 2]! += weights[row]!
  const [, , tn, fp, fn, tp] = counts as [number, number, number, number, number, number]
  return [tp, fp, fn, tn]
}
