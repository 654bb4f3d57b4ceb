import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StepEvent, TrainEvent } from '../../src/train/events.js'
import { crc32c } from '../../src/train/log/tfevents.js'
import { parseOptions, type TrainOptions, train } from '../../src/train/train.js'
import { readEvent, readRecords } from './log/records.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
beforeAll(async () => {
  data = await tiny(20)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const linesOf = (out: string): TrainEvent[] =>
  readFileSync(join(out, 'events.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as TrainEvent)

const curveOf = (events: readonly TrainEvent[]) =>
  events
    .filter((event): event is StepEvent => event.type === 'step')
    .map(({ step, loss, accuracy, logScale, gradientNorm }) => [step, loss, accuracy, logScale, gradientNorm])

describe('the folder of a run', () => {
  it('has the configuration, from which the run is repeated to the bit', async () => {
    const options = tinyRun(data, 'first')
    const first = await train(options)
    const saved = JSON.parse(readFileSync(join(options.out, 'config.json'), 'utf8')) as TrainOptions
    expect(parseOptions(saved)).toEqual(parseOptions(options))
    const second = await train({ ...saved, out: join(data.folder, 'second') })
    expect(curveOf(linesOf(second.out))).toEqual(curveOf(linesOf(first.out)))
    expect(curveOf(linesOf(first.out)).length).toBe(6)
    for (const file of ['trainable.safetensors', 'optimizer.safetensors']) {
      expect(readFileSync(join(second.checkpoint, file)).equals(readFileSync(join(first.checkpoint, file)))).toBe(true)
    }
  })

  it('has every event in events.jsonl and in TensorBoard files, also where the run was stopped and went on', async () => {
    const options = tinyRun(data, 'stopped')
    const told: TrainEvent[] = []
    const abort = new AbortController()
    const job = train(options, { signal: abort.signal })
    await expect(
      (async () => {
        for await (const event of job) {
          told.push(event)
          if (event.type === 'step' && event.step === 3) abort.abort(new Error('enough'))
        }
      })(),
    ).rejects.toThrow('enough')
    for await (const event of train({ ...options, resume: true })) told.push(event)
    const lines = linesOf(options.out)
    const noPixels = told.map((event) => (event.type === 'image' ? { ...event, png: undefined } : event))
    expect(lines).toEqual(JSON.parse(JSON.stringify(noPixels)))
    expect(lines.filter(({ type }) => type === 'start').length).toBe(2)
    expect((JSON.parse(readFileSync(join(options.out, 'config.json'), 'utf8')) as TrainOptions).resume).toBe(false)

    const folder = join(options.out, 'tensorboard')
    const checksum = await crc32c()
    const files = readdirSync(folder).sort()
    expect(files.length).toBe(2)
    const events = files.flatMap((name) => readRecords(readFileSync(join(folder, name)), checksum).map(readEvent))
    const curve = (tag: string) =>
      events.flatMap(({ step, values }) => (values.has(tag) ? [[step, values.get(tag)]] : []))
    const float32 = (steps: readonly (readonly (number | null | undefined)[])[]) =>
      steps.map(([step, value]) => [step, Math.fround(value!)])
    expect(curve('train/loss')).toEqual(float32(curveOf(lines)))
    expect(curve('validation/loss')).toEqual(
      lines.flatMap((event) => (event.type === 'validation' ? [[event.step, Math.fround(event.metrics.loss!)]] : [])),
    )
    const resumed = lines.findLast((event) => event.type === 'start')!.step
    expect(events.filter(({ isSessionStart }) => isSessionStart).map(({ step }) => step)).toEqual([resumed + 1])
    expect(curve('input').map(([step]) => step)).toEqual([0, resumed])
    expect(curve('configuration').length).toBe(2)
  })

  it('is not touched by a run that is refused', async () => {
    const options = { ...tinyRun(data, 'refused'), text: { model: join(data.folder, 'nowhere') } }
    await expect(train(options)).rejects.toThrow()
    for (const file of ['config.json', 'events.jsonl', 'tensorboard']) {
      expect(existsSync(join(options.out, file))).toBe(false)
    }
    const again = tinyRun(data, 'first')
    const before = readFileSync(join(again.out, 'events.jsonl'), 'utf8')
    await expect(train(again)).rejects.toThrow(/expected a folder without a run/)
    expect(readFileSync(join(again.out, 'events.jsonl'), 'utf8')).toBe(before)
  })
})
