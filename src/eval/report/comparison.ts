import { join } from 'node:path'
import { writeRecord, writeWhole } from '../../setup/files.js'
import { type Comparison, letterOf } from '../compare.js'
import { type OverallMetric, overallMetrics } from '../measures.js'
import { digits, estimateInWords, intervalInWords, overallWording, percent, pInWords, valueInWords } from '../words.js'
import { type IntervalRow, intervalChart, renderChart } from './charts.js'
import { makeFolder } from './folder.js'
import { type Html, html } from './html.js'
import { dataUri, svgToPng } from './images.js'
import { figure, renderPage, table } from './page.js'

/*
 * compare.html: runs side by side.
 */

/** Metrics that the runs have, in their usual order. */
export function comparedMetrics({ runs }: Comparison): OverallMetric[] {
  return overallMetrics.filter((metric) => runs.some(({ metrics }) => metrics[metric] !== undefined))
}

/** Writes compare.html (one file, which asks for nothing from anywhere), compare.json and the figure as PNG. */
export async function writeComparison(dir: string, comparison: Comparison): Promise<{ html: string; json: string }> {
  makeFolder(join(dir, 'figures'))
  const svg = await differencesSvg(comparison)
  const notes =
    comparison.leftOut > 0
      ? [
          `${comparison.leftOut} images that only some of the runs have are left out: the numbers differ from the runs' own.`,
        ]
      : []
  const page = renderPage({
    title: `${comparison.runs.length} runs compared`,
    lead: html`The same ${comparison.images.toLocaleString('en-US')} images of ${comparison.patients.toLocaleString('en-US')} patients`,
    notes,
    sections: [
      { id: 'runs', title: 'Runs', body: runTable(comparison) },
      { id: 'metrics', title: 'Metrics', body: metricTable(comparison) },
      { id: 'differences', title: 'Differences', body: differences(comparison, svg) },
    ],
    footer: html`<p>Made by cleft, research software: not a medical device, and not for decisions about patients.</p>`,
  })
  if (svg) writeWhole(join(dir, 'figures', 'differences.png'), await svgToPng(svg))
  const written = { html: join(dir, 'compare.html'), json: join(dir, 'compare.json') }
  writeRecord(written.json, comparison)
  writeWhole(written.html, page)
  return written
}

function runTable({ runs }: Comparison): Html {
  return table(
    'The first run is what the others are compared with',
    [
      { name: 'Run' },
      { name: 'Name' },
      { name: 'Evaluation' },
      { name: 'Folder' },
      { name: 'SHA-256 of the checkpoint' },
    ],
    runs.map(({ name, evaluation, folder, checkpoint }, k) => [
      letterOf(k),
      name,
      evaluation,
      folder,
      checkpoint ? html`<code>${checkpoint.sha256}</code>` : 'none',
    ]),
  )
}

function metricTable(comparison: Comparison): Html {
  const { runs, task, intervals } = comparison
  return table(
    `With ${percent(intervals.confidence)} intervals. For a comparison look at the differences below: intervals of runs on the same images may overlap and yet differ`,
    [{ name: 'Metric' }, ...runs.map((_, k) => ({ name: letterOf(k), number: true }))],
    comparedMetrics(comparison).map((metric) => [
      nameOf(metric, task),
      ...runs.map(({ metrics }) => {
        const estimate = metrics[metric]!
        return html`${valueInWords(estimate)}<span class="interval">${intervalInWords(estimate)}</span>`
      }),
    ]),
  )
}

function nameOf(metric: OverallMetric, task: Comparison['task']): string {
  const { name, better } = overallWording(metric, task)
  return better === 'lower' ? `${name}, lower is better` : name
}

function differences(comparison: Comparison, svg: string | null): Html {
  const { runs, intervals, task } = comparison
  const columns = [
    { name: 'Metric' },
    { name: 'Difference', number: true },
    { name: `${percent(intervals.confidence)} interval`, number: true },
    { name: 'p', number: true },
  ]
  return html`<p>All runs are resampled alike (${intervals.resamples.toLocaleString('en-US')} resamples of patients, seed ${intervals.seed}), and differences are taken within each
resample. p is two-sided, from where 0 lies among the resampled differences, and is not adjusted for the number of comparisons.</p>
${svg && figure(dataUri(svg, 'image/svg+xml'), 'Differences with their intervals; the table below has the numbers', 'Differences from the first run. Dashed: no difference.')}
${comparison.differences.map(
  ({ run, metrics, perClass }) => html`<h3>${letterOf(run)} minus A: ${runs[run]!.name}</h3>
${table(
  `${letterOf(run)} minus A`,
  columns,
  [
    ...comparedMetrics(comparison).map((metric) => [nameOf(metric, task), metrics[metric]!] as const),
    ...(perClass.length > 1 ? perClass.map(({ name, auc }) => [`AUC of ${name}`, auc] as const) : []),
  ].map(([name, each]) => [name, signed(each.value), intervalInWords(each), pInWords(each.p)]),
)}`,
)}`
}

function signed(value: number | null): string {
  if (value === null) return 'not defined'
  return value > 0 ? `+${digits(value)}` : digits(value)
}

async function differencesSvg({ differences: all, task }: Comparison): Promise<string | null> {
  const shown = ['accuracy', 'balancedAccuracy', 'auc', 'auprc', 'f1'] as const
  const rows = all.flatMap(({ run, metrics }) =>
    shown.flatMap((metric): IntervalRow[] => {
      const { value, low, high } = metrics[metric] ?? {}
      if (value == null || low == null || high == null) return []
      return [{ group: letterOf(run), name: overallWording(metric, task).name, value, low, high }]
    }),
  )
  return rows.length === 0 ? null : renderChart(intervalChart(rows, { title: 'Difference from A', reference: 0 }))
}

/** Lines for a terminal. */
export function comparisonInWords(comparison: Comparison): string {
  const { runs, task, images, patients, intervals, leftOut } = comparison
  const metrics = comparedMetrics(comparison)
  const width = Math.max(...metrics.map((metric) => overallWording(metric, task).name.length)) + 2
  const lines = [
    `${images} images of ${patients} patients; ${percent(intervals.confidence)} intervals from ${intervals.resamples} resamples of patients`,
    ...(leftOut > 0 ? [`${leftOut} images that only some of the runs have are left out`] : []),
    ...runs.map(({ folder, name, evaluation }, k) => `${letterOf(k)}  ${folder}: ${name}, ${evaluation}`),
    '',
    `${''.padEnd(width)}${runs.map((_, k) => letterOf(k).padEnd(25)).join('')}`.trimEnd(),
    ...metrics.map((metric) =>
      `${overallWording(metric, task).name.padEnd(width)}${runs.map((run) => estimateInWords(run.metrics[metric]!).padEnd(25)).join('')}`.trimEnd(),
    ),
  ]
  for (const { run, metrics: own } of comparison.differences) {
    lines.push('', `${letterOf(run)} minus A`)
    for (const metric of metrics) {
      const each = own[metric]!
      const p = each.p === null ? '' : `p ${pInWords(each.p)}`
      const interval = intervalInWords(each)
      lines.push(
        `${overallWording(metric, task).name.padEnd(width)}${`${signed(each.value)}${interval && ` (${interval})`}`.padEnd(28)}${p}`.trimEnd(),
      )
    }
  }
  return lines.join('\n')
}
