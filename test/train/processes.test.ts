import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { saveModel } from '../../src/clip/model-files.js'
import { type Batch, DataLoader, type DatasetSpec, DecoderPool, openDataset } from '../../src/data/index.js'
import * as torch from '../../src/torch/index.js'
import { CaptionTokens } from '../../src/train/caption-tokens.js'
import { checkpointFolder } from '../../src/train/checkpoint.js'
import { contrastiveStep } from '../../src/train/contrastive-step.js'
import { type FullPretrainOptions, optionsSchema, type PretrainOptions } from '../../src/train/options/index.js'
import { parameterGroups } from '../../src/train/parameter-groups.js'
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

/** To 1e-6. */
function expectSameParameters(found: ReadonlyMap<string, torch.Tensor>, expected: ReadonlyMap<string, torch.Tensor>) {
  expect([...found.keys()]).toEqual([...expected.keys()])
  for (const [name, tensor] of expected) {
    const furthest = largest(found.get(name)!.sub(tensor))
    expect([name, furthest < 1e-6 * Math.max(1, largest(tensor))]).toEqual([name, true])
  }
}

/** One epoch after another. */
async function* endless(loader: DataLoader): AsyncGenerator<Batch, undefined> {
  for (;;) yield* loader
}

async function expectAsOne(name: string, options: TrainOptions & { batchSize: number; out: string }): Promise<void> {
  const [one, two] = [join(data.folder, `one ${name}`), join(data.folder, `two ${name}`)]
  const whole = await train({ ...options, out: one, batchSize: 2 * options.batchSize })
  const divided = await train({ ...options, out: two, processes: 2 })
  expect(divided.metrics.trainLoss).toBeCloseTo(whole.metrics.trainLoss!, 5)
  expect(gradientsOf(one).size).toBeGreaterThan(5)
  expectSameGradients(gradientsOf(two), gradientsOf(one))
  const [before, after] = [tensorsOf(one, 1, 'trainable'), tensorsOf(one, STEPS, 'trainable')]
  expectSameParameters(tensorsOf(two, STEPS, 'trainable'), after)
  // and they did move; adapters are saved with the ranks that are left
  const moved = [...after].filter(([name, { shape }]) => shape.join() === before.get(name)!.shape.join())
  expect(Math.max(...moved.map(([name, tensor]) => largest(tensor.sub(before.get(name)!))))).toBeGreaterThan(1e-3)
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
    [
      'adapters whose ranks and regulariser change, images in parts',
      { peft: { type: 'adalora', initR: 4, targetR: 2, tinit: 1, tfinal: 1, dropout: 0 } },
    ],
  ] as [string, Partial<PretrainOptions>][])('%s', async (name, more) => {
    await expectAsOne(name, { ...plainRun(), ...more, batchSize: 8 })
  })

  it('captions of its own process alone: the mean of both losses', async () => {
    const out = join(data.folder, 'local')
    const options = { ...plainRun(), negatives: 'local', out } as const
    await train({ ...options, processes: 2 })
    const full = optionsSchema.parse(options) as FullPretrainOptions
    const { model, tokenizer, files } = await seeded(full.seed, () => buildTowers(full, 'cpu'))
    const dataset = await openDataset({ ...data.data, split: 'train' } as DatasetSpec)
    const tokens = new CaptionTokens(tokenizer, 64)
    const decoder = new DecoderPool({ workers: 1 })
    using random = new RandomStream(0)
    const batches = [0, 1].map((rank) => {
      const shared = { batchSize: 8, seed: full.seed, size: 56, channels: 3, decoder, rank, worldSize: 2 } as const
      return endless(new DataLoader(dataset, shared))
    })
    const named = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
    const own = named.map(([, parameter]) => parameter)
    const optimizer = new torch.optim.SGD(own, { lr: sgd.lr, momentum: full.optimizer.momentum })
    const rate = torch.optim.cosineWithWarmup({
      lr: sgd.lr,
      lrMin: full.optimizer.lrMin,
      warmupSteps: 0,
      totalSteps: STEPS,
    })
    for (let step = 0; step < STEPS; step += 1) {
      optimizer.zeroGrad()
      for (const each of batches) {
        const { pixels, captions: found } = (await each.next()).value!
        const captions = found.map((caption) => caption ?? '')
        const texts = await tokens.encode(captions)
        const batch = { pixels, texts, captions, targets: full.targets }
        await contrastiveStep(model, batch, { random, scaleLoss: (loss) => loss.div(2) })
      }
      if (step === 0) {
        // the optimizer numbers them by group
        const inOrder = parameterGroups(model, full.optimizer).flatMap(({ params }) => params)
        const names = [...gradientsOf(out).keys()]
        expect(names.length).toBe(inOrder.length)
        const expected = names.map((name) => [name, inOrder[Number(name.split('.')[1])]!.grad!.clone()] as const)
        expectSameGradients(gradientsOf(out), new Map(expected))
      }
      for (const group of optimizer.paramGroups) group.lr = rate(step)
      optimizer.step()
      model.clampLogScale()
    }
    for (const each of batches) await each.return(undefined)
    await decoder.close()
    const reference = join(data.folder, 'local reference')
    saveModel(checkpointFolder(reference, STEPS), model, files)
    expectSameParameters(tensorsOf(out, STEPS, 'trainable'), tensorsOf(reference, STEPS, 'trainable'))
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
