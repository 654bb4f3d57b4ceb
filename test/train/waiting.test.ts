import { rmSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { image, type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
let from: string
beforeAll(async () => {
  data = await tiny(40, 2, 400)
  from = (await train({ ...tinyRun(data, 'pretrain'), validation: null, steps: 1 })).checkpoint
}, 60_000)
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))
afterEach(() => vi.restoreAllMocks())

/**
 * How often each file reads values of a tensor: on a GPU each time waits for it. Files of src/torch are told apart from those
 * that ask them, but for the optimizers, which read by themselves.
 */
function countReads(): Map<string, number> {
  const reads = new Map<string, number>()
  for (const name of ['item', 'toTypedArray', 'toTypedArrayAsync', 'cpu'] as const) {
    const original = torch.Tensor.prototype[name] as (this: torch.Tensor) => never
    vi.spyOn(torch.Tensor.prototype, name).mockImplementation(function (this: torch.Tensor) {
      const stack = new Error().stack ?? ''
      const file = [...stack.matchAll(/\/src\/([\w/-]+\.ts)/g)]
        .map(([, path]) => path!)
        .find((path) => !path.startsWith('torch/') || path.startsWith('torch/optim/'))
      const key = file ?? 'elsewhere'
      reads.set(key, (reads.get(key) ?? 0) + 1)
      return original.call(this)
    })
  }
  return reads
}

let runs = 0

async function readsOf(steps: number, given: object): Promise<Map<string, number>> {
  const reads = countReads()
  const { data: images, seed, workers, batchSize, ...pretraining } = tinyRun(data, `run-${runs++}`)
  const base = { data: images, seed, workers, batchSize, out: pretraining.out }
  await train({
    ...('stage' in given ? base : { ...base, ...pretraining }),
    validation: null,
    logEvery: 100,
    checkpointEvery: 100,
    ...('stage' in given && { from }),
    ...given,
    steps,
  } as TrainOptions)
  vi.restoreAllMocks()
  return reads
}

describe('a step of a run', () => {
  it.each([
    [{}],
    [{ precision: 'bfloat16', optimizer: { lr: 1e-3, clipNorm: 0.5 }, ema: { decay: 0.9 } }],
    [{ precision: 'float16' }],
    [{ optimizer: { type: 'sgd', lr: 1e-3 }, targets: 'identity' }],
    [{ negatives: 'corpus', priors: true }],
    [{ peft: { type: 'adalora', initR: 4, targetR: 2, tinit: 1, tfinal: 1 } }],
    [{ image: { model: image, maskRatio: 0.5 } }],
    [{ stage: 'fine-tune', labels: 'multi', findings: ['Edema', 'Pneumonia'], microBatch: 4 }],
    [{ stage: 'linear-probe', labels: 'multi', findings: ['Edema', 'Pneumonia'] }],
    [{ stage: 'prompt', contextLength: 3, labels: 'multi', findings: ['Edema', 'Pneumonia'] }],
    [{ stage: 'prompt', contextLength: 3, objective: 'contrastive', microBatch: 4 }],
  ])('with %j reads nothing back: what it tells is read once, with the log', async (given) => {
    // in float16 the first steps overflow, and are left out
    const first = 'precision' in given && given.precision === 'float16' ? 8 : 3
    const [few, many] = [await readsOf(first, given), await readsOf(first + 3, given)]
    // what is checked of token ids on a CPU alone, where nothing waits
    for (const each of [few, many]) each.delete('models/text/encoder.ts')
    // all that steps left, and the temperature where there is one
    const hasTemperature = !('stage' in given) || given.stage === 'prompt'
    expect(many.get('train/step-log.ts')).toBe(hasTemperature ? 2 : 1)
    expect(Object.fromEntries(many)).toEqual(Object.fromEntries(few))
  })
})
