import { availableParallelism } from 'node:os'
import type { ArgumentsCamelCase, Argv } from 'yargs'
import { guessKind } from '../data/datasets/guess.js'
import { DATASET_KINDS, type DatasetSpec, openDataset } from '../data/datasets/index.js'
import { DecoderPool } from '../data/loader/decoders.js'
import { describeProblem } from '../data/problems.js'
import { PROBLEMS_FILE } from '../data/shards/format.js'
import { prepareDataset } from '../data/shards/prepare.js'
import { terminalReporter } from '../setup/report.js'

export const command = 'prepare <folder>'
export const describe = 'Decode a data set once, into packed shards that training reads; goes on where it was stopped'

interface Options {
  folder: string
  out: string
  kind: string | undefined
  spec: string | undefined
  size: number
  bits: 8 | 16
  windowing: 'published' | 'dicom'
  workers: number
  'max-problems': number
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('folder', { type: 'string', demandOption: true, describe: 'the data set as it was downloaded' })
    .option('out', { type: 'string', demandOption: true, describe: 'a folder of its own for the shards' })
    .option('kind', { choices: DATASET_KINDS, describe: 'default: by what the folder holds' })
    .option('spec', {
      type: 'string',
      describe: "more of the data set's description, as JSON; default: every image of every split",
    })
    .option('size', {
      type: 'number',
      default: 256,
      describe: 'side of the square that images are scaled into, pixels',
    })
    .option('bits', { choices: [8, 16] as const, default: 8, describe: 'of a pixel' })
    .option('windowing', {
      choices: ['published', 'dicom'] as const,
      default: 'published',
      describe: 'how values of DICOM become gray: by their largest, or by the window that the file asks for',
    })
    .option('workers', { type: 'number', default: availableParallelism(), describe: 'threads that decode' })
    .option('max-problems', {
      type: 'number',
      default: 0.01,
      describe: 'the fraction of images that may be unreadable',
    })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object at the end' }) as Argv<Options>
}

function specOf({ folder, kind, spec, 'max-problems': maxProblems }: Options): DatasetSpec {
  let more: object
  try {
    more = spec === undefined ? {} : { ...(JSON.parse(spec) as object) }
  } catch {
    throw new Error(`expected --spec to be a JSON object, but received ${spec}`)
  }
  const wanted = kind ?? guessKind(folder)
  const all = wanted === 'chexpert-5x200' ? {} : { split: 'all' }
  // openDataset checks it
  return { maxProblems, ...all, ...more, kind: wanted, root: folder } as DatasetSpec
}

/** Written out on standard error; all of them are in problems.json. */
const SHOWN = 5

/** What libuv gives to sharp, of all threads together, unless it is told when the process starts. */
const DEFAULT_POOL = 4

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { out, size, bits, windowing, workers, json } = options
  if (!(Number.isInteger(size) && size >= 16 && size <= 4096)) {
    throw new Error(`expected --size from 16 to 4096 pixels, but received ${size}`)
  }
  if (!(Number.isInteger(workers) && workers >= 1 && workers <= 1024)) {
    throw new Error(`expected --workers from 1 to 1024, but received ${workers}`)
  }
  const reporter = terminalReporter()
  if (workers > DEFAULT_POOL && process.env.UV_THREADPOOL_SIZE === undefined) {
    reporter.line(`set UV_THREADPOOL_SIZE=${workers} in the environment for more than ${DEFAULT_POOL} files at a time`)
  }
  const dataset = await openDataset(specOf(options))
  const decoder = new DecoderPool({ settings: { size, bits, windowing }, workers })
  try {
    const maxProblems = options['max-problems']
    const report = await prepareDataset(dataset, out, { decoder, maxProblems, reporter })
    const problems = report.problems.list
    for (const problem of problems.slice(0, SHOWN)) reporter.line(describeProblem(problem))
    if (problems.length > 0) reporter.line(`${problems.length} images could not be read: ${out}/${PROBLEMS_FILE}`)
    const { images, prepared, kept, seconds } = report
    const rate = prepared / seconds
    process.stdout.write(
      json
        ? `${JSON.stringify({ kind: dataset.kind, out, images, prepared, kept, problems: problems.length, seconds, imagesPerSecond: rate })}\n`
        : `${images} images of kind ${dataset.kind} in ${out}: ${prepared} prepared in ${seconds.toFixed(1)} s (${rate.toFixed(0)}/s), ${kept} there before, ${problems.length} unreadable\n`,
    )
  } finally {
    await decoder.close()
  }
}
