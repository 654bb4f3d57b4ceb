import {
  type BootstrapOptions,
  type Column,
  DEFAULT_RESAMPLES,
  type Estimate,
  estimateOf,
  evaluateOnce,
  resample,
} from './bootstrap.js'
import type { CalibrationBin } from './calibration.js'
import {
  type Measure,
  type Measurement,
  measure,
  type OverallMetric,
  overallIndex,
  overallMetrics,
  targetIndex,
} from './measures.js'
import { argmaxRows, confusionMatrix } from './metrics.js'
import {
  checkPredictions,
  type LabelRules,
  type Predictions,
  probabilityOfRanking,
  type Scale,
  selectRows,
  type Task,
} from './predictions.js'
import type { ThresholdRule } from './ranking.js'
import { measureRetrieval, type RetrievalMetric, type RetrievalResult, retrievalMetrics } from './retrieval.js'
import { type Attribute, groupingsOf, MINIMUM_PATIENTS } from './subgroups.js'
import { type ClassMetric, classMetrics, type DecisionSource, thresholdsOf } from './targets.js'
import { warningsOf } from './warnings.js'

/*
 * metrics.json: everything that is said of a run in numbers.
 */

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/** Where results come from: what somebody needs who wants the same numbers again. */
export interface Provenance {
  /** 'zero-shot', 'linear-probe', ... */
  readonly evaluation: string
  /** A few words for headings: 'CLEFT, prompt-tuned'. */
  readonly name: string
  readonly checkpoint: { readonly name: string; readonly sha256: string } | null
  /** `hash` names the very selection of images, captions and labels. */
  readonly data: { readonly kind: string; readonly split: string; readonly hash: string }
  /** What stands for each class, several where they are an ensemble. */
  readonly prompts: readonly {
    readonly name: string
    readonly prompts: readonly string[]
    /** Of a finding beside others: what denies it. */
    readonly negations?: readonly string[]
  }[]
  readonly ensemble: string | null
  readonly preprocessing: { readonly [key: string]: Json }
  /** Anything else: versions, devices, seeds. */
  readonly settings: { readonly [key: string]: Json }
}

export interface ClassSummary {
  readonly name: string
  readonly positives: number
  readonly negatives: number
  /** Uncertain or blank, and left out. */
  readonly excluded: number
  /** From the validation set, on the scale that classes are ranked by; null where there is none. */
  readonly threshold: number | null
  /** The same as a probability, where there is one. */
  readonly thresholdProbability: number | null
  readonly metrics: Readonly<Record<ClassMetric, Estimate>>
}

export type Metrics = Readonly<Partial<Record<OverallMetric, Estimate>>>

export interface Subgroup {
  readonly name: string
  readonly images: number
  readonly patients: number
  /** Null for fewer than 20 patients. */
  readonly metrics: Metrics | null
  /** Classes without a positive or a negative sample here: averages are over the others. */
  readonly lacking: readonly string[]
}

export interface Summary {
  readonly format: 'cleft-metrics-1'
  /** Null for a retrieval alone. */
  readonly task: Task | null
  readonly scale: Scale | null
  readonly classes: readonly string[]
  readonly images: number
  readonly patients: number
  readonly intervals: {
    readonly method: 'percentile bootstrap over patients'
    readonly confidence: number
    readonly resamples: number
    readonly seed: number
  }
  readonly labels: Required<LabelRules> | null
  /** What calls an image positive for sensitivity, specificity, predictive values; of findings also for F1 and accuracy. */
  readonly operatingPoint: { readonly from: DecisionSource; readonly rule: ThresholdRule | null } | null
  readonly metrics: Metrics
  readonly perClass: readonly ClassSummary[]
  /** Rows are the truth, columns the highest score. Null where the task is multi-label. */
  readonly confusion: readonly (readonly number[])[] | null
  readonly calibration: readonly { readonly name: string; readonly bins: readonly CalibrationBin[] }[]
  readonly subgroups: readonly { readonly attribute: Attribute; readonly groups: readonly Subgroup[] }[]
  readonly retrieval: {
    readonly images: number
    readonly captions: number
    readonly chance: number
    readonly metrics: Readonly<Record<RetrievalMetric, Estimate>>
  } | null
  /** What a reader should know before believing a number: one sentence each. */
  readonly warnings: readonly string[]
  readonly provenance: Provenance
}

export interface SummaryOptions extends Omit<BootstrapOptions, 'onProgress'>, LabelRules {
  provenance: Provenance
  /** Thresholds come from these, never from the test set. Without them decisions are by the highest score, or at 0.5. */
  validation?: Predictions
  /** More for a reader to know: warnings, before those of the numbers. */
  notes?: readonly string[]
  /** Default: 'youden'. */
  threshold?: ThresholdRule
  retrieval?: RetrievalResult
  /** The part that is done, from 0 to 1. */
  onProgress?: (part: number) => void
}

/**
 * All metrics with their intervals.
 *
 * @param predictions null for a retrieval alone
 * @throws RangeError where the predictions, or the validation set, do not go together
 */
export async function summarize(predictions: Predictions | null, options: SummaryOptions): Promise<Summary> {
  const { provenance, validation, retrieval, confidence = 0.95, resamples = DEFAULT_RESAMPLES, seed = 0 } = options
  const { threshold: rule = 'youden', uncertain = 'exclude', blank = 'negative', onProgress, signal } = options
  const { notes = [] } = options
  if (!predictions && !retrieval)
    throw new TypeError('summarize: expected predictions or a retrieval, but received neither')
  if (predictions) checkPredictions(predictions)
  if (predictions && validation) checkValidation(validation, predictions)
  const rules = { uncertain, blank }
  const thresholds = validation ? thresholdsOf(validation, rule, rules) : null
  const measurement = predictions && measure(predictions, { ...rules, thresholds })
  const groupings = predictions ? groupingsOf(predictions) : []
  const rows = (predictions?.paths.length ?? 0) * (1 + groupings.length) + (retrieval?.captions.length ?? 0)
  const estimates = new Estimates({ resamples, seed, confidence, signal }, rows, onProgress)
  const main = measurement && (await estimates.of(measurement, predictions.patients))
  const subgroups: { attribute: Attribute; groups: Subgroup[] }[] = []
  for (const { attribute, groups } of groupings) {
    const found: Subgroup[] = []
    for (const { name, rows } of groups) {
      found.push(await subgroup(name, selectRows(predictions!, rows), { ...rules, thresholds }, estimates))
    }
    subgroups.push({ attribute, groups: found })
  }
  const found = retrieval ? await summarizeRetrieval(retrieval, estimates) : null
  const summary: Omit<Summary, 'warnings'> = {
    format: 'cleft-metrics-1',
    task: predictions?.task ?? null,
    scale: predictions?.scale ?? null,
    classes: predictions?.classes ?? [],
    images: predictions?.paths.length ?? retrieval!.captions.length,
    patients: new Set(predictions?.patients ?? retrieval!.patients).size,
    intervals: { method: 'percentile bootstrap over patients', confidence, resamples, seed },
    labels: predictions?.task === 'multi-label' ? rules : null,
    operatingPoint: measurement && { from: measurement.decisions, rule: validation ? rule : null },
    metrics: predictions && main ? overallOf(predictions, main) : {},
    perClass: measurement && main ? perClassOf(measurement, main, predictions.scale, thresholds !== null) : [],
    confusion: predictions && confusionOf(predictions),
    calibration: measurement
      ? measurement.calibrations.map(({ name, calibration }) => ({ name, bins: calibration.table() }))
      : [],
    subgroups,
    retrieval: found,
    provenance,
  }
  onProgress?.(1)
  return { ...summary, warnings: [...notes, ...warningsOf(summary)] }
}

function checkValidation(validation: Predictions, predictions: Predictions): void {
  checkPredictions(validation, 'validation')
  for (const what of ['task', 'scale'] as const) {
    if (validation[what] === predictions[what]) continue
    throw new RangeError(
      `validation: expected predictions of the same ${what} as the test set's, '${predictions[what]}', but received '${validation[what]}'`,
    )
  }
  if (JSON.stringify(validation.classes) !== JSON.stringify(predictions.classes)) {
    throw new RangeError(
      `validation: expected the test set's classes, ${predictions.classes.join(', ')}, but received ${validation.classes.join(', ')}`,
    )
  }
  const tested = new Set(predictions.patients)
  const shared = new Set(validation.patients.filter((patient) => tested.has(patient)))
  if (shared.size > 0) {
    throw new RangeError(
      `validation: expected patients that are not in the test set, but ${shared.size} are; split by patient, or leave the validation set out`,
    )
  }
}

/** Runs the bootstrap for one measure after the other, and tells how far it is. */
class Estimates {
  #done = 0

  /** @param rows of all measures together */
  constructor(
    readonly options: { resamples: number; seed: number; confidence: number; signal: AbortSignal | undefined },
    readonly rows: number,
    readonly onProgress: ((part: number) => void) | undefined,
  ) {}

  async of(measured: Measure, patients: readonly string[]): Promise<(index: number) => Estimate> {
    const { resamples, confidence } = this.options
    const onProgress = (done: number) =>
      this.onProgress?.(Math.min(1, (this.#done + (patients.length * done) / resamples) / this.rows))
    const columns: Column[] = (await resample([measured], patients, { ...this.options, onProgress }))[0]!
    this.#done += patients.length
    const values = evaluateOnce(measured, patients.length)
    const people = new Set(patients).size
    return (index) => estimateOf(values[index]!, columns[index]!, people, confidence)
  }
}

/** What the task has: micro averages are of findings, and calibration is of probabilities. */
function overallOf({ task, scale }: Predictions, estimate: (index: number) => Estimate): Metrics {
  const isApplicable = (metric: OverallMetric) =>
    metric.startsWith('micro')
      ? task === 'multi-label'
      : scale !== 'score' || (metric !== 'brier' && metric !== 'calibrationError')
  return Object.fromEntries(
    overallMetrics.filter(isApplicable).map((metric) => [metric, estimate(overallIndex(metric))]),
  )
}

function perClassOf(
  { targets }: Measurement,
  estimate: (index: number) => Estimate,
  scale: Scale,
  fromValidation: boolean,
): ClassSummary[] {
  return targets.map(({ name, truth, threshold }, k) => ({
    name,
    positives: truth.filter((label) => label === 1).length,
    negatives: truth.filter((label) => label === 0).length,
    excluded: truth.filter((label) => label < 0).length,
    threshold: fromValidation ? threshold : null,
    thresholdProbability: threshold === null ? null : probabilityOfRanking(threshold, scale),
    metrics: Object.fromEntries(classMetrics.map((metric) => [metric, estimate(targetIndex(metric, k))])) as Record<
      ClassMetric,
      Estimate
    >,
  }))
}

async function subgroup(
  name: string,
  predictions: Predictions,
  options: LabelRules & { thresholds: readonly (number | null)[] | null },
  estimates: Estimates,
): Promise<Subgroup> {
  const patients = new Set(predictions.patients).size
  const counts = { name, images: predictions.paths.length, patients }
  if (patients < MINIMUM_PATIENTS) return { ...counts, metrics: null, lacking: [] }
  const measurement = measure(predictions, options)
  const lacking = measurement.targets.filter(({ truth }) => !truth.includes(1) || !truth.includes(0))
  const metrics = overallOf(predictions, await estimates.of(measurement, predictions.patients))
  return { ...counts, metrics, lacking: lacking.map((target) => target.name) }
}

function confusionOf(predictions: Predictions): number[][] | null {
  if (predictions.task === 'multi-label') return null
  const C = predictions.classes.length
  return confusionMatrix(predictions.labels, argmaxRows(predictions.scores, C), C)
}

async function summarizeRetrieval(
  retrieval: RetrievalResult,
  estimates: Estimates,
): Promise<NonNullable<Summary['retrieval']>> {
  const estimate = await estimates.of(measureRetrieval(retrieval), retrieval.patients)
  return {
    images: retrieval.captions.length,
    captions: new Set(retrieval.captions).size,
    chance: retrieval.chance,
    metrics: Object.fromEntries(retrievalMetrics.map((metric, k) => [metric, estimate(k)])) as Record<
      RetrievalMetric,
      Estimate
    >,
  }
}
