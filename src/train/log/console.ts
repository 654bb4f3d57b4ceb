import { MultiBar, Presets, type SingleBar } from 'cli-progress'
import { onEarlyExit } from '../../setup/exit.js'
import { type Progress, shownRate, shownTime, terminalReporter } from '../../setup/report.js'
import type { ProgressEvent, StepEvent, TrainEvent } from '../events.js'
import { describeFigures } from '../figures.js'
import type { EventLog } from './event-log.js'

export interface ConsoleOptions {
  /** Default: standard error. */
  stream?: NodeJS.WriteStream
  /** Where nobody watches, lines of steps are so many seconds apart at least. Default: 10. */
  seconds?: number
}

const FORMAT = '{value}/{total} [{bar}] loss {loss}, accuracy {accuracy} %, {rate} images/s, {left} left'

const whole = (value: number): string => value.toLocaleString('en-US')

/** A bar with what is said above it on a terminal; elsewhere plain lines, which suit a log. */
export class ConsoleLog implements EventLog {
  readonly #stream: NodeJS.WriteStream
  readonly #seconds: number
  #bars: MultiBar | null = null
  #bar: SingleBar | null = null
  #progress: Progress | null = null
  #forget = () => {}
  #told = Number.NEGATIVE_INFINITY

  constructor({ stream = process.stderr, seconds = 10 }: ConsoleOptions = {}) {
    this.#stream = stream
    this.#seconds = seconds
  }

  line(text: string): void {
    if (this.#bars === null) this.#stream.write(`${text}\n`)
    else this.#bars.log(`${text}\n`)
  }

  write(event: TrainEvent): void {
    if (event.type === 'step') this.step(event)
    else if (event.type === 'progress') this.progress(event)
    else for (const line of linesOf(event)) this.line(line)
    if (event.type === 'start' && this.#stream.isTTY === true) this.open(event)
  }

  private open({ step, steps }: { step: number; steps: number }): void {
    this.#bars = new MultiBar(
      { format: FORMAT, hideCursor: true, forceRedraw: true, gracefulExit: false, stream: this.#stream },
      Presets.shades_classic,
    )
    // the cursor comes back also where the process ends at once
    this.#forget = onEarlyExit(() => this.close())
    this.#bar = this.#bars.create(steps, step, { loss: '?', accuracy: '?', rate: '?', left: '?' })
  }

  private progress({ what, images, total }: ProgressEvent): void {
    this.#progress ??= terminalReporter(this.#stream).progress(what, total, 'images')
    this.#progress.update(images)
    if (images < total) return
    this.#progress.finish()
    this.#progress = null
  }

  private step(event: StepEvent): void {
    const { step, steps } = event
    const shown = shownOf(event)
    if (this.#bar !== null) {
      this.#bar.update(step, shown)
      return
    }
    const now = performance.now()
    if (now - this.#told < 1000 * this.#seconds && step !== steps) return
    this.#told = now
    const { loss, accuracy, rate, left } = shown
    this.line(
      `step ${whole(step)} of ${whole(steps)}: loss ${loss}, accuracy ${accuracy} %, ${rate} images/s, ${left} left`,
    )
  }

  /** Leaves the bar as it stands; what is said from now on comes below it. */
  close(): void {
    // draws what waits to be said
    this.#bars?.update()
    this.#bars?.stop()
    this.#bars = null
    this.#bar = null
    this.#forget()
  }
}

function shownOf({ loss, accuracy, samplesPerSecond, secondsLeft }: StepEvent) {
  return {
    loss: loss.toFixed(4),
    accuracy: accuracy.toFixed(1),
    rate: shownRate(samplesPerSecond),
    left: shownTime(secondsLeft),
  }
}

function linesOf(event: TrainEvent): string[] {
  switch (event.type) {
    case 'start': {
      const { out, step, steps, images, captions, figures } = event
      const begins = step === 0 ? `${whole(steps)} steps` : `goes on after step ${whole(step)} of ${whole(steps)}`
      return [
        `${out}: ${begins}, ${whole(images)} images${captions === null ? '' : `, ${whole(captions)} captions`}, on ${event.device}`,
        ...(figures === null ? [] : describeFigures(figures)),
      ]
    }
    case 'validation': {
      const values = Object.entries(event.metrics).map(([name, value]) => `${name} ${Number(value.toPrecision(5))}`)
      return [`step ${whole(event.step)}, validation: ${values.join(', ')}`]
    }
    case 'checkpoint':
      return [`step ${whole(event.step)}: ${event.folder}`]
    case 'skipped':
      return [
        `step ${whole(event.step)} left out, since its loss (${event.loss}) or a gradient is not finite; images of the rows ${event.rows.join(', ')}`,
      ]
    case 'warning':
      return [event.message]
    default:
      return []
  }
}
