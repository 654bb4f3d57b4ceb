import { expect, it } from 'vitest'
import { runRanks } from './ranks.js'

interface Reduced {
  buffer: number
  gradients: number[]
  parameters: number[]
  accumulated: number
}

interface Found {
  gather: number
  [options: `{${string}`]: Reduced
  unused: string
  unreached: string
  statistics: string
  frozen: string
  different: string
}

it('of two processes has the gradients of one on the joined batch', async () => {
  const ranks = await runRanks<Found>(2, 'training.mjs')
  expect(ranks.map(({ status, stderr }) => [status, stderr])).toEqual([
    [0, ''],
    [0, ''],
  ])
  for (const { found } of ranks) {
    expect(found.gather).toBeLessThan(1e-5)
    const kinds = ['{}', '{"bucketBytes":1,"firstBucketBytes":1}', '{"gradientAsBucketView":true}'] as const
    for (const kind of kinds) {
      const { buffer, gradients, parameters, accumulated } = found[kind]!
      // rank 0's
      expect(buffer).toBe(2)
      expect(Math.max(...gradients)).toBeLessThan(1e-5)
      expect(Math.max(...parameters)).toBeLessThan(1e-6)
      expect(accumulated).toBeLessThan(1e-5)
    }
    expect(found.unused).toMatch(
      /^TypeError: DistributedDataParallel: .*it does not on spare\.weight, spare\.bias; leave/,
    )
    expect(found.unreached).toMatch(/^TypeError: DistributedDataParallel: .* but other\.weight got no gradient/)
    expect(found.statistics).toMatch(/^TypeError: DistributedDataParallel: .* 'norm' is one; put it into eval\(\)/)
    expect(found.frozen).toMatch(/^TypeError: DistributedDataParallel: expected a parameter that requires/)
  }
  expect(ranks[0]?.found.different).toMatch(/rank 1 aborted the group: its parameters are not rank 0's/)
  expect(ranks[1]?.found.different).toMatch(/^TorchError: DistributedDataParallel: .*sizes/)
})
