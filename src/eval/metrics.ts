import { Ranking } from './ranking.js'

/*
 * Metrics of classification, as scikit-learn computes them, in float64. Labels are whole numbers from 0; scores are rows of
 * one number a class.
 */

/** Whole numbers: arrays, typed arrays, also of bigints as int64 tensors give them. */
export type Labels = ArrayLike<number> | ArrayLike<bigint>

function labelsOf(values: Labels, what: string): number[] {
  const labels = Array.from(values as ArrayLike<number | bigint>, Number)
  const wrong = labels.find((label) => !Number.isSafeInteger(label) || label < 0)
  if (wrong !== undefined)
    throw new RangeError(`${what}: expected labels that are whole numbers from 0, but received ${wrong}`)
  if (labels.length === 0) throw new RangeError(`${what}: expected one label at least, but there is none`)
  return labels
}

/** Two lists of labels of one length. */
function pairsOf(labels: Labels, predictions: Labels, what: string): [number[], number[]] {
  if (labels.length !== predictions.length) {
    throw new RangeError(
      `${what}: expected a prediction for each of ${labels.length} labels, but received ${predictions.length}`,
    )
  }
  return [labelsOf(labels, what), labelsOf(predictions, what)]
}

/** The classes of rows of scores: [n * classes] for n labels. */
function classesOf(labels: readonly number[], scores: ArrayLike<number>, what: string): number {
  const classes = scores.length / labels.length
  if (!Number.isInteger(classes) || classes < 2) {
    throw new RangeError(
      `${what}: expected two scores or more for each of ${labels.length} labels, row by row, but received ${scores.length}`,
    )
  }
  const high = labels.find((label) => label >= classes)
  if (high !== undefined) throw new RangeError(`${what}: expected labels below ${classes}, but received ${high}`)
  refuseNaN(scores, what)
  return classes
}

function refuseNaN(scores: ArrayLike<number>, what: string): void {
  for (let k = 0; k < scores.length; k += 1) {
    if (Number.isNaN(scores[k]))
      throw new RangeError(`${what}: expected scores that are numbers, but score ${k} is NaN`)
  }
}

/** The class of the highest score of each row; the lowest class where several are equal. */
export function argmaxRows(scores: ArrayLike<number>, classes: number): number[] {
  if (!(Number.isInteger(classes) && classes > 0 && scores.length % classes === 0)) {
    throw new RangeError(`argmaxRows: expected rows of ${classes} scores, but received ${scores.length} scores`)
  }
  refuseNaN(scores, 'argmaxRows')
  return Array.from({ length: scores.length / classes }, (_, row) => {
    let best = 0
    for (let k = 1; k < classes; k += 1) if (scores[row * classes + k]! > scores[row * classes + best]!) best = k
    return best
  })
}

/** The part of predictions that are right. */
export function accuracy(labels: Labels, predictions: Labels): number {
  const [truth, found] = pairsOf(labels, predictions, 'accuracy')
  return truth.filter((label, k) => label === found[k]).length / truth.length
}

/** How often each class (row) was taken for each (column). `classes`: default one more than the highest label. */
export function confusionMatrix(labels: Labels, predictions: Labels, classes?: number): number[][] {
  const [truth, found] = pairsOf(labels, predictions, 'confusionMatrix')
  const highest = [...truth, ...found].reduce((a, b) => Math.max(a, b), 0)
  const size = classes ?? highest + 1
  if (highest >= size) throw new RangeError(`confusionMatrix: expected labels below ${size}, but received ${highest}`)
  const matrix = Array.from({ length: size }, () => new Array<number>(size).fill(0))
  for (const [k, label] of truth.entries()) matrix[label]![found[k]!]! += 1
  return matrix
}

/** The mean over the classes that occur of the part of their samples that was found. */
export function balancedAccuracy(labels: Labels, predictions: Labels): number {
  const recalls = confusionMatrix(labels, predictions).flatMap((row, k) => {
    const total = sum(row)
    return total === 0 ? [] : [row[k]! / total]
  })
  return sum(recalls) / recalls.length
}

/** The mean F1 over the classes that occur among labels or predictions; 0 for one that was never right. */
export function macroF1(labels: Labels, predictions: Labels): number {
  const matrix = confusionMatrix(labels, predictions)
  const scores = matrix.flatMap((row, k) => {
    const samples = sum(row)
    const predicted = sum(matrix.map((each) => each[k]!))
    return samples + predicted === 0 ? [] : [(2 * row[k]!) / (samples + predicted)]
  })
  return sum(scores) / scores.length
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

/**
 * The area under the ROC curve: how likely a positive sample scores above a negative one, ties counting half. Exact: pairs
 * are counted.
 *
 * @param labels 0 and 1 (booleans as numbers)
 * @throws RangeError where there are not both: the area is not defined
 */
export function binaryAuc(labels: Labels, scores: ArrayLike<number>): number {
  const area = areaOf(binaryTruth(labels, scores, 'binaryAuc'), (k) => scores[k]!)
  if (area !== null) return area
  throw new RangeError(
    'binaryAuc: expected positive and negative samples, but all are alike, and the area is not defined',
  )
}

/**
 * The area under the precision-recall curve (AUPRC) as average precision: the mean over positive samples of the precision
 * at their score, without interpolation.
 *
 * @param labels 0 and 1
 * @throws RangeError where there is no positive sample
 */
export function averagePrecision(labels: Labels, scores: ArrayLike<number>): number {
  const truth = binaryTruth(labels, scores, 'averagePrecision')
  const { averagePrecision: area } = new Ranking(truth, (k) => scores[k]!).areas()
  if (!Number.isNaN(area)) return area
  throw new RangeError('averagePrecision: expected a positive sample, but there is none, and precision is not defined')
}

function binaryTruth(labels: Labels, scores: ArrayLike<number>, what: string): number[] {
  const truth = labelsOf(labels, what)
  if (truth.length !== scores.length) {
    throw new RangeError(`${what}: expected a score for each of ${truth.length} labels, but received ${scores.length}`)
  }
  const other = truth.find((label) => label > 1)
  if (other !== undefined) throw new RangeError(`${what}: expected labels 0 and 1, but received ${other}`)
  refuseNaN(scores, what)
  return truth
}

/** Null where samples are all positive or all negative. */
function areaOf(isPositive: readonly number[], scoreOf: (sample: number) => number): number | null {
  const { auc } = new Ranking(isPositive, scoreOf).areas()
  return Number.isNaN(auc) ? null : auc
}

/** The area for each class against all others; null for a class that has no sample, or all. */
export function perClassAuc(labels: Labels, scores: ArrayLike<number>): (number | null)[] {
  const truth = labelsOf(labels, 'perClassAuc')
  const classes = classesOf(truth, scores, 'perClassAuc')
  return Array.from({ length: classes }, (_, k) =>
    areaOf(
      truth.map((label) => Number(label === k)),
      (sample) => scores[sample * classes + k]!,
    ),
  )
}

/**
 * The mean of {@link perClassAuc}: macro, one against the rest.
 *
 * @param options.absent what to do with a class that no label has: 'refuse' it, as scikit-learn does, or 'skip' it;
 *   default: 'refuse'
 */
export function macroAuc(
  labels: Labels,
  scores: ArrayLike<number>,
  { absent = 'refuse' }: { absent?: 'refuse' | 'skip' } = {},
): number {
  const areas = perClassAuc(labels, scores)
  const missing = areas.flatMap((area, k) => (area === null ? [k] : []))
  const found = areas.filter((area) => area !== null)
  if (found.length === 0 || (missing.length > 0 && absent === 'refuse')) {
    throw new RangeError(
      `macroAuc: expected samples of each of ${areas.length} classes, but there are none (or no others) of ${missing.join(', ')}; use { absent: 'skip' } to leave them out`,
    )
  }
  return sum(found) / found.length
}

export interface CalibrationOptions {
  /** Default: 15. */
  bins?: number
}

/**
 * The expected calibration error (Guo et al. 2017, arXiv 1706.04599): how far confidence, the highest probability, is from
 * accuracy, over bins (k / n, (k + 1) / n] of confidence.
 *
 * @param probabilities rows that add up to 1
 */
export function expectedCalibrationError(
  labels: Labels,
  probabilities: ArrayLike<number>,
  { bins = 15 }: CalibrationOptions = {},
): number {
  const what = 'expectedCalibrationError'
  if (!(Number.isInteger(bins) && bins > 0))
    throw new RangeError(`${what}: expected bins above 0, but received ${bins}`)
  const truth = labelsOf(labels, what)
  const classes = classesOf(truth, probabilities, what)
  const found = argmaxRows(probabilities, classes)
  refuseUnlikely(probabilities, classes, what)
  const gaps = new Float64Array(bins)
  for (const [sample, label] of truth.entries()) {
    const row = Array.from({ length: classes }, (_, k) => probabilities[sample * classes + k]!)
    const confidence = row[found[sample]!]!
    gaps[calibrationBin(confidence, bins)]! += Number(found[sample] === label) - confidence
  }
  return sum(Array.from(gaps, Math.abs)) / truth.length
}

/** The bin (k / bins, (k + 1) / bins] that a probability lies in; 0 lies in the first. */
export function calibrationBin(probability: number, bins: number): number {
  return Math.min(bins - 1, Math.max(0, Math.ceil(probability * bins) - 1))
}

function refuseUnlikely(probabilities: ArrayLike<number>, classes: number, what: string): void {
  for (let start = 0; start < probabilities.length; start += classes) {
    const row = Array.from({ length: classes }, (_, k) => probabilities[start + k]!)
    if (row.some((value) => value < 0) || Math.abs(sum(row) - 1) > 1e-3) {
      throw new RangeError(
        `${what}: expected rows of probabilities, which add up to 1, but row ${start / classes} is ${row}`,
      )
    }
  }
}

/**
 * The Brier score: the mean over samples of the squared differences between probabilities and truth, added up over classes
 * as Brier (1950) has it: from 0 to 2. With two classes that is twice what is usual there: {@link binaryBrierScore}.
 *
 * @param probabilities rows that add up to 1
 */
export function brierScore(labels: Labels, probabilities: ArrayLike<number>): number {
  const truth = labelsOf(labels, 'brierScore')
  const classes = classesOf(truth, probabilities, 'brierScore')
  refuseUnlikely(probabilities, classes, 'brierScore')
  let total = 0
  for (let k = 0; k < probabilities.length; k += 1) {
    total += (probabilities[k]! - Number(truth[Math.floor(k / classes)] === k % classes)) ** 2
  }
  return total / truth.length
}

/** The mean squared difference between the positive class's probability and 0 or 1: from 0 to 1. */
export function binaryBrierScore(labels: Labels, probabilities: ArrayLike<number>): number {
  const truth = binaryTruth(labels, probabilities, 'binaryBrierScore')
  return sum(truth.map((label, k) => (probabilities[k]! - label) ** 2)) / truth.length
}
