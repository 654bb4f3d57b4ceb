import { describe, expect, it } from 'vitest'
import { evaluateOnce } from '../../src/eval/bootstrap.js'
import { measure, overallIndex } from '../../src/eval/measures.js'
import { type Predictions, selectRows } from '../../src/eval/predictions.js'
import { ageBandOf } from '../../src/eval/subgroups.js'
import { type SummaryOptions, summarize } from '../../src/eval/summary.js'
import { classPredictions, findingPredictions, madeUpRetrieval, provenance } from './examples.js'

const summaryOf = (predictions: Predictions | null, options: Partial<SummaryOptions> = {}) =>
  summarize(predictions, { provenance: provenance(), resamples: 100, ...options })

/** Of other patients. */
function validationSet<P extends Predictions>(predictions: P): P {
  return { ...predictions, patients: predictions.patients.map((patient) => `validation-${patient}`) }
}

describe('a summary', () => {
  it('has every metric with its interval, per class, confusion, calibration and where it comes from', async () => {
    const predictions = classPredictions()
    const summary = await summaryOf(predictions)
    const values = evaluateOnce(measure(predictions), 400)
    for (const metric of ['accuracy', 'balancedAccuracy', 'auc', 'auprc', 'f1', 'brier', 'calibrationError'] as const) {
      const { value, low, high, resamples } = summary.metrics[metric]!
      expect(value).toBe(values[overallIndex(metric)])
      expect(low).toBeLessThan(high!)
      expect(resamples).toBe(100)
    }
    expect(summary.metrics).not.toHaveProperty('microAuc')
    expect(summary.perClass.map(({ positives, negatives }) => positives + negatives)).toEqual(Array(5).fill(400))
    expect(summary.confusion!.flat().reduce((a, b) => a + b)).toBe(400)
    expect(summary.calibration[0]!.bins.reduce((total, { samples }) => total + samples, 0)).toBe(400)
    expect(summary.operatingPoint).toEqual({ from: 'highest-score', rule: null })
    expect(summary.provenance).toEqual(provenance())
    // nothing that JSON has no word for
    expect(JSON.parse(JSON.stringify(summary))).toEqual(summary)
  })

  it('is the same again with the same seed, and has other intervals with another', async () => {
    const predictions = findingPredictions({ samples: 120 })
    const first = await summaryOf(predictions)
    expect(await summaryOf(predictions)).toEqual(first)
    const other = await summaryOf(predictions, { seed: 1 })
    expect(other.metrics.auc!.value).toBe(first.metrics.auc!.value)
    expect(other.metrics.auc!.low).not.toBe(first.metrics.auc!.low)
  })

  it('of one patient a row is narrower than of the real patients', async () => {
    const predictions = classPredictions()
    // alike within a patient: the same label and the same logits
    const first = predictions.patients.map((patient) => predictions.patients.indexOf(patient))
    const alike = { ...selectRows(predictions, first), paths: predictions.paths }
    const width = async (patients: readonly string[]) => {
      const { low, high } = (await summaryOf({ ...alike, patients }, { resamples: 400 })).metrics.accuracy!
      return high! - low!
    }
    expect(await width(predictions.paths)).toBeLessThan(0.9 * (await width(predictions.patients)))
  })

  it('has groups by sex, age and view, and says nothing of small ones', async () => {
    const predictions = classPredictions()
    const { subgroups } = await summaryOf(predictions)
    expect(subgroups.map(({ attribute }) => attribute)).toEqual(['sex', 'age', 'view'])
    for (const { groups } of subgroups) {
      expect(groups.reduce((total, { images }) => total + images, 0)).toBe(400)
      for (const { patients, metrics } of groups) expect(metrics === null).toBe(patients < 20)
    }
    const women = predictions.attributes.flatMap(({ sex }, row) => (sex === 'F' ? [row] : []))
    const own = subgroups[0]!.groups.find(({ name }) => name === 'female')!
    expect(own.metrics!.accuracy!.value).toBe(
      evaluateOnce(measure(selectRows(predictions, women)), women.length)[overallIndex('accuracy')],
    )
    const ages = subgroups[1]!.groups.map(({ name }) => name)
    expect(ages).toEqual(
      ['under 18', '18 to 39', '40 to 59', '60 to 79', '80 and over'].filter((n) => ages.includes(n)),
    )
    expect([17.9, 18, 79, 80, 130].map(ageBandOf)).toEqual([
      'under 18',
      '18 to 39',
      '60 to 79',
      '80 and over',
      '80 and over',
    ])
  })

  it('leaves out groups that the data does not know, and names those it half knows', async () => {
    const predictions = classPredictions()
    const attributes = predictions.attributes.map((each, k) => ({
      ...each,
      sex: null,
      view: k < 100 ? null : each.view,
      age: null,
    }))
    const { subgroups } = await summaryOf({ ...predictions, attributes })
    expect(subgroups.map(({ attribute }) => attribute)).toEqual(['view'])
    expect(subgroups[0]!.groups.map(({ name }) => name)).toEqual(['AP', 'PA', 'not known'])
  })

  it('takes thresholds from the validation set', async () => {
    const predictions = classPredictions()
    const validation = validationSet(classPredictions({ seed: 2, dataSeed: 3 }))
    const { perClass, operatingPoint } = await summaryOf(predictions, { validation, threshold: { sensitivity: 0.8 } })
    expect(operatingPoint).toEqual({ from: 'validation', rule: { sensitivity: 0.8 } })
    for (const { threshold, thresholdProbability, metrics } of perClass) {
      expect(thresholdProbability).toBeCloseTo(1 / (1 + Math.exp(-threshold!)), 12)
      expect(metrics.sensitivity.value).toBeGreaterThan(0.6)
    }
  })

  it('refuses a validation set that has the same patients, or other classes', async () => {
    const predictions = classPredictions()
    await expect(summaryOf(predictions, { validation: predictions })).rejects.toThrow(
      /patients that are not in the test set, but \d+ are/,
    )
    const others = validationSet(classPredictions({ classes: ['a', 'b', 'c'] }))
    await expect(summaryOf(predictions, { validation: others })).rejects.toThrow(/the test set's classes, Atelectasis/)
    const findings = validationSet(findingPredictions())
    await expect(summaryOf(predictions, { validation: findings })).rejects.toThrow(/same task/)
  })

  it('of retrieval alone', async () => {
    const retrieval = madeUpRetrieval(classPredictions().patients)
    const summary = await summaryOf(null, { retrieval })
    expect(summary).toMatchObject({ task: null, images: 400, metrics: {}, perClass: [], confusion: null })
    const { imageToTextR1, imageToTextR10, meanR1 } = summary.retrieval!.metrics
    expect(imageToTextR10.value).toBeGreaterThan(imageToTextR1.value!)
    expect(meanR1.low).toBeLessThan(meanR1.high!)
    await expect(summaryOf(null)).rejects.toThrow(/received neither/)
  })

  it('tells how far it is, to the end', async () => {
    const parts: number[] = []
    const retrieval = madeUpRetrieval(classPredictions().patients)
    await summaryOf(classPredictions(), { resamples: 2000, retrieval, onProgress: (part) => parts.push(part) })
    expect(parts.at(-1)).toBe(1)
    expect(parts).toEqual([...parts].sort((a, b) => a - b))
  })
})

describe('warnings', () => {
  it('are none for a test set that gives no reason', async () => {
    expect((await summaryOf(classPredictions({ samples: 600 }))).warnings).toEqual([])
  })

  it('name few patients, missing and rare classes, labels left out, and what has no width', async () => {
    const few = selectRows(classPredictions(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect((await summaryOf(few)).warnings.join('\n')).toMatch(/Patients in the test set: \d\. With fewer than 50/)
    const labels = classPredictions().labels.map((label) => (label === 4 ? 0 : label))
    const { warnings, metrics, perClass } = await summaryOf({ ...classPredictions(), labels })
    expect(warnings.join('\n')).toMatch(/leave out classes without both .*: Consolidation\./)
    expect(metrics.auc!.value).not.toBeNull()
    expect(perClass[4]!.metrics.auc).toEqual({ value: null, low: null, high: null, resamples: 0 })
    const rare = await summaryOf({ ...classPredictions(), labels: labels.map((label, k) => (k < 3 ? 4 : label)) })
    expect(rare.warnings.join('\n')).toMatch(/Fewer than 10 positive images: Consolidation \(\d\)/)
    expect(rare.warnings.join('\n')).toMatch(/More than one resample in twenty lacks a class/)
    expect((await summaryOf(findingPredictions())).warnings.join('\n')).toMatch(
      /uncertain or blank labels are left out/,
    )
    const perfect = classPredictions({ margin: 60, samples: 600 })
    expect((await summaryOf(perfect)).warnings.join('\n')).toMatch(/that is not certainty: Accuracy/)
  })

  it('say what scores that are no probabilities lack', async () => {
    const { warnings, metrics, calibration } = await summaryOf({ ...findingPredictions(), scale: 'score' })
    expect(warnings.join('\n')).toMatch(/nothing is called positive/)
    expect(warnings.join('\n')).toMatch(/no calibration/)
    expect(metrics).not.toHaveProperty('brier')
    expect(metrics.f1!.value).toBeNull()
    expect(calibration).toEqual([])
  })
})
