import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { afterAll, describe, expect, it } from 'vitest'
import type { StartEvent, StepEvent, TrainEvent } from '../../../src/train/events.js'
import { ConsoleLog } from '../../../src/train/log/console.js'
import { EventFile } from '../../../src/train/log/jsonl.js'
import { RunFiles } from '../../../src/train/log/run-files.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-logs-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const step = (at: number, more: Partial<StepEvent> = {}): StepEvent => ({
  type: 'step',
  step: at,
  steps: 1000,
  epoch: 0,
  loss: 8 / at,
  accuracy: 12.5,
  lr: 1e-4,
  gradientNorm: 1,
  logScale: 2.66,
  samplesPerSecond: 123.4,
  waiting: 0,
  secondsLeft: 1000 - at,
  ...more,
})

const part = { parameters: 1_000, trainable: 10 }
const start: StartEvent = {
  type: 'start',
  stage: 'pretrain',
  out: 'runs/a',
  step: 0,
  steps: 1000,
  images: 2_000,
  captions: 30,
  parameters: 3_000,
  trainable: 30,
  figures: {
    image: part,
    text: part,
    projections: part,
    texts: { distinct: 41, tokens: 160, paddedTokens: 1_000, maximumTokens: 4_608 },
    flops: { image: 3.5e12, text: 1.5e12, total: 5e12 },
    memory: {
      weights: 2 ** 30,
      gradients: 0,
      optimizer: 0,
      averages: 0,
      activations: 2 ** 30,
      batches: 0,
      total: 2 ** 31,
    },
  },
  device: 'cpu',
  processes: 1,
  threads: 1,
  torch: '2.13.0',
}

describe('events.jsonl', () => {
  const path = join(folder, 'events.jsonl')
  const lines = () =>
    readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { type: string; step?: number })

  it('gets an event a line, and loses what is past the checkpoint when the run goes on', () => {
    const first = new EventFile(path, 0)
    for (const event of [start, step(1), step(2), step(3)]) first.write(event)
    first.write({ type: 'checkpoint', step: 3, folder: 'c' })
    first.write({ type: 'warning', message: 'two\nlines' })
    first.write(step(4))
    first.close()
    expect(lines().length).toBe(7)
    // as a kill in the middle of a line leaves it
    appendFileSync(path, '{"type":"step","st')
    const second = new EventFile(path, 3)
    second.write({ ...start, step: 3 })
    second.write(step(4))
    second.close()
    expect(lines().map((event) => [event.type, event.step])).toEqual([
      ['start', 0],
      ['step', 1],
      ['step', 2],
      ['step', 3],
      ['checkpoint', 3],
      ['warning', undefined],
      ['start', 3],
      ['step', 4],
    ])
  })

  it('begins anew where nothing was saved', () => {
    const file = new EventFile(path, 0)
    file.write(start)
    file.close()
    expect(lines()).toEqual([start])
  })

  it('has no pixels, and null for numbers that are not finite', () => {
    const file = new EventFile(path, 0)
    file.write({ type: 'image', step: 0, name: 'input', width: 1, height: 1, png: new Uint8Array(9) })
    file.write({ type: 'skipped', step: 1, loss: Number.NaN, rows: [1] })
    file.close()
    expect(lines()).toEqual([
      { type: 'image', step: 0, name: 'input', width: 1, height: 1 },
      { type: 'skipped', step: 1, loss: null, rows: [1] },
    ])
  })
})

describe('files of a run', () => {
  it('that cannot be written end it in a sentence', async () => {
    const files = await RunFiles.prepare({ out: join(folder, 'none') })
    files.write({ type: 'warning', message: 'kept until it begins' })
    expect(() => files.write(start)).toThrow(/expected to write the run's configuration and logs in '.*none', but /)
    files.close()
  })
})

function shown(isTTY: boolean, events: readonly TrainEvent[]): string {
  const stream = new PassThrough() as unknown as NodeJS.WriteStream
  Object.assign(stream, { isTTY, columns: 120, cursorTo() {}, moveCursor() {}, clearLine() {}, clearScreenDown() {} })
  const log = new ConsoleLog({ stream, seconds: 0 })
  for (const event of events) log.write(event)
  log.close()
  log.line('the end')
  return String((stream as unknown as PassThrough).read())
}

describe('the console', () => {
  const events: TrainEvent[] = [
    start,
    step(10),
    { type: 'warning', message: 'a warning' },
    { type: 'validation', step: 10, metrics: { loss: 3.21, accuracy1: 20 } },
    { type: 'checkpoint', step: 10, folder: 'runs/a/checkpoints/step-00000010' },
    { type: 'skipped', step: 11, loss: Number.NaN, rows: [3, 4] },
    step(20),
  ]

  it('tells plain lines where nobody watches', () => {
    expect(shown(false, events).trim().split('\n')).toEqual([
      'runs/a: 1,000 steps, 2,000 images, 30 captions, on cpu',
      'trains 30 of 3,000 parameters: image 10, text 10, projections 10',
      'a step: 41 distinct captions, 160 tokens of text (1,000 padded to the longest, 4,608 to the maximum), 5 TFLOP (image 3.5 TFLOP, text 1.5 TFLOP)',
      'memory, an estimate: 2 GiB (weights 1 GiB, gradients 0 bytes, optimizer 0 bytes, averages 0 bytes, activations 1 GiB, batches 0 bytes)',
      'step 10 of 1,000: loss 0.8000, accuracy 12.5 %, 123 images/s, 17 min left',
      'a warning',
      'step 10, validation: loss 3.21, accuracy1 20',
      'step 10: runs/a/checkpoints/step-00000010',
      'step 11 left out, since its loss (NaN) or a gradient is not finite; images of the rows 3, 4',
      'step 20 of 1,000: loss 0.4000, accuracy 12.5 %, 123 images/s, 16 min left',
      'the end',
    ])
  })

  it('shows a bar on a terminal, and loses nothing that is said beside it', () => {
    const text = shown(true, events)
    expect(text).toMatch(/20\/1000 \[.*\] loss 0\.4000, accuracy 12\.5 %, 123 images\/s, 16 min left/)
    for (const said of ['a warning', 'step 10, validation', 'step-00000010', 'step 11 left out', 'the end']) {
      expect(text).toContain(said)
    }
  })
})
