import { describe, expect, it } from 'vitest'
import * as torch from '../../../src/torch/index.js'
import { runRanks } from './ranks.js'

const { Processes } = torch.distributed

describe('processes', () => {
  it('tell one another, gather rows, average gradients, and do several pieces of work', async () => {
    const ranks = await runRanks<Record<string, unknown>>(3, 'processes.mjs')
    expect(ranks.map(({ status, stderr }) => [status, stderr])).toEqual([0, 1, 2].map(() => [0, '']))
    for (const [rank, { found }] of ranks.entries()) {
      expect(found).toEqual({
        rank,
        size: 3,
        isFirst: rank === 0,
        device: 'cpu',
        messages: [0, 1, 2].map((each) => ({ rank: each, text: 'ä'.repeat(each) })),
        lengths: [0, 10_000, 20_000],
        nothing: [null, null, null],
        rows: [1, 2, 2].map((each) => [each, each]),
        noRows: null,
        ordered: [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5].map((each) => [each, 10 * each])],
        before: [null, null, null],
        means: [[1, 1, 1], [5, 5], 6],
        addedUp: [[2, 2, 2], [1, 1], 1],
        reduced: [[1, 1, 1], [1, 1], 1],
        without: expect.stringMatching(/expected the output to depend on every parameter, but it does not on second;/),
        value: 1,
        exact: true,
        beforeTheLast: [0, 0],
        // the last layer's bucket alone, and then that of the others
        duringBackward: 1,
        afterwards: 1,
        skipped: 1,
        shared: [7, 7],
        features: ['float32', [0, 0, 1, 1, 2, 2], [rank, rank]],
        again: 3,
      })
    }
  })

  it('that are one: everything is as it was', async () => {
    const { alone } = Processes
    expect(await Processes.join()).toBe(alone)
    expect([alone.rank, alone.size, alone.isFirst]).toEqual([0, 1, true])
    expect(await alone.gather({ a: 1 })).toEqual([{ a: 1 }])
    const features = torch.ones([2, 2])
    expect(alone.gatherFeatures(features)).toBe(features)
    expect(alone.ownRows(features)).toBe(features)
    const { numbers, rows } = (await alone.gatherInOrder([3, 1], features))!
    expect([numbers, rows.toArray()]).toEqual([[3, 1], features.toArray()])
    await alone.average([features])
    const parameter = new torch.nn.Parameter(torch.ones([2]))
    using mean = alone.gradientMean([['parameter', parameter]])
    mean.backward(parameter.mul(3), torch.ones([2]))
    mean.reduce()
    expect(parameter.grad!.toArray()).toEqual([3, 3])
    await alone.share([features])
    await alone.meet()
    await alone.fail('nobody is told')
  })
})
