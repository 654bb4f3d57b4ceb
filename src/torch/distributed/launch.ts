import { type ChildProcess, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { availableParallelism, constants } from 'node:os'
import { createInterface } from 'node:readline'

export interface LaunchOptions {
  /** Beside this process's environment and what says each rank which it is. */
  environment?: NodeJS.ProcessEnv
  /** How long the other ranks get to stop by themselves once one has failed, in milliseconds. Default: 10,000. */
  patience?: number
  /** Where the ranks meet. Default: a free port of 127.0.0.1. */
  masterPort?: number
  /** Stops the ranks by SIGTERM. SIGINT and SIGTERM are then not passed on: they are left to whoever has the signal. */
  signal?: AbortSignal
  /** Gets each line that a rank writes, without its end. Default: this process's own, behind '[rank] '. */
  onLine?: (line: string, rank: number, stream: 'stdout' | 'stderr') => void
}

/** A rank failed; the others were stopped. */
export class LaunchError extends Error {
  override readonly name = 'LaunchError'
  constructor(
    message: string,
    /** The rank that failed first. */
    readonly rank: number,
    /** Its exit status; 128 and the signal's number where a signal ended it. */
    readonly exitStatus: number,
  ) {
    super(message)
  }
}

/** A port of 127.0.0.1 that nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

function writeLine(line: string, rank: number, stream: 'stdout' | 'stderr'): void {
  process[stream].write(`[${rank}] ${line}\n`)
}

/** The whole process group of a child: what it started itself ends with it. */
function signalAll(children: readonly ChildProcess[], signal: NodeJS.Signals): void {
  for (const { pid, exitCode, signalCode } of children) {
    if (pid === undefined || exitCode !== null || signalCode !== null) continue
    try {
      process.kill(process.platform === 'win32' ? pid : -pid, signal)
    } catch {
      // It has ended meanwhile.
    }
  }
}

interface Ended {
  readonly rank: number
  readonly status: number
  readonly words: string
}

function ended(child: ChildProcess, rank: number): Promise<Ended> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ rank, status: 127, words: `did not start: ${error.message}` }))
    child.once('close', (code, signal) => {
      if (signal === null) resolve({ rank, status: code ?? 1, words: `ended with status ${code}` })
      else resolve({ rank, status: 128 + constants.signals[signal], words: `was ended by ${signal}` })
    })
  })
}

function startRank(
  rank: number,
  processes: number,
  [program, ...parameters]: readonly [string, ...string[]],
  masterPort: number,
  { environment = {}, onLine = writeLine }: LaunchOptions,
): ChildProcess {
  const child = spawn(program, parameters, {
    // A process group of its own: Ctrl-C comes here alone, and is passed on once.
    detached: process.platform !== 'win32',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      // As torchrun does, and for the same reason: all ranks' threads share the processors.
      OMP_NUM_THREADS: String(Math.max(1, Math.floor(availableParallelism() / processes))),
      ...process.env,
      ...environment,
      RANK: String(rank),
      LOCAL_RANK: String(rank),
      WORLD_SIZE: String(processes),
      LOCAL_WORLD_SIZE: String(processes),
      MASTER_ADDR: '127.0.0.1',
      MASTER_PORT: String(masterPort),
    },
  })
  for (const stream of ['stdout', 'stderr'] as const) {
    createInterface({ input: child[stream]!, crlfDelay: Infinity }).on('line', (line) => onLine(line, rank, stream))
  }
  return child
}

/**
 * Runs a program in several processes of this machine that find one another: each gets torchrun's environment (RANK,
 * LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). Ends when all have. SIGINT and SIGTERM are passed on; where one
 * comes a second time, the processes are killed. No process outlives this one.
 *
 * @throws LaunchError where a rank fails: the others get SIGTERM, and SIGKILL when the patience has ended
 */
export async function launch(
  processes: number,
  command: readonly [string, ...string[]],
  options: LaunchOptions = {},
): Promise<void> {
  if (!Number.isInteger(processes) || processes < 1) {
    throw new RangeError(`launch: expected a number of processes from 1 on, but received ${processes}`)
  }
  const { patience = 10_000 } = options
  const masterPort = options.masterPort ?? (await freePort())
  const children = Array.from({ length: processes }, (_, rank) =>
    startRank(rank, processes, command, masterPort, options),
  )
  let signals = 0
  const pass = (signal: NodeJS.Signals) => signalAll(children, ++signals > 1 ? 'SIGKILL' : signal)
  const kill = () => signalAll(children, 'SIGKILL')
  const stop = () => signalAll(children, 'SIGTERM')
  if (options.signal === undefined) process.on('SIGINT', pass).on('SIGTERM', pass)
  else options.signal.addEventListener('abort', stop)
  process.on('exit', kill)
  let killing: NodeJS.Timeout | undefined
  let first: Ended | undefined
  try {
    await Promise.all(
      children.map(async (child, rank) => {
        const end = await ended(child, rank)
        if (end.status === 0 || first !== undefined) return
        first = end
        signalAll(children, 'SIGTERM')
        killing = setTimeout(kill, patience)
      }),
    )
  } finally {
    clearTimeout(killing)
    options.signal?.removeEventListener('abort', stop)
    process.off('SIGINT', pass).off('SIGTERM', pass).off('exit', kill)
  }
  if (first === undefined) return
  const others = processes === 1 ? '' : '; the others were stopped'
  throw new LaunchError(`rank ${first.rank} of ${processes} ${first.words}${others}`, first.rank, first.status)
}
