import { describe, expect, it } from 'vitest'
import { runRanks } from './ranks.js'

type Found = Record<string, unknown>

function sum(values: readonly number[]): number {
  return values.reduce((total, each) => total + each, 0)
}

describe.each([2, 3])('collectives over %i processes', (size) => {
  it('give what they say, waited for or awaited', async () => {
    const ranks = await runRanks<Found>(size, 'collectives.mjs')
    expect(ranks.map(({ status, stderr }) => [status, stderr])).toEqual(ranks.map(() => [0, '']))
    const owns = ranks.map((_, rank) => rank + 1)
    const total = sum(owns)
    const product = size === 2 ? 2 : 6
    for (const [rank, { found }] of ranks.entries()) {
      const own = rank + 1
      expect(found.broadcast).toEqual([2, 20])
      expect(found.sum).toEqual([total, 2 * total])
      expect(found.product).toEqual([product, product * 2 ** size])
      expect(found.min).toEqual([1, 2])
      expect(found.max).toEqual([size, 2 * size])
      expect(found.band).toEqual([0, 12])
      expect(found.bor).toEqual([3, 12])
      expect(found.bxor).toEqual(size === 2 ? [3, 0] : [0, 12])
      for (const dtype of ['float64', 'int64', 'uint8']) expect(found[dtype]).toEqual([dtype, total])
      expect(found.reduce).toEqual(rank === 1 ? [total] : null)
      expect(found.allGather).toEqual(owns.map((each) => [each, -each]))
      expect(found.allGatherIntoTensor).toEqual(owns.flatMap((each) => [[each], [-each]]))
      expect(found.gather).toEqual(rank === 1 ? owns.map((each) => [each, 5 * each]) : [])
      expect(found.scatter).toEqual([rank, rank + 10])
      expect(found.reduceScatter).toEqual([rank * total, total])
      // row r of the transposed [size, 2] is [r, r + size], and the largest factor is size
      expect(found.reduceScatterTensor).toEqual([rank * size, (rank + size) * size])
      expect(found.allToAll).toEqual(owns.map((each, from) => Array(rank + from + 1).fill(10 * each + rank)))
      if (rank === 1) expect(found.messages).toEqual([[7], [8], [1, 2, 3]])
      expect(found.many).toEqual(owns.flatMap(() => [1, 2, 3, 4].map((factor) => 1000 * factor * total)))
      if (rank === 1) expect(found.turns).toBeGreaterThan(10)
      expect(found.subgroup).toEqual(rank > 1 ? undefined : [rank === 1 ? 0 : 1, 2, [1]])
      expect(found.wrong).toEqual([
        expect.stringMatching(/^RangeError: allGather: expected \d outputs, one for each rank/),
        expect.stringMatching(/^RangeError: allGather: expected outputs of shape \[2\]/),
        expect.stringMatching(/^TypeError: broadcast: expected contiguous tensors/),
        expect.stringMatching(/^RangeError: broadcast: expected a rank from 0/),
        expect.stringMatching(/^TypeError: allReduce: .*'avg' is NCCL's/),
        expect.stringMatching(/^TypeError: allReduce: expected tensors of integers/),
        expect.stringMatching(/^RangeError: send: expected another rank/),
        expect.stringMatching(/^TypeError: allReduce: expected dense tensors/),
      ])
      expect(found.last).toEqual([total])
      expect(own).toBeGreaterThan(0)
    }
  })
})

describe('the store', () => {
  it('sets, waits, adds, compares and deletes', async () => {
    const [first, second] = await runRanks<Found>(2, 'store.mjs')
    expect([first?.status, second?.status, first?.stderr, second?.stderr]).toEqual([0, 0, '', ''])
    expect(second?.found).toEqual({ port: true, early: [0, 255, 7], count: 3 })
    expect(first?.found).toEqual({
      port: true,
      late: 'grüße',
      count: 3,
      compareSet: ['a', 'a', 'd'],
      prefixed: [true, true, false],
      deleted: [true, false, false],
      timeout: "TorchError: Store.wait: expected 'never' to be set within 0.1 s, but nobody did",
      keys: true,
      wrong: 'TorchError',
    })
  })
})
