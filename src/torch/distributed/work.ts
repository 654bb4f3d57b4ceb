import { fileURLToPath } from 'node:url'
import { deserialize, serialize } from 'node:v8'
import { readLaunchEnvironment } from './environment.js'
import { LaunchError, type LaunchOptions, launch } from './launch.js'

/*
 * One piece of work in several processes of this machine that a process starts for it: launchWork() there, and workForLauncher() in
 * their program. What they say goes over standard output, a line each.
 */

/** Work was stopped from outside, by a signal or in another process. */
export class StoppedError extends Error {
  override readonly name = 'StoppedError'
}

/** What a process ends with that was stopped: the usual status after SIGTERM. */
const STOPPED = 143

type Told<Message, Result> =
  | { readonly message: Message }
  | { readonly result: Result }
  | { readonly error: { readonly name: string; readonly message: string } }

/** What begins a line that is not for people. */
const MARK = '\u001ecleft:'

const toLine = (told: unknown): string => `${MARK}${serialize(told).toString('base64')}\n`

/** Undefined for what is for people; null for a line that its process was ended in. */
function fromLine<Message, Result>(line: string): Told<Message, Result> | null | undefined {
  if (!line.startsWith(MARK)) return undefined
  try {
    return deserialize(Buffer.from(line.slice(MARK.length), 'base64')) as Told<Message, Result>
  } catch {
    return null
  }
}

const errors: Readonly<Record<string, ErrorConstructor>> = { RangeError, TypeError }

export interface LaunchWorkOptions<Message> extends Pick<LaunchOptions, 'patience'> {
  /** Stops the processes, as {@link LaunchOptions.signal}. */
  signal?: AbortSignal | undefined
  /** What the first process tells. */
  onMessage: (message: Message) => void
  /** What a process writes beside it, a line without its end. */
  onText: (line: string, rank: number) => void
}

/**
 * Runs a program of {@link workForLauncher} in several processes, and gives the first one's result.
 *
 * @param program compiled
 * @param argument as JSON
 * @throws the error of the process that fails first; LaunchError that names it, where it was ended
 * @throws the signal's reason, or StoppedError, where the processes were stopped
 */
export async function launchWork<Message, Result>(
  processes: number,
  program: URL,
  argument: unknown,
  { signal, onMessage, onText, patience }: LaunchWorkOptions<Message>,
): Promise<Result> {
  signal?.throwIfAborted()
  const failures = new Map<number, Error>()
  const results: Result[] = []
  const onLine = (line: string, rank: number, stream: 'stdout' | 'stderr') => {
    const told = stream === 'stdout' ? fromLine<Message, Result>(line) : undefined
    if (told === undefined) onText(line, rank)
    else if (told === null) return
    else if ('message' in told) onMessage(told.message)
    else if ('result' in told) results.push(told.result)
    else failures.set(rank, new (errors[told.error.name] ?? Error)(told.error.message))
  }
  try {
    await launch(processes, [process.execPath, fileURLToPath(program), JSON.stringify(argument)], {
      ...(signal && { signal }),
      ...(patience !== undefined && { patience }),
      onLine,
    })
  } catch (error) {
    if (!(error instanceof LaunchError)) throw error
    const failure = failures.get(error.rank)
    if (failure !== undefined) throw failure
    if (failures.size > 0 || error.exitStatus !== STOPPED) throw error
    throw signal?.reason ?? new StoppedError('the processes were stopped')
  }
  if (results.length !== 1) throw new Error('expected a result of the first process, but it told none')
  return results[0]!
}

export interface WorkContext<Message> {
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal
  /** From now on a signal lets the work stop by itself; before, it ends the process. */
  readonly canStop: () => void
  /** For {@link launchWork}: of the first process alone, others say nothing. */
  readonly tell: (message: Message) => void
}

/** Does the work of one process that {@link launchWork} started, and ends the process where it fails. */
export async function workForLauncher<Argument, Message, Result>(
  work: (argument: Argument, context: WorkContext<Message>) => Promise<Result>,
): Promise<void> {
  const isFirst = (readLaunchEnvironment()?.rank ?? 0) === 0
  const tell = (told: Told<Message, Result>) => {
    if (isFirst || 'error' in told) process.stdout.write(toLine(told))
  }
  const stop = new AbortController()
  let stopsItself = false
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => {
      if (!stopsItself) process.exit(STOPPED)
      stop.abort(new StoppedError('the process was stopped'))
    })
  }
  const context: WorkContext<Message> = {
    signal: stop.signal,
    canStop: () => {
      stopsItself = true
    },
    tell: (message) => tell({ message }),
  }
  try {
    tell({ result: await work(JSON.parse(process.argv[2]!) as Argument, context) })
  } catch (error) {
    const isStopped = error instanceof StoppedError
    const { name, message } = error instanceof Error ? error : new Error(String(error))
    if (!isStopped) tell({ error: { name, message } })
    // not before it is written
    await new Promise((resolve) => process.stdout.write('', resolve))
    process.exit(isStopped ? STOPPED : 1)
  }
}
