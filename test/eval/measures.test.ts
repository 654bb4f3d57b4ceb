import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Random } from '../../src/data/random.js'
import * as bootstrap from '../../src/eval/bootstrap.js'
import { type Measure, measure, type OverallMetric, overallIndex, targetIndex } from '../../src/eval/measures.js'
import * as metrics from '../../src/eval/metrics.js'
import { type Predictions, type Scale, selectRows } from '../../src/eval/predictions.js'
import { chooseThreshold, precisionRecallCurve, Ranking, rocCurve } from '../../src/eval/ranking.js'
import { type ClassMetric, thresholdsOf } from '../../src/eval/targets.js'
import { classPredictions, findingPredictions, noAttributes } from './examples.js'

interface Case {
  task: 'multi-class' | 'binary' | 'multi-label'
  scale: Scale
  classes: number
  labels: number[]
  scores: number[]
  patients: number[]
  thresholds: number[] | null
  uncertain?: 'exclude' | 'positive'
  blank?: 'exclude' | 'negative'
  weights: number[][]
  results: { overall: Record<OverallMetric, number | null>; targets: Record<ClassMetric, number | null>[] }[]
}

interface Fixtures {
  classes: Case[]
  findings: Case[]
  curves: (Record<'labels' | 'scores' | 'fpr' | 'tpr' | 'thresholds' | 'precision' | 'recall' | 'cuts', number[]> &
    Record<'auprc' | 'youden' | 'sensitivity90' | 'sensitivity50', number>)[]
  intervals: Record<'labels' | 'scores' | 'other', number[]> &
    Record<'auc' | 'accuracy' | 'difference', [number, number]>
  quantiles: { values: number[]; low: number; high: number }
  brier: { labels: number[]; probabilities: number[]; score: number; binary: number }
}

/** What scikit-learn, numpy and scipy say: see fixtures/make_measures.py. */
const fixtures = JSON.parse(readFileSync(new URL('fixtures/measures.json', import.meta.url), 'utf8')) as Fixtures

function predictionsOf(each: Case): Predictions {
  const shared = {
    scale: each.scale,
    classes: Array.from({ length: each.classes }, (_, k) => `class ${k}`),
    scores: Float32Array.from(each.scores),
    patients: each.patients.map(String),
    paths: each.patients.map((_, k) => `${k}.png`),
    attributes: each.patients.map(() => noAttributes),
  }
  return each.task === 'multi-label'
    ? { ...shared, task: each.task, labels: Int8Array.from(each.labels) }
    : { ...shared, task: each.task, labels: Int32Array.from(each.labels) }
}

function expectNumber(found: number, wanted: number | null, what: string): void {
  if (wanted === null) expect(found, what).toBeNaN()
  else expect(found, what).toBeCloseTo(wanted, 9)
}

describe("scikit-learn's numbers, on the test set and on resamples of it", () => {
  it.each([...fixtures.classes, ...fixtures.findings].map((each) => [each.task, each.scale, each] as const))(
    '%s, %s',
    (_, __, each) => {
      const { thresholds, uncertain, blank } = each
      const found = measure(predictionsOf(each), { thresholds, uncertain, blank })
      const out = new Float64Array(found.size)
      for (const [k, weights] of each.weights.entries()) {
        found.evaluate(Int32Array.from(weights), out)
        const { overall, targets } = each.results[k]!
        for (const [metric, wanted] of Object.entries(overall)) {
          expectNumber(out[overallIndex(metric as OverallMetric)]!, wanted, `${metric} of resample ${k}`)
        }
        for (const [target, values] of targets.entries()) {
          for (const [metric, wanted] of Object.entries(values)) {
            expectNumber(
              out[targetIndex(metric as ClassMetric, target)]!,
              wanted,
              `${metric} of ${target}, resample ${k}`,
            )
          }
        }
      }
    },
  )

  it('curves, average precision and thresholds', () => {
    for (const each of fixtures.curves) {
      const ranking = new Ranking(each.labels, (k) => each.scores[k]!)
      const roc = rocCurve(ranking)
      expect(roc.falsePositiveRate).toEqual(each.fpr.map((value) => expect.closeTo(value, 12)))
      expect(roc.truePositiveRate).toEqual(each.tpr.map((value) => expect.closeTo(value, 12)))
      expect(roc.thresholds).toEqual([Number.POSITIVE_INFINITY, ...each.thresholds])
      const curve = precisionRecallCurve(ranking)
      // scikit-learn may stop at full recall or go on to the lowest score
      const points = each.recall.length
      expect(curve.precision.slice(0, points)).toEqual(each.precision.map((value) => expect.closeTo(value, 12)))
      expect(curve.recall.slice(0, points)).toEqual(each.recall.map((value) => expect.closeTo(value, 12)))
      expect(curve.thresholds.slice(0, points)).toEqual(each.cuts)
      expect(metrics.averagePrecision(each.labels, each.scores)).toBeCloseTo(each.auprc, 12)
      expect(chooseThreshold(ranking, 'youden')).toBe(each.youden)
      expect(chooseThreshold(ranking, { sensitivity: 0.9 })).toBe(each.sensitivity90)
      expect(chooseThreshold(ranking, { sensitivity: 0.5 })).toBe(each.sensitivity50)
    }
  })

  it('Brier scores', () => {
    const { labels, probabilities, score, binary } = fixtures.brier
    expect(metrics.brierScore(labels, probabilities)).toBeCloseTo(score, 12)
    const first = labels.map((_, k) => probabilities[3 * k]!)
    expect(
      metrics.binaryBrierScore(
        labels.map((label) => Number(label === 0)),
        first,
      ),
    ).toBeCloseTo(binary, 12)
  })
})

describe('thresholds', () => {
  it('come from the validation set and are applied to the test set', () => {
    const [validation, test] = [findingPredictions({ seed: 3, dataSeed: 4 }), findingPredictions()]
    const thresholds = thresholdsOf(validation, { sensitivity: 0.9 })
    const on = (predictions: Predictions) => bootstrap.evaluateOnce(measure(predictions, { thresholds }), 300)
    for (let k = 0; k < 5; k += 1) {
      expect(on(validation)[targetIndex('sensitivity', k)]).toBeGreaterThanOrEqual(0.9)
      expect(on(test)[targetIndex('sensitivity', k)]).not.toBe(on(validation)[targetIndex('sensitivity', k)])
    }
  })

  it('are none where there are no positives', () => {
    expect(chooseThreshold(new Ranking([0, 0], () => 1), 'youden')).toBeNull()
    expect(() => chooseThreshold(new Ranking([0, 1], () => 1), { sensitivity: 90 })).toThrow(/up to 1, but received 90/)
  })

  it('leave accuracy and F1 to the highest score', () => {
    const predictions = classPredictions()
    const alone = bootstrap.evaluateOnce(measure(predictions), 400)
    const tuned = measure(predictions, { thresholds: [9, 9, 9, 9, 9] })
    const found = bootstrap.evaluateOnce(tuned, 400)
    expect(tuned.decisions).toBe('validation')
    for (const metric of ['accuracy', 'balancedAccuracy', 'f1', 'auc'] as const) {
      expect(found[overallIndex(metric)]).toBe(alone[overallIndex(metric)])
    }
    expect(found[targetIndex('specificity', 0)]).toBeGreaterThan(alone[targetIndex('specificity', 0)]!)
  })
})

it('logits that are probability 1 in float32 still have an order', () => {
  const predictions: Predictions = {
    ...predictionsOf({ ...fixtures.classes[3]!, labels: [0, 1, 1, 0], patients: [0, 1, 2, 3], scores: [] }),
    task: 'binary',
    labels: Int32Array.of(0, 1, 1, 0),
    scores: Float32Array.of(0, 60, 0, 80, 0, 90, 0, 50),
  }
  const out = bootstrap.evaluateOnce(measure(predictions), 4)
  expect(out[overallIndex('auc')]).toBe(1)
})

/** Resamples as whole lists of rows, metrics by metrics.ts: slow, and nothing shared with what it checks. */
function slowResamples(predictions: ReturnType<typeof classPredictions>, resamples: number, seed: number) {
  const { classes, patients } = predictions
  const C = classes.length
  const names = [...new Set(patients)]
  const rowsOf = new Map(names.map((name) => [name, patients.flatMap((each, row) => (each === name ? [row] : []))]))
  const random = new Random(seed, 'bootstrap')
  return Array.from({ length: resamples }, () => {
    const drawn = names.map(() => names[random.integer(names.length)]!)
    const { labels, scores } = selectRows(
      predictions,
      drawn.flatMap((name) => rowsOf.get(name)!),
    )
    const found = metrics.argmaxRows(scores, C)
    const lacks = new Set(labels).size < C
    const odds = Array.from(scores, (_, at) => {
      const row = scores.subarray(C * Math.floor(at / C), C * Math.floor(at / C) + C)
      const others = row.reduce((total, each, k) => total + (k === at % C ? 0 : Math.exp(each)), 0)
      return Number((row[at % C]! - Math.log(others)).toFixed(9))
    })
    return {
      accuracy: metrics.accuracy(labels, found),
      balancedAccuracy: lacks ? Number.NaN : metrics.balancedAccuracy(labels, found),
      f1: lacks ? Number.NaN : metrics.macroF1(labels, found),
      auc: lacks ? Number.NaN : metrics.macroAuc(labels, odds),
    }
  })
}

describe('the bootstrap', () => {
  it('is what resampling whole patients gives', async () => {
    const predictions = classPredictions({ samples: 24, margin: 1 })
    const [columns] = await bootstrap.resample([measure(predictions)], predictions.patients, { resamples: 60, seed: 5 })
    const slow = slowResamples(predictions, 60, 5)
    expect(slow.some(({ auc }) => Number.isNaN(auc))).toBe(true)
    for (const metric of ['accuracy', 'balancedAccuracy', 'f1', 'auc'] as const) {
      const column = columns![overallIndex(metric)]!
      for (const [b, values] of slow.entries()) {
        expectNumber(column[b]!, Number.isNaN(values[metric]) ? null : values[metric], `${metric} of resample ${b}`)
      }
    }
  })

  it("has scipy's intervals", async () => {
    const { labels, scores, other, auc, accuracy, difference } = fixtures.intervals
    const rank = (values: number[]): Measure => {
      const ranking = new Ranking(labels, (k) => values[k]!)
      return {
        size: 2,
        evaluate(weights, out) {
          out[0] = ranking.areas(weights).auc
          const right = (row: number) => Number(Number(values[row]! > 0.5) === labels[row])
          out[1] = labels.reduce((total, _, row) => total + weights[row]! * right(row), 0) / labels.length
        },
      }
    }
    const patients = labels.map((_, k) => String(k))
    const [first, second] = await bootstrap.resample([rank(scores), rank(other)], patients, {
      resamples: 8000,
      seed: 2,
    })
    const near = (found: bootstrap.Estimate, wanted: readonly number[], within = 0.006) => {
      expect(Math.abs(found.low! - wanted[0]!)).toBeLessThan(within)
      expect(Math.abs(found.high! - wanted[1]!)).toBeLessThan(within)
    }
    near(bootstrap.estimateOf(0.8, first![0]!, 120), auc)
    near(bootstrap.estimateOf(0.7, first![1]!, 120), accuracy, 1.01 / 120)
    near(bootstrap.differenceOf({ a: 0, b: 0 }, { a: first![0]!, b: second![0]! }, 120), difference)
  })

  it("interpolates percentiles as numpy does, and leaves out what isn't defined", () => {
    const { values, low, high } = fixtures.quantiles
    const column = Float64Array.from([...values, ...Array.from({ length: 20 }, () => Number.NaN)])
    const found = bootstrap.estimateOf(0, column, 9)
    expect(found.low).toBeCloseTo(low, 12)
    expect(found.high).toBeCloseTo(high, 12)
    expect(found.resamples).toBe(101)
  })

  it('gives no interval from one patient, or where most resamples are not defined', () => {
    const none = { low: null, high: null }
    expect(bootstrap.estimateOf(0.5, Float64Array.of(0.5, 0.5), 1)).toEqual({ value: 0.5, ...none, resamples: 2 })
    const mostly = Float64Array.of(0.5, Number.NaN, Number.NaN)
    expect(bootstrap.estimateOf(0.5, mostly, 9)).toEqual({ value: 0.5, ...none, resamples: 1 })
    expect(bootstrap.estimateOf(Number.NaN, Float64Array.of(1, 1), 9).value).toBeNull()
  })

  it('repeats itself with a seed and not with another', async () => {
    const { patients, ...rest } = classPredictions({ samples: 60 })
    const run = async (seed: number) =>
      (await bootstrap.resample([measure({ ...rest, patients })], patients, { resamples: 20, seed }))[0]![0]!
    expect(await run(1)).toEqual(await run(1))
    expect(await run(1)).not.toEqual(await run(2))
  })

  it('sees images of one patient as one', async () => {
    const one = classPredictions({ samples: 50 })
    const rows = Array.from({ length: 200 }, (_, k) => Math.floor(k / 4))
    const alone = { ...one, patients: one.paths.map((_, k) => String(k)) }
    const width = async (predictions: Predictions) => {
      const [columns] = await bootstrap.resample([measure(predictions)], predictions.patients, { resamples: 1000 })
      const { low, high } = bootstrap.estimateOf(0.5, columns![0]!, 50)
      return high! - low!
    }
    // four copies of each image say no more than one
    expect((await width(selectRows(alone, rows))) / (await width(alone))).toBeCloseTo(1, 1)
  })

  it('compares: no difference from itself, a p below 0.01 for a much better run', async () => {
    const predictions = classPredictions()
    const measures = [{}, {}, { margin: 4, seed: 9 }].map((options) => measure(classPredictions(options)))
    const columns = await bootstrap.resample(measures, predictions.patients, { resamples: 1000 })
    const values = measures.map((each) => bootstrap.evaluateOnce(each, 400)[0]!)
    const against = (k: number) =>
      bootstrap.differenceOf({ a: values[0]!, b: values[k]! }, { a: columns[0]![0]!, b: columns[k]![0]! }, 200)
    expect(against(1)).toMatchObject({ value: 0, low: 0, high: 0, p: 1 })
    expect(against(2).low).toBeGreaterThan(0)
    expect(against(2).p).toBeLessThan(0.01)
    expect(against(2).p).toBeGreaterThan(0)
  })

  it('stops when told to, and refuses numbers of resamples that are none', async () => {
    const predictions = classPredictions()
    const run = (options: bootstrap.BootstrapOptions) =>
      bootstrap.resample([measure(predictions)], predictions.patients, options)
    await expect(run({ resamples: 1e6, signal: AbortSignal.timeout(100) })).rejects.toThrow(/abort/i)
    await expect(run({ resamples: 0 })).rejects.toThrow(/above 0, but received 0/)
  })
})
