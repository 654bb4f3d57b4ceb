import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type DatasetSpec, DecoderPool, openDataset, prepareDataset } from '../../src/data/index.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { distinctPairs, type Tiny, tiny, tinyRun } from './tiny.js'

const COUNT = 64

let data: Tiny
beforeAll(async () => {
  data = await tiny(96)
}, 60_000)
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

it('learns 64 pairs by heart: every image finds its caption, and every caption its image', async () => {
  const pairs = await distinctPairs(data, COUNT)
  const dataset = await openDataset(pairs as DatasetSpec)
  const prepared = join(data.folder, 'prepared')
  const decoder = new DecoderPool({ workers: 1 })
  await prepareDataset(dataset, prepared, { decoder })
  await decoder.close()
  const options = {
    ...tinyRun(data, 'overfit'),
    data: pairs,
    prepared,
    augment: false,
    batchSize: COUNT,
    microBatch: 32,
    steps: 110,
    peft: { type: 'lora', r: 8, alpha: 32, dropout: 0 },
    optimizer: { lr: 3e-3, weightDecay: 0, warmupSteps: 10, clipNorm: 1 },
    targets: 'identity',
    validation: null,
    checkpointEvery: 1_000,
    logEvery: 10,
  }
  const accuracies: number[] = []
  for await (const event of train(options as TrainOptions)) {
    if (event.type === 'step') accuracies.push(event.accuracy)
  }
  expect(accuracies[0]).toBeLessThan(20)
  expect(accuracies.at(-1)).toBe(100)
}, 60_000)
