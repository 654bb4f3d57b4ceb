import { availableParallelism } from 'node:os'
import type { ArgumentsCamelCase, Argv } from 'yargs'
import { describeProblem } from '../data/problems.js'
import { terminalReporter } from '../setup/report.js'
import { type DatasetOptions, datasetOptions, datasetSpecOf } from './dataset-spec.js'

export const command = 'prepare <folder>'
export const describe = 'Decode a data set once, into packed shards that training reads; goes on where it was stopped'

interface Options extends DatasetOptions {
  out: string
  size: number
  bits: 8 | 16
  windowing: 'published' | 'dicom'
  workers: number
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return datasetOptions(yargs)
    .option('out', { type: 'string', demandOption: true, describe: 'a folder of its own for the shards' })
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
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object at the end' }) as Argv<Options>
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
  // imported here: other commands work without the add-on
  const { DecoderPool, openDataset, prepareDataset, PROBLEMS_FILE } = await import('../data/index.js')
  const dataset = await openDataset(datasetSpecOf(options))
  const decoder = new DecoderPool({ settings: { size, bits, windowing }, workers })
  try {
    const { 'max-problems': maxProblems = 0.01 } = options
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
