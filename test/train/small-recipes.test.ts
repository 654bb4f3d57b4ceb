import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { load } from '../../src/eval/index.js'
import type { StartEvent } from '../../src/train/events.js'
import { train } from '../../src/train/train.js'
import { type Tiny, tiny } from './tiny.js'

let made: Tiny
beforeAll(async () => {
  made = await tiny(20)
}, 60_000)
afterAll(() => rmSync(made.folder, { recursive: true, force: true }))

describe('the recipes of the quickstart', () => {
  it.each(['cleft-small', 'clip-bert-small'])(
    '%s trains by its name alone, and what it leaves loads',
    async (recipe) => {
      const job = train({
        recipe,
        data: made.data,
        out: join(made.folder, recipe),
        batchSize: 8,
        steps: 2,
        validation: null,
        workers: 1,
      })
      let start: StartEvent | undefined
      for await (const event of job) if (event.type === 'start') start = event
      const { checkpoint } = await job
      using model = await load(checkpoint)
      const embedding = await model.encodeText(['this is a chest x ray of a patient with edema'])
      expect(embedding.shape).toEqual([1, 128])
      embedding.dispose()
      expect(start!.trainable).toBeLessThan(start!.parameters)
      expect(model.input).toMatchObject({ size: 64 })
    },
  )
})
