import * as torch from '../torch/index.js'
import type { TrainEvent } from './events.js'
import type { FullOptions } from './options/index.js'
import type { RunContext, TrainResult } from './run.js'

/** What the first process tells. */
export type Told = { readonly event: TrainEvent } | { readonly warning: string }

/** Compiled, also where tests run TypeScript's sources. */
const program = new URL('rank.js', import.meta.url.replace('/src/', '/dist/'))

/** Others that are alive end by themselves, when they have been told to. */
const PATIENCE = 10

/**
 * Runs train() in as many processes of this machine as the options say. The first of them tells its events.
 *
 * @throws what the process throws that fails first; where it was ended by a signal, an error that names it
 */
export function launchTraining(
  options: FullOptions,
  { emit, signal, logger = console }: Omit<RunContext, 'beginning' | 'processes'>,
): Promise<TrainResult> {
  return torch.distributed.launchWork<Told, TrainResult>(options.processes!, program, options, {
    signal,
    patience: 1000 * Math.min(PATIENCE, options.timeout),
    onMessage: (told) => ('event' in told ? emit(told.event) : logger.warn(told.warning)),
    onText: (line, rank) => logger.warn(`process ${rank}: ${line}`),
  })
}
