import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { checkpointFolder } from '../../src/train/checkpoint.js'
import type { StartEvent, TrainEvent } from '../../src/train/events.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { distinctPairs, type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
beforeAll(async () => {
  data = await tiny(20)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const eventsOf = async (options: object): Promise<TrainEvent[]> => {
  const events: TrainEvent[] = []
  for await (const event of train(options as TrainOptions)) events.push(event)
  return events
}
const lossesOf = (events: readonly TrainEvent[]) => events.flatMap((each) => (each.type === 'step' ? [each.loss] : []))

let runs = 0
const run = (change: object = {}) => {
  runs += 1
  return { ...tinyRun(data, `run-${runs}`), negatives: 'corpus', validation: null, ...change }
}

describe("negatives: 'corpus'", () => {
  it('is local where the batch holds every caption exactly once', async () => {
    const pairs = await distinctPairs(data, 10)
    const whole = { data: pairs, batchSize: 10, microBatch: 10, peft: { type: 'lora', dropout: 0 }, augment: false }
    const local = lossesOf(await eventsOf(run({ ...whole, negatives: 'local' })))
    expect(local.length).toBe(6)
    for (const change of [{}, { priors: true }, { targets: 'identity' }, { negatives: 'global' }]) {
      const losses = lossesOf(await eventsOf(run({ ...whole, ...change })))
      for (const [at, loss] of losses.entries()) expect(loss).toBeCloseTo(local[at]!, 3)
    }
  })

  it('learns in parts or whole, and resumes exactly', async () => {
    const options = run({ priors: true, microBatch: 4 })
    const losses = lossesOf(await eventsOf(options))
    rmSync(checkpointFolder(options.out, 6), { recursive: true })
    expect(lossesOf(await eventsOf({ ...options, resume: true }))).toEqual(losses.slice(4))
    const whole = lossesOf(await eventsOf(run({ priors: true, microBatch: 8 })))
    for (const [at, loss] of whole.entries()) expect(loss).toBeCloseTo(losses[at]!, 3)
    // shares that differ count
    expect(lossesOf(await eventsOf(run({ microBatch: 8 })))[0]).not.toBeCloseTo(whole[0]!, 3)
  })

  it('is in the figures of a step', async () => {
    const start = async (change: object) => {
      const [first] = await eventsOf(run({ steps: 1, ...change }))
      return first as StartEvent
    }
    const [all, local] = [await start({}), await start({ negatives: 'local' })]
    expect(all.figures!.texts.distinct).toBe(all.captions)
    expect(all.captions).toBeGreaterThan(local.figures!.texts.distinct)
    expect(all.figures!.texts.tokens).toBeGreaterThan(local.figures!.texts.tokens)
    expect(all.figures!.texts.paddedTokens).toBeGreaterThan(2 * all.figures!.texts.tokens)
    expect(all.figures!.flops.text).toBeGreaterThan(local.figures!.flops.text)
  })

  it('is refused with a reason where it would be slow', async () => {
    const refuse = (change: object) => expect(eventsOf(run(change))).rejects
    await refuse({ maximumCaptions: 5 }).toThrow(
      /5 distinct captions at most .* but the training set has \d+; raise max/,
    )
    await refuse({ text: { model: data.language, execution: 'padded' } }).toThrow(/'auto' or 'tree' .* 'padded'/)
    await refuse({ text: { model: data.language, ownDropout: true } }).toThrow(/without dropout of its own/)
    const bert = { model_type: 'bert', hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 330 }
    await refuse({ text: { model: bert, tokenizer: data.language }, peft: null }).toThrow(/bert sees to the right/)
    await refuse({ negatives: 'local', priors: true }).toThrow(/priors: expected negatives: 'corpus'/)
    await refuse({ negatives: 'all' }).toThrow(/negatives/)
  })

  it('takes a model with dropout of its own where captions may share what is drawn', async () => {
    const text = { model: data.language, execution: 'tree' }
    expect(lossesOf(await eventsOf(run({ text, peft: null, steps: 1 }))).length).toBe(1)
  })
})
