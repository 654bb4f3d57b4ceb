import { describe, expect, it } from 'vitest'
import { BLANK, type Dataset, Problems, type Sample } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { ClassLabels } from '../../src/train/class-labels.js'
import { accuracyOf, areaUnderCurve, classMetrics } from '../../src/train/class-metrics.js'

const attributes = { sex: null, age: null, view: null, side: null }

function datasetOf(rows: readonly { label?: number | null; findings?: readonly number[] }[]): Dataset {
  const samples = rows.map(
    ({ label = null, findings }, row): Sample => ({
      row,
      path: `${row}.png`,
      patient: String(row),
      caption: null,
      promptPrefix: null,
      label,
      findings: findings === undefined ? null : Int8Array.from(findings),
      attributes,
    }),
  )
  const classes = ['a', 'b', 'c'].map((name) => ({ name, prompts: [name] }))
  const findings = rows[0]!.findings === undefined ? [] : ['x', 'y']
  return { kind: 'test', root: '/', findings, classes, samples, problems: new Problems(), hash: 'hash' }
}

const rules = { uncertain: 'exclude', blank: 'negative' } as const

describe('labels of a classifier', () => {
  it('are classes where images have one, else findings by the rules', () => {
    const single = ClassLabels.of(datasetOf([{ label: 1 }, { label: null }]), rules)
    expect([single.task, single.classes]).toEqual(['single', ['a', 'b', 'c']])
    const findings = datasetOf([{ findings: [1, 0] }, { findings: [-1, BLANK] }])
    const values = (more: object) => {
      const labels = ClassLabels.of(findings, { ...rules, ...more })
      expect(labels.task).toBe('multi')
      return findings.samples.map((sample) => labels.valuesOf(sample))
    }
    expect(values({})).toEqual([
      [1, 0],
      [-1, 0],
    ])
    expect(values({ uncertain: 'positive', blank: 'exclude' })[1]).toEqual([1, -1])
    expect(values({ uncertain: 'negative', findings: ['y', 'x'] })).toEqual([
      [0, 1],
      [0, 0],
    ])
  })

  it('leave out images that nothing is known of, and count what is', () => {
    const dataset = datasetOf([{ findings: [1, -1] }, { findings: [-1, BLANK] }, { findings: [0, 1] }])
    const labels = ClassLabels.of(dataset, { uncertain: 'exclude', blank: 'exclude' })
    const { samples, hash } = labels.labelled(dataset)
    expect(samples.map(({ row }) => row)).toEqual([0, 2])
    expect(hash).not.toBe(dataset.hash)
    const { targets, count } = labels.targetsOf(samples, 'cpu')
    expect(count).toBe(3)
    expect(targets.task === 'multi' && [targets.values.toArray(), targets.counted.toArray()]).toEqual([
      [
        [1, 0],
        [0, 1],
      ],
      [
        [1, 0],
        [1, 1],
      ],
    ])
  })

  it('of a small part lack no class, and are within those of a larger one', () => {
    // one image in a hundred is of the last class
    const dataset = datasetOf(Array.from({ length: 300 }, (_, k) => ({ label: k % 100 === 50 ? 2 : k % 2 })))
    const labels = ClassLabels.of(dataset, rules)
    const parts = [0.005, 0.01, 0.1, 0.5, 1].map((fraction) =>
      labels.labelled(dataset, { fraction }).samples.map(({ row }) => row),
    )
    expect(parts.map((part) => part.length)).toEqual([3, 3, 30, 150, 300])
    for (const [k, part] of parts.entries()) {
      expect(() => labels.checkExamples(part.map((row) => dataset.samples[row]!))).not.toThrow()
      expect(part.filter((row) => !(parts[k + 1] ?? part).includes(row))).toEqual([])
    }
    const other = labels.labelled(dataset, { fraction: 0.1, seed: 1 }).samples.map(({ row }) => row)
    expect(other).not.toEqual(parts[2])
    expect(labels.labelled(dataset, { fraction: 0.1, keepSize: true }).samples.length).toBe(300)
    const { weights } = labels.labelled(dataset, { balance: true })
    expect(weights!.reduce((sum, each, k) => sum + (k % 100 === 50 ? each : 0), 0)).toBeCloseTo(1, 12)
  })
})

describe('metrics in training', () => {
  it('have the area under the curve with ties and what is left out', () => {
    expect(areaUnderCurve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])).toBe(0.75)
    expect(areaUnderCurve([1, 1, 1, 1], [0, 1, 0, 1])).toBe(0.5)
    expect(areaUnderCurve([3, 2, 1, 9], [1, 0, 0, -1])).toBe(1)
    expect(areaUnderCurve([1, 2], [1, 1])).toBeNaN()
  })

  it('are those of the logits, whatever their size', () => {
    torch.scope(() => {
      const dataset = datasetOf([{ label: 0 }, { label: 1 }, { label: 1 }, { label: 0 }])
      const labels = ClassLabels.of(dataset, rules)
      const logits = torch.tensor([
        [300, 100, 0],
        [100, 301, 0],
        [299, 300, 0],
        [300, 299.5, 0],
      ])
      const { loss, accuracy, auc } = classMetrics(logits, labels, dataset.samples)
      expect(accuracy).toBe(100)
      expect(auc).toBe(1)
      expect(loss).toBeCloseTo((Math.log1p(Math.exp(-1)) + Math.log1p(Math.exp(-0.5))) / 4, 5)
      const findings = datasetOf([{ findings: [1, 0] }, { findings: [-1, 1] }])
      const multi = ClassLabels.of(findings, rules)
      const { targets } = multi.targetsOf(findings.samples, 'cpu')
      const scores = torch.tensor([
        [2, 1],
        [5, 1],
      ])
      expect(accuracyOf(scores, targets)).toBeCloseTo(200 / 3, 4)
    })
  })
})
