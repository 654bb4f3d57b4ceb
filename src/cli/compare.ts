import type { ArgumentsCamelCase, Argv } from 'yargs'
import { z } from 'zod'
import type { CompareOptions } from '../eval/compare.js'

export const command = 'compare <runs..>'
export const describe = 'Put evaluated runs side by side: differences on the same images, with intervals'

interface Options {
  runs: string[]
  set: string[]
  shared: boolean | undefined
  resamples: number | undefined
  seed: number | undefined
  report: string | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('runs', {
      type: 'string',
      array: true,
      demandOption: true,
      describe:
        'folders with metrics.json and predictions.csv; the others are compared with the first. Or a JSON or YAML file with runs and options',
    })
    .option('set', { type: 'string', array: true, nargs: 1, default: [], describe: 'key.path=value, over the file' })
    .option('shared', { type: 'boolean', describe: 'compare on the images that all runs have' })
    .option('resamples', { type: 'number', describe: 'how often patients are resampled; default: 2000' })
    .option('seed', { type: 'number', describe: 'of the resamples; default: 0' })
    .option('report', { type: 'string', describe: 'write compare.html, compare.json and a figure into this folder' })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' })
    .example('$0 compare runs/cleft/zero-shot runs/clip-bert/zero-shot', 'the second minus the first') as Argv<Options>
}

const count = z.number().int().positive()
const known = z.strictObject({
  runs: z.array(z.string().min(1)),
  shared: z.boolean().optional(),
  resamples: count.optional(),
  seed: z.number().int().min(0).optional(),
  report: z.string().min(1).optional(),
})

/** From a file of them, or from flags. */
async function optionsOf({ runs, set, shared, resamples, seed, report }: Options): Promise<z.infer<typeof known>> {
  const own = {
    ...(shared !== undefined && { shared }),
    ...(resamples !== undefined && { resamples }),
    ...(seed !== undefined && { seed }),
    ...(report !== undefined && { report }),
  }
  const [file] = runs
  const isFile = runs.length === 1 && /\.(json|ya?ml)$/.test(file!)
  if (!isFile && set.length > 0) {
    throw new Error('--set: expected a file with runs and options, but received folders of runs; use the flags')
  }
  const { readOptions } = await import('../train/config-file.js')
  const options = isFile ? readOptions({ file, set, options: own }) : { runs, ...own }
  const parsed = known.safeParse(options)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new RangeError(
    `compare: expected runs and options that fit, but ${issue!.path.join('.') || 'the options'}: ${issue!.message}`,
  )
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { runs, report, ...rest } = await optionsOf(options)
  const { compareRuns } = await import('../eval/compare.js')
  const { comparisonInWords, writeComparison } = await import('../eval/report/comparison.js')
  const comparison = await compareRuns(runs, rest as CompareOptions)
  const written = report === undefined ? null : await writeComparison(report, comparison)
  process.stdout.write(`${options.json ? JSON.stringify(comparison, null, 2) : comparisonInWords(comparison)}\n`)
  if (written) process.stderr.write(`written: ${written.html}\n`)
}
