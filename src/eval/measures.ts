import { Calibration } from './calibration.js'
import { argmaxRows } from './metrics.js'
import {
  type ClassPredictions,
  type FindingPredictions,
  type LabelRules,
  type Predictions,
  probabilitiesOf,
  rankingScores,
} from './predictions.js'
import { Ranking } from './ranking.js'
import {
  type ClassMetric,
  type Counts,
  classMetrics,
  countDecisions,
  type DecisionSource,
  decisionSourceOf,
  type Target,
  targetsOf,
} from './targets.js'

/*
 * All metrics of a set of predictions at once, for any weights of the samples: once with every weight 1, and then for
 * thousands of resamples. What does not depend on the weights (sorting above all) is done when it is built.
 */

/**
 * Of a whole test set. Averages are macro, over classes or findings; a binary task's `auc`, `auprc` and `f1` are those of
 * its positive class. micro: the decisions of all findings as one list (multi-label only).
 */
export const overallMetrics = [
  'accuracy',
  'balancedAccuracy',
  'auc',
  'auprc',
  'f1',
  'brier',
  'calibrationError',
  'microAuc',
  'microAuprc',
  'microF1',
] as const
export type OverallMetric = (typeof overallMetrics)[number]

/** Something that gives the same list of numbers for any weights of the samples. NaN: not defined there. */
export interface Measure {
  /** How many numbers. */
  readonly size: number
  /** @param weights [N], how often each sample counts */
  evaluate(weights: Int32Array, out: Float64Array): void
}

export interface MeasureOptions extends LabelRules {
  /** For each target (class, finding; of a binary task the positive class alone) a threshold from a validation set. */
  thresholds?: readonly (number | null)[] | null
}

/** A {@link Measure} of predictions: the overall metrics, then those of each target. */
export interface Measurement extends Measure {
  readonly targets: readonly Target[]
  readonly decisions: DecisionSource
  /** What calibration diagrams show; empty where scores are no probabilities. */
  readonly calibrations: readonly { readonly name: string; readonly calibration: Calibration }[]
}

/** Where an overall metric stands in what a {@link Measurement} gives. */
export function overallIndex(metric: OverallMetric): number {
  return overallMetrics.indexOf(metric)
}

/** Where a target's metric stands. */
export function targetIndex(metric: ClassMetric, target: number): number {
  return overallMetrics.length + target * classMetrics.length + classMetrics.indexOf(metric)
}

export function measure(predictions: Predictions, options: MeasureOptions = {}): Measurement {
  return predictions.task === 'multi-label'
    ? new FindingMeasurement(predictions, options)
    : new ClassMeasurement(predictions, options)
}

/** The metrics of one target that depend on its ranking and its decisions; gives the decisions' counts. */
function evaluateTarget(k: number, target: Target, weights: Int32Array, out: Float64Array): Counts | null {
  const areas = target.ranking.areas(weights)
  out[targetIndex('auc', k)] = areas.auc
  out[targetIndex('auprc', k)] = areas.averagePrecision
  if (target.called === null) return null
  const counts = countDecisions(target.truth, target.called, weights)
  const [tp, fp, fn, tn] = counts
  out[targetIndex('f1', k)] = f1Of(tp, fp, fn)
  out[targetIndex('sensitivity', k)] = tp / (tp + fn)
  out[targetIndex('specificity', k)] = tn / (tn + fp)
  out[targetIndex('ppv', k)] = tp / (tp + fp)
  out[targetIndex('npv', k)] = tn / (tn + fn)
  return counts
}

function f1Of(tp: number, fp: number, fn: number): number {
  return (2 * tp) / (2 * tp + fp + fn)
}

/** Whether areas are defined for it in the whole test set. */
function hasBoth({ truth }: Target): boolean {
  return truth.includes(1) && truth.includes(0)
}

/**
 * The mean over those targets that it is defined for in the whole test set. Where a resample lacks one of them the mean is
 * not defined: to leave it out would compare averages over different classes.
 */
function meanOver(targets: readonly number[], metric: ClassMetric, out: Float64Array): number {
  let total = 0
  for (const k of targets) total += out[targetIndex(metric, k)]!
  return total / targets.length
}

class ClassMeasurement implements Measurement {
  readonly targets: readonly Target[]
  readonly decisions: DecisionSource
  readonly calibrations: Measurement['calibrations']
  readonly size: number
  readonly #predictions: ClassPredictions
  readonly #decided: Int32Array
  /** Targets with positives and negatives. */
  readonly #averaged: readonly number[]
  /** Classes that occur among the labels. */
  readonly #present: readonly boolean[]
  /** ... or among the decisions. */
  readonly #seen: readonly boolean[]
  /** [N] squared errors of the probabilities. */
  readonly #errors: Float64Array | null
  readonly #confusion: Float64Array

  constructor(predictions: ClassPredictions, { thresholds = null, ...rules }: MeasureOptions) {
    const { classes, labels, scores } = predictions
    const C = classes.length
    this.#predictions = predictions
    this.targets = targetsOf(predictions, rules, thresholds)
    this.decisions = decisionSourceOf(predictions, thresholds !== null)
    this.size = targetIndex('auc', this.targets.length)
    this.#decided = Int32Array.from(argmaxRows(scores, C))
    this.#averaged = this.targets.flatMap((target, k) => (hasBoth(target) ? [k] : []))
    this.#present = classes.map((_, k) => labels.includes(k))
    this.#seen = classes.map((_, k) => this.#present[k]! || this.#decided.includes(k))
    const probabilities = probabilitiesOf(predictions)
    this.#errors = probabilities && squaredErrors(predictions, probabilities)
    this.calibrations = probabilities ? [this.#calibration(probabilities)] : []
    this.#confusion = new Float64Array(C * C)
  }

  /** Of the highest probability and whether its class is right; of a binary task of the positive class's. */
  #calibration(probabilities: Float64Array): Measurement['calibrations'][number] {
    const { task, classes, labels } = this.#predictions
    const C = classes.length
    const column = (row: number) => (task === 'binary' ? 1 : this.#decided[row]!)
    const own = Float64Array.from(labels, (_, row) => probabilities[row * C + column(row)]!)
    const truth = Int8Array.from(labels, (label, row) => Number(label === column(row)))
    return { name: task === 'binary' ? classes[1]! : 'Highest probability', calibration: new Calibration(own, truth) }
  }

  evaluate(weights: Int32Array, out: Float64Array): void {
    out.fill(Number.NaN)
    for (const [k, target] of this.targets.entries()) evaluateTarget(k, target, weights, out)
    out[overallIndex('auc')] = meanOver(this.#averaged, 'auc', out)
    out[overallIndex('auprc')] = meanOver(this.#averaged, 'auprc', out)
    const total = this.#count(weights)
    this.#evaluateDecisions(total, out)
    if (this.#errors === null) return
    const errors = this.#errors
    let squares = 0
    for (let row = 0; row < weights.length; row += 1) squares += weights[row]! * errors[row]!
    out[overallIndex('brier')] = squares / total
    out[overallIndex('calibrationError')] = this.calibrations[0]!.calibration.error(weights)
  }

  /** Fills the confusion matrix; gives the sum of the weights. */
  #count(weights: Int32Array): number {
    const { labels, classes } = this.#predictions
    const [confusion, decided, C] = [this.#confusion, this.#decided, classes.length]
    confusion.fill(0)
    let total = 0
    for (let row = 0; row < labels.length; row += 1) {
      confusion[labels[row]! * C + decided[row]!]! += weights[row]!
      total += weights[row]!
    }
    return total
  }

  /** Accuracy and F1 are of the highest score, whatever threshold the targets have. */
  #evaluateDecisions(total: number, out: Float64Array): void {
    const C = this.#predictions.classes.length
    let [right, recalls, scores] = [0, 0, 0]
    for (let k = 0; k < C; k += 1) {
      let [own, found] = [0, 0]
      for (let j = 0; j < C; j += 1) {
        own += this.#confusion[k * C + j]!
        found += this.#confusion[j * C + k]!
      }
      const hit = this.#confusion[k * C + k]!
      const f1 = f1Of(hit, found - hit, own - hit)
      right += hit
      if (this.#present[k]) recalls += hit / own
      // a class that no label has was never right; one that a resample lacks leaves the mean undefined
      if (this.#seen[k]) scores += this.#present[k] ? (own === 0 ? Number.NaN : f1) : 0
      const target = this.targets.findIndex(({ column }) => column === k)
      if (target >= 0) out[targetIndex('f1', target)] = f1
    }
    out[overallIndex('accuracy')] = right / total
    out[overallIndex('balancedAccuracy')] = recalls / this.#present.filter(Boolean).length
    out[overallIndex('f1')] =
      this.#predictions.task === 'binary' ? out[targetIndex('f1', 0)]! : scores / this.#seen.filter(Boolean).length
  }
}

/** [N] summed over classes; of a binary task of the positive class alone, as is usual. */
function squaredErrors({ task, classes, labels }: ClassPredictions, probabilities: Float64Array): Float64Array {
  const C = classes.length
  return Float64Array.from(labels, (label, row) => {
    let total = 0
    for (let k = task === 'binary' ? 1 : 0; k < C; k += 1)
      total += (probabilities[row * C + k]! - Number(label === k)) ** 2
    return total
  })
}

class FindingMeasurement implements Measurement {
  readonly targets: readonly Target[]
  readonly decisions: DecisionSource
  readonly calibrations: Measurement['calibrations']
  readonly size: number
  readonly #averaged: readonly number[]
  readonly #pooled: Ranking
  /** For each target [N] squared errors; 0 for what is left out. */
  readonly #errors: readonly Float64Array[]

  constructor(predictions: FindingPredictions, { thresholds = null, ...rules }: MeasureOptions) {
    this.targets = targetsOf(predictions, rules, thresholds)
    this.decisions = decisionSourceOf(predictions, thresholds !== null)
    this.size = targetIndex('auc', this.targets.length)
    this.#averaged = this.targets.flatMap((target, k) => (hasBoth(target) ? [k] : []))
    this.#pooled = pooledRanking(this.targets, rankingScores(predictions))
    const probabilities = probabilitiesOf(predictions)
    const C = predictions.classes.length
    const columnOf = (column: number) =>
      Float64Array.from(predictions.paths, (_, row) => probabilities![row * C + column]!)
    this.calibrations = probabilities
      ? this.targets.map(({ name, column, truth }) => ({ name, calibration: new Calibration(columnOf(column), truth) }))
      : []
    this.#errors = probabilities
      ? this.targets.map(({ column, truth }) =>
          columnOf(column).map((value, row) => (truth[row]! < 0 ? 0 : (value - truth[row]!) ** 2)),
        )
      : []
  }

  evaluate(weights: Int32Array, out: Float64Array): void {
    out.fill(Number.NaN)
    const counts = this.targets.map((target, k) => evaluateTarget(k, target, weights, out))
    for (const metric of ['auc', 'auprc', 'f1'] as const) {
      out[overallIndex(metric)] = meanOver(this.#averaged, metric, out)
    }
    const pooled = this.#pooled.areas(weights)
    out[overallIndex('microAuc')] = pooled.auc
    out[overallIndex('microAuprc')] = pooled.averagePrecision
    this.#evaluateDecisions(counts, out)
    if (this.#errors.length > 0) this.#evaluateProbabilities(weights, out)
  }

  #evaluateDecisions(counts: readonly (Counts | null)[], out: Float64Array): void {
    if (counts.every((each) => each === null)) return
    let [accuracies, balanced] = [0, 0]
    const pooled = [0, 0, 0]
    for (const k of this.#averaged) {
      const [tp, fp, fn, tn] = counts[k] ?? [Number.NaN, Number.NaN, Number.NaN, Number.NaN]
      accuracies += (tp + tn) / (tp + fp + fn + tn)
      balanced += (tp / (tp + fn) + tn / (tn + fp)) / 2
      for (const [which, count] of [tp, fp, fn].entries()) pooled[which]! += count
    }
    out[overallIndex('accuracy')] = accuracies / this.#averaged.length
    out[overallIndex('balancedAccuracy')] = balanced / this.#averaged.length
    out[overallIndex('microF1')] = f1Of(pooled[0]!, pooled[1]!, pooled[2]!)
  }

  #evaluateProbabilities(weights: Int32Array, out: Float64Array): void {
    let [briers, gaps] = [0, 0]
    for (const k of this.#averaged) {
      const { truth } = this.targets[k]!
      const errors = this.#errors[k]!
      let [squares, total] = [0, 0]
      for (let row = 0; row < truth.length; row += 1) {
        if (truth[row]! < 0) continue
        squares += weights[row]! * errors[row]!
        total += weights[row]!
      }
      briers += squares / total
      gaps += this.calibrations[k]!.calibration.error(weights)
    }
    out[overallIndex('brier')] = briers / this.#averaged.length
    out[overallIndex('calibrationError')] = gaps / this.#averaged.length
  }
}

/** Every finding of every sample in one ranking, by the findings that have positives and negatives. */
function pooledRanking(targets: readonly Target[], ranked: Float64Array): Ranking {
  const samples = targets[0]!.truth.length
  const truth = new Int8Array(targets.length * samples)
  for (const [k, target] of targets.entries()) {
    if (hasBoth(target)) truth.set(target.truth, k * samples)
    else truth.fill(-1, k * samples, (k + 1) * samples)
  }
  return new Ranking(
    truth,
    (entry) => ranked[(entry % samples) * targets.length + Math.floor(entry / samples)]!,
    (entry) => entry % samples,
  )
}
