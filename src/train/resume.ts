import type * as torch from '../torch/index.js'
import { checkpointFolder, checkpointSteps, readProgress } from './checkpoint.js'
import type { FullOptions } from './options/index.js'

/*
 * Where a run goes on.
 */

/** What a run may change when it goes on; everything else would be another run. */
const mayChange = new Set([
  'out',
  'resume',
  'logEvery',
  'checkpointEvery',
  'keep',
  'workers',
  'prepared',
  'device',
  'processes',
  'timeout',
])
/** What other processes may change too, so that their batches together are as large as before. */
const mayDivide = new Set(['batchSize', 'microBatch'])

/**
 * The checkpoint that the run goes on from, or null for a new one.
 *
 * @param beginning SHA-256 of what the run begins with
 * @param processes how many train together
 * @throws where there is none, it is another run's, or what the run began with has changed
 */
export function latestCheckpoint(options: FullOptions, beginning: string | null, processes = 1): string | null {
  const step = checkpointSteps(options.out).at(-1)
  if (!options.resume) {
    if (step === undefined) return null
    throw new Error(
      `out: expected a folder without a run, but '${options.out}' has one of ${step} steps; go on with it (resume: true), or choose another`,
    )
  }
  if (step === undefined) return null
  const folder = checkpointFolder(options.out, step)
  const progress = readProgress(folder)
  const before = progress.options as Record<string, unknown>
  const now = options as unknown as Record<string, unknown>
  const different = Object.keys(now).filter(
    (name) =>
      !mayChange.has(name) &&
      !(processes !== progress.processes && mayDivide.has(name)) &&
      JSON.stringify(now[name]) !== JSON.stringify(before[name]),
  )
  if (different.length > 0) {
    throw new Error(
      `resume: expected the options that the run began with, but ${different.join(', ')} are others; leave them, or begin a new run in another folder`,
    )
  }
  if (progress.beginning !== beginning) {
    const { from } = options as { from?: string }
    throw new Error(
      `resume: expected the checkpoint that the run began with, but '${from}' was changed since; put it back, or begin a new run in another folder`,
    )
  }
  return folder
}

/** @throws where processes were not started alike, or do not see the same run */
export async function checkTogether(
  options: FullOptions,
  from: string | null,
  processes: torch.distributed.Processes,
): Promise<void> {
  const told = await processes.gather({ options: JSON.stringify(options), from })
  for (const [rank, each] of told.entries()) {
    if (each.options !== told[0]!.options) {
      throw new RangeError(
        `expected all processes to be started with the same options, but those of process ${rank} are others`,
      )
    }
    if (each.from !== told[0]!.from) {
      throw new Error(
        `expected all processes to see the same checkpoints in '${options.out}', but process 0 sees ${told[0]!.from ?? 'none'} and process ${rank} ${each.from ?? 'none'}; use a folder that all machines share`,
      )
    }
  }
}
