import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { evaluate } from '../../src/eval/evaluate.js'
import type { EvaluateOptions } from '../../src/eval/options.js'
import { train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from '../train/tiny.js'

let data: Tiny
let options: EvaluateOptions
beforeAll(async () => {
  data = await tiny(20)
  const { checkpoint } = await train({ ...tinyRun(data, 'run'), steps: 1, validation: null })
  // the last batch is not whole
  options = {
    from: checkpoint,
    data: { ...data.data, split: 'train' },
    labels: 'multi',
    batchSize: 5,
    resamples: 20,
    name: 'a',
  }
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

describe('an evaluation in several processes', () => {
  it('finds what one finds, to the bit, and writes one report', async () => {
    const [one, two] = [join(data.folder, 'one'), join(data.folder, 'two')]
    const done: number[][] = []
    const expected = await evaluate({ ...options, report: one, images: false })
    const found = await evaluate({
      ...options,
      report: two,
      images: false,
      processes: 2,
      onProgress: (images, total) => done.push([images, total]),
    })
    expect(found.summary).toEqual(expected.summary)
    expect(found.predictions).toEqual(expected.predictions)
    expect(done.length).toBeGreaterThan(1)
    for (const name of ['metrics.json', 'predictions.csv']) {
      expect(readFileSync(join(two, name), 'utf8')).toBe(readFileSync(join(one, name), 'utf8'))
    }
  })

  it('counts what no process can read, and refuses where it is too much', async () => {
    // an image that is none, for whichever process has it
    const table = join(data.data.root, 'train.csv')
    const path = readFileSync(table, 'utf8')
      .split('\n')[8]!
      .split(',')[0]!
      .replace(/^[^/]*\//, '')
    const file = join(data.data.root, path)
    const before = readFileSync(file)
    writeFileSync(file, 'no image')
    try {
      const report = join(data.folder, 'refused')
      await expect(evaluate({ ...options, processes: 2, report })).rejects.toThrow(
        /expected at most 1 % of \d+ .*but 1 are/,
      )
      expect(existsSync(join(report, 'metrics.json'))).toBe(false)
    } finally {
      writeFileSync(file, before)
    }
  })
})
