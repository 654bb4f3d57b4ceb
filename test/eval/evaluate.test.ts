import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { DecoderPool, openDataset } from '../../src/data/index.js'
import { writePhantoms } from '../../src/data/phantoms/index.js'
import { evaluate } from '../../src/eval/evaluate.js'
import { thresholdData } from '../../src/eval/evaluation-data.js'
import { mapExamples } from '../../src/eval/examples.js'
import { type LoadedModel, load } from '../../src/eval/loaded-model.js'
import type { EvaluateOptions } from '../../src/eval/options.js'
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

const spec = () => ({ ...data.data, split: 'all' as const })

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

  it('finds no one class where an ensemble’s texts are another’s', async () => {
    const prompts = { Edema: ['fluid', 'edema'], Atelectasis: ['collapse', 'edema'] }
    const data = { ...spec(), prompts }
    await expect(evaluate({ from: checkpoint, data, workers: 1 })).rejects.toThrow(
      /'Atelectasis', 'Edema' are the same/,
    )
  })

  it('leaves no tensor behind where a report cannot be written', async () => {
    const report = join(data.folder, 'blocked')
    mkdirSync(join(report, 'metrics.json', 'in the way'), { recursive: true })
    const options = { from: checkpoint, data: spec(), report, resamples: 5, workers: 1, images: false }
    for (const task of ['zero-shot', 'retrieval'] as const) {
      await expect(evaluate({ ...options, task })).rejects.toThrow(/metrics\.json/)
      const before = torch.memory.counters().live
      await expect(evaluate({ ...options, task })).rejects.toThrow(/metrics\.json/)
      expect(torch.memory.counters().live).toBe(before)
    }
  })

  it('looks at no image once more for a report without images', async () => {
    const decode = vi.spyOn(DecoderPool.prototype, 'prepare')
    const options = { from: checkpoint, data: spec(), report: join(data.folder, 'unseen'), resamples: 5, workers: 1 }
    const asked = async (images: boolean) => {
      decode.mockClear()
      const { summary } = await evaluate({ ...options, task: 'retrieval', images })
      return decode.mock.calls.length - summary.images
    }
    expect(await asked(false)).toBe(0)
    expect(await asked(true)).toBeGreaterThan(0)
    decode.mockRestore()
  })

  it('refuses options that it does not use', async () => {
    const refused = (more: object) =>
      expect(evaluate({ from: checkpoint, data: spec(), workers: 1, ...more } as EvaluateOptions)).rejects
    await refused({ task: 'retrieval', ensemble: 'max-logit', labels: 'multi' }).toThrow(
      /expected no labels, ensemble with the task 'retrieval'/,
    )
    await refused({ labels: 'single', blank: 'exclude' }).toThrow(/expected no blank with one class an image/)
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
    // before the test set, with progress of its own
    const parts: string[] = []
    await evaluate({ ...options, onProgress: (_, __, part) => parts.at(-1) === part || parts.push(part) })
    expect(parts).toEqual(['thresholds', 'test'])
  })

  it('says why it takes no thresholds from a validation part that is damaged, and refuses one that was named', async () => {
    const root = join(data.folder, 'damaged')
    mkdirSync(root)
    for (const folder of ['train', 'valid']) symlinkSync(join(data.data.root, folder), join(root, folder))
    for (const table of ['train.csv', 'test.csv']) copyFileSync(join(data.data.root, 'train.csv'), join(root, table))
    writeFileSync(join(root, 'valid.csv'), 'Path,Sex\nx.jpg,F\n')
    const options = { from: checkpoint, data: { ...data.data, root }, resamples: 5, workers: 1 }
    const onProgress = vi.fn()
    const { summary } = await evaluate(options)
    expect(summary.operatingPoint!.from).toBe('highest-score')
    expect(summary.warnings[0]).toMatch(/^No thresholds are from the data's validation part, .*valid\.csv/)
    const named = { ...options, validation: options.data, onProgress }
    await expect(evaluate(named)).rejects.toThrow(/valid\.csv/)
    // the same patients
    const same = { ...options, validation: { ...options.data, split: 'test' as const }, onProgress }
    await expect(evaluate(same)).rejects.toThrow(/validation: expected patients that are not in the test set/)
    expect(onProgress).not.toHaveBeenCalled()
  })

  it('takes as many validation images of a class at most as are tested', async () => {
    const splits = { fractions: { train: 0.2, valid: 0.2, test: 0.6 } }
    const whole = { ...(await embed()), split: 'test', splits, perClass: 1, views: null } as const
    const dataset = await openDataset({ ...whole, perClass: undefined })
    const { dataset: held, notes } = await thresholdData(whole, dataset, () => true, { from: '', data: whole })
    expect(notes).toEqual([])
    const labels = held!.samples.map(({ label }) => label)
    expect(new Set(labels).size).toBe(labels.length)
    const all = await openDataset({ ...whole, split: 'valid', perClass: undefined })
    expect(all.samples.length).toBeGreaterThan(labels.length)
    expect(held!.hash).not.toBe(all.hash)
  })
})

describe('maps', () => {
  it('are of the score that is shown: all prompts of a class, after the image’s own prefix', async () => {
    using model = await reading(300)
    const decoder = new DecoderPool({ workers: 1 })
    const mapsOf = async (prompts?: Record<string, string[]>) => {
      const dataset = await openDataset({ ...(await embed()), ...(prompts && { prompts }) })
      const result = await zeroShot(model, dataset, { decoder })
      const found = await mapExamples(model, result, { dataset, decoder }, 'mean-embedding')
      result.embeddings.dispose()
      return { prefix: dataset.samples.find(({ label }) => label !== null)!.promptPrefix, found }
    }
    const names = [1, 2, 3, 4].map((k) => `density ${k}`)
    const own = (more: string[]) =>
      Object.fromEntries(names.map((name) => [name, [name, ...more.map((each) => `${each} ${name}`)]]))
    const [one, two] = [await mapsOf(own([])), await mapsOf(own(['a whole other way to say']))]
    await decoder.close()
    const [first, second] = [one.found[0]!.maps[0]!, two.found[0]!.maps[0]!]
    expect(first.prompt.startsWith(one.prefix!)).toBe(true)
    expect(second.prompt).toBe(`${first.prompt} (and 1 more)`)
    expect([...second.heat.values]).not.toEqual([...first.heat.values])
  })

  it('of findings are against their negations', async () => {
    const dataset = await openDataset(spec())
    const decoder = new DecoderPool({ workers: 1 })
    const result = await zeroShot(model, dataset, { decoder, labels: 'multi' })
    const found = await mapExamples(model, result, { dataset, decoder }, 'mean-embedding')
    await decoder.close()
    result.embeddings.dispose()
    expect(found[0]!.maps[0]!.prompt).toMatch(/ with (.*), against: .* with no \1$/)
  })
})
