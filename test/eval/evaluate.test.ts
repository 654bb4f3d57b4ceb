import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { DecoderPool, openDataset } from '../../src/data/index.js'
import { writePhantoms } from '../../src/data/phantoms/index.js'
import { evaluate } from '../../src/eval/evaluate.js'
import { type LoadedModel, load } from '../../src/eval/loaded-model.js'
import { zeroShot } from '../../src/eval/zero-shot.js'
import * as torch from '../../src/torch/index.js'
import { train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from '../train/tiny.js'

let data: Tiny
let checkpoint: string
let model: LoadedModel
beforeAll(async () => {
  data = await tiny(40, 1, 400)
  checkpoint = (await train({ ...tinyRun(data, 'run'), steps: 2 })).checkpoint
  model = await load(checkpoint)
})
afterAll(() => {
  model?.dispose()
  rmSync(data.folder, { recursive: true, force: true })
})

const firstImage = () => {
  const patients = join(data.data.root, 'train')
  const patient = join(patients, readdirSync(patients).sort()[0]!)
  const study = join(patient, readdirSync(patient)[0]!)
  return join(study, readdirSync(study)[0]!)
}

describe('a loaded model', () => {
  it('says which prompt fits an image, from a file, its bytes, and several at once', async () => {
    const file = firstImage()
    const prompts = ['edema', 'no finding', 'pneumothorax']
    const one = await model.predict(file, prompts)
    expect(prompts).toContain(one.label)
    expect(Object.keys(one.probabilities)).toEqual(prompts)
    expect(Object.values(one.probabilities).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6)
    const [other, again] = await model.predict([readFileSync(file), file], prompts)
    expect(again).toEqual(other)
    for (const name of prompts) expect(other!.logits[name]).toBeCloseTo(one.logits[name]!, 4)
  })

  it('gives embeddings of length 1, and ensembles that agree for one prompt', async () => {
    using image = await model.encodeImage([firstImage(), firstImage()])
    using text = await model.encodeText(['edema', 'pleural effusion'])
    expect(image.shape).toEqual([2, 16])
    for (const each of [image, text])
      for (const norm of each.norm({ dim: 1 } as never).toArray() as number[]) expect(norm).toBeCloseTo(1, 5)
    const classes = [
      { name: 'a', prompts: ['edema'] },
      { name: 'b', prompts: ['no finding'] },
    ]
    const kinds = ['mean-embedding', 'mean-logit', 'max-logit'] as const
    const [first, ...rest] = await Promise.all(
      kinds.map((ensemble) => model.predict(firstImage(), classes, { ensemble })),
    )
    for (const each of rest) expect(each.logits.a).toBeCloseTo(first!.logits.a!, 4)
  })

  it('refuses in words what it cannot answer', async () => {
    await expect(model.predict(firstImage(), ['edema'])).rejects.toThrow(/two or more different prompts/)
    await expect(model.predict(firstImage(), ['edema', 'edema'])).rejects.toThrow(/two or more different prompts/)
    await expect(model.predict(join(data.folder, 'none.png'), ['a', 'b'])).rejects.toThrow(/none.png/)
    await expect(model.encodeText([])).rejects.toThrow(/one text at least/)
    await expect(model.encodeImage([])).rejects.toThrow(/one image at least/)
    await expect(load(data.folder)).rejects.toThrow(/config.json/)
  })

  it('leaves no tensor behind', async () => {
    await model.predict(firstImage(), ['edema', 'no finding'])
    const before = torch.memory.counters().live
    await model.predict(firstImage(), ['edema', 'no finding'])
    expect(torch.memory.counters().live).toBe(before)
  })
})

describe('zero-shot', () => {
  const spec = () => ({ ...data.data, split: 'all' as const })

  it('scores every image that is of one class as predict does, whatever the batch', async () => {
    const dataset = await openDataset(spec())
    const decoder = new DecoderPool({ workers: 1 })
    const { predictions, embeddings } = await zeroShot(model, dataset, { decoder, batchSize: 3 })
    const other = await zeroShot(model, dataset, { decoder, batchSize: 64 })
    await decoder.close()
    const labelled = dataset.samples.filter(({ label }) => label !== null)
    expect(predictions.paths).toEqual(labelled.map(({ path }) => path))
    expect(embeddings.shape).toEqual([labelled.length, 16])
    for (const [k, score] of other.predictions.scores.entries()) expect(score).toBeCloseTo(predictions.scores[k]!, 3)
    const { logits } = await model.predict(join(dataset.root, labelled[0]!.path), dataset.classes)
    for (const [k, { name }] of dataset.classes.entries()) expect(predictions.scores[k]).toBeCloseTo(logits[name]!, 3)
    torch.dispose([embeddings, other.embeddings])
  })

  const embed = async (style: 'default' | 'natural' | 'structural' = 'default') => {
    const root = join(data.folder, 'embed')
    if (!existsSync(root)) await writePhantoms({ kind: 'embed', out: root, patients: 4, seed: 2, workers: 1 })
    return { kind: 'embed', root, split: 'all', labels: 'density', captions: { style } } as const
  }

  /** Reads texts of another length. */
  const reading = async (maximumLength: number) => {
    const model = await load(checkpoint)
    model.model.encoding.maximumLength = maximumLength
    return model
  }

  it('puts an image’s own prefix before each prompt (EMBED)', async () => {
    using model = await reading(300)
    const dataset = await openDataset(await embed())
    expect(dataset.samples.every(({ promptPrefix }) => promptPrefix !== null)).toBe(true)
    const decoder = new DecoderPool({ workers: 1 })
    const { predictions, embeddings } = await zeroShot(model, dataset, { decoder, batchSize: 4 })
    await decoder.close()
    const { path, promptPrefix } = dataset.samples.find(({ label }) => label !== null)!
    const own = dataset.classes.map(({ name, prompts }) => ({
      name,
      prompts: prompts.map((each) => `${promptPrefix} ${each}`),
    }))
    const { logits } = await model.predict(join(dataset.root, path), own)
    const row = predictions.paths.indexOf(path)
    for (const [k, { name }] of dataset.classes.entries()) {
      expect(predictions.scores[row * dataset.classes.length + k]).toBeCloseTo(logits[name]!, 3)
    }
    expect(new Set(Object.values(logits)).size).toBe(dataset.classes.length)
    embeddings.dispose()
  })

  it.each(['natural', 'structural'] as const)(
    'refuses classes whose prompts after the prefix (%s) are the same where they are cut, before the work',
    async (style) => {
      using model = await reading(64)
      const dataset = await openDataset(await embed(style))
      const onProgress = vi.fn()
      await expect(zeroShot(model, dataset, { onProgress })).rejects.toThrow(
        /tell classes apart within the 64 tokens .* 'density 1', 'density 2', 'density 3', 'density 4' .* text\.maximumLength/,
      )
      expect(onProgress).not.toHaveBeenCalled()
      const long = 'a mammogram '.repeat(40)
      await expect(model.predict(firstImage(), [`${long}dense`, `${long}fatty`])).rejects.toThrow(/tell classes apart/)
    },
  )

  it('goes from a checkpoint to a report on disk', async () => {
    const report = join(data.folder, 'report')
    const {
      summary,
      predictions,
      report: written,
    } = await evaluate({
      from: checkpoint,
      task: 'zero-shot',
      data: spec(),
      report,
      resamples: 50,
      workers: 1,
    })
    expect(summary.images).toBe(predictions.paths.length)
    expect(summary.metrics.accuracy!.value).toBeGreaterThanOrEqual(0)
    expect(summary.provenance.checkpoint!.sha256).toMatch(/^[0-9a-f]{64}$/)
    expect(summary.provenance.prompts.length).toBe(5)
    expect(existsSync(written!.html)).toBe(true)
    const again = await evaluate({ from: checkpoint, task: 'zero-shot', data: spec(), resamples: 50, workers: 1 })
    expect(again.summary).toEqual(summary)
    await expect(evaluate({ from: checkpoint, task: 'guess' as never, data: spec() })).rejects.toThrow(/"zero-shot"/)
    await expect(evaluate({ from: checkpoint, data: spec(), reports: 'r' } as never)).rejects.toThrow(/reports/)
    // retrieval examples both ways, and maps of gradient and attention, are in the report; no picture where none may be
    const page = readFileSync(written!.html, 'utf8')
    expect(page.match(/Image to text:/g)!.length).toBeGreaterThan(1)
    expect(page.match(/Map of gradient/g)!.length).toBeGreaterThan(1)
    expect(page.match(/Map of attention/g)!.length).toBeGreaterThan(1)
    const bare = join(data.folder, 'bare')
    await evaluate({ from: checkpoint, data: spec(), report: bare, images: false, resamples: 20, workers: 1 })
    expect(readFileSync(join(bare, 'report.html'), 'utf8')).not.toMatch(/image\/jpeg/)
  })

  it('refuses a report where none can be written, before the work', async () => {
    let seen = 0
    const onProgress = () => {
      seen += 1
    }
    const options = { from: checkpoint, data: spec(), workers: 1, onProgress }
    await expect(evaluate({ ...options, report: '/proc/nowhere' })).rejects.toThrow(/expected a folder for a report/)
    expect(seen).toBe(0)
  })

  it('retrieves alone', async () => {
    const report = join(data.folder, 'retrieval')
    const options = { from: checkpoint, data: spec(), report, resamples: 20, workers: 1 }
    const { summary, predictions } = await evaluate({ ...options, task: 'retrieval' })
    expect(predictions).toBeNull()
    expect(summary.retrieval!.metrics.imageToTextR1!.value).toBeGreaterThanOrEqual(0)
    expect(existsSync(join(report, 'report.html'))).toBe(true)
  })

  it('asks for each of several findings by it and its negation', async () => {
    const { summary, predictions } = await evaluate({
      from: checkpoint,
      data: spec(),
      labels: 'multi',
      resamples: 20,
      workers: 1,
    })
    expect(summary.task).toBe('multi-label')
    // 'no no finding' is nothing to ask for
    expect(predictions.classes).not.toContain('No Finding')
    expect(summary.provenance.prompts[4]!.negations).toEqual([expect.stringMatching(/ with no /)])
    expect(predictions.scale).toBe('logit')
    using model = await load(checkpoint)
    const name = predictions.classes[4]!.toLowerCase()
    const template = 'this is a chest x ray of a patient with'
    const { logits } = await model.predict(join(data.data.root, predictions.paths[0]!), [
      `${template} ${name}`,
      `${template} no ${name}`,
    ])
    const [yes, no] = Object.values(logits)
    expect(predictions.scores[4]).toBeCloseTo(yes! - no!, 3)
  })

  it('takes thresholds from the validation part', async () => {
    const { root } = spec() as { root: string }
    const drawn = {
      kind: 'chexpert',
      root,
      holdout: null,
      splits: { fractions: { train: 0.4, valid: 0.3, test: 0.3 } },
    } as const
    const options = { from: checkpoint, data: drawn, labels: 'multi', resamples: 20, workers: 1 } as const
    const { summary } = await evaluate(options)
    expect(summary.operatingPoint!.from).toBe('validation')
    expect(summary.provenance.settings.validation).toMatch(/^[0-9a-f]{64}$/)
    const own = await evaluate({ ...options, validation: drawn })
    expect(own.summary.provenance.settings.validation).toBe(summary.provenance.settings.validation)
    expect((await evaluate({ ...options, validation: null })).summary.operatingPoint!.from).toBe('probability-0.5')
  })
})
