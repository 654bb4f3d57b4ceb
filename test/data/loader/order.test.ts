import { describe, expect, it } from 'vitest'
import {
  balancedWeights,
  batchNumber,
  cumulative,
  epochOrder,
  type ShardOptions,
  shardOf,
  shareOf,
} from '../../../src/data/loader/order.js'
import { sampleOf } from './helpers.js'

const sorted = (values: Iterable<number>) => [...values].sort((a, b) => a - b)
const all = (count: number) => Array.from({ length: count }, (_, index) => index)

describe('order of an epoch', () => {
  it('is a permutation that depends on seed and epoch', () => {
    const order = epochOrder(500, 'shuffled', 1, 0)
    expect(sorted(order)).toEqual(all(500))
    expect([...epochOrder(500, 'shuffled', 1, 0)]).toEqual([...order])
    expect([...epochOrder(500, 'shuffled', 1, 1)]).not.toEqual([...order])
    expect([...epochOrder(500, 'shuffled', 2, 0)]).not.toEqual([...order])
    expect([...epochOrder(5, 'sequential', 1, 3)]).toEqual(all(5))
  })

  it('draws by weights, with replacement', () => {
    const weights = all(1000).map((index) => (index < 500 ? 0 : index < 900 ? 1 : 12))
    const order = epochOrder(1000, cumulative(weights, 1000), 1, 0)
    expect(order.length).toBe(1000)
    expect(Math.min(...order)).toBeGreaterThanOrEqual(500)
    const heavy = order.filter((index) => index >= 900).length
    // 0.75 of 1000, five standard errors
    expect(Math.abs(heavy - 750)).toBeLessThan(70)
    expect(new Set(order).size).toBeLessThan(500)
  })

  it('balances classes', () => {
    const samples = all(2000).map((row) => sampleOf(`${row}.png`, row, { label: row % 20 === 0 ? 2 : 5 }))
    const order = epochOrder(2000, cumulative(balancedWeights(samples), 2000), 1, 0)
    const rare = order.filter((index) => samples[index]!.label === 2).length
    expect(Math.abs(rare - 1000)).toBeLessThan(112)
    expect(() => balancedWeights([sampleOf('a.png', 7, { label: null })])).toThrow(
      /a class for every sample.*row 7, a.png/,
    )
  })

  it('refuses weights that are none', () => {
    for (const weights of [[1, Number.NaN], [1, -1], [0, 0], [1], [1, Number.POSITIVE_INFINITY]]) {
      expect(() => cumulative(weights, 2)).toThrow(RangeError)
    }
  })
})

describe('shards of processes', () => {
  for (const [count, worldSize, batchSize] of [
    [100, 1, 7],
    [100, 3, 7],
    [101, 4, 5],
    [23, 4, 5],
    [7, 8, 1],
  ] as const) {
    it(`of ${count} images, ${worldSize} processes and batches of ${batchSize}`, () => {
      const order = epochOrder(count, 'shuffled', 5, 2)
      const shares = (dropLast: boolean) =>
        all(worldSize).map((rank) => {
          const options: ShardOptions = { rank, worldSize, batchSize, dropLast }
          const share = shardOf(order, options)
          expect(share.length).toBe(shareOf(count, options))
          return share
        })
      const whole = shares(true)
      // as long as each other, whole batches, disjoint, and less than a batch left out of each
      expect(new Set(whole.map((share) => share.length)).size).toBe(1)
      expect(whole[0]!.length % batchSize).toBe(0)
      const seen = whole.flatMap((share) => [...share])
      expect(new Set(seen).size).toBe(seen.length)
      expect(count - seen.length).toBeLessThan(worldSize * batchSize)
      // each step's batches are together one process's with as many images
      const steps = Math.floor(count / worldSize / batchSize)
      for (let step = 0; step < steps; step += 1) {
        const joined = whole.flatMap((share) => [...share.subarray(step * batchSize, (step + 1) * batchSize)])
        const size = worldSize * batchSize
        expect(sorted(joined)).toEqual(sorted([...order.subarray(step * size, (step + 1) * size)]))
      }
      // covering, in the batches of one process
      const every = shares(false)
      expect(sorted(every.flatMap((share) => [...share]))).toEqual(all(count))
      for (let batch = 0; batch * batchSize < count; batch += 1) {
        const at = Math.floor(batch / worldSize) * batchSize
        const own = every[batch % worldSize]!.subarray(at, at + batchSize)
        expect([...own]).toEqual([...order.subarray(batch * batchSize, (batch + 1) * batchSize)])
        expect(batchNumber(at / batchSize, { rank: batch % worldSize, worldSize })).toBe(batch)
      }
    })
  }
})
