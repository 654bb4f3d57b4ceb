import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { CONTEXT_TEXT, contextVectors, wordsAfterContext } from '../../src/clip/context.js'
import { loadModel } from '../../src/clip/model-files.js'
import { load } from '../../src/eval/loaded-model.js'
import * as torch from '../../src/torch/index.js'
import type { TrainEvent } from '../../src/train/events.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
let from: string

beforeAll(async () => {
  data = await tiny(40, 2)
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
    await refused({ contextLength: 64 }).toThrow(/contextLength: expected room/)
    await refused({ batchSize: 10_000 }).toThrow(/batchSize: expected as many images/)
    const whole = await train({ ...tinyRun(data, 'whole'), peft: null, steps: 1 })
    await refused({ from: whole.checkpoint }).toThrow(/trained as a whole/)
    const prefix = await train({ ...tinyRun(data, 'prefix'), peft: { type: 'prefix', tokens: 3 }, steps: 1 })
    await refused({ from: prefix.checkpoint }).toThrow(/without virtual tokens/)
  })
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
