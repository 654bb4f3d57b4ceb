import type { Estimate } from '../bootstrap.js'
import { type OverallMetric, overallMetrics } from '../measures.js'
import { RECALL_AT, type RetrievalMetric } from '../retrieval.js'
import { MINIMUM_PATIENTS } from '../subgroups.js'
import type { ClassSummary, Json, Summary } from '../summary.js'
import type { ClassMetric } from '../targets.js'
import {
  attributeNames,
  classMetricNames,
  digits,
  intervalInWords,
  overallWording,
  percent,
  ruleInWords,
  valueInWords,
} from '../words.js'
import { type Html, html, shorten } from './html.js'
import { table } from './page.js'

/*
 * The numbers of a report, section by section.
 */

/** The value, and below it the interval. */
function cell(estimate: Estimate): Html {
  const interval = intervalInWords(estimate)
  return html`${valueInWords(estimate)}${interval !== '' && html`<span class="interval">${interval}</span>`}`
}

const counted = (count: number) => count.toLocaleString('en-US')

export function overallTable(summary: Summary): Html {
  const { metrics, task, confusion, intervals } = summary
  if (task === null) return html``
  const rows = overallMetrics.flatMap((metric) => {
    const estimate = metrics[metric]
    if (estimate === undefined) return []
    const { name, meaning, better } = overallWording(metric, task)
    return [
      [
        name,
        valueInWords(estimate),
        intervalInWords(estimate),
        html`${meaning}${better === 'lower' && '; lower is better'}`,
      ],
    ]
  })
  const largest = confusion && Math.max(...confusion.map((row) => row.reduce((a, b) => a + b, 0))) / summary.images
  return html`${table(
    `${counted(summary.images)} images of ${counted(summary.patients)} patients`,
    [
      { name: 'Metric' },
      { name: 'Value', number: true },
      { name: `${percent(intervals.confidence)} interval`, number: true },
      { name: 'What it is' },
    ],
    rows,
  )}
${largest !== null && html`<p>Always naming the most frequent class would be right for ${digits(largest)} of the images.</p>`}`
}

/** In words where decisions come from. */
export function decisionsInWords({ operatingPoint, task }: Summary): string {
  if (operatingPoint === null) return ''
  const { from, rule } = operatingPoint
  if (from === 'validation') {
    const accuracy =
      task === 'multi-label' ? '' : ' Accuracy, balanced accuracy and F1 are of decisions by the highest score.'
    return `Sensitivity, specificity and predictive values are at a threshold for each class, chosen on the validation set, never on these images: ${ruleInWords(rule ?? 'youden')}.${accuracy}`
  }
  if (from === 'highest-score') {
    return 'No validation set was given: an image is called positive for the class of its highest score, and negative for all others.'
  }
  return from === 'probability-0.5'
    ? 'No validation set was given: a finding is called positive from a probability of 0.5.'
    : 'No validation set was given, and the scores are no probabilities: nothing is called positive.'
}

/** How classes are compared, for captions. */
function againstWhat({ task, classes }: Summary): string {
  if (task === 'multi-label') return 'Each finding by itself'
  return task === 'binary'
    ? `\u201c${classes[1]}\u201d against \u201c${classes[0]}\u201d`
    : 'Each class against all others'
}

export function classTables(summary: Summary): Html {
  const { perClass, operatingPoint, intervals, task } = summary
  const hasExcluded = perClass.some(({ excluded }) => excluded > 0)
  const what = task === 'multi-label' ? 'Finding' : 'Class'
  const columns = (metrics: readonly ClassMetric[]) =>
    metrics.map((metric) => ({ name: classMetricNames[metric], number: true }))
  const ranked = ['auc', 'auprc', 'f1'] as const
  const decided = ['sensitivity', 'specificity', 'ppv', 'npv'] as const
  const overview = table(
    `${againstWhat(summary)}, with ${percent(intervals.confidence)} intervals`,
    [
      { name: what },
      { name: 'Positive', number: true },
      { name: 'Negative', number: true },
      ...(hasExcluded ? [{ name: 'Left out', number: true }] : []),
      ...columns(ranked),
    ],
    perClass.map((each) => [
      shorten(each.name, 120),
      counted(each.positives),
      counted(each.negatives),
      ...(hasExcluded ? [counted(each.excluded)] : []),
      ...ranked.map((metric) => cell(each.metrics[metric])),
    ]),
  )
  if (operatingPoint?.from === 'none') return html`${overview}<p>${decisionsInWords(summary)}</p>`
  const hasThreshold = perClass.some(({ threshold }) => threshold !== null)
  const threshold = ({ threshold: own, thresholdProbability }: ClassSummary) =>
    own === null ? 'none' : digits(thresholdProbability ?? own)
  return html`${overview}
<h3>At the operating point</h3>
<p>${decisionsInWords(summary)}</p>
${table(
  `${againstWhat(summary)}. PPV and NPV hold for this test set's fraction of positive images only`,
  [{ name: what }, ...(hasThreshold ? [{ name: 'Threshold', number: true }] : []), ...columns(decided)],
  perClass.map((each) => [
    shorten(each.name, 120),
    ...(hasThreshold ? [threshold(each)] : []),
    ...decided.map((metric) => cell(each.metrics[metric])),
  ]),
)}`
}

/** The metrics of subgroups that a table has room for. */
const subgroupMetrics = ['accuracy', 'balancedAccuracy', 'auc', 'auprc', 'f1'] as const satisfies OverallMetric[]

export function subgroupTables({ subgroups, task, intervals }: Summary): Html {
  if (task === null) return html``
  const shown = subgroupMetrics.filter((metric) =>
    subgroups.some(({ groups }) => groups.some(({ metrics }) => (metrics?.[metric]?.value ?? null) !== null)),
  )
  return html`${subgroups.map(({ attribute, groups }) => {
    const lacking = groups.filter((group) => group.lacking.length > 0)
    return html`<h3>${attributeNames[attribute]}</h3>
${table(
  `By ${attributeNames[attribute].toLowerCase()}, with ${percent(intervals.confidence)} intervals; nothing is said of groups of fewer than ${MINIMUM_PATIENTS} patients`,
  [
    { name: attributeNames[attribute] },
    { name: 'Images', number: true },
    { name: 'Patients', number: true },
    ...shown.map((metric) => ({ name: overallWording(metric, task).name, number: true })),
  ],
  groups.map(({ name, images, patients, metrics }) => [
    name,
    counted(images),
    counted(patients),
    ...shown.map((metric) => (metrics?.[metric] ? cell(metrics[metric]) : html`<span class="soft">too few</span>`)),
  ]),
)}
${lacking.map(
  (group) =>
    html`<p class="soft">${group.name}: averages leave out ${group.lacking.join(', ')}, of which it has no positive or no negative images.</p>`,
)}`
  })}`
}

export function retrievalTable({ retrieval, intervals }: Summary): Html {
  if (retrieval === null) return html``
  const ways: [string, string][] = [
    ['Image to text', 'imageToText'],
    ['Text to image', 'textToImage'],
    ['Mean of both', 'mean'],
  ]
  return html`${table(
    `Recall at k: the fraction of queries with a right answer among the first k of ${counted(retrieval.images)}, with ${percent(intervals.confidence)} intervals`,
    [{ name: 'From and to' }, ...RECALL_AT.map((k) => ({ name: `R@${k}`, number: true }))],
    ways.map(([name, way]) => [
      name,
      ...RECALL_AT.map((k) => cell(retrieval.metrics[`${way}R${k}` as RetrievalMetric])),
    ]),
  )}
<p>The ${counted(retrieval.images)} images have ${counted(retrieval.captions)} different captions. A caption that is equal to an image's own counts as right, so
R@1 of a random order would be ${digits(retrieval.chance)}. What scores the same as the first right answer is counted before it.</p>`
}

export function promptTable({ provenance }: Summary): Html {
  const { prompts: classes, ensemble } = provenance
  const isDenied = classes.some(({ negations }) => negations !== undefined)
  const what = isDenied ? 'What stands for each finding, and what denies it' : 'What stands for each class'
  const isEnsemble = ensemble !== null && classes.some(({ prompts }) => prompts.length > 1)
  const texts = (prompts: readonly string[]) => html`${prompts.map((each) => html`<div>\u201c${each}\u201d</div>`)}`
  return table(
    isEnsemble ? `${what}; several are combined by ${ensemble}` : what,
    [
      { name: isDenied ? 'Finding' : 'Class' },
      { name: 'Prompt' },
      ...(isDenied ? [{ name: 'Against its negation' }] : []),
    ],
    classes.map(({ name, prompts, negations }) => [
      shorten(name, 120),
      texts(prompts),
      ...(isDenied ? [texts(negations ?? [])] : []),
    ]),
  )
}

export function methodText(summary: Summary): Html {
  const { intervals, labels } = summary
  const counts = { exclude: 'left out', negative: 'negative', positive: 'positive' }
  return html`<p>Intervals (${percent(intervals.confidence)}) are percentiles of ${counted(intervals.resamples)} bootstrap resamples (seed ${intervals.seed}). Patients are
resampled, with all their images, because images of one patient are alike. A resample in which a class is missing is left out for
the metrics that need it. Intervals say how much the numbers would change with other patients like these; they do not say how the model does at another hospital.</p>
<p>ROC and precision-recall curves have every threshold; the area under the ROC curve counts ties half, the area under the precision-recall curve is
average precision. Averages over classes give each class the same weight. The calibration error is never negative and resampling raises it, so its interval lies too high.</p>
${labels && html`<p>Labels: uncertain findings are ${counts[labels.uncertain]}, findings that are not mentioned are ${counts[labels.blank]}.</p>`}`
}

function jsonText(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

export function provenanceTable({ provenance, intervals }: Summary): Html {
  const { checkpoint, data, preprocessing, settings } = provenance
  const rows: [string, Html | string][] = [
    ['Evaluation', provenance.evaluation],
    ...(checkpoint
      ? ([
          ['Checkpoint', checkpoint.name],
          ['SHA-256 of the checkpoint', html`<code>${checkpoint.sha256}</code>`],
        ] as [string, Html | string][])
      : []),
    ['Data', `${data.kind}, ${data.split}`],
    ['SHA-256 of the selection', html`<code>${data.hash}</code>`],
    ...Object.entries(preprocessing).map(([key, value]): [string, string] => [
      `Preprocessing: ${key}`,
      jsonText(value),
    ]),
    ...Object.entries(settings).map(([key, value]): [string, string] => [key, jsonText(value)]),
    ['Seed of the resamples', String(intervals.seed)],
  ]
  return table('What somebody needs who wants the same numbers again', [{ name: 'What' }, { name: 'Value' }], rows)
}
