import { beforeAll, describe, expect, it } from 'vitest'
import { runProgram } from './helpers.js'

interface Computed {
  readonly gradient: [number, number[][]]
  readonly leaked: number
  readonly version: string
}

interface Results {
  readonly compute: readonly Computed[]
  readonly change: { values: number[]; requiresGrad: boolean; again: string; foreign: string }
  readonly seenHere: number[]
  readonly inTransitBefore: number
  readonly inTransitAfter: number
  readonly collectedByAnother: string
  readonly inTransitOfGiver: number
  readonly inTransitAfterExit: number
  readonly receivedLives: number[]
  readonly afterExit: string
  readonly leave: { exit: number }
  readonly fail: { error: string }
  readonly terminated: number
  readonly stillWorks: number[]
  readonly wrongTokens: readonly string[]
}

// vitest may run this file itself in a worker: the program has a process of its own, so that an abort is a failed test
let results: Results
beforeAll(() => {
  results = JSON.parse(runProgram('workers.mjs'))
}, 120_000)

describe('worker threads', () => {
  it('each load the package and compute: gradients, hooks, checkpoints, scopes', () => {
    expect(results.compute.length).toBe(5)
    const [alone, first, second, other, third] = results.compute
    for (const each of results.compute) {
      expect(each.leaked).toBe(0)
      expect(each.version).toBe(alone!.version)
      expect(each.gradient[1]).toEqual([[32, 32]])
    }
    for (const each of [first, second, third]) expect(each!.gradient[0]).toBeCloseTo(alone!.gradient[0], 4)
    expect(other!.gradient[0]).not.toBeCloseTo(alone!.gradient[0], 4)
  })

  it('see the same memory of a tensor that was sent', () => {
    expect(results.change.values).toEqual([1, 2, 3])
    expect(results.seenHere).toEqual([101, 102, 103])
    expect(results.change.requiresGrad).toBe(false)
  })

  it('collect a token once', () => {
    expect([results.inTransitBefore, results.inTransitAfter]).toEqual([1, 0])
    expect(results.change.again).toMatch(/^RangeError: receive: expected a token that was not collected/)
    expect(results.collectedByAnother).toMatch(/^RangeError: receive: /)
  })

  it('drop what they sent when they end, and nothing that was collected', () => {
    expect([results.inTransitOfGiver, results.inTransitAfterExit]).toEqual([1, 0])
    expect(results.afterExit).toMatch(
      /^RangeError: receive: expected a token that was not collected and whose sender is alive/,
    )
    expect(results.receivedLives).toEqual([1, 2])
  })

  it('refuse handles of each other', () => {
    expect(results.change.foreign).toMatch(/^TypeError: shape: expected self to be a live Tensor/)
  })

  it('may end in the middle of work, by themselves, by an error, or from outside', () => {
    expect(results.leave).toEqual({ exit: 0 })
    expect(results.fail.error).toMatch(/^TorchError: add: |must match the size/)
    expect(results.terminated).toBe(1)
    expect(results.stillWorks).toEqual([2, 2])
  })

  it('refuse what is no token', () => {
    for (const each of results.wrongTokens)
      expect(each).toMatch(/^TypeError: receive: expected a token that send\(\) made/)
  })
})

describe('dropped tensors', () => {
  it('are freed after a garbage collection and a turn of the event loop', () => {
    const { dropped, left } = JSON.parse(runProgram('finalizers.mjs', [], { flags: ['--expose-gc'] }))
    expect(dropped).toBeGreaterThan(0)
    expect(left).toBeLessThan(30)
  })
})

describe('the environment', () => {
  it('of child processes is the user’s own', () => {
    // set while libgomp is loaded, and taken back
    expect(process.env.GOMP_SPINCOUNT).toBeUndefined()
  })
})
