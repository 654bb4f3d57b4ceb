import * as torch from '../torch/index.js'
import type { SkippedEvent, StepEvent } from './events.js'
import type { StepOutcome } from './task.js'

/** What a step leaves on the device, to be read later. The tensors are the log's. */
export interface StepRecord extends StepOutcome {
  readonly step: number
  readonly epoch: number
  /** [] */
  readonly gradientNorm: torch.Tensor
  /** [], 1 where the step was left out. */
  readonly skipped: torch.Tensor
  readonly lr: number
  readonly images: number
  readonly rows: readonly number[]
}

/**
 * Collects what steps leave on the device and reads it in batches, so that no step waits for it: in between the device
 * works ahead.
 */
export class StepLog {
  #records: StepRecord[] = []
  #started = performance.now()
  #waited = 0
  #inARow = 0
  /** Steps left out so far. */
  skipped = 0

  constructor(
    private readonly steps: number,
    private readonly maxSkipped: number,
  ) {}

  add(record: StepRecord): void {
    this.#records.push(record)
  }

  get isEmpty(): boolean {
    return this.#records.length === 0
  }

  /** Time in which the step had no images, in milliseconds. */
  wait(milliseconds: number): void {
    this.#waited += milliseconds
  }

  /**
   * Reads what was collected: the steps that were left out, and the rest as one event (null where all were left out).
   *
   * @throws Error where too many in a row were left out
   */
  read(logScale: torch.Tensor | null): { skipped: SkippedEvent[]; event: StepEvent | null } {
    const records = this.#records
    this.#records = []
    const now = performance.now()
    const seconds = (now - this.#started) / 1000
    const waited = this.#waited / 1000
    this.#started = now
    this.#waited = 0
    try {
      const values = valuesOf(records)
      const skipped: SkippedEvent[] = []
      const good: { loss: number; gradientNorm: number; record: StepRecord }[] = []
      for (const [index, record] of records.entries()) {
        const { step, rows } = record
        const [loss, gradientNorm, isSkipped] = values[index]!
        if (isSkipped === 0) {
          this.#inARow = 0
          good.push({ loss, gradientNorm, record })
          continue
        }
        this.skipped += 1
        this.#inARow += 1
        skipped.push({ type: 'skipped', step, loss, rows })
        if (this.#inARow >= this.maxSkipped) {
          throw new Error(
            `expected finite losses and gradients, but ${this.#inARow} steps in a row had none, the last with the images of rows ${rows.slice(0, 8).join(', ')} ...; the parameters are those before them: lower the learning rate, clip gradients, or look at these images`,
          )
        }
      }
      const last = good.at(-1)
      if (last === undefined) return { skipped, event: null }
      const images = records.reduce((sum, each) => sum + each.images, 0)
      const mean = (name: 'loss' | 'gradientNorm') => good.reduce((sum, each) => sum + each[name], 0) / good.length
      const { step, epoch, accuracy, lr } = last.record
      const event: StepEvent = {
        type: 'step',
        step,
        steps: this.steps,
        epoch,
        loss: mean('loss'),
        accuracy: accuracy(),
        lr,
        gradientNorm: mean('gradientNorm'),
        logScale: logScale?.item() ?? null,
        samplesPerSecond: images / seconds,
        waiting: Math.min(1, waited / seconds),
        secondsLeft: ((this.steps - step) * seconds) / records.length,
      }
      return { skipped, event }
    } finally {
      for (const { loss, held, gradientNorm, skipped } of records) {
        torch.dispose([loss, ...held, gradientNorm, skipped])
      }
    }
  }
}

/** Of each step its loss, the norm of its gradients and whether it was left out: waits for the device once. */
function valuesOf(records: readonly StepRecord[]): (readonly [number, number, number])[] {
  if (records.length === 0) return []
  const all = torch.scope(() =>
    torch.noGrad(() =>
      torch
        .stack(
          records.flatMap(({ loss, gradientNorm, skipped }) =>
            [loss, gradientNorm, skipped].map((each) =>
              each.to({ device: loss.device as torch.Device, dtype: 'float64' }),
            ),
          ),
        )
        .toTypedArray(),
    ),
  )
  return records.map((_, k) => [Number(all[3 * k]), Number(all[3 * k + 1]), Number(all[3 * k + 2])] as const)
}
