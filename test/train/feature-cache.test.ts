import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { imageFeature } from '../../src/clip/two-tower.js'
import { DataLoader, type Dataset, type DatasetSpec, DecoderPool, openDataset } from '../../src/data/index.js'
import { buildModel, type ImageEncoder } from '../../src/models/index.js'
import * as torch from '../../src/torch/index.js'
import { type FeatureBatch, FeatureBatches } from '../../src/train/feature-batches.js'
import { cachedFeatures, type FeatureSource, featureKey } from '../../src/train/feature-cache.js'
import { image, type Tiny, tiny } from './tiny.js'

let data: Tiny
let encoder: ImageEncoder
let decoder: DecoderPool
const open = (more: object = {}) => openDataset({ ...data.data, ...more } as DatasetSpec)

beforeAll(async () => {
  data = await tiny(20)
  torch.manualSeed(3)
  encoder = (await buildModel(image)) as ImageEncoder
  decoder = new DecoderPool({ workers: 1 })
})
afterAll(async () => {
  await decoder.close()
  encoder.dispose()
  rmSync(data.folder, { recursive: true, force: true })
})

const sourceOf = (dataset: Dataset, more: Partial<FeatureSource> = {}): FeatureSource => ({
  encoder,
  encoderHash: 'encoder',
  pooling: 'mean-prenorm',
  dataset,
  loader: { decoder, size: 56, batchSize: 8 },
  folder: join(data.folder, 'features'),
  ...more,
})

async function drawn(batches: FeatureBatches, count: number): Promise<number[][]> {
  const all: number[][] = []
  while (all.length < count) {
    for await (const batch of batches) {
      using own: FeatureBatch = batch
      all.push([...own.indices])
      if (all.length === count) break
    }
  }
  return all
}

describe('features of a frozen encoder', () => {
  it('are the encoder’s, computed once', async () => {
    const dataset = await open()
    const folder = join(data.folder, 'once')
    const told: number[] = []
    const source = sourceOf(dataset, { folder, onProgress: (done) => told.push(done) })
    using table = await cachedFeatures(source)
    expect(table.samples).toEqual(dataset.samples)
    expect(table.features.shape).toEqual([dataset.samples.length, 32])
    expect(told.at(-1)).toBe(dataset.samples.length)
    const loader = new DataLoader(dataset, { ...source.loader, training: false, seed: 0, batchSize: 3, channels: 3 })
    for await (const batch of loader) {
      using _ = batch
      torch.scope(() => {
        const own = torch.noGrad(() => imageFeature(encoder, batch.pixels, 'mean-prenorm'))
        expect(torch.allclose(table.gather(batch.indices), own, 1e-5, 1e-6)).toBe(true)
      })
    }
    const before = told.length
    using again = await cachedFeatures(source)
    expect(told.length).toBe(before)
    expect(again.features.toTypedArray()).toEqual(table.features.toTypedArray())
    expect(readdirSync(folder).length).toBe(1)
  })

  it('are never those of another fraction, label set, encoder, size or kind of feature', async () => {
    const whole = await open()
    const sources = [
      sourceOf(whole),
      sourceOf(await open({ fraction: 0.5 })),
      sourceOf(await open({ labels: 'all' })),
      sourceOf(await open({ captions: { style: 'prompt' } })),
      sourceOf({ ...parts(whole), samples: whole.samples.slice(1) }),
      sourceOf(whole, { encoderHash: 'another' }),
      sourceOf(whole, { pooling: 'cls' }),
      sourceOf(whole, { loader: { decoder, size: 42, batchSize: 8 } }),
      sourceOf(whole, { loader: { decoder, size: 56, resize: 'crop', batchSize: 8 } }),
    ]
    expect(new Set(sources.map(featureKey)).size).toBe(sources.length)
    // how many go through at once changes nothing
    expect(featureKey(sourceOf(whole, { loader: { decoder, size: 56, batchSize: 2 } }))).toBe(featureKey(sources[0]!))
  })

  it('of an image that is there twice are computed once', async () => {
    const dataset = await open({ fraction: 0.5, keepSize: true })
    const told: number[] = []
    using table = await cachedFeatures(sourceOf(dataset, { onProgress: (_, total) => told.push(total) }))
    expect(table.samples.length).toBe(dataset.samples.length)
    expect(told.at(-1)! * 2).toBe(dataset.samples.length)
  })

  it('leave out what cannot be read, up to the limit', async () => {
    const whole = await open()
    const samples = whole.samples.map((sample, index) => (index === 2 ? { ...sample, path: 'none.jpg' } : sample))
    const dataset = { ...parts(whole), samples, weights: Float64Array.from(samples, (_, index) => index + 1) }
    const folder = join(data.folder, 'unreadable')
    await expect(cachedFeatures(sourceOf(dataset, { folder }))).rejects.toThrow(/none.jpg/)
    expect(existsSync(folder) ? readdirSync(folder) : []).toEqual([])
    const loader = { decoder, size: 56, batchSize: 8, maxProblems: 0.5 }
    using table = await cachedFeatures(sourceOf(dataset, { folder, loader }))
    expect(table.samples).toEqual(samples.filter((_, index) => index !== 2))
    expect([...table.weights!].slice(0, 3)).toEqual([1, 2, 4])
    expect(table.unreadable).toBe(1)
  })

  it('come in batches: every image once an epoch, and exactly on from any batch', async () => {
    using table = await cachedFeatures(sourceOf(await open()))
    const options = { batchSize: 4, seed: 1 }
    const batches = new FeatureBatches(table, options)
    const each = batches.batchesPerEpoch
    const all = await drawn(batches, 2 * each)
    expect(new Set(all.slice(0, each).flat()).size).toBe(4 * each)
    expect(all.slice(0, each)).not.toEqual(all.slice(each))
    for (const stop of [1, each, each + 1]) {
      const first = new FeatureBatches(table, options)
      const before = await drawn(first, stop)
      const second = new FeatureBatches(table, options)
      second.resume(JSON.parse(JSON.stringify(first.state())))
      expect([...before, ...(await drawn(second, 2 * each - stop))]).toEqual(all)
    }
    const other = new FeatureBatches(table, { ...options, seed: 2 })
    expect(() => other.resume(batches.state())).toThrow(/same features, seed and batches/)
    expect(() => new FeatureBatches(table, { batchSize: 1000, seed: 0 })).toThrow(/batchSize: .* received 1000/)
  })

  it('are drawn by the data set’s weights', async () => {
    const dataset = await open()
    const weights = Float64Array.from(dataset.samples, (_, index) => Number(index < 3))
    using table = await cachedFeatures(sourceOf({ ...parts(dataset), weights }))
    const indices = (await drawn(new FeatureBatches(table, { batchSize: 4, seed: 1 }), 5)).flat()
    expect([...new Set(indices)].sort()).toEqual([0, 1, 2])
  })
})

/** A data set's own fields, also where they are getters. */
function parts({ kind, root, findings, classes, samples, problems, hash }: Dataset): Dataset {
  return { kind, root, findings, classes, samples, problems, hash }
}
