import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DataLoader, type DatasetSpec, DecoderPool, openDataset } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { CaptionTokens } from '../../src/train/caption-tokens.js'
import { checkpointFolder } from '../../src/train/checkpoint.js'
import { contrastiveStep } from '../../src/train/contrastive-step.js'
import { type FullPretrainOptions, optionsSchema, type PretrainOptions } from '../../src/train/options/index.js'
import { RandomStream, seeded } from '../../src/train/random-stream.js'
import { buildTowers } from '../../src/train/towers.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { image, type Tiny, tiny, tinyRun } from './tiny.js'

/*
 * Several processes train as one that has their batches together.
 */

const STEPS = 5

let data: Tiny
beforeAll(async () => {
  data = await tiny(40)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const sgd = { type: 'sgd', lr: 1e-2, weightDecay: 0, warmupSteps: 0 } as const

/** SGD without decay, whose momentum is the gradient after the first step, and no dropout. */
const plainRun = (): PretrainOptions => ({
  ...tinyRun(data, ''),
  steps: STEPS,
  optimizer: sgd,
  peft: { type: 'lora', dropout: 0 },
  checkpointEvery: 1,
  keep: STEPS,
  validation: null,
})

/** Tensors of a checkpoint's file. */
function tensorsOf(out: string, step: number, file: 'trainable' | 'optimizer'): Map<string, torch.Tensor> {
  using found = torch.openSafetensors(join(checkpointFolder(out, step), `${file}.safetensors`))
  return new Map(found.names.map((name) => [name, found.tensor(name).clone()]))
}

const largest = (tensor: torch.Tensor): number => tensor.abs().max().item()

const gradientsOf = (out: string): Map<string, torch.Tensor> =>
  new Map([...tensorsOf(out, 1, 'optimizer')].filter(([name]) => name.startsWith('state.')))

/** To 1e-5 of each; those that are zero but for rounding, as of a key or before BatchNorm, are that in both. */
function expectSameGradients(found: ReadonlyMap<string, torch.Tensor>, expected: ReadonlyMap<string, torch.Tensor>) {
  expect([...found.keys()]).toEqual([...expected.keys()])
  const most = Math.max(...[...expected.values()].map(largest))
  const wrong = [...expected].filter(([name, gradient]) => {
    const scale = largest(gradient)
    const isZero = scale < 5e-6 * most
    return isZero ? largest(found.get(name)!) > 5e-6 * most : largest(found.get(name)!.sub(gradient)) > 1e-5 * scale
  })
  expect(wrong.map(([name]) => name)).toEqual([])
}

async function expectAsOne(name: string, options: TrainOptions & { batchSize: number; out: string }): Promise<void> {
  const [one, two] = [join(data.folder, `one ${name}`), join(data.folder, `two ${name}`)]
  const whole = await train({ ...options, out: one, batchSize: 2 * options.batchSize })
  const divided = await train({ ...options, out: two, processes: 2 })
  expect(divided.metrics.trainLoss).toBeCloseTo(whole.metrics.trainLoss!, 5)
  expect(gradientsOf(one).size).toBeGreaterThan(5)
  expectSameGradients(gradientsOf(two), gradientsOf(one))
  const [before, after] = [tensorsOf(one, 1, 'trainable'), tensorsOf(one, STEPS, 'trainable')]
  const others = tensorsOf(two, STEPS, 'trainable')
  for (const [name, tensor] of after) {
    expect([name, largest(others.get(name)!.sub(tensor)) < 1e-6 * Math.max(1, largest(tensor))]).toEqual([name, true])
  }
  // and they did move
  expect(Math.max(...[...after].map(([name, tensor]) => largest(tensor.sub(before.get(name)!))))).toBeGreaterThan(1e-3)
}

describe('two processes train as one that has their batches together', () => {
  it.each([
    ['images in parts', {}],
    ['every caption of the training set, with priors', { negatives: 'corpus', priors: true, microBatch: 8 }],
    [
      'BatchNorm in the projections, clipped gradients, averages',
      {
        image: { model: image, projection: { kind: 'mlp', hiddenWidth: 24 } },
        optimizer: { ...sgd, clipNorm: 0.5 },
        ema: { decay: 0.9 },
      },
    ],
  ] as [string, Partial<PretrainOptions>][])('%s', async (name, more) => {
    await expectAsOne(name, { ...plainRun(), ...more, batchSize: 8 })
  })

  it('captions of its own process alone: the mean of both losses', async () => {
    const out = join(data.folder, 'local')
    const options = { ...plainRun(), negatives: 'local', steps: 1, out } as const
    await train({ ...options, processes: 2 })
    const full = optionsSchema.parse(options) as FullPretrainOptions
    const { model, tokenizer } = await seeded(full.seed, () => buildTowers(full, 'cpu'))
    const dataset = await openDataset({ ...data.data, split: 'train' } as DatasetSpec)
    const tokens = new CaptionTokens(tokenizer, 64)
    const decoder = new DecoderPool({ workers: 1 })
    using random = new RandomStream(0)
    for (const rank of [0, 1]) {
      const shared = { batchSize: 8, seed: full.seed, size: 56, channels: 3, decoder, rank, worldSize: 2 } as const
      for await (const { pixels, captions: found } of new DataLoader(dataset, shared)) {
        const captions = found.map((each) => each ?? '')
        const texts = await tokens.encode(captions)
        const batch = { pixels, texts, captions, targets: full.targets }
        await contrastiveStep(model, batch, { random, scaleLoss: (loss) => loss.div(2) })
        break
      }
    }
    await decoder.close()
    const own = model.parameters().filter(({ requiresGrad }) => requiresGrad)
    const found = [...gradientsOf(out).values()]
    expect(found.length).toBe(own.length)
    // by their values: the optimizer numbers them by group
    const norms = (tensors: readonly torch.Tensor[]) => tensors.map((each) => each.norm().item()).sort((a, b) => a - b)
    const expected = norms(own.map(({ grad }) => grad!))
    for (const [at, norm] of norms(found).entries()) {
      expect(Math.abs(norm - expected[at]!)).toBeLessThan(1e-5 * expected[at]! + 1e-7 * expected.at(-1)!)
    }
    model.dispose()
  })

  it('a context that is learned as in pre-training', async () => {
    const from = checkpointFolder(join(data.folder, 'one images in parts'), STEPS)
    const { seed, workers, logEvery, checkpointEvery, keep, validation } = plainRun()
    const running = { seed, workers, logEvery, checkpointEvery, keep, validation, steps: STEPS, optimizer: sgd }
    await expectAsOne('prompt', {
      ...{ stage: 'prompt', objective: 'contrastive', contextLength: 4, from, out: '', ...running },
      batchSize: 8,
    } as unknown as TrainOptions & { batchSize: number; out: string })
  })

  it('findings that are learned from labels', async () => {
    const from = checkpointFolder(join(data.folder, 'one images in parts'), STEPS)
    const labels = {
      labels: 'multi',
      findings: ['Edema', 'Pleural Effusion'],
      uncertain: 'exclude',
      blank: 'exclude',
    } as const
    const { seed, workers, logEvery, checkpointEvery, keep } = plainRun()
    const running = { seed, workers, logEvery, checkpointEvery, keep, steps: STEPS, optimizer: sgd }
    await expectAsOne('fine-tune', {
      ...{ stage: 'fine-tune', from, out: '', ...labels, ...running },
      batchSize: 8,
      microBatch: 4,
    } as unknown as TrainOptions & { batchSize: number; out: string })
  })
})
