import type { Estimate } from './bootstrap.js'
import type { OverallMetric } from './measures.js'
import type { Task } from './predictions.js'
import type { ThresholdRule } from './ranking.js'
import type { RetrievalMetric } from './retrieval.js'
import type { Attribute } from './subgroups.js'
import type { ClassMetric } from './targets.js'

/*
 * Metrics in words, for tables on screens and paper.
 */

interface Wording {
  readonly name: string
  readonly better: 'higher' | 'lower'
  /** What it is, in a sentence without a full stop. */
  readonly meaning: string
}

/** Names of averages say so where the task has more than one class to average over. */
export function overallWording(metric: OverallMetric, task: Task): Wording {
  const macro = task === 'binary' ? '' : 'Macro '
  const over = task === 'multi-label' ? 'findings' : 'classes'
  const mean = task === 'binary' ? '' : `, the mean over ${over}`
  const words: Record<OverallMetric, Wording> = {
    accuracy: {
      name: 'Accuracy',
      better: 'higher',
      meaning:
        task === 'multi-label'
          ? 'fraction of the images that are called right at the operating point, the mean over findings'
          : 'fraction of the images whose highest score is that of the true class',
    },
    balancedAccuracy: {
      name: 'Balanced accuracy',
      better: 'higher',
      meaning:
        task === 'multi-label'
          ? 'mean of sensitivity and specificity, the mean over findings'
          : 'fraction of the images of a class whose highest score is that class, the mean over classes',
    },
    auc: {
      name: `${macro}AUC`,
      better: 'higher',
      meaning: `area under the ROC curve: how likely a positive image scores above a negative one${mean}; 0.5 is chance`,
    },
    auprc: {
      name: `${macro}AUPRC`,
      better: 'higher',
      meaning: `area under the precision-recall curve (average precision)${mean}; chance is the fraction of positive images`,
    },
    f1: {
      name: `${macro}F1`,
      better: 'higher',
      meaning: `harmonic mean of precision and sensitivity ${task === 'multi-label' ? 'at the operating point' : 'of decisions by the highest score'}${mean}`,
    },
    brier: {
      name: 'Brier score',
      better: 'lower',
      meaning: `squared distance of probabilities from the truth${task === 'multi-class' ? ', added up over classes: from 0 to 2' : ': from 0 to 1'}${task === 'multi-label' ? ', the mean over findings' : ''}`,
    },
    calibrationError: {
      name: 'Calibration error (ECE)',
      better: 'lower',
      meaning: `mean distance of ${task === 'multi-class' ? 'the highest probability from how often its class is right' : 'the probability from how often the finding is there'}, over 15 bins`,
    },
    microAuc: { name: 'Micro AUC', better: 'higher', meaning: 'AUC of all findings of all images as one list' },
    microAuprc: { name: 'Micro AUPRC', better: 'higher', meaning: 'AUPRC of all findings of all images as one list' },
    microF1: { name: 'Micro F1', better: 'higher', meaning: 'F1 of all findings of all images as one list' },
  }
  return words[metric]
}

export const classMetricNames: Readonly<Record<ClassMetric, string>> = {
  auc: 'AUC',
  auprc: 'AUPRC',
  f1: 'F1',
  sensitivity: 'Sensitivity',
  specificity: 'Specificity',
  ppv: 'PPV',
  npv: 'NPV',
}

export function retrievalName(metric: RetrievalMetric): string {
  const [, way, k] = metric.match(/^(.*)R(\d+)$/)!
  const ways: Record<string, string> = {
    imageToText: 'image to text',
    textToImage: 'text to image',
    mean: 'mean of both',
  }
  return `R@${k}, ${ways[way!]}`
}

export const attributeNames: Readonly<Record<Attribute, string>> = { sex: 'Sex', age: 'Age', view: 'View' }

export function ruleInWords(rule: ThresholdRule): string {
  return rule === 'youden'
    ? 'the greatest sensitivity + specificity (Youden)'
    : `a sensitivity of ${rule.sensitivity} at least`
}

/** Three digits, with a true minus sign. */
export function digits(value: number): string {
  const text = value.toFixed(3)
  return Number(text) < 0 ? text.replace('-', '\u2212') : text.replace('-', '')
}

export function valueInWords({ value }: Estimate): string {
  return value === null ? 'not defined' : digits(value)
}

/** '0.812 to 0.874', or nothing. */
export function intervalInWords({ low, high }: Estimate): string {
  return low === null || high === null ? '' : `${digits(low)} to ${digits(high)}`
}

/** '0.843 (0.812 to 0.874)' */
export function estimateInWords(estimate: Estimate): string {
  const interval = intervalInWords(estimate)
  return interval === '' ? valueInWords(estimate) : `${valueInWords(estimate)} (${interval})`
}

export function pInWords(p: number | null): string {
  return p === null ? '' : p < 0.001 ? '< 0.001' : p.toFixed(3)
}

export function percent(part: number): string {
  return `${(100 * part).toFixed(0)} %`
}
