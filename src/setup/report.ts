import { Presets, SingleBar } from 'cli-progress'

/** One running measure of something with a known end. */
export interface Progress {
  update(done: number): void
  finish(): void
}

/** What is counted. */
export type Unit = 'MB' | 'files' | 'images' | 'patients'

/** Where the set-up tells what it does: a person's terminal, a log, or nobody. */
export interface Reporter {
  /** True where a person watches, so that a child program may show its own bar. */
  readonly interactive: boolean
  line(text: string): void
  progress(label: string, total: number, unit: Unit): Progress
}

export const silentReporter: Reporter = {
  interactive: false,
  line() {},
  progress: () => ({ update() {}, finish() {} }),
}

/** Bars on a terminal; elsewhere a plain line at every fifth of the way, which suits a log. */
export function terminalReporter(stream: NodeJS.WriteStream = process.stderr): Reporter {
  const interactive = stream.isTTY === true
  return {
    interactive,
    line(text) {
      stream.write(`${text}\n`)
    },
    progress(label, total, unit) {
      const scale = unit === 'MB' ? 1e-6 : 1
      const shownTotal = Math.max(1, Math.round(total * scale))
      if (interactive) {
        const bar = new SingleBar(
          {
            format: `${label} [{bar}] {percentage}% {value}/{total} ${unit}, {rate}/s, {left} left`,
            hideCursor: true,
            stream,
          },
          Presets.shades_classic,
        )
        const pace = new Pace(total)
        bar.start(shownTotal, 0, pace.shown(0, scale))
        return {
          update: (done) => bar.update(Math.round(done * scale), pace.shown(done, scale)),
          finish() {
            bar.update(shownTotal)
            bar.stop()
          },
        }
      }
      let fifths = 0
      const pace = new Pace(total)
      return {
        update(done) {
          const { rate, left } = pace.shown(done, scale)
          const reached = Math.min(4, Math.floor((5 * done) / Math.max(1, total)))
          if (reached <= fifths) return
          fifths = reached
          // at the first look: of an earlier run
          if (rate === UNKNOWN) return
          stream.write(`${label}: ${reached * 20}% of ${shownTotal} ${unit}, ${rate}/s, ${left} left\n`)
        },
        finish() {
          stream.write(`${label}: done, ${shownTotal} ${unit}\n`)
        },
      }
    },
  }
}

/** A time in words: '40 s', '12 min', '3.4 h'. */
export function shownTime(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`
}

/** To three figures. */
export const shownRate = (rate: number): string => (rate < 100 ? rate.toPrecision(3) : String(Math.round(rate)))

const UNKNOWN = '?'

/** How fast something goes. What is done at the first look was done by an earlier run. */
class Pace {
  #first: { readonly time: number; readonly done: number } | null = null

  constructor(private readonly total: number) {}

  shown(done: number, scale: number): { rate: string; left: string } {
    const time = performance.now()
    if (this.#first === null || done < this.#first.done) this.#first = { time, done }
    const rate = (1000 * (done - this.#first.done)) / (time - this.#first.time)
    if (!(rate > 0 && Number.isFinite(rate))) return { rate: UNKNOWN, left: UNKNOWN }
    const seconds = Math.ceil(Math.max(0, this.total - done) / rate)
    return { rate: shownRate(rate * scale), left: shownTime(seconds) }
  }
}
