import {
  DataLoader,
  type Dataset,
  type DatasetSpec,
  type LoaderOptions,
  openDataset,
  withSamples,
} from '../data/index.js'
import { messageOf } from '../setup/errors.js'
import type { RunContext } from './run.js'
import type { Task } from './task.js'

/** The data set's own validation part, all of it. Null where none is asked for, or it has none: then with a warning. */
export async function validationData(
  spec: DatasetSpec,
  validation: { readonly split: string } | null,
  { emit }: RunContext,
): Promise<Dataset | null> {
  if (validation === null) return null
  try {
    return await openDataset({ ...spec, split: validation.split, fraction: 1 } as DatasetSpec)
  } catch (error) {
    emit({ type: 'warning', message: `the run is not validated: ${messageOf(error)}` })
    return null
  }
}

/**
 * Batches of the first images for validation, the same ones each time, as many as are looked at and up to the end of their
 * batch. Null without any.
 */
export function validationLoader(
  held: Dataset | null,
  maximumImages: number,
  options: Omit<LoaderOptions, 'training'>,
): DataLoader | null {
  if (held === null) return null
  const { samples } = held
  const batchSize = Math.min(options.batchSize, samples.length)
  const own = withSamples(held, samples.slice(0, Math.ceil(maximumImages / batchSize) * batchSize))
  return new DataLoader(own, { ...options, batchSize, training: false })
}

/** What a run's best checkpoint is the best by. */
export function judgedBy(validation: { readonly metric: string } | null): Task['judgedBy'] {
  const metric = validation?.metric ?? 'loss'
  return { metric, better: metric === 'loss' ? 'lower' : 'higher' }
}
