import { createHash } from 'node:crypto'
import { atMostOfClasses, type Dataset, type DatasetSpec, openDataset, withSamples } from '../data/index.js'
import { messageOf } from '../setup/errors.js'
import type { EvaluateOptions } from './options.js'

/*
 * What an evaluation is on, opened before its work: nothing that is wrong with the data may cost a prediction that was made.
 */

/** Where the description names no split, its test part. */
export function withSplit(spec: DatasetSpec, split: 'test' | 'valid' = 'test'): DatasetSpec {
  if (spec.kind === 'chexpert-5x200' || spec.split !== undefined) return spec
  return { ...spec, split }
}

export interface ThresholdData {
  /** Null where there is none. */
  readonly dataset: Dataset | null
  /** What a reader should know: why there is none. */
  readonly notes: readonly string[]
}

/**
 * Where thresholds come from.
 *
 * @param isLabelled whether an image can be decided on
 * @throws where data that was named cannot be opened, or has patients of the test set; of the default a note says so
 */
export async function thresholdData(
  spec: DatasetSpec,
  tested: Dataset,
  isLabelled: (sample: Dataset['samples'][number]) => boolean,
  { validation }: EvaluateOptions,
): Promise<ThresholdData> {
  if (validation === null) return { dataset: null, notes: [] }
  if (validation !== undefined) {
    const dataset = await openDataset(withSplit(validation, 'valid'))
    refuseShared(dataset, tested)
    return { dataset, notes: [] }
  }
  if (spec.kind === 'chexpert-5x200' || spec.split !== 'test') return { dataset: null, notes: [] }
  try {
    // as many of each class at most: the part may have fewer than the test
    const { perClass, ...rest } = spec
    const whole = await openDataset({ ...rest, split: 'valid' } as DatasetSpec)
    refuseShared(whole, tested)
    const dataset = perClass === undefined ? whole : partOf(whole, atMostOfClasses(whole.samples, perClass, spec.seed))
    return { dataset: dataset.samples.some(isLabelled) ? dataset : null, notes: [] }
  } catch (error) {
    const note = `No thresholds are from the data's validation part, which cannot be used: ${messageOf(error)}.`
    return { dataset: null, notes: [note] }
  }
}

function refuseShared({ samples }: Dataset, tested: Dataset): void {
  const patients = new Set(tested.samples.map(({ patient }) => patient))
  const shared = new Set(samples.flatMap(({ patient }) => (patients.has(patient) ? patient : [])))
  if (shared.size === 0) return
  throw new RangeError(
    `validation: expected patients that are not in the test set, but ${shared.size} are; split by patient, or leave the validation set out`,
  )
}

/** With a hash of its own: the whole's would not name it. */
function partOf(whole: Dataset, samples: readonly Dataset['samples'][number][]): Dataset {
  const hash = createHash('sha256').update(whole.hash)
  for (const { row, path } of samples) hash.update(JSON.stringify([row, path]))
  return { ...withSamples(whole, samples), hash: hash.digest('hex') }
}
