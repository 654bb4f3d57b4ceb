import type { Predictions } from '../predictions.js'
import { MINIMUM_PATIENTS } from '../subgroups.js'
import type { Summary } from '../summary.js'
import { targetsOf } from '../targets.js'
import { attributeNames, estimateInWords, overallWording } from '../words.js'
import {
  type CurvePanel,
  calibrationChart,
  confusionChart,
  type IntervalRow,
  intervalChart,
  precisionRecallChart,
  renderChart,
  rocChart,
  scatterChart,
} from './charts.js'
import { type Embedding, MOST_POINTS, projectEmbedding } from './embedding.js'

/*
 * The charts of a report, with what is said below and instead of them.
 */

export interface Figure {
  /** Of its PNG. */
  readonly file: string
  readonly svg: string
  readonly alternative: string
  readonly caption: string
}

export async function rocFigure(summary: Summary, predictions: Predictions): Promise<Figure | null> {
  const panels = curvePanels(summary, predictions, 'auc', ({ sensitivity, specificity }) =>
    sensitivity === null || specificity === null ? null : { x: 1 - specificity, y: sensitivity },
  )
  if (panels.length === 0) return null
  return {
    file: 'roc.png',
    svg: await renderChart(rocChart(panels)),
    alternative: `ROC curves. ${panels.map(({ name, subtitle }) => `${name}: ${subtitle}`).join('; ')}`,
    caption: `ROC curves. Dashed: chance.${pointInWords(panels)}`,
  }
}

export async function precisionRecallFigure(summary: Summary, predictions: Predictions): Promise<Figure | null> {
  const panels = curvePanels(summary, predictions, 'auprc', ({ sensitivity, ppv }) =>
    sensitivity === null || ppv === null ? null : { x: sensitivity, y: ppv },
  )
  if (panels.length === 0) return null
  return {
    file: 'precision-recall.png',
    svg: await renderChart(precisionRecallChart(panels)),
    alternative: `Precision-recall curves. ${panels.map(({ name, subtitle }) => `${name}: ${subtitle}`).join('; ')}`,
    caption: `Precision-recall curves. Dashed: chance, which is the fraction of positive images.${pointInWords(panels)}`,
  }
}

function pointInWords(panels: readonly CurvePanel[]): string {
  return panels.some(({ point }) => point !== null) ? ' Dot: the operating point of the table.' : ''
}

type PointOf = (values: Record<'sensitivity' | 'specificity' | 'ppv', number | null>) => CurvePanel['point']

function curvePanels(
  summary: Summary,
  predictions: Predictions,
  metric: 'auc' | 'auprc',
  pointOf: PointOf,
): CurvePanel[] {
  return targetsOf(predictions, summary.labels ?? {}).flatMap(({ name, ranking }, k) => {
    const { metrics, positives, negatives } = summary.perClass[k]!
    if (positives === 0 || negatives === 0) return []
    const { sensitivity, specificity, ppv } = metrics
    const point = pointOf({ sensitivity: sensitivity.value, specificity: specificity.value, ppv: ppv.value })
    return [{ name, subtitle: `${metric.toUpperCase()} ${estimateInWords(metrics[metric])}`, ranking, point }]
  })
}

export async function confusionFigure({ confusion, classes }: Summary): Promise<Figure | null> {
  if (confusion === null) return null
  return {
    file: 'confusion.png',
    svg: await renderChart(confusionChart(confusion, classes)),
    alternative: `Confusion matrix. ${confusion.map((row, k) => `${classes[k]}: ${row.map((count, j) => `${count} as ${classes[j]}`).join(', ')}`).join('; ')}`,
    caption:
      'How many images of each class (rows) have their highest score for which class (columns). Percentages are of the row.',
  }
}

export async function calibrationFigure({ calibration, metrics, task }: Summary): Promise<Figure | null> {
  if (calibration.length === 0) return null
  const overall = metrics.calibrationError
  const panels = calibration.map(({ name, bins }) => {
    const samples = bins.reduce((total, bin) => total + bin.samples, 0)
    const gap = bins.reduce((total, { samples: own, meanProbability, observed }) => {
      return total + (own === 0 ? 0 : own * Math.abs(meanProbability! - observed!))
    }, 0)
    const single = calibration.length === 1 && overall ? estimateInWords(overall) : (gap / samples).toFixed(3)
    return { name, subtitle: `ECE ${single}`, bins }
  })
  return {
    file: 'calibration.png',
    svg: await renderChart(calibrationChart(panels)),
    alternative: `Calibration. ${panels.map(({ name, subtitle }) => `${name}: ${subtitle}`).join('; ')}`,
    caption: `${
      task === 'multi-class'
        ? 'How often the class of the highest probability is right, against that probability'
        : 'How often the finding is there, against its probability'
    }, in 15 bins. On the dashed line probabilities are what they say; below it they are too high. Larger dots: more images, which the bars below count.`,
  }
}

/** AUC, or where there is none accuracy, of each group with enough patients. */
export async function subgroupFigure({ subgroups, metrics, task }: Summary): Promise<Figure | null> {
  if (task === null) return null
  const metric = metrics.auc?.value != null ? 'auc' : 'accuracy'
  const rows = subgroups.flatMap(({ attribute, groups }) =>
    groups.flatMap(({ name, metrics: own }): IntervalRow[] => {
      const { value, low, high } = own?.[metric] ?? {}
      if (value == null || low == null || high == null) return []
      return [{ group: attributeNames[attribute], name, value, low, high }]
    }),
  )
  const reference = metrics[metric]?.value
  if (rows.length < 2 || reference == null) return null
  const { name } = overallWording(metric, task)
  return {
    file: 'subgroups.png',
    svg: await renderChart(intervalChart(rows, { title: name, reference })),
    alternative: `${name} by group. ${rows.map((row) => `${row.group} ${row.name}: ${row.value.toFixed(3)} (${row.low.toFixed(3)} to ${row.high.toFixed(3)})`).join('; ')}`,
    caption: `${name} of groups of ${MINIMUM_PATIENTS} patients or more, with intervals. Dashed: all images.`,
  }
}

export async function embeddingFigure(embedding: Embedding, { classes, intervals }: Summary): Promise<Figure | null> {
  const points = await projectEmbedding(embedding, intervals.seed)
  if (points === null) return null
  const all = embedding.groups.length
  const drawn = all > MOST_POINTS ? `${MOST_POINTS} of ${all} images, drawn at random` : `${all} images`
  return {
    file: 'embedding.png',
    svg: await renderChart(scatterChart(points, classes)),
    alternative: `Scatter plot of the embeddings of ${drawn}`,
    caption: `Embeddings of ${drawn}, in two dimensions by UMAP (cosine, 15 neighbours). Which points lie close together says something; distances between far groups and sizes of groups say little.`,
  }
}
