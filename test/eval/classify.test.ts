import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DatasetSpec, openDataset } from '../../src/data/index.js'
import { evaluate } from '../../src/eval/evaluate.js'
import { LoadedClassifier } from '../../src/eval/loaded-classifier.js'
import { type LoadedModel, load } from '../../src/eval/loaded-model.js'
import type { EvaluateOptions, EvaluationTask } from '../../src/eval/options.js'
import * as torch from '../../src/torch/index.js'
import { train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from '../train/tiny.js'

let data: Tiny
let spec: DatasetSpec & { kind: 'chexpert' }
const checkpoints = { pretrain: '', single: '', multi: '', tuned: '' }
const findings = ['Pleural Effusion', 'Support Devices', 'Cardiomegaly']

beforeAll(async () => {
  data = await tiny(60, 2)
  spec = { ...data.data, splits: { fractions: { train: 0.6, valid: 0.2, test: 0.2 } } }
  const run = { ...tinyRun(data, 'run'), data: spec, steps: 2, validation: null }
  checkpoints.pretrain = (await train(run)).checkpoint
  const started = {
    single: train({ ...probe(), out: join(data.folder, 'single') }),
    multi: train({ ...probe(), labels: 'multi' as const, findings, out: join(data.folder, 'multi') }),
    tuned: train({ ...probe(), stage: 'fine-tune', steps: 2, out: join(data.folder, 'tuned') }),
  }
  for (const name of ['single', 'multi', 'tuned'] as const) checkpoints[name] = (await started[name]).checkpoint
})

/** Of a linear probe. */
const probe = () => ({
  stage: 'linear-probe' as const,
  from: checkpoints.pretrain,
  workers: 1,
  validation: null,
  batchSize: 8,
  steps: 20,
  logEvery: 1000,
  checkpointEvery: 1000,
  optimizer: { lr: 1e-2 },
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const evaluated = (
  from: string,
  more: Partial<EvaluateOptions> & { task?: Exclude<EvaluationTask, 'retrieval'> } = {},
) => evaluate({ from, data: spec, workers: 1, resamples: 20, ...more })

const imageFile = async () => {
  const dataset = await openDataset(spec)
  return join(dataset.root, dataset.samples[0]!.path)
}

describe('a classifier', () => {
  it('is evaluated on the images with a class, in the data set’s order, with thresholds from validation', async () => {
    const { summary, predictions } = await evaluated(checkpoints.single, { task: 'linear-probe' })
    const test = await openDataset({ ...spec, split: 'test' })
    const labelled = test.samples.filter(({ label }) => label !== null)
    expect(predictions.paths).toEqual(labelled.map(({ path }) => path))
    expect([...predictions.labels]).toEqual(labelled.map(({ label }) => label))
    expect(predictions).toMatchObject({ task: 'multi-class', scale: 'logit' })
    expect(summary.provenance).toMatchObject({ evaluation: 'linear-probe', prompts: [], ensemble: null })
    expect(summary.operatingPoint).toEqual({ from: 'validation', rule: 'youden' })
    const without = await evaluated(checkpoints.single, { validation: null })
    expect(without.summary.operatingPoint).toEqual({ from: 'highest-score', rule: null })
    expect(without.predictions.scores).toEqual(predictions.scores)
  })

  it('of findings gives each its own score', async () => {
    const { summary, predictions } = await evaluated(checkpoints.multi)
    expect(predictions).toMatchObject({ task: 'multi-label', classes: findings })
    const test = await openDataset({ ...spec, split: 'test' })
    const columns = findings.map((name) => test.findings.indexOf(name))
    expect([...predictions.labels]).toEqual(
      test.samples.flatMap((sample) => columns.map((column) => sample.findings![column])),
    )
    expect(summary.perClass.map(({ name }) => name)).toEqual(findings)
  })

  it('on features of an encoder that hardly learned anything tells phantoms from their negatives', async () => {
    const root = join(data.folder, 'signs')
    const { samples, root: from } = await openDataset(spec)
    for (const [k, { path }] of samples.slice(0, 24).entries()) {
      const name = k % 2 === 0 ? 'positive' : 'negative'
      mkdirSync(join(root, name), { recursive: true })
      const image = sharp(join(from, path))
      await (k % 2 === 0 ? image : image.negate()).toFile(join(root, name, `patient${k}.png`))
    }
    const signs: DatasetSpec = { kind: 'folder', root, splits: { fractions: { train: 0.5, test: 0.5 } } }
    const { checkpoint } = await train({
      ...probe(),
      data: signs,
      steps: 200,
      batchSize: 4,
      out: join(data.folder, 'sign'),
    })
    const { summary } = await evaluated(checkpoint, { data: signs })
    expect(summary.task).toBe('binary')
    expect(summary.metrics.balancedAccuracy!.value!).toBeGreaterThan(0.8)
    expect(summary.metrics.auc!.value!).toBeGreaterThan(0.9)
  })

  it('is written into a report', async () => {
    const report = join(data.folder, 'report')
    await evaluated(checkpoints.multi, { report, images: false })
    expect(readdirSync(report)).toContain('report.html')
    await evaluated(checkpoints.tuned, { report: `${report}-2`, task: 'fine-tune' })
    expect(existsSync(join(`${report}-2`, 'metrics.json'))).toBe(true)
  })

  it('says without prompts which class an image is of', async () => {
    const file = await imageFile()
    using single = await load<LoadedClassifier>(checkpoints.single)
    const one = await single.predict(file)
    expect(Object.keys(one.probabilities)).toEqual(single.classes)
    expect(Object.values(one.probabilities).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6)
    expect(one.probabilities[one.label]).toBe(Math.max(...Object.values(one.probabilities)))
    using multi = await load<LoadedClassifier>(checkpoints.multi)
    const [first, second] = await multi.predict([file, file])
    expect(second).toEqual(first)
    expect(Object.keys(first!.probabilities)).toEqual(findings)
    for (const name of findings) {
      expect(first!.probabilities[name]).toBeCloseTo(1 / (1 + Math.exp(-first!.logits[name]!)), 6)
    }
    // the same as in an evaluation
    const { predictions } = await evaluated(checkpoints.multi, { data: { ...spec, split: 'train' } })
    expect(predictions.scores[0]).toBeCloseTo(first!.logits[findings[0]!]!, 4)
    const before = torch.memory.counters().live
    await multi.predict(file)
    // the collector may have found what an evaluation before left
    expect(torch.memory.counters().live).toBeLessThanOrEqual(before)
  })

  it('is refused for what it cannot do', async () => {
    await expect(evaluated(checkpoints.single, { task: 'zero-shot' })).rejects.toThrow(/one for 'linear-probe'/)
    await expect(evaluated(checkpoints.tuned, { task: 'linear-probe' })).rejects.toThrow(/one for 'fine-tune'/)
    await expect(evaluated(checkpoints.pretrain, { task: 'linear-probe' })).rejects.toThrow(/one for 'zero-shot'/)
    await expect(evaluated(checkpoints.single, { data: { ...spec, labels: 'all' } })).rejects.toThrow(
      /classes that .* was trained on/,
    )
    await expect(evaluated(checkpoints.multi, { labels: 'multi', ensemble: 'max-logit' })).rejects.toThrow(
      /expected no labels, ensemble with a checkpoint with a trained head/,
    )
    const model = (await load(checkpoints.single)) as LoadedModel
    expect(model).toBeInstanceOf(LoadedClassifier)
    await expect(model.predict(await imageFile(), ['edema', 'no finding'])).rejects.toThrow(/expected no prompts/)
    model.dispose()
  })
})
