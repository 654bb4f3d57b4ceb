import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { drawAugmentation } from '../../../src/data/augment/parameters.js'
import { DecoderPool } from '../../../src/data/loader/decoders.js'
import { type Batch, DataLoader, type LoaderOptions } from '../../../src/data/loader/loader.js'
import { PreparedImages } from '../../../src/data/shards/prepared.js'
import { ShardWriter } from '../../../src/data/shards/writer.js'
import * as torch from '../../../src/torch/index.js'
import { datasetOf, decodeModule, numbered, sampleOf, settings, TestDecoder } from './helpers.js'

const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})
function temporary(): string {
  folders.push(mkdtempSync(join(tmpdir(), 'cleft-loader-')))
  return folders.at(-1)!
}

const common = { batchSize: 4, seed: 9, size: 12 } as const
const small = (options: Partial<LoaderOptions> = {}, count = 19) =>
  new DataLoader(numbered(count), { ...common, decoder: new TestDecoder(settings), ...options })

/** What a batch is, as values. */
interface Seen {
  readonly place: readonly [number, number]
  readonly indices: readonly number[]
  readonly captions: readonly (string | null)[]
  readonly pixels: readonly number[]
}
const seenOf = ({ epoch, position, indices, captions, pixels }: Batch): Seen => ({
  place: [epoch, position],
  indices,
  captions,
  pixels: [...pixels.toTypedArray()].map(Number),
})

async function epochOf(loader: DataLoader, most = Number.POSITIVE_INFINITY): Promise<Seen[]> {
  const seen: Seen[] = []
  if (most === 0) return seen
  for await (const batch of loader) {
    seen.push(seenOf(batch))
    batch[Symbol.dispose]()
    if (seen.length === most) break
  }
  return seen
}

describe('DataLoader', () => {
  it('gives shuffled whole batches in training, another order in each epoch', async () => {
    const loader = small()
    const first = await epochOf(loader)
    expect(first.map(({ place }) => place)).toEqual([0, 1, 2, 3].map((position) => [0, position]))
    expect(new Set(first.flatMap(({ indices }) => indices)).size).toBe(16)
    const second = await epochOf(loader)
    expect(second[0]!.place).toEqual([1, 0])
    expect(second.flatMap(({ indices }) => indices)).not.toEqual(first.flatMap(({ indices }) => indices))
    expect(first[0]!.pixels.length).toBe(4 * 12 * 12)
  })

  it('gives everything in order otherwise, without augmentation', async () => {
    const seen = await epochOf(small({ training: false }))
    expect(seen.flatMap(({ indices }) => indices)).toEqual(Array.from({ length: 19 }, (_, index) => index))
    expect(seen.map(({ indices }) => indices.length)).toEqual([4, 4, 4, 4, 3])
    const other = await epochOf(small({ training: false, seed: 10 }))
    expect(other).toEqual(seen)
  })

  it('gives the same from worker threads, from shards and from a cache, whatever their number', async () => {
    const expected = [await epochOf(small()), await epochOf(small({ prefetch: 0 }))]
    expect(expected[1]).toEqual(expected[0])
    for (const workers of [1, 3]) {
      const decoder = new DecoderPool({ settings, workers, module: decodeModule })
      expect(await epochOf(small({ decoder, prefetch: workers }))).toEqual(expected[0])
      await decoder.close()
    }
    const folder = temporary()
    const cache = new ShardWriter(folder, { kind: 'table', settings }, 5)
    const decoder = new TestDecoder(settings)
    const loader = small({ decoder, cache })
    expect(await epochOf(loader)).toEqual(expected[0])
    expect(decoder.asked.length).toBe(16)
    const plain = small()
    await epochOf(plain)
    expect(await epochOf(loader)).toEqual(await epochOf(plain))
    // the three that the first epoch left out, at most
    expect(decoder.asked.length).toBeLessThanOrEqual(19)
    cache.flush()
    cache.close()
    using prepared = PreparedImages.open(folder)
    expect(await epochOf(new DataLoader(numbered(19), { ...common, prepared, decoder }))).toEqual(expected[0])
  })

  it('gives an image that does not depend on its batch', async () => {
    const byIndex = async (batchSize: number) => {
      const found = new Map<number, readonly number[]>()
      const options = { batchSize, training: false, augment: true }
      for (const { indices, pixels } of await epochOf(small(options))) {
        for (const [at, index] of indices.entries()) found.set(index, pixels.slice(at * 144, (at + 1) * 144))
      }
      return found
    }
    expect(await byIndex(7)).toEqual(await byIndex(2))
  })

  it('goes on at every position as if it had not stopped', async () => {
    const whole = small()
    const expected = [...(await epochOf(whole)), ...(await epochOf(whole))]
    for (let stop = 0; stop <= 4; stop += 1) {
      const before = small()
      const seen = await epochOf(before, stop)
      const state = JSON.parse(JSON.stringify(before.state()))
      const after = small()
      after.resume(state)
      while (seen.length < expected.length) seen.push(...(await epochOf(after)))
      expect(seen).toEqual(expected)
    }
  })

  it('refuses to go on with something else', () => {
    const state = small().state()
    for (const options of [{ seed: 8 }, { batchSize: 3 }, { worldSize: 2 }, { order: 'balanced' }] as const) {
      expect(() => small(options).resume(state)).toThrow(/expected to go on with the same data/)
    }
    expect(() => small({}, 18).resume(state)).toThrow(/expected to go on with the same data/)
    expect(() => small().resume({ ...state, position: -1 })).toThrow(RangeError)
  })

  it('goes on where as many images were seen, in batches of another size or with other processes, where that is allowed', () => {
    const last = small({ batchSize: 2, worldSize: 2 })
    last.resume({ ...last.state(), epoch: 3, position: 3 })
    const again = small({ batchSize: 5 })
    again.resume(last.state(), { redivide: true })
    expect(again.state()).toMatchObject({ epoch: 3, position: 2 })
    last.resume(again.state(), { redivide: true })
    expect(last.state()).toMatchObject({ epoch: 3, position: 2 })
    expect(() => small({ seed: 8 }).resume(last.state(), { redivide: true })).toThrow(/with the same data/)
  })

  it('divides an epoch over processes: disjoint, as many batches each, and all of it in evaluation', async () => {
    const shares = async (training: boolean) =>
      Promise.all([0, 1, 2].map((rank) => epochOf(small({ rank, worldSize: 3, batchSize: 2, training }))))
    const training = await shares(true)
    expect(training.map((share) => share.length)).toEqual([3, 3, 3])
    const seen = training.flat().flatMap(({ indices }) => indices)
    expect(new Set(seen).size).toBe(18)
    const evaluation = (await shares(false)).flat().flatMap(({ indices }) => indices)
    expect(evaluation.sort((a, b) => a - b)).toEqual(Array.from({ length: 19 }, (_, index) => index))
  })

  it('swaps sides in captions of flipped mammograms alone', async () => {
    for (const [kind, swaps] of [
      ['embed', true],
      ['chexpert', false],
    ] as const) {
      const loader = new DataLoader(numbered(19, kind), { ...common, decoder: new TestDecoder(settings) })
      for (const { indices, captions } of await epochOf(loader)) {
        for (const [at, index] of indices.entries()) {
          const { flip } = drawAugmentation(index, { seed: 9, epoch: 0 })
          expect(captions[at]).toBe(`caption ${index} on side ${swaps && flip ? 'right' : 'left'}`)
        }
      }
    }
    const still = new DataLoader(numbered(19, 'embed'), { ...common, decoder: new TestDecoder(settings), flip: false })
    for (const { captions } of await epochOf(still)) expect(captions.join()).not.toMatch(/right/)
  })

  it('knows every caption that batches may have, with its share', () => {
    const shares = (options: Partial<LoaderOptions>, kind?: string) =>
      new DataLoader(numbered(4, kind), { ...common, decoder: new TestDecoder(settings), ...options }).captionShares()
    const plain = [0, 1, 2, 3].map((index) => [`caption ${index} on side left`, 0.25])
    expect([...shares({}, 'chexpert')]).toEqual(plain)
    expect([...shares({ flip: false }, 'embed')]).toEqual(plain)
    expect([...shares({ training: false }, 'embed')]).toEqual(plain)
    const both = shares({}, 'embed')
    expect(both.size).toBe(8)
    expect(both.get('caption 2 on side right')).toBe(0.125)
  })

  it('makes no more ready than it may', async () => {
    const decoder = new TestDecoder(settings)
    const loader = small({ decoder, prefetch: 1 })
    for await (const batch of loader) {
      batch[Symbol.dispose]()
      await new Promise((resolve) => setTimeout(resolve, 20))
      expect(decoder.asked.length).toBe(Math.min(16, (batch.position + 2) * 4))
    }
    expect(decoder.most).toBeLessThanOrEqual(8)
    const { images, batches, waiting, seconds, imagesPerSecond } = loader.statistics()
    expect([images, batches]).toEqual([16, 4])
    expect([waiting > 0, seconds >= waiting, imagesPerSecond > 0]).toEqual([true, true, true])
  })

  it('leaves no tensor behind, also where the loop is left or fails', async () => {
    const before = torch.memory.counters().live
    const threads = torch.getNumThreads()
    await epochOf(small())
    await epochOf(small(), 1)
    const controller = new AbortController()
    const stopped = async () => {
      for await (const batch of small({ signal: controller.signal })) {
        batch[Symbol.dispose]()
        controller.abort(new Error('enough'))
      }
    }
    await expect(stopped()).rejects.toThrow('enough')
    await expect(epochOf(small({ signal: controller.signal }))).rejects.toThrow('enough')
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(torch.memory.counters().live).toBe(before)
    expect(torch.getNumThreads()).toBe(threads)
  })

  it('refuses two loops at a time, and goes on after one', async () => {
    const loader = small()
    const iterator = loader[Symbol.asyncIterator]()
    const first = (await iterator.next()).value as Batch
    first[Symbol.dispose]()
    await expect(loader[Symbol.asyncIterator]().next()).rejects.toThrow(/one loop over the batches at a time/)
    await iterator.return()
    expect((await epochOf(loader)).map(({ place }) => place[1])).toEqual([1, 2, 3])
  })
})

describe('files that cannot be read', () => {
  const broken = (bad: readonly number[], count = 40) =>
    datasetOf(
      Array.from({ length: count }, (_, row) => sampleOf(`${bad.includes(row) ? 'bad' : 'image'}${row}.png`, row)),
    )
  const load = (dataset: ReturnType<typeof broken>, options: Partial<LoaderOptions> = {}) =>
    new DataLoader(dataset, { ...common, decoder: new TestDecoder(settings), maxProblems: 0.2, ...options })

  it('are replaced in training, by the same images on every run and with any number of threads', async () => {
    const dataset = broken([3, 11, 12, 30])
    const loader = load(dataset)
    const seen = await epochOf(loader)
    expect(seen.map(({ indices }) => indices.length)).toEqual(Array(10).fill(4))
    expect(seen.flatMap(({ indices }) => indices).some((index) => [3, 11, 12, 30].includes(index))).toBe(false)
    expect(loader.problems.list.map(({ row }) => row).sort()).toEqual([11, 12, 3, 30])
    expect(loader.problems.list[0]!.problem).toMatch(/expected an image, but bad\d+.png is none/)
    const decoder = new DecoderPool({ settings, workers: 2, module: decodeModule })
    expect(await epochOf(load(dataset, { decoder, prefetch: 5 }))).toEqual(seen)
    await decoder.close()
    // the next epoch knows them already
    await epochOf(loader)
    expect(loader.problems.list.length).toBe(4)
  })

  it('are left out otherwise', async () => {
    const seen = await epochOf(load(broken([0, 1, 2, 3, 8]), { training: false }))
    expect(seen.flatMap(({ indices }) => indices)).toEqual(
      Array.from({ length: 40 }, (_, index) => index).filter((index) => ![0, 1, 2, 3, 8].includes(index)),
    )
  })

  it('stop the run where there are too many', async () => {
    await expect(epochOf(load(broken([1, 2, 3]), { maxProblems: 0.05 }))).rejects.toThrow(
      /expected at most 5 % of 40 to be unusable, but 3 are: .*row \d, bad\d.png/,
    )
    await expect(epochOf(load(broken([7]), { maxProblems: 0.01 }))).rejects.toThrow(/expected at most 1 % of 40/)
    const every = broken(Array.from({ length: 40 }, (_, row) => row))
    await expect(epochOf(load(every, { maxProblems: 1 }))).rejects.toThrow(/to be readable, but none is/)
  })

  it('end their thread, not the process, and not the files beside them', async () => {
    const samples = ['image0.png', 'exit1.png', 'image2.png', 'image3.png', 'image4.png'].map((path, row) =>
      sampleOf(path, row),
    )
    const decoder = new DecoderPool({ settings, workers: 1, module: decodeModule })
    const loader = new DataLoader(datasetOf(samples), { ...common, training: false, decoder, maxProblems: 0.5 })
    const seen = await epochOf(loader)
    expect(seen.flatMap(({ indices }) => indices)).toEqual([0, 2, 3, 4])
    expect(loader.problems.list).toEqual([
      { row: 1, path: 'exit1.png', problem: expect.stringMatching(/the thread that worked on it failed/) },
    ])
    await decoder.close()
    await expect(decoder.prepare('image0.png')).rejects.toThrow(/they were closed/)
  })

  it('include those that were not prepared, where nothing decodes them', async () => {
    const folder = temporary()
    const writer = new ShardWriter(folder, { kind: 'table', settings })
    writer.close()
    using prepared = PreparedImages.open(folder)
    const { decoder: _, ...options } = { ...common, decoder: undefined, maxProblems: 1, training: false, prepared }
    const loader = new DataLoader(numbered(5), options)
    expect(await epochOf(loader)).toEqual([])
    expect(loader.problems.list.length).toBe(5)
    expect(loader.problems.list[0]!.problem).toBe('it is not among the prepared images')
  })
})

describe('options', () => {
  it('that cannot be are refused', () => {
    expect(() => small({ batchSize: 0 })).toThrow(/expected batchSize/)
    expect(() => small({ batchSize: 20 })).toThrow(/enough images for a batch of 20/)
    expect(() => small({ rank: 2, worldSize: 2 })).toThrow(/rank below 2/)
    expect(() => small({ prefetch: -1 })).toThrow(/expected prefetch/)
    expect(() => small({ order: [1, 2] })).toThrow(/a weight for each of 19/)
    expect(() => new DataLoader(numbered(5), { batchSize: 1, seed: 0 })).toThrow(/prepared images, or a decoder/)
    expect(() => new DecoderPool({ workers: 0 })).toThrow(/expected workers/)
  })

  it('that do not fit the prepared images are refused', () => {
    const folder = temporary()
    new ShardWriter(folder, { kind: 'table', settings }).close()
    using prepared = PreparedImages.open(folder)
    expect(() => small({ prepared, decoder: new TestDecoder({ ...settings, size: 32 }) })).toThrow(/all prepared alike/)
    expect(() => new DataLoader(numbered(19, 'embed'), { ...common, prepared })).toThrow(/of kind embed/)
  })
})
