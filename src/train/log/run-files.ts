import { join } from 'node:path'
import { jsonText, writeJson } from '../../models/index.js'
import type { StartEvent, TrainEvent } from '../events.js'
import type { EventLog } from './event-log.js'
import { EventFile } from './jsonl.js'
import { TensorBoardLog } from './tensorboard.js'
import { type Checksum, crc32c } from './tfevents.js'

/** In a run's folder. */
export const RUN_CONFIG = 'config.json'
export const EVENTS = 'events.jsonl'
export const TENSORBOARD = 'tensorboard'

/**
 * What a run leaves in its folder beside checkpoints: config.json with the options to run it again, events.jsonl, and
 * event files for TensorBoard. Nothing is written before the run has begun, so that one that is refused touches nothing.
 */
export class RunFiles implements EventLog {
  #logs: EventLog[] | null = null
  #waiting: TrainEvent[] = []

  private constructor(
    private readonly options: { readonly out: string },
    private readonly checksum: Checksum,
  ) {}

  /** @param options of the run, with their defaults */
  static async prepare(options: { readonly out: string }): Promise<RunFiles> {
    return new RunFiles(options, await crc32c())
  }

  write(event: TrainEvent): void {
    if (event.type === 'progress') return
    try {
      if (event.type === 'start') this.open(event)
      if (this.#logs === null) this.#waiting.push(event)
      else for (const log of this.#logs) log.write(event)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new Error(
        `expected to write the run's configuration and logs in '${this.options.out}', but ${reason}; make room there, or choose another folder`,
        { cause: error },
      )
    }
  }

  private open(event: StartEvent): void {
    const { out } = this.options
    // going on is nothing of the run's own
    const configuration = { ...this.options, resume: false }
    writeJson(join(out, RUN_CONFIG), configuration)
    this.#logs = []
    this.#logs.push(new EventFile(join(out, EVENTS), event.step))
    const board = new TensorBoardLog(join(out, TENSORBOARD), this.checksum)
    this.#logs.push(board)
    board.start(event, jsonText(configuration))
    for (const each of this.#waiting) for (const log of this.#logs) log.write(each)
    this.#waiting = []
  }

  close(): void {
    for (const log of this.#logs ?? []) log.close()
    this.#logs = null
  }
}
