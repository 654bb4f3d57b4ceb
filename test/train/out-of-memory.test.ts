import { rmSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest'
import { TextTower } from '../../src/clip/text-tower.js'
import * as torch from '../../src/torch/index.js'
import { checkpointSteps } from '../../src/train/checkpoint.js'
import type { StepEvent } from '../../src/train/events.js'
import { OutOfMemoryError } from '../../src/train/out-of-memory.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
beforeAll(async () => {
  data = await tiny()
})
afterEach(() => vi.restoreAllMocks())
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

/** More than any machine has. */
const exhaust = () => torch.empty([2 ** 49])

async function losses(options: TrainOptions): Promise<number[]> {
  const found: number[] = []
  for await (const event of train(options)) if (event.type === 'step') found.push((event as StepEvent).loss)
  return found
}

/** Runs out of memory at a step (from 0) as often as said, behind both encoders' forward; says how often it did. */
function exhaustAt(step: number, times: number): () => number {
  const original = TextTower.prototype.projectText
  let calls = 0
  let failed = 0
  vi.spyOn(TextTower.prototype, 'projectText').mockImplementation(function (this: TextTower, feature) {
    const isWanted = calls - failed === step && failed < times
    calls += 1
    if (isWanted) {
      failed += 1
      exhaust()
    }
    return original.call(this, feature)
  })
  return () => failed
}

it('says of libtorch’s errors whether memory ran out', () => {
  let thrown: unknown
  try {
    exhaust()
  } catch (error) {
    thrown = error
  }
  expect(torch.isOutOfMemory(thrown)).toBe(true)
  expect(() => torch.zeros([2]).add(torch.zeros([3]))).toThrow(torch.TorchError)
  expect(torch.isOutOfMemory(new torch.TorchError('add: The size of tensor a must match'))).toBe(false)
  expect(torch.isOutOfMemory(new Error('out of memory'))).toBe(false)
})

it('does a step that ran out of memory once more, to the same result', async () => {
  const options = { ...tinyRun(data, 'plain'), logEvery: 1, validation: null }
  const plain = await losses(options)
  const failures = exhaustAt(2, 1)
  expect(await losses({ ...options, out: `${options.out}-again` })).toEqual(plain)
  expect(failures()).toBe(1)
})

it('stops the second time with what holds memory, and with a checkpoint to go on from', async () => {
  const options = { ...tinyRun(data, 'stopped'), logEvery: 1, checkpointEvery: 100, validation: null }
  const plain = await losses({ ...options, out: `${options.out}-whole` })
  exhaustAt(3, 2)
  const thrown = await train(options).catch((error: unknown) => error)
  expect(thrown).toBeInstanceOf(OutOfMemoryError)
  expect((thrown as Error).message).toMatch(
    /^the step was expected to fit into memory, and did not, .*cleft plan CONFIG says which\n {2}weights +\d+\.\d MiB\n {2}gradients +0\.0 MiB\n {2}optimizer +\d/,
  )
  expect(checkpointSteps(options.out)).toEqual([3])
  vi.restoreAllMocks()
  expect(await losses({ ...options, resume: true })).toEqual(plain.slice(3))
})

it('frees what JavaScript has let go of', async () => {
  const before = torch.memory.counters().live
  ;(() => {
    for (let k = 0; k < 50; k += 1) torch.zeros([1000])
  })()
  expect(torch.memory.counters().live).toBeGreaterThanOrEqual(before + 50)
  await torch.memory.collect()
  expect(torch.memory.counters().live).toBeLessThanOrEqual(before + 1)
})
