import { describe, expect, it } from 'vitest'
import { runRanks } from './ranks.js'

interface Found {
  told: string[]
  elapsed: number
}

const size = 3

interface Case {
  kind: string
  /** What the others are told. */
  told: RegExp
  /** Ranks that say nothing any more. */
  silent?: number[]
  /** Ranks that are not among those which wait for somebody. */
  except?: number[]
  timeout?: number
}

const cases: Case[] = [
  { kind: 'dies', told: /rank 2 does not answer: its process has ended/, silent: [2] },
  { kind: 'firstDies', told: /rank 0, whose process keeps the store of the group, does not answer/, silent: [0] },
  { kind: 'stops', told: /rank 2 does not answer: its process has ended, was stopped/, silent: [2], timeout: 2000 },
  {
    kind: 'hangs',
    told: /allReduce \(collective 2 of the group\): timed out after 2 s; rank 2 has not come to it: the last collective that it came to is number 1/,
    silent: [2],
    timeout: 2000,
  },
  { kind: 'leaves', told: /rank 2 has left the group/, except: [2], timeout: 2000 },
  {
    kind: 'differs',
    told: /rank 0 asks for allReduce of \[3\] float32 by sum and rank 2 for broadcast of \[2, 2\] float32 from rank 0/,
  },
  { kind: 'sizes', told: /rank 0 asks for allReduce of \[3\] float32 by sum and rank 2 for allReduce of \[5\]/ },
  { kind: 'gathers', told: /rank 0 asks for allGatherIntoTensor of .* float32 and rank 1 for/ },
  { kind: 'message', told: /recv from rank 0: expected what rank 0 sends to be 3 elements of float32/ },
  { kind: 'aborts', told: /rank 2 aborted the group: the loss is not finite/ },
]

describe.concurrent('a group of which one fails', () => {
  it.each(cases)(
    '$kind: the others are told who and why',
    async ({ kind, told, silent = [], except = [], timeout = 20_000 }) => {
      const ranks = await runRanks<Found | undefined>(
        size,
        'failures.mjs',
        [kind, String(timeout)],
        (rank) => !silent.includes(rank),
      )
      for (const [rank, { status, stderr, found }] of ranks.entries()) {
        if (silent.includes(rank)) continue
        expect([rank, status, stderr]).toEqual([rank, 0, ''])
        if (except.includes(rank)) continue
        // at once in the collective that fails, and again in each one after it
        expect(found?.told).toEqual([expect.stringMatching(told), expect.stringMatching(told)])
        // far from the time-out where there is none to wait for
        expect(found?.elapsed).toBeLessThan(timeout + 10_000)
      }
    },
  )
})

describe('a group to which one does not come', () => {
  it('names it', async () => {
    const ranks = await runRanks<Found>(1, 'absent.mjs')
    expect(ranks[0]?.stderr).toBe('')
    expect(ranks[0]?.found.told).toEqual([
      'TorchError: initProcessGroup: expected 3 ranks to come to the group within 0.5 s, but rank 1, rank 2 did not',
    ])
  })
})
