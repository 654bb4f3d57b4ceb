import { describe, expect, it } from 'vitest'
import { Job } from '../../src/train/job.js'

const turn = () => new Promise(setImmediate)

describe('a job', () => {
  it('is iterated for its events and awaited for its result', async () => {
    const job = new Job<number, string>(async (emit) => {
      for (let k = 0; k < 3; k += 1) {
        emit(k)
        await turn()
      }
      return 'done'
    })
    const events: number[] = []
    for await (const event of job) events.push(event)
    expect(events).toEqual([0, 1, 2])
    expect(await job).toBe('done')
  })

  it('loses no event to a slow reader, and serves several', async () => {
    const job = new Job<number, null>(async (emit) => {
      for (let k = 0; k < 50; k += 1) emit(k)
      return null
    })
    const read = async (pause: boolean) => {
      const events: number[] = []
      for await (const event of job) {
        events.push(event)
        if (pause) await turn()
      }
      return events.length
    }
    expect(await Promise.all([read(true), read(false)])).toEqual([50, 50])
  })

  it('throws where it fails: at the reader, at the awaiter, and nowhere else', async () => {
    const failing = () =>
      new Job<number, never>(async (emit) => {
        emit(1)
        throw new RangeError('no')
      })
    await expect(failing()).rejects.toThrow('no')
    const events: number[] = []
    await expect(
      (async () => {
        for await (const event of failing()) events.push(event)
      })(),
    ).rejects.toThrow('no')
    expect(events).toEqual([1])
    await expect(failing().catch(() => 'caught')).resolves.toBe('caught')
  })

  it('goes on where a reader leaves', async () => {
    const job = new Job<number, number>(async (emit) => {
      let count = 0
      for (; count < 5; count += 1) {
        emit(count)
        await turn()
      }
      return count
    })
    for await (const event of job) if (event === 1) break
    expect(await job).toBe(5)
  })
})
