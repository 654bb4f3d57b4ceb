import { Presets, SingleBar } from 'cli-progress'

/** One running measure of something with a known end. */
export interface Progress {
  update(done: number): void
  finish(): void
}

/** Where the set-up tells what it does: a person's terminal, a log, or nobody. */
export interface Reporter {
  /** True where a person watches, so that a child program may show its own bar. */
  readonly interactive: boolean
  line(text: string): void
  progress(label: string, total: number, unit: 'MB' | 'files' | 'patients'): Progress
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
          { format: `${label} [{bar}] {percentage}% {value}/{total} ${unit}`, hideCursor: true, stream },
          Presets.shades_classic,
        )
        bar.start(shownTotal, 0)
        return {
          update: (done) => bar.update(Math.round(done * scale)),
          finish() {
            bar.update(shownTotal)
            bar.stop()
          },
        }
      }
      let fifths = 0
      return {
        update(done) {
          const reached = Math.min(4, Math.floor((5 * done) / Math.max(1, total)))
          if (reached <= fifths) return
          fifths = reached
          stream.write(`${label}: ${reached * 20}% of ${shownTotal} ${unit}\n`)
        },
        finish() {
          stream.write(`${label}: done, ${shownTotal} ${unit}\n`)
        },
      }
    },
  }
}
