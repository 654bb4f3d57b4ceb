import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CONTEXT_TEXT, contextVectors, wordsAfterContext } from '../../src/clip/context.js'
import { loadModel } from '../../src/clip/model-files.js'
import { type DatasetSpec, DecoderPool, openDataset } from '../../src/data/index.js'
import { writePhantoms } from '../../src/data/phantoms/index.js'
import { load } from '../../src/eval/loaded-model.js'
import type { Predictions } from '../../src/eval/predictions.js'
import { zeroShot } from '../../src/eval/zero-shot.js'
import * as torch from '../../src/torch/index.js'
import { ClassLabels } from '../../src/train/class-labels.js'
import type { TrainEvent } from '../../src/train/events.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
let from: string

beforeAll(async () => {
  data = await tiny(40, 2, 400)
  from = (await train({ ...tinyRun(data, 'pretrain'), steps: 12 })).checkpoint
}, 120_000)
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const base = (out: string, more: object = {}): TrainOptions => ({
  stage: 'prompt',
  from,
  contextLength: 7,
  batchSize: 8,
  steps: 6,
  optimizer: { lr: 0.05, warmupSteps: 0 },
  logEvery: 1,
  checkpointEvery: 2,
  workers: 1,
  out: join(data.folder, out),
  ...more,
})

async function eventsOf(options: TrainOptions, signal?: AbortSignal): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  for await (const event of train(options, signal ? { signal } : {})) events.push(event)
  return events
}
const curve = (events: readonly TrainEvent[]) =>
  events.flatMap((event) => (event.type === 'step' ? [[event.step, event.loss, event.gradientNorm]] : []))

/** A checkpoint's tensors, on their own memory. */
function stateOf(folder: string): Map<string, torch.Tensor> {
  using file = torch.openSafetensors(join(folder, 'trainable.safetensors'))
  return new Map(file.names.map((name) => [name, torch.keep(file.tensor(name).clone())]))
}

function differing(a: string, b: string): string[] {
  const [before, after] = [stateOf(a), stateOf(b)]
  return [...after.keys()]
    .filter((name) => !(before.has(name) && torch.equal(before.get(name)!, after.get(name)!)))
    .sort()
}

describe('the prompt stage', () => {
  it('classification trains the context alone, from the words of the template', async () => {
    const events = await eventsOf(base('classification'))
    const start = events.find((event) => event.type === 'start')!
    expect(start).toMatchObject({ trainable: 7 * 32, captions: 5 })
    const folder = join(data.folder, 'classification', 'checkpoints', 'step-00000006')
    expect(differing(from, folder)).toEqual(['text_adapters.context.prompt_embeddings'])
  })

  it('lowers the loss of the images that it learns from', async () => {
    const events = await eventsOf(
      base('learns', { steps: 120, logEvery: 30, optimizer: { type: 'adamw', lr: 0.1, warmupSteps: 0 } }),
    )
    const losses = curve(events).map(([, loss]) => loss!)
    expect(losses.at(-1)).toBeLessThan(losses[0]! - 0.01)
  })

  it("starts from the template's token embeddings, over and over", async () => {
    const { checkpoint } = await train(
      base('still', { steps: 1, optimizer: { lr: 1e-30, lrMin: 0, weightDecay: 0, warmupSteps: 0 } }),
    )
    using model = await load(checkpoint)
    const [ids] = await model.tokenizer.encode([CONTEXT_TEXT])
    torch.scope(() => {
      const words = model.model.text as unknown as { wordEmbeddings(): torch.nn.Embedding }
      const index = torch.tensor(
        Array.from({ length: 7 }, (_, k) => ids![k % ids!.length]!),
        { dtype: 'int64' },
      )
      const wanted = words.wordEmbeddings().weight.indexSelect(0, index)
      expect(contextVectors(model.model).sub(wanted).abs().max().item()).toBeLessThan(1e-12)
    })
  })

  it('scores classes by the context before their words', async () => {
    const { checkpoint } = await train(base('scores'))
    using model = await load(checkpoint)
    expect(model.contextLength).toBe(7)
    const both = await model.encodeText([`${CONTEXT_TEXT}edema`, 'edema'])
    const ids = await model.tokenizer.encode([' edema'])
    torch.scope(() =>
      torch.noGrad(() => {
        // by hand: vectors, words, and a position after them, through the language model below
        const adapted = model.model.text as unknown as {
          model: { forward(input: object): { lastHidden: torch.Tensor } }
          wordEmbeddings(): torch.nn.Embedding
        }
        const row = torch.tensor([...ids[0]!, model.model.encoding.padToken!], { dtype: 'int64' })
        const embeddings = torch.cat(
          [contextVectors(model.model), adapted.wordEmbeddings().weight.indexSelect(0, row)],
          0,
        )
        const inputEmbeddings = embeddings.unsqueeze(0)
        const n = inputEmbeddings.size(1)
        const attentionMask = torch.cat([torch.ones(1, n - 1), torch.zeros(1, 1)], 1).to('int64')
        const positionIds = torch.arange(n).unsqueeze(0)
        const { lastHidden } = adapted.model.forward({ inputEmbeddings, attentionMask, positionIds })
        const wanted = model.model.projectText(lastHidden.select(1, n - 1))
        expect(both.at('0:1').sub(wanted).abs().max().item()).toBeLessThan(1e-5)
        expect(both.at(0).sub(both.at(1)).abs().max().item()).toBe(0)
      }),
    )
    both.dispose()
  })

  it('contrastive trains the context, the image encoder, its projection and the temperature', async () => {
    const events = await eventsOf(base('contrastive', { objective: 'contrastive', microBatch: 4 }))
    expect(curve(events).length).toBe(6)
    const folder = join(data.folder, 'contrastive', 'checkpoints', 'step-00000006')
    const changed = new Set(differing(from, folder).map((name) => name.split('.')[0]))
    expect([...changed].sort()).toEqual(['image', 'image_projection', 'logit_scale', 'text_adapters'])
    expect(differing(from, folder).filter((name) => name.startsWith('text_adapters'))).toEqual([
      'text_adapters.context.prompt_embeddings',
    ])
  })

  it.each(['classification', 'contrastive'])('%s goes on exactly where it was stopped', async (objective) => {
    const whole = curve(await eventsOf(base(`${objective}-whole`, { objective })))
    const options = base(`${objective}-stopped`, { objective })
    const stop = new AbortController()
    const before: TrainEvent[] = []
    await expect(
      (async () => {
        for await (const event of train(options, { signal: stop.signal })) {
          before.push(event)
          if (event.type === 'step' && event.step === 3) stop.abort(new Error('enough'))
        }
      })(),
    ).rejects.toThrow('enough')
    const after = curve(await eventsOf({ ...options, resume: true } as TrainOptions))
    const started = after[0]![0]!
    expect([...curve(before).filter(([step]) => step! < started), ...after]).toEqual(whole)
  })

  it('learns from a part of the labelled images, every class as often; and a probe goes on from it', async () => {
    const options = base('part', { data: { fraction: 0.01, balance: true }, batchSize: 5, steps: 1, validation: null })
    const events = await eventsOf(options)
    expect(events.find((event) => event.type === 'start')).toMatchObject({ images: 5, captions: 5 })
    const checkpoint = events.findLast((event) => event.type === 'checkpoint')!.folder
    const probe = { stage: 'linear-probe', from: checkpoint, batchSize: 8, steps: 1, workers: 1 } as const
    await train({ ...probe, out: join(data.folder, 'probe'), data: { fraction: 1 } })
  })

  it('learns findings against their negations', async () => {
    const events = await eventsOf(
      base('multi', { labels: 'multi', findings: ['Edema', 'Cardiomegaly'], data: { labels: 'all' } }),
    )
    expect(events.find((event) => event.type === 'start')).toMatchObject({ captions: 4 })
    expect(curve(events).every(([, loss]) => loss! > 0)).toBe(true)
  })

  it('is refused before the first step where it cannot be', async () => {
    const refused = (more: object) => expect(train(base('refused', more)).then(() => 'done')).rejects
    await refused({ from: join(data.folder, 'nowhere') }).toThrow(/from: expected a checkpoint/)
    await refused({ contextLength: 400 }).toThrow(/contextLength: expected room/)
    await refused({ batchSize: 10_000 }).toThrow(/batchSize: expected as many images/)
    const whole = await train({ ...tinyRun(data, 'whole'), peft: null, steps: 1 })
    await refused({ from: whole.checkpoint }).toThrow(/trained as a whole/)
    const tuned = await train(base('tuned', { steps: 1 }))
    await refused({ from: tuned.checkpoint }).toThrow(
      /from: expected a checkpoint without a learned context.* 7 vectors/,
    )
    const head = { stage: 'linear-probe', from, batchSize: 8, steps: 1, workers: 1 } as const
    const { checkpoint } = await train({ ...head, out: join(data.folder, 'head') })
    await refused({ from: checkpoint }).toThrow(/from: expected a checkpoint of pre-training, but .* is a classifier/)
    const some = { labels: 'multi', data: { labels: 'all' } }
    await refused({ ...some, findings: ['Edema', 'No Finding'] }).toThrow(/can be denied, but received 'No Finding'/)
    await refused({ findings: ['Edema'] }).toThrow(/findings: expected labels: 'multi'/)
    await refused({ microBatch: 2 }).toThrow(/expected no microBatch with the objective 'classification'/)
    await refused({ objective: 'contrastive', labels: 'multi' }).toThrow(
      /expected no labels with the objective 'contrastive'/,
    )
    const prompts = Object.fromEntries(['Edema', 'Atelectasis'].map((name) => [name, [`${'a '.repeat(70)}${name}`]]))
    await refused({ data: { prompts } }).toThrow(/tell classes apart within the 63 tokens .* 'Atelectasis', 'Edema'/)
    const prefix = await train({ ...tinyRun(data, 'prefix'), peft: { type: 'prefix', tokens: 3 }, steps: 1 })
    await refused({ from: prefix.checkpoint }).toThrow(/without virtual tokens/)
  })
})

describe('what the prompt stage learns is what evaluation asks', () => {
  let long: string
  beforeAll(async () => {
    const text = { model: data.language, maximumLength: 300 }
    long = (await train({ ...tinyRun(data, 'long'), text, steps: 2 })).checkpoint
    for (const kind of ['embed', 'rsna'] as const) {
      await writePhantoms({ kind, out: join(data.folder, kind), patients: 12, seed: 2, workers: 1 })
    }
  }, 120_000)

  /** The loss of all labelled images before anything is learned, and the same from zero-shot's scores. */
  async function losses(own: object, more: LabelOptionsOf = {}): Promise<[number, number]> {
    const rules = { uncertain: 'exclude', blank: 'negative', ...more } as const
    const spec = { split: 'all', ...own } as DatasetSpec
    const dataset = await openDataset(spec)
    const labels = ClassLabels.of(dataset, { ...rules, isNegated: true })
    const images = labels.labelled(dataset).samples.length
    const out = join(data.folder, `agree-${Math.random()}`)
    const events = await eventsOf({
      ...base('', { from: long, validation: null, ...more, data: spec }),
      ...{ out, steps: 1, batchSize: images, optimizer: { lr: 1e-30, lrMin: 0, weightDecay: 0, warmupSteps: 0 } },
    } as TrainOptions)
    const { folder } = events.findLast((event) => event.type === 'checkpoint')!
    using model = await load(folder)
    const decoder = new DecoderPool({ workers: 1 })
    const { predictions, embeddings } = await zeroShot(model, dataset, {
      decoder,
      ...(more.labels && { labels: more.labels }),
    }).finally(() => decoder.close())
    embeddings.dispose()
    return [curve(events)[0]![1]!, lossOf(predictions, labels.classes, rules)]
  }

  it('of mammograms after what is known of each image', async () => {
    const [learned, asked] = await losses({ kind: 'embed', root: join(data.folder, 'embed'), labels: 'density' })
    expect(learned).toBeCloseTo(asked, 4)
  })

  it('of RSNA, whose classes are two', async () => {
    const [learned, asked] = await losses({ kind: 'rsna', root: join(data.folder, 'rsna') })
    expect(learned).toBeCloseTo(asked, 4)
  })

  it.each([
    ['exclude', 'negative'],
    ['positive', 'exclude'],
    ['negative', 'exclude'],
  ] as const)('of findings, uncertain ones %s, blank ones %s, by their own prompts', async (uncertain, blank) => {
    const findings = ['Edema', 'Pleural Effusion', 'Cardiomegaly']
    const prompts = { Edema: ['fluid: edema of the lungs'], Cardiomegaly: ['heart: cardiomegaly'] }
    const own = { ...data.data, labels: 'all', prompts }
    const [learned, asked] = await losses(own, { labels: 'multi', findings, uncertain, blank })
    expect(learned).toBeCloseTo(asked, 4)
    const [other] = await losses({ ...own, prompts: {} }, { labels: 'multi', findings, uncertain, blank })
    expect(Math.abs(other - learned)).toBeGreaterThan(1e-4)
  })
})

type LabelOptionsOf = Partial<Pick<Parameters<typeof ClassLabels.of>[1], 'findings' | 'uncertain' | 'blank' | 'labels'>>

/** Cross-entropy over the classes; of findings the mean of each against its negation. */
function lossOf(
  { task, classes, scores, labels }: Predictions,
  chosen: readonly string[],
  { uncertain, blank }: { uncertain: string; blank: string },
): number {
  const C = classes.length
  const all: number[] = []
  const counted: Record<number, string> = { 1: 'positive', 0: 'negative', [-1]: uncertain, [-2]: blank }
  for (let row = 0; row < scores.length / C; row += 1) {
    const own = [...scores.subarray(row * C, (row + 1) * C)]
    if (task !== 'multi-label') {
      const highest = Math.max(...own)
      const sum = own.reduce((total, score) => total + Math.exp(score - highest), 0)
      all.push(highest + Math.log(sum) - own[labels[row]!]!)
      continue
    }
    for (const name of chosen) {
      const k = classes.indexOf(name)
      const value = counted[labels[row * C + k]!]
      if (value !== 'exclude') all.push(Math.log1p(Math.exp(value === 'positive' ? -own[k]! : own[k]!)))
    }
  }
  return all.reduce((sum, each) => sum + each, 0) / all.length
}

it('goes on only from what it began with', async () => {
  const start = join(data.folder, 'start')
  cpSync(from, start, { recursive: true })
  const options = base('begun', { from: start, steps: 4 })
  const stop = new AbortController()
  const job = train(options, { signal: stop.signal })
  for await (const event of job) if (event.type === 'step' && event.step === 2) break
  stop.abort(new Error('enough'))
  await expect(job).rejects.toThrow('enough')
  const weights = join(start, 'trainable.safetensors')
  const before = readFileSync(weights)
  const changed = Buffer.from(before)
  changed[changed.length - 1]! ^= 1
  writeFileSync(weights, changed)
  const again = { ...options, resume: true } as TrainOptions
  await expect(train(again).then(() => 'done')).rejects.toThrow(
    /resume: expected the checkpoint .* '.*start' was changed/,
  )
  writeFileSync(weights, before)
  await train(again)
})

it('texts after a context have no template, and a space before them', () => {
  expect(wordsAfterContext('this is a chest x ray of a patient with edema')).toBe(' edema')
  expect(wordsAfterContext('edema')).toBe(' edema')
})

it('the frozen language model is not in the checkpoint', async () => {
  const { checkpoint } = await train(base('small'))
  using model = await loadModel(checkpoint)
  expect([...stateOf(checkpoint).keys()].some((name) => name.startsWith('text.'))).toBe(false)
  expect(model.encoding.maximumLength).toBeLessThanOrEqual(63)
})
