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
import { type Tiny, tiny, tinyRun } from './tiny.js'

/*
 * Several processes train as one that has their batches together.
 */

const STEPS = 5
const resnet = { model_type: 'resnet', embedding_size: 8, hidden_sizes: [8, 16], depths: [1, 1], layer_type: 'basic' }

let data: Tiny
beforeAll(async () => {
  data = await tiny(40)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

/** SGD without decay, whose momentum is the gradient after the first step, and no dropout. */
const plainRun = (name: string): PretrainOptions => ({
  ...tinyRun(data, name),
  steps: STEPS,
  optimizer: { type: 'sgd', lr: 1e-2, weightDecay: 0, warmupSteps: 0 },
  peft: { type: 'lora', dropout: 0 },
  checkpointEvery: 1,
  keep: STEPS,
  validation: { every: STEPS },
})

/** Tensors of a checkpoint's file. */
function tensorsOf(out: string, step: number, file: 'trainable' | 'optimizer'): Map<string, torch.Tensor> {
  using found = torch.openSafetensors(join(checkpointFolder(out, step), `${file}.safetensors`))
  return new Map(found.names.map((name) => [name, found.tensor(name).clone()]))
}

/** Largest difference, in parts of the largest value. */
const distance = (a: torch.Tensor, b: torch.Tensor): number =>
  torch.scope(() => a.sub(b).abs().max().item() / Math.max(1e-12, b.abs().max().item()))

function gradientsOf(out: string): Map<string, torch.Tensor> {
  return new Map([...tensorsOf(out, 1, 'optimizer')].filter(([name]) => name.startsWith('state.')))
}

function expectSame(one: string, two: string): void {
  const [gradients, others] = [gradientsOf(one), gradientsOf(two)]
  expect(gradients.size).toBeGreaterThan(5)
  expect([...others.keys()]).toEqual([...gradients.keys()])
  // of a key's bias the true gradient is zero, and what comes is rounding
  const largest = Math.max(...[...gradients.values()].map((each) => each.abs().max().item()))
  for (const [name, gradient] of gradients) {
    const apart = others.get(name)!.sub(gradient).abs().max().item()
    const scale = Math.max(gradient.abs().max().item(), 1e-3 * largest)
    if (apart / scale >= 1e-5) console.log(name, apart, gradient.abs().max().item(), largest)
    expect([name, apart / scale < 1e-5]).toEqual([name, true])
  }
  const [parameters, after] = [tensorsOf(one, STEPS, 'trainable'), tensorsOf(two, STEPS, 'trainable')]
  for (const [name, tensor] of parameters) {
    expect([name, after.get(name)!.sub(tensor).abs().max().item() < 1e-6]).toEqual([name, true])
  }
}

const cases: [string, Partial<PretrainOptions>][] = [
  ['global negatives, in parts', {}],
  ['every caption of the training set, with priors', { negatives: 'corpus', priors: true, microBatch: 8 }],
  [
    'BatchNorm in the projections, clipped gradients, averages',
    {
      image: { model: (tinyImage() as { model: object }).model as never, projection: { kind: 'mlp', hiddenWidth: 24 } },
      optimizer: { type: 'sgd', lr: 1e-2, weightDecay: 0, warmupSteps: 0, clipNorm: 0.5 },
      ema: { decay: 0.9 },
    },
  ],
]

function tinyImage(): unknown {
  return tinyRun({ folder: '', data: { kind: 'chexpert', root: '', holdout: null }, language: '' }, '').image
}

describe('two processes train as one with their batches together', () => {
  it.each(cases)('%s', async (name, more) => {
    const [one, two] = [`one ${name}`, `two ${name}`].map((each) => join(data.folder, each)) as [string, string]
    await train({ ...plainRun(one), ...more, out: one, batchSize: 16 })
    const { metrics } = await train({ ...plainRun(two), ...more, out: two, batchSize: 8, processes: 2 })
    expect(metrics.trainLoss).toBeGreaterThan(0)
    expectSame(one, two)
  })
})
