import { closeSync, existsSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import type { TrainEvent } from '../events.js'
import { type EventLog, eventLine } from './event-log.js'

/**
 * The events of a run in a file, one a line, in the order in which they happened. A run that goes on keeps the lines up to
 * the checkpoint that it goes on from; what came after it happens again.
 */
export class EventFile implements EventLog {
  readonly #file: number

  /** @param step that the run goes on from; 0 for a new one */
  constructor(path: string, step: number) {
    if (existsSync(path)) {
      const kept = readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line !== '' && isBefore(line, step))
      // beside and renamed: a kill in here loses no line
      writeFileSync(`${path}.part`, kept.map((line) => `${line}\n`).join(''))
      renameSync(`${path}.part`, path)
    }
    this.#file = openSync(path, 'a')
  }

  write(event: TrainEvent): void {
    const line = Buffer.from(`${eventLine(event)}\n`)
    for (let done = 0; done < line.length; ) done += writeSync(this.#file, line, done)
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** Whether a line is whole, and of a step up to this one. Nothing went before a run that begins. */
function isBefore(line: string, step: number): boolean {
  if (step === 0) return false
  try {
    const event = JSON.parse(line) as { step?: number }
    return event.step === undefined || event.step <= step
  } catch {
    return false
  }
}
