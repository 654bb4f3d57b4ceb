import * as vega from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'
import type { CalibrationBin } from '../calibration.js'
import { precisionRecallCurve, type Ranking, rocCurve } from '../ranking.js'
import { shorten } from './html.js'

/*
 * Figures as SVG, drawn by Vega-Lite without a browser. Names in them are data, never markup or expressions.
 */

/** Okabe and Ito's colours, which people who confuse red and green tell apart; the first is for single series. */
export const palette = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000', '#8c8c8c']
const BLUE = palette[0]!
const ORANGE = palette[1]!
const GRAY = '#767676'

const config: NonNullable<TopLevelSpec['config']> = {
  font: 'Helvetica, Arial, DejaVu Sans, sans-serif',
  background: 'white',
  view: { stroke: '#c8c8c8' },
  axis: {
    grid: true,
    gridColor: '#ececec',
    domainColor: '#8a8a8a',
    tickColor: '#8a8a8a',
    labelColor: '#333',
    titleColor: '#222',
    titleFontWeight: 'normal',
    labelFontSize: 10,
    titleFontSize: 11,
  },
  title: { fontSize: 12, subtitleFontSize: 11, subtitleColor: '#444', anchor: 'start', frame: 'group' },
  legend: { labelFontSize: 11, labelLimit: 260, titleFontSize: 11 },
}

export async function renderChart(chart: TopLevelSpec): Promise<string> {
  const { spec } = compile({ ...chart, config, padding: 8 } as TopLevelSpec)
  const view = new vega.View(vega.parse(spec), { renderer: 'none', logLevel: vega.Error })
  try {
    // names of clips and gradients count up through the process: the same figure would have others the second time
    vega.resetSVGDefIds()
    return await view.toSVG()
  } finally {
    view.finalize()
  }
}

type Unit = Extract<TopLevelSpec, { concat: unknown }>['concat'][number]

/** Few panels are large, many are small: the page's width holds three or four. */
function grid<Item>(items: readonly Item[], panel: (item: Item, side: number) => Unit): TopLevelSpec {
  const { columns, side } = items.length <= 6 ? { columns: 3, side: 240 } : { columns: 4, side: 172 }
  return { concat: items.map((item) => panel(item, side)), columns, spacing: { row: 24, column: 24 } }
}

function rateAxis(title: string): object {
  return {
    type: 'quantitative',
    scale: { domain: [0, 1] },
    axis: { title, values: [0, 0.2, 0.4, 0.6, 0.8, 1], format: '.1f', labelOverlap: false },
  }
}

/** At most some hundred points, none of them further from its neighbour than can be seen. */
function thin<Point extends { x: number; y: number }>(points: readonly Point[]): Point[] {
  const kept: Point[] = []
  for (const [k, point] of points.entries()) {
    const last = kept.at(-1)
    const isFar = last === undefined || Math.abs(point.x - last.x) + Math.abs(point.y - last.y) > 1 / 300
    if (isFar || k === points.length - 1) kept.push(point)
  }
  return kept
}

export interface CurvePanel {
  readonly name: string
  /** Below the name: the area with its interval. */
  readonly subtitle: string
  readonly ranking: Ranking
  /** Where decisions are made. */
  readonly point: { readonly x: number; readonly y: number } | null
}

function curvePanel(
  { name, subtitle, point }: CurvePanel,
  points: readonly { x: number; y: number }[],
  line: object,
  reference: readonly object[],
  [x, y]: readonly [string, string],
  side: number,
): Unit {
  const encoding = { x: { field: 'x', ...rateAxis(x) }, y: { field: 'y', ...rateAxis(y) } }
  const layers = [
    {
      data: { values: [...reference] },
      mark: { type: 'line', strokeDash: [4, 3], color: GRAY, strokeWidth: 1 },
      encoding,
    },
    {
      data: { values: thin(points) },
      mark: { type: 'line', color: BLUE, strokeWidth: 1.8, ...line },
      encoding: { ...encoding, order: { field: 'k' } },
    },
    ...(point
      ? [
          {
            data: { values: [point] },
            mark: { type: 'point', filled: true, color: ORANGE, size: 60, opacity: 1 },
            encoding,
          },
        ]
      : []),
  ]
  return {
    title: { text: shorten(name, 30), subtitle: shorten(subtitle, 40) },
    width: side,
    height: side,
    layer: layers,
  } as Unit
}

/** One panel a class; those without both kinds of samples have no curve and are left out. */
export function rocChart(panels: readonly CurvePanel[]): TopLevelSpec {
  return grid(panels, (panel, side) => {
    const { falsePositiveRate, truePositiveRate } = rocCurve(panel.ranking)
    const points = falsePositiveRate.map((x, k) => ({ x, y: truePositiveRate[k]!, k }))
    const chance = [
      { x: 0, y: 0 },
      { x: 1, y: 1 },
    ]
    return curvePanel(panel, points, {}, chance, ['1 \u2212 specificity', 'Sensitivity'], side)
  })
}

export function precisionRecallChart(panels: readonly CurvePanel[]): TopLevelSpec {
  return grid(panels, (panel, side) => {
    const { precision, recall } = precisionRecallCurve(panel.ranking)
    const points = [0, ...recall].map((x, k) => ({ x, y: precision[Math.max(0, k - 1)]!, k }))
    const prevalence = precision.at(-1)!
    const chance = [
      { x: 0, y: prevalence },
      { x: 1, y: prevalence },
    ]
    // average precision is the area below these very steps
    return curvePanel(
      panel,
      points,
      { interpolate: 'step-before' },
      chance,
      ['Recall (sensitivity)', 'Precision (PPV)'],
      side,
    )
  })
}

/** Counts, and the fraction of each row in colour. */
export function confusionChart(confusion: readonly (readonly number[])[], classes: readonly string[]): TopLevelSpec {
  const cell = Math.max(30, Math.min(84, Math.floor(640 / classes.length)))
  const values = confusion.flatMap((row, truth) => {
    const total = row.reduce((a, b) => a + b, 0)
    return row.map((count, found) => {
      const part = total === 0 ? 0 : count / total
      return {
        truth,
        found,
        count,
        part,
        text: cell < 44 ? [String(count)] : [String(count), `${(100 * part).toFixed(0)} %`],
      }
    })
  })
  const axis = {
    labelExpr: labelsByNumber(classes),
    labelLimit: 0,
    title: null,
    domain: false,
    ticks: false,
    grid: false,
  }
  const encoding = {
    x: { field: 'found', type: 'ordinal', axis: { ...axis, title: 'Highest score', orient: 'top', labelAngle: -30 } },
    y: { field: 'truth', type: 'ordinal', axis: { ...axis, title: 'Truth' } },
  }
  const color = {
    field: 'part',
    type: 'quantitative',
    scale: { range: ['#ffffff', '#08519c'], domain: [0, 1], interpolate: 'rgb' },
    legend: { title: 'Fraction of the row', format: '.0%', tickCount: 5 },
  }
  return {
    width: cell * classes.length,
    height: cell * classes.length,
    data: { values },
    encoding,
    layer: [
      { mark: { type: 'rect', stroke: '#e3e3e3' }, encoding: { color } },
      {
        mark: { type: 'text', fontSize: cell < 44 ? 10 : 12, lineHeight: 14, dy: cell < 44 ? 0 : -6 },
        encoding: {
          text: { field: 'text' },
          color: { condition: { test: 'datum.part > 0.55', value: 'white' }, value: '#1a1a1a' },
        },
      },
    ],
  } as TopLevelSpec
}

/** An expression that turns a number into its name. JSON's strings are the expression language's. */
function labelsByNumber(names: readonly string[]): string {
  const safe = names.map((name) => shorten(name, 28).replace(/[\u2028\u2029]/g, ' '))
  return `${JSON.stringify(safe)}[datum.value]`
}

export interface CalibrationPanel {
  readonly name: string
  readonly subtitle: string
  readonly bins: readonly CalibrationBin[]
}

/** Observed parts against probabilities, and below how many images each bin has. */
export function calibrationChart(panels: readonly CalibrationPanel[]): TopLevelSpec {
  return grid(panels, ({ name, subtitle, bins }, side) => {
    const values = bins.map(({ low, high, samples, meanProbability, observed }) => ({
      low,
      high,
      samples,
      x: meanProbability,
      y: observed,
    }))
    const own = values.filter(({ samples }) => samples > 0)
    const encoding = {
      x: { field: 'x', ...rateAxis('Mean probability') },
      y: { field: 'y', ...rateAxis('Observed fraction') },
    }
    const diagonal = [
      { x: 0, y: 0 },
      { x: 1, y: 1 },
    ]
    return {
      title: { text: shorten(name, 30), subtitle: shorten(subtitle, 40) },
      spacing: 8,
      vconcat: [
        {
          width: side,
          height: side,
          layer: [
            {
              data: { values: diagonal },
              mark: { type: 'line', strokeDash: [4, 3], color: GRAY, strokeWidth: 1 },
              encoding,
            },
            { data: { values: own }, mark: { type: 'line', color: BLUE, strokeWidth: 1 }, encoding },
            {
              data: { values: own },
              mark: { type: 'point', filled: true, color: BLUE, opacity: 1 },
              encoding: {
                ...encoding,
                size: {
                  field: 'samples',
                  type: 'quantitative',
                  legend: null,
                  scale: { domainMin: 0, range: [8, 140] },
                },
              },
            },
          ],
        },
        {
          width: side,
          height: 40,
          data: { values },
          mark: { type: 'bar', color: '#9fb8cc' },
          encoding: {
            x: {
              field: 'low',
              type: 'quantitative',
              bin: { binned: true },
              axis: { title: null, labels: false, ticks: false },
            },
            x2: { field: 'high' },
            y: { field: 'samples', type: 'quantitative', axis: { title: 'Images', tickCount: 2, format: '~s' } },
          },
        },
      ],
    } as Unit
  })
}

export interface IntervalRow {
  readonly group: string
  readonly name: string
  readonly value: number
  readonly low: number
  readonly high: number
}

/** A point and its interval for each row; a dashed line to compare with. */
export function intervalChart(
  rows: readonly IntervalRow[],
  { title, reference }: { title: string; reference: number },
): TopLevelSpec {
  const values = rows.map((row, k) => ({ ...row, k }))
  const y = {
    field: 'k',
    type: 'ordinal',
    axis: {
      title: null,
      labelExpr: labelsByNumber(rows.map(({ group, name }) => `${group}: ${name}`)),
      labelLimit: 0,
      grid: false,
    },
  }
  return {
    width: 460,
    height: { step: 24 },
    data: { values },
    layer: [
      {
        data: { values: [{ reference }] },
        mark: { type: 'rule', strokeDash: [4, 3], color: GRAY },
        encoding: { x: { field: 'reference', type: 'quantitative' } },
      },
      {
        mark: { type: 'rule', color: BLUE, strokeWidth: 1.5 },
        encoding: {
          y,
          x: { field: 'low', type: 'quantitative', scale: { zero: false }, title },
          x2: { field: 'high' },
        },
      },
      {
        mark: { type: 'point', filled: true, color: BLUE, size: 60, opacity: 1 },
        encoding: { y, x: { field: 'value', type: 'quantitative' } },
      },
    ],
  } as TopLevelSpec
}

export interface ScatterPoint {
  readonly x: number
  readonly y: number
  readonly group: string
}

/** Colour and shape both tell the group. @param order of groups in the legend; those it lacks come last */
export function scatterChart(points: readonly ScatterPoint[], order: readonly string[]): TopLevelSpec {
  const present = new Set(points.map(({ group }) => group))
  const groups = [...new Set([...order.filter((name) => present.has(name)), ...present])]
  const names = groups.map((name) => shorten(name, 34))
  const values = points.map(({ x, y, group }) => ({ x, y, k: groups.indexOf(group) }))
  const domain = groups.map((_, k) => k)
  const legend = { title: null, labelExpr: labelsByNumber(names), symbolOpacity: 1 }
  const shapes = [
    'circle',
    'square',
    'triangle-up',
    'diamond',
    'cross',
    'triangle-down',
    'triangle-right',
    'triangle-left',
  ]
  const axis = { title: null, labels: false, ticks: false, grid: false }
  return {
    width: 520,
    height: 420,
    data: { values },
    mark: { type: 'point', filled: true, size: 26, opacity: 0.75 },
    encoding: {
      x: { field: 'x', type: 'quantitative', scale: { zero: false }, axis },
      y: { field: 'y', type: 'quantitative', scale: { zero: false }, axis },
      color: {
        field: 'k',
        type: 'nominal',
        scale: { domain, range: domain.map((k) => palette[k % palette.length]!) },
        legend,
      },
      shape: {
        field: 'k',
        type: 'nominal',
        scale: { domain, range: domain.map((k) => shapes[(k + Math.floor(k / palette.length)) % shapes.length]!) },
        legend,
      },
    },
  } as TopLevelSpec
}
