import type { ArgumentsCamelCase, Argv } from 'yargs'

export const command = 'compare <runs..>'
export const describe = 'Put evaluated runs side by side: differences on the same images, with intervals'

interface Options {
  runs: string[]
  shared: boolean
  resamples: number
  seed: number
  report: string | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('runs', {
      type: 'string',
      array: true,
      demandOption: true,
      describe: 'folders with metrics.json and predictions.csv; the others are compared with the first',
    })
    .option('shared', { type: 'boolean', default: false, describe: 'compare on the images that all runs have' })
    .option('resamples', { type: 'number', default: 2000, describe: 'how often patients are resampled' })
    .option('seed', { type: 'number', default: 0, describe: 'of the resamples' })
    .option('report', { type: 'string', describe: 'write compare.html, compare.json and a figure into this folder' })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' })
    .example('$0 compare runs/cleft/zero-shot runs/clip-bert/zero-shot', 'the second minus the first') as Argv<Options>
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { runs, shared, resamples, seed, report, json } = options
  const { compareRuns } = await import('../eval/compare.js')
  const { comparisonInWords, writeComparison } = await import('../eval/report/comparison.js')
  const comparison = await compareRuns(runs, { shared, resamples, seed })
  const written = report === undefined ? null : await writeComparison(report, comparison)
  process.stdout.write(`${json ? JSON.stringify(comparison, null, 2) : comparisonInWords(comparison)}\n`)
  if (written) process.stderr.write(`written: ${written.html}\n`)
}
