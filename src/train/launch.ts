import { fileURLToPath } from 'node:url'
import * as torch from '../torch/index.js'
import type { TrainEvent } from './events.js'
import type { FullOptions } from './options/index.js'
import { type RunContext, StoppedError, type TrainResult } from './run.js'

/*
 * Training in processes of this machine that this one starts: rank.ts is their program. The first of them tells its events.
 */

/** What a process says, a line of JSON each on standard output. */
export type Told =
  | { readonly event: TrainEvent }
  | { readonly warning: string }
  | { readonly result: TrainResult }
  | { readonly error: { readonly name: string; readonly message: string } }

/** What a process ends with that was stopped: the usual status after SIGTERM. */
export const STOPPED = 143

/** Compiled, also where tests run TypeScript's sources. */
const program = fileURLToPath(new URL('rank.js', import.meta.url.replace('/src/', '/dist/')))

const errors: Readonly<Record<string, ErrorConstructor>> = { RangeError, TypeError }

/** Pixels go as text. */
export function toLine(told: Told): string {
  if (!('event' in told && told.event.type === 'image')) return `${JSON.stringify(told)}\n`
  return `${JSON.stringify({ event: { ...told.event, png: Buffer.from(told.event.png).toString('base64') } })}\n`
}

function fromLine(line: string): Told | null {
  if (!line.startsWith('{')) return null
  const told = JSON.parse(line) as Told
  if ('event' in told && told.event.type === 'image') {
    return { event: { ...told.event, png: Buffer.from(told.event.png as unknown as string, 'base64') } }
  }
  return told
}

/**
 * Runs train() in as many processes as the options say, which find one another.
 *
 * @throws what the process throws that fails first; where it was ended by a signal, an error that names it
 */
export async function launchTraining(
  options: FullOptions,
  { emit, signal, logger = console }: RunContext,
): Promise<TrainResult> {
  const failures = new Map<number, Error>()
  let result: TrainResult | null = null
  const hear = (line: string, rank: number, stream: 'stdout' | 'stderr') => {
    const told = stream === 'stdout' ? fromLine(line) : null
    if (told === null) logger.warn(`process ${rank}: ${line}`)
    else if ('event' in told) emit(told.event)
    else if ('warning' in told) logger.warn(told.warning)
    else if ('result' in told) result = told.result
    else failures.set(rank, new (errors[told.error.name] ?? Error)(told.error.message))
  }
  try {
    await torch.distributed.launch(options.processes!, [process.execPath, program, JSON.stringify(options)], {
      ...(signal && { signal }),
      onLine: hear,
    })
  } catch (error) {
    if (!(error instanceof torch.distributed.LaunchError)) throw error
    const failure = failures.get(error.rank)
    if (failure !== undefined) throw failure
    if (failures.size === 0 && error.exitStatus === STOPPED) {
      throw signal?.reason ?? new StoppedError('the run was stopped')
    }
    throw error
  }
  if (result === null) throw new Error('expected the first process to tell its result, but it told none')
  return result
}
