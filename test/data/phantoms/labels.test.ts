import { describe, expect, it } from 'vitest'
import {
  FINDING_NAMES,
  FIVE_WAY,
  patientTendency,
  sampleLabels,
  sampleSingle,
} from '../../../src/data/phantoms/chexpert/labels.js'
import { BOTH_POSITIVE, FINDINGS, NO_FINDING, ROWS } from '../../../src/data/phantoms/chexpert/statistics.js'
import { bothAbove, cholesky, normalCdf, tetrachoric, thresholdOf } from '../../../src/data/phantoms/normal.js'
import { Random } from '../../../src/data/random.js'
import { BLANK, NEGATIVE, POSITIVE, UNCERTAIN } from '../../../src/data/sample.js'

describe('the normal distribution', () => {
  it('has its known values', () => {
    expect(normalCdf(0)).toBeCloseTo(0.5, 7)
    expect(normalCdf(1.959964)).toBeCloseTo(0.975, 6)
    expect(thresholdOf(0.025)).toBeCloseTo(1.959964, 4)
    // P(X > 0 and Y > 0) = 1/4 + asin(r) / 2π.
    expect(bothAbove(0, 0, 0.5)).toBeCloseTo(1 / 3, 6)
    expect(bothAbove(1, 1.5, 0)).toBeCloseTo((1 - normalCdf(1)) * (1 - normalCdf(1.5)), 8)
  })

  it('finds the correlation that a probability came from', () => {
    for (const correlation of [-0.6, -0.1, 0, 0.3, 0.8]) {
      expect(tetrachoric(0.4, 1.3, bothAbove(0.4, 1.3, correlation))).toBeCloseTo(correlation, 4)
    }
  })

  it('factors a matrix, and shrinks one that has no factor', () => {
    expect(
      cholesky([
        [1, 0.6],
        [0.6, 1],
      ])[1],
    ).toEqual([0.6, 0.8])
    const impossible = cholesky([
      [1, 0.9, 0.9],
      [0.9, 1, -0.9],
      [0.9, -0.9, 1],
    ])
    expect(impossible.flat().every(Number.isFinite)).toBe(true)
  })
})

describe('labels', () => {
  const studies = 40_000
  const labels = Array.from({ length: studies }, (_, index) => {
    const random = new Random(11, 'labels', index)
    return sampleLabels(random, patientTendency(random))
  })
  const share = (wanted: (study: Int8Array) => boolean) => labels.filter(wanted).length / studies

  it('have the order of the real table', () => {
    expect(FINDING_NAMES.slice(0, 4)).toEqual([
      'No Finding',
      'Enlarged Cardiomediastinum',
      'Cardiomegaly',
      'Lung Opacity',
    ])
    expect(FINDING_NAMES).toHaveLength(14)
  })

  it('are positive, uncertain and negative as often as in the real table', () => {
    expect(share((study) => study[0] === POSITIVE)).toBeCloseTo(NO_FINDING / ROWS, 1.8)
    for (const [index, { positive, uncertain, negative }] of FINDINGS.entries()) {
      expect(Math.abs(share((study) => study[index + 1] === POSITIVE) - positive / ROWS)).toBeLessThan(0.012)
      expect(Math.abs(share((study) => study[index + 1] === UNCERTAIN) - uncertain / ROWS)).toBeLessThan(0.012)
      expect(Math.abs(share((study) => study[index + 1] === NEGATIVE) - negative / ROWS)).toBeLessThan(0.02)
    }
  })

  it('are positive together as often as in the real table', () => {
    for (const [first, pairs] of BOTH_POSITIVE.entries()) {
      for (const [second, together] of pairs.entries()) {
        const found = share((study) => study[first + 1] === POSITIVE && study[second + 1] === POSITIVE)
        expect(Math.abs(found - together / ROWS)).toBeLessThan(0.008)
      }
    }
  })

  it('say No Finding only where nothing but devices is positive or uncertain', () => {
    for (const study of labels) {
      if (study[0] !== POSITIVE) continue
      for (const [index, name] of FINDING_NAMES.entries()) {
        if (index > 0 && name !== 'Support Devices') expect([NEGATIVE, BLANK]).toContain(study[index])
      }
    }
  })

  it('of a patient resemble each other', () => {
    const effusion = FINDING_NAMES.indexOf('Pleural Effusion')
    const same = Array.from({ length: 4000 }, (_, index) => {
      const random = new Random(12, index)
      const tendency = patientTendency(random)
      const [first, second] = [sampleLabels(random, tendency), sampleLabels(random, tendency)]
      return first[effusion] === second[effusion]
    })
    const unrelated = labels.slice(1).filter((study, index) => study[effusion] === labels[index]![effusion])
    expect(same.filter(Boolean).length / same.length).toBeGreaterThan(unrelated.length / (studies - 1) + 0.08)
  })

  it('of a five-way image have one positive and nothing uncertain', () => {
    for (const [index, name] of FIVE_WAY.entries()) {
      const single = sampleSingle(new Random(13, index), name)
      expect(FINDING_NAMES.filter((_, at) => single[at] === POSITIVE)).toEqual([name])
      expect([...single]).not.toContain(UNCERTAIN)
    }
  })
})
