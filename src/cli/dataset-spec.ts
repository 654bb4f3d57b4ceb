import type { Argv } from 'yargs'
import { guessKind } from '../data/datasets/guess.js'
import { DATASET_KINDS, type DatasetSpec } from '../data/datasets/index.js'

/** What commands over a whole data set have in common. */
export interface DatasetOptions {
  folder: string
  kind: string | undefined
  spec: string | undefined
  'max-problems': number | undefined
}

export function datasetOptions<Given>(
  yargs: Argv<Given>,
  { isOptional = false }: { isOptional?: boolean } = {},
): Argv<Given & DatasetOptions> {
  return yargs
    .positional('folder', { type: 'string', demandOption: !isOptional, describe: 'the data set as it was downloaded' })
    .option('kind', { choices: DATASET_KINDS, describe: 'default: by what the folder holds' })
    .option('spec', {
      type: 'string',
      describe: 'more of the data set\'s description, as JSON: \'{"captions": {"style": "natural"}}\'',
    })
    .option('max-problems', {
      type: 'number',
      describe: 'the fraction of rows and images that may be unusable; default: 0.01',
    }) as unknown as Argv<Given & DatasetOptions>
}

/**
 * The data set of a command.
 *
 * @param split the one that it is about, unless --spec says another; null: the data set's own default. Default: 'all'.
 */
export function datasetSpecOf(
  { folder, kind, spec, 'max-problems': maxProblems }: DatasetOptions,
  split: 'all' | null = 'all',
): DatasetSpec {
  let more: object
  try {
    more = spec === undefined ? {} : { ...(JSON.parse(spec) as object) }
  } catch {
    throw new Error(`expected --spec to be a JSON object, but received ${spec}`)
  }
  const wanted = kind ?? guessKind(folder)
  const all = wanted === 'chexpert-5x200' || split === null ? {} : { split }
  // openDataset checks it
  return {
    ...(maxProblems !== undefined && { maxProblems }),
    ...all,
    ...more,
    kind: wanted,
    root: folder,
  } as DatasetSpec
}
