import { type Attributes, BLANK, NEGATIVE, POSITIVE, UNCERTAIN } from '../data/sample.js'

/*
 * What a model said of a test set, and what is true of it: all that metrics, reports and comparisons start from.
 */

export const tasks = ['multi-class', 'binary', 'multi-label'] as const
export type Task = (typeof tasks)[number]

/**
 * What scores are:
 *
 * - 'probability': rows that add up to 1, each finding's own probability where the task is multi-label;
 * - 'logit': what a softmax, or a sigmoid where the task is multi-label, makes probabilities of. Prefer it: at a temperature
 *   of 100 float32 probabilities are 1 exactly for many images, which then tie;
 * - 'score': anything else that is higher for more likely (cosines). Nothing that needs a probability is computed.
 */
export const scales = ['probability', 'logit', 'score'] as const
export type Scale = (typeof scales)[number]

interface Shared {
  /** Names of the classes, or of the findings. All different. */
  readonly classes: readonly string[]
  readonly scale: Scale
  /** [N, C], row by row. */
  readonly scores: Float32Array
  /** [N]. Intervals resample by it. */
  readonly patients: readonly string[]
  /** [N] */
  readonly attributes: readonly Attributes[]
  /** [N], below the data set's root. They name the samples: two runs are paired by them. */
  readonly paths: readonly string[]
}

/** Each image is of one class. 'binary': of the two classes, the second is the positive one. */
export interface ClassPredictions extends Shared {
  readonly task: 'multi-class' | 'binary'
  /** [N], index into `classes`. */
  readonly labels: Int32Array
}

/** Each image has a value for each finding. */
export interface FindingPredictions extends Shared {
  readonly task: 'multi-label'
  /** [N, C], row by row: 1, 0, -1 (uncertain) or BLANK. */
  readonly labels: Int8Array
}

export type Predictions = ClassPredictions | FindingPredictions

/** What uncertain and blank findings count as in metrics. */
export interface LabelRules {
  /** -1 in the table. Default: 'exclude'. */
  readonly uncertain?: 'exclude' | 'negative' | 'positive'
  /** An empty cell: not mentioned. Default: 'negative', as in the CheXpert paper. */
  readonly blank?: 'exclude' | 'negative'
}

/** @throws RangeError with the first thing that does not go together */
export function checkPredictions(predictions: Predictions, what = 'predictions'): void {
  const { task, classes, scores, labels, patients, attributes, paths } = predictions
  const refuse = (expected: string, received: unknown) => {
    throw new RangeError(`${what}: expected ${expected}, but received ${received}`)
  }
  const [N, C] = [patients.length, classes.length]
  if (N === 0) refuse('one sample at least', 'none')
  if (C < (task === 'multi-label' ? 1 : 2)) refuse(task === 'multi-label' ? 'a finding' : 'two classes or more', C)
  if (task === 'binary' && C !== 2) refuse('two classes, since the task is binary', C)
  const repeated = classes.find((name, k) => classes.indexOf(name) !== k)
  if (repeated !== undefined) refuse('classes of different names', `${JSON.stringify(repeated)} twice`)
  if (scores.length !== N * C) refuse(`${N} x ${C} scores`, scores.length)
  if (attributes.length !== N) refuse(`attributes of each of ${N} samples`, attributes.length)
  if (paths.length !== N) refuse(`a path of each of ${N} samples`, paths.length)
  const expected = task === 'multi-label' ? N * C : N
  if (labels.length !== expected) refuse(`${expected} labels`, labels.length)
  const isLabel =
    task === 'multi-label'
      ? (label: number) => [POSITIVE, NEGATIVE, UNCERTAIN, BLANK].includes(label)
      : (label: number) => label >= 0 && label < C
  const wrong = labels.findIndex((label) => !isLabel(label))
  if (wrong >= 0)
    refuse(
      task === 'multi-label' ? 'labels 1, 0, -1 or -2' : `labels from 0 to ${C - 1}`,
      `${labels[wrong]} at ${wrong}`,
    )
  checkScores(predictions, refuse)
}

function checkScores(
  { task, classes, scores, scale, paths }: Predictions,
  refuse: (expected: string, received: unknown) => void,
): void {
  const notNumber = scores.findIndex((score) => !Number.isFinite(score))
  if (notNumber >= 0) {
    const [row, column] = [Math.floor(notNumber / classes.length), notNumber % classes.length]
    refuse('finite scores', `${scores[notNumber]} for ${JSON.stringify(classes[column])} of ${paths[row]}`)
  }
  if (scale !== 'probability') return
  const outside = scores.findIndex((score) => score < 0 || score > 1)
  if (outside >= 0) refuse("probabilities from 0 to 1, since the scale is 'probability'", scores[outside])
  if (task === 'multi-label') return
  for (let row = 0; row < paths.length; row += 1) {
    let total = 0
    for (let k = 0; k < classes.length; k += 1) total += scores[row * classes.length + k]!
    if (Math.abs(total - 1) > 1e-3) refuse('probabilities that add up to 1', `${total} in row ${row}`)
  }
}

/** [N, C] in float64, or null where the scores have no such meaning. */
export function probabilitiesOf({ task, scale, scores, classes }: Predictions): Float64Array | null {
  if (scale === 'score') return null
  if (scale === 'probability') return Float64Array.from(scores)
  if (task === 'multi-label') return Float64Array.from(scores, (score) => 1 / (1 + Math.exp(-score)))
  const C = classes.length
  const result = new Float64Array(scores.length)
  for (let row = 0; row < scores.length; row += C) {
    const logits = scores.subarray(row, row + C)
    const highest = logits.reduce((a, b) => Math.max(a, b))
    let total = 0
    for (let k = 0; k < C; k += 1) total += Math.exp(logits[k]! - highest)
    for (let k = 0; k < C; k += 1) result[row + k] = Math.exp(logits[k]! - highest) / total
  }
  return result
}

/**
 * [N, C]: what each class is ranked by against all others, for ROC curves, thresholds and the like. Probabilities and scores
 * as they are (the second minus the first where binary scores are no probabilities); of logits the logarithm of the odds,
 * l_k - log(sum of exp(l_j), j not k), which orders images as the probability does and does not round to 1.
 */
export function rankingScores({ task, scale, scores, classes }: Predictions): Float64Array {
  const result = Float64Array.from(scores)
  const C = classes.length
  if (task === 'multi-label' || scale === 'probability') return result
  for (let row = 0; row < scores.length; row += C) {
    if (scale === 'logit') {
      for (let k = 0; k < C; k += 1) result[row + k] = logOdds(scores.subarray(row, row + C), k)
    } else if (task === 'binary') {
      const margin = scores[row + 1]! - scores[row]!
      result[row] = -margin
      result[row + 1] = margin
    }
  }
  return result
}

function logOdds(logits: Float32Array, own: number): number {
  let highest = Number.NEGATIVE_INFINITY
  for (let k = 0; k < logits.length; k += 1) if (k !== own) highest = Math.max(highest, logits[k]!)
  let total = 0
  for (let k = 0; k < logits.length; k += 1) if (k !== own) total += Math.exp(logits[k]! - highest)
  return logits[own]! - highest - Math.log(total)
}

/** A ranking score (a threshold) as the probability it stands for, or null where it stands for none. */
export function probabilityOfRanking(score: number, scale: Scale): number | null {
  if (scale === 'score') return null
  return scale === 'probability' ? score : 1 / (1 + Math.exp(-score))
}

/** 1, 0, or -1 for "left out", of each sample for one class against all others. */
export function truthOf(predictions: Predictions, column: number, rules: LabelRules = {}): Int8Array {
  if (predictions.task !== 'multi-label') {
    return Int8Array.from(predictions.labels, (label) => Number(label === column))
  }
  const { uncertain = 'exclude', blank = 'negative' } = rules
  const counted = { exclude: -1, negative: 0, positive: 1 }
  const C = predictions.classes.length
  return Int8Array.from(predictions.paths, (_, row) => {
    const label = predictions.labels[row * C + column]!
    if (label === UNCERTAIN) return counted[uncertain]
    return label === BLANK ? counted[blank] : label
  })
}

/** Some of the samples, in the order given. */
export function selectRows<P extends Predictions>(predictions: P, rows: readonly number[]): P {
  const C = predictions.classes.length
  const gather = <T extends Float32Array | Int8Array | Int32Array>(values: T, width: number): T => {
    const result = new (values.constructor as new (length: number) => T)(rows.length * width)
    for (const [k, row] of rows.entries()) result.set(values.subarray(row * width, (row + 1) * width), k * width)
    return result
  }
  return {
    ...predictions,
    scores: gather(predictions.scores, C),
    labels: gather(predictions.labels, predictions.task === 'multi-label' ? C : 1),
    patients: rows.map((row) => predictions.patients[row]!),
    attributes: rows.map((row) => predictions.attributes[row]!),
    paths: rows.map((row) => predictions.paths[row]!),
  }
}

/** The same with the classes in another order. @param order for each new column the old one */
export function reorderClasses(predictions: Predictions, order: readonly number[]): Predictions {
  const C = predictions.classes.length
  const columns = <T extends Float32Array | Int8Array>(values: T): T => {
    const result = values.slice() as T
    for (let row = 0; row < values.length; row += C) {
      for (const [to, from] of order.entries()) result[row + to] = values[row + from]!
    }
    return result
  }
  const shared = { classes: order.map((k) => predictions.classes[k]!), scores: columns(predictions.scores) }
  return predictions.task === 'multi-label'
    ? { ...predictions, ...shared, labels: columns(predictions.labels) }
    : { ...predictions, ...shared, labels: predictions.labels.map((label) => order.indexOf(label)) }
}
