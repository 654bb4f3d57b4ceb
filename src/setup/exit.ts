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

/** Ctrl-C and SIGTERM end the process with the usual status, after the clean-ups. Only the command line calls this. */
export function exitOnSignals(): void {
  process.once('SIGINT', () => process.exit(130))
  process.once('SIGTERM', () => process.exit(143))
}
