import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as metrics from '../../src/eval/metrics.js'
import * as torch from '../../src/torch/index.js'
import { referenceCase } from '../models/reference.js'

interface Case {
  labels: number[]
  classes: number
  scores: number[]
  predictions: number[]
  balanced: number
  f1: number
  confusion: number[][]
  perClass: (number | null)[]
  auc?: number
}

/** What scikit-learn says: see fixtures/make_metrics.py. */
const cases = JSON.parse(readFileSync(new URL('fixtures/metrics.json', import.meta.url), 'utf8')) as Case[]

describe('the numbers of scikit-learn', () => {
  it('for the reference case', () => {
    torch.scope(() => {
      const reference = referenceCase('metrics')
      const labels = reference.tensor('in.labels').toTypedArray() as BigInt64Array
      const scores = reference.tensor('in.scores').toTypedArray() as Float64Array
      const predictions = metrics.argmaxRows(scores, 5)
      const wanted = (name: string) => reference.tensor(`out.${name}`).item()
      expect(metrics.accuracy(labels, predictions)).toBeCloseTo(wanted('accuracy'), 12)
      expect(metrics.macroAuc(labels, scores)).toBeCloseTo(wanted('auc_macro_ovr'), 12)
      expect(metrics.macroF1(labels, predictions)).toBeCloseTo(wanted('f1_macro'), 12)
      expect(metrics.confusionMatrix(labels, predictions)).toEqual(reference.tensor('out.confusion').toArray())
      const binary = reference.tensor('in.binary_labels').toTypedArray() as BigInt64Array
      const binaryScores = reference.tensor('in.binary_scores').toTypedArray() as Float64Array
      expect(metrics.binaryAuc(binary, binaryScores)).toBeCloseTo(wanted('auc_binary'), 12)
    })
  })

  it.each(cases.map((each, index) => [index, each] as const))('for random predictions %i', (_, each) => {
    const { labels, scores, predictions, classes } = each
    expect(metrics.argmaxRows(scores, classes)).toEqual(predictions)
    expect(metrics.balancedAccuracy(labels, predictions)).toBeCloseTo(each.balanced, 13)
    expect(metrics.macroF1(labels, predictions)).toBeCloseTo(each.f1, 13)
    expect(metrics.confusionMatrix(labels, predictions, classes)).toEqual(each.confusion)
    for (const [k, area] of metrics.perClassAuc(labels, scores).entries()) {
      if (each.perClass[k] === null) expect(area).toBeNull()
      else expect(area).toBeCloseTo(each.perClass[k]!, 13)
    }
    if (each.auc !== undefined) expect(metrics.macroAuc(labels, scores)).toBeCloseTo(each.auc, 13)
  })
})

describe('areas under the curve', () => {
  it('count ties half', () => {
    expect(metrics.binaryAuc([0, 1], [0.5, 0.5])).toBe(0.5)
    expect(metrics.binaryAuc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])).toBe(0.75)
    expect(metrics.binaryAuc([1, 0], [Number.POSITIVE_INFINITY, 3])).toBe(1)
  })

  it('are refused where they are not defined', () => {
    expect(() => metrics.binaryAuc([1, 1], [0.1, 0.2])).toThrow(/expected positive and negative samples/)
    expect(() => metrics.binaryAuc([0, 2], [0.1, 0.2])).toThrow(/labels 0 and 1, but received 2/)
    expect(() => metrics.binaryAuc([0, 1], [0.1, Number.NaN])).toThrow(/score 1 is NaN/)
    const scores = [0.5, 0.3, 0.2, 0.1, 0.6, 0.3]
    expect(() => metrics.macroAuc([0, 1], scores)).toThrow(/none \(or no others\) of 2; use \{ absent: 'skip' \}/)
    expect(metrics.macroAuc([0, 1], scores, { absent: 'skip' })).toBe(1)
  })
})

describe('calibration', () => {
  it('is the gap between confidence and accuracy, bin by bin', () => {
    // two of three right at 0.9 (gap 0.7/3 x 3), none of one at 0.6
    const rows = [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.4, 0.6]
    const wanted = (Math.abs(2 - 2.7) + 0.6) / 4
    expect(metrics.expectedCalibrationError([0, 0, 1, 0], rows, { bins: 10 })).toBeCloseTo(wanted, 13)
    // a bin holds its upper edge
    expect(metrics.expectedCalibrationError([0], [1, 0], { bins: 10 })).toBe(0)
    expect(() => metrics.expectedCalibrationError([0], [3, 1])).toThrow(/add up to 1/)
  })
})

it('refuses what does not go together', () => {
  expect(() => metrics.accuracy([], [])).toThrow(/one label at least/)
  expect(() => metrics.accuracy([0], [0, 1])).toThrow(/a prediction for each of 1 labels, but received 2/)
  expect(() => metrics.accuracy([0.5], [0])).toThrow(/whole numbers from 0, but received 0.5/)
  expect(() => metrics.perClassAuc([0, 3], [0.5, 0.5, 0.5, 0.5])).toThrow(/labels below 2, but received 3/)
  expect(() => metrics.argmaxRows([1, 2, 3], 2)).toThrow(/rows of 2 scores/)
})
