type Cleanup = () => void

const cleanups = new Set<Cleanup>()
let listening = false

/**
 * Has something undone when the process ends early (Ctrl-C, an error that nobody caught); the returned function
 * forgets it once the work is finished.
 */
export function onEarlyExit(cleanup: Cleanup): () => void {
  if (!listening) {
    listening = true
    process.on('exit', () => {
      for (const run of [...cleanups].reverse()) {
        try {
          run()
        } catch {
          // The process ends anyway, and the other clean-ups still have to run.
        }
      }
    })
  }
  cleanups.add(cleanup)
  return () => {
    cleanups.delete(cleanup)
  }
}

/** Called with the status that the process is to end with. */
type Interrupt = (status: number) => void

let interrupt: Interrupt | null = null

/**
 * Ctrl-C and SIGTERM end the process with the usual status, after the clean-ups, but where {@link onInterrupt} has taken
 * the first of them. Only the command line calls this.
 */
export function exitOnSignals(): void {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.on(signal, () => {
      if (interrupt === null) process.exit(status)
      const first = interrupt
      interrupt = null
      first(status)
    })
  }
}

/**
 * Has the first Ctrl-C or SIGTERM stop work that leaves something to go on from; the second ends the process at once. The
 * returned function gives both back.
 */
export function onInterrupt(work: Interrupt): () => void {
  interrupt = work
  return () => {
    if (interrupt === work) interrupt = null
  }
}
