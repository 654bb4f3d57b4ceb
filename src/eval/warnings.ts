import type { Estimate } from './bootstrap.js'
import { overallMetrics } from './measures.js'
import { retrievalMetrics } from './retrieval.js'
import type { Summary } from './summary.js'
import { classMetrics } from './targets.js'
import { classMetricNames, overallWording, retrievalName } from './words.js'

/** Below it percentile intervals are too narrow to be taken at their word. */
const FEW_PATIENTS = 50
/** Below it sensitivity and areas rest on a handful of images. */
const FEW_POSITIVES = 10

/** What a reader should know before believing a number: one sentence each. */
export function warningsOf(summary: Omit<Summary, 'warnings'>): string[] {
  return [...aboutData(summary), ...aboutDecisions(summary), ...aboutIntervals(summary)]
}

function list(names: readonly string[]): string {
  return names.length > 6 ? `${names.slice(0, 6).join(', ')} and ${names.length - 6} more` : names.join(', ')
}

function aboutData({ perClass, patients }: Omit<Summary, 'warnings'>): string[] {
  const lacking = perClass.filter(({ positives, negatives }) => positives === 0 || negatives === 0)
  const few = perClass.filter(({ positives }) => positives > 0 && positives < FEW_POSITIVES)
  const excluded = perClass.reduce((total, each) => total + each.excluded, 0)
  return [
    ...(patients < FEW_PATIENTS
      ? [`Patients in the test set: ${patients}. With fewer than ${FEW_PATIENTS} the intervals are too narrow.`]
      : []),
    ...(lacking.length > 0
      ? [
          `Averages leave out classes without both positive and negative images: ${list(lacking.map(({ name }) => name))}.`,
        ]
      : []),
    ...(few.length > 0
      ? [
          `Fewer than ${FEW_POSITIVES} positive images: ${list(few.map(({ name, positives }) => `${name} (${positives})`))}.`,
        ]
      : []),
    ...(excluded > 0
      ? [
          `${excluded.toLocaleString('en-US')} uncertain or blank labels are left out of the findings that they concern.`,
        ]
      : []),
  ]
}

function aboutDecisions({ operatingPoint, perClass, scale }: Omit<Summary, 'warnings'>): string[] {
  if (operatingPoint === null) return []
  const without = operatingPoint.from === 'validation' ? perClass.filter(({ threshold }) => threshold === null) : []
  return [
    ...(operatingPoint.from === 'none'
      ? [
          'No validation set was given and the scores are no probabilities, so nothing is called positive: there is no sensitivity or specificity.',
        ]
      : []),
    ...(without.length > 0
      ? [`The validation set has not both positive and negative images of: ${list(without.map(({ name }) => name))}.`]
      : []),
    ...(scale === 'score' ? ['The scores are no probabilities, so there is no calibration and no Brier score.'] : []),
  ]
}

function aboutIntervals({ metrics, perClass, retrieval, intervals, task }: Omit<Summary, 'warnings'>): string[] {
  const named: [string, Estimate][] = [
    ...overallMetrics.flatMap((metric): [string, Estimate][] =>
      task && metrics[metric] ? [[overallWording(metric, task).name, metrics[metric]]] : [],
    ),
    // of a class without positive images it is said already that little is known
    ...perClass.flatMap(({ name, positives, metrics: own }) =>
      classMetrics.flatMap((metric): [string, Estimate][] =>
        positives === 0 ? [] : [[`${classMetricNames[metric]} of ${name}`, own[metric]]],
      ),
    ),
    ...retrievalMetrics.flatMap((metric): [string, Estimate][] =>
      retrieval ? [[retrievalName(metric), retrieval.metrics[metric]]] : [],
    ),
  ]
  const partly = named.filter(([, { resamples, low }]) => low !== null && resamples < 0.95 * intervals.resamples)
  const rigid = named.filter(([, { value, low, high }]) => value !== null && low === value && high === value)
  return [
    ...(partly.length > 0
      ? [
          `More than one resample in twenty lacks a class, or calls nothing positive, and is left out of these intervals, which are then too narrow: ${list(partly.map(([name]) => name))}.`,
        ]
      : []),
    ...(rigid.length > 0
      ? [
          `The bootstrap cannot say how sure a value is that every resample shares; these intervals have no width, and that is not certainty: ${list(rigid.map(([name]) => name))}.`,
        ]
      : []),
  ]
}
