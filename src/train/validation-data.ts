import { type DatasetSpec, openDataset } from '../data/index.js'
import { messageOf } from '../setup/errors.js'
import type { RunContext } from './run.js'
import type { Task } from './task.js'

/** The data set's own validation part, all of it. Null where none is asked for, or it has none: then with a warning. */
export async function validationData(
  spec: DatasetSpec,
  validation: { readonly split: string } | null,
  { emit }: RunContext,
): Promise<Awaited<ReturnType<typeof openDataset>> | null> {
  if (validation === null) return null
  try {
    return await openDataset({ ...spec, split: validation.split, fraction: 1 } as DatasetSpec)
  } catch (error) {
    emit({ type: 'warning', message: `the run is not validated: ${messageOf(error)}` })
    return null
  }
}

/** What a run's best checkpoint is the best by. */
export function judgedBy(validation: { readonly metric: string } | null): Task['judgedBy'] {
  const metric = validation?.metric ?? 'loss'
  return { metric, better: metric === 'loss' ? 'lower' : 'higher' }
}
