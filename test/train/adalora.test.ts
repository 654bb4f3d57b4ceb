import { cpSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel } from '../../src/clip/model-files.js'
import * as torch from '../../src/torch/index.js'
import { checkpointFolder } from '../../src/train/checkpoint.js'
import type { TrainEvent } from '../../src/train/events.js'
import { parseOptions, type TrainOptions, train } from '../../src/train/train.js'
import { numbersOf } from '../models/reference.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
let options: TrainOptions & { out: string }
let whole: TrainEvent[]
const [steps, tinit, tfinal] = [9, 2, 3]

const eventsOf = async (given: TrainOptions): Promise<TrainEvent[]> => {
  const events: TrainEvent[] = []
  for await (const event of train(given)) events.push(event)
  return events
}
const curve = (events: readonly TrainEvent[]) =>
  events.flatMap((event) => (event.type === 'step' ? [[event.step, event.loss, event.gradientNorm]] : []))

beforeAll(async () => {
  data = await tiny(20)
  options = {
    ...tinyRun(data, 'ranks'),
    peft: { type: 'adalora', initR: 4, targetR: 2, tinit, tfinal, dropout: 0.1 },
    optimizer: { lr: 1e-2, weightDecay: 0 },
    ema: { decay: 0.9 },
    steps,
    checkpointEvery: 1,
    keep: steps,
    validation: null,
  } as TrainOptions & { out: string }
  whole = await eventsOf(options)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

/** Which triplets the adapter of a checkpoint says are kept. */
function patternOf(step: number): Record<string, boolean[]> | null {
  const path = join(checkpointFolder(options.out, step), 'config.json')
  const { text } = JSON.parse(readFileSync(path, 'utf8')) as {
    text: { adapters: { default: { rank_pattern: Record<string, boolean[]> | null } } }
  }
  return text.adapters.default.rank_pattern
}
const keptAt = (step: number) =>
  Object.values(patternOf(step) ?? {})
    .flat()
    .filter(Boolean).length

describe('AdaLoRA in a run', () => {
  it('reallocates: ranks fall to the target, which the saved adapter has', async () => {
    expect(patternOf(tinit)).toBeNull()
    // after the steps 3 to 6 of cubic descent from 8 to 4 triplets: 4 left^3 + 4
    expect([4, 5, 6, 7, 8, 9].map(keptAt)).toEqual([5, 4, 4, 4, 4, 4])
    const pattern = patternOf(steps)!
    expect(Object.keys(pattern).sort()).toEqual([0, 1].map((layer) => `transformer.h.${layer}.attn.c_attn.lora_E`))
    const model = await loadModel(checkpointFolder(options.out, steps))
    const ranks = model.namedParameters().flatMap(([name, each]) => (name.includes('lora_E') ? [each.size(0)] : []))
    expect(ranks.reduce((sum, rank) => sum + rank, 0)).toBe(4)
    const text = torch.scope(() =>
      torch.noGrad(() =>
        model
          .encodeText([[1, 2, 3]])
          .norm()
          .item(),
      ),
    )
    expect(text).toBeCloseTo(1, 5)
    model.dispose()
  })

  it('has a model in its checkpoints that is the one in training', async () => {
    // what was dropped is zero there
    const step = 5
    const out = join(data.folder, 'not averaged')
    await eventsOf({ ...options, out, ema: null })
    const folder = checkpointFolder(out, step)
    const model = await loadModel(folder)
    using state = torch.openSafetensors(join(folder, 'optimizer.safetensors'))
    for (const [name, kept] of Object.entries(patternOf(step)!)) {
      const path = name.replace('transformer.', '')
      const all = numbersOf(state.tensor(`extra.adapter.${path}`))
      expect(all.map((each) => each !== 0)).toEqual(kept)
      const own = model.namedParameters().find(([each]) => each.includes(`${path}.default`))?.[1]
      expect(numbersOf(own!)).toEqual(all.filter((_, at) => kept[at]))
    }
    model.dispose()
  })

  it('moves A and B by its orthogonality loss, where E is still zero', () => {
    using state = torch.openSafetensors(join(checkpointFolder(options.out, 1), 'optimizer.safetensors'))
    const moments = state.names.filter((name) => name.endsWith('.exp_avg'))
    expect(moments.length).toBeGreaterThan(10)
    const still = moments.filter((name) => torch.scope(() => state.tensor(name).abs().max().item()) === 0)
    expect(still).toEqual([])
  })

  it.each([1, 3, 4, 6, 8])('goes on exactly after step %i', async (stop) => {
    const out = join(data.folder, `from-${stop}`)
    cpSync(options.out, out, { recursive: true })
    for (let step = stop + 1; step <= steps; step += 1) rmSync(checkpointFolder(out, step), { recursive: true })
    const after = await eventsOf({ ...options, out, resume: true })
    expect(curve(after)).toEqual(curve(whole).slice(stop))
    const files = ['trainable.safetensors', 'optimizer.safetensors', 'config.json']
    for (const file of files) {
      const [own, wanted] = [out, options.out].map((each) => readFileSync(join(checkpointFolder(each, steps), file)))
      expect(own!.equals(wanted!), file).toBe(true)
    }
  })

  it('is refused where ranks have no time to shrink, or would grow', () => {
    const given = (peft: object) => () =>
      parseOptions({ ...options, peft: { type: 'adalora', ...peft } } as TrainOptions)
    expect(given({})).toThrow(/peft.tinit: expected tinit \+ tfinal below the 9 steps .* received 500 \+ 1500/)
    expect(given({ tinit: 4, tfinal: 5 })).toThrow(/tinit \+ tfinal below the 9 steps/)
    expect(given({ tinit: 1, tfinal: 1, initR: 4, targetR: 8 })).toThrow(/targetR: expected initR 4 at most/)
  })
})
