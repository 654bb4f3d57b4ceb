import type { ArgumentsCamelCase, Argv } from 'yargs'
import { terminalReporter } from '../setup/report.js'

export const command = 'phantom <kind>'
export const describe = "Write synthetic studies in a data set's own layout: chexpert, rsna or embed"

interface Options {
  kind: string
  out: string
  patients: number
  seed: number
  fiveWay: number
  workers: number | undefined
  sheet: string | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('kind', { type: 'string', demandOption: true, describe: 'chexpert, rsna or embed' })
    .option('out', {
      type: 'string',
      demandOption: true,
      describe: 'an empty folder, or one begun with the same settings',
    })
    .option('patients', { type: 'number', demandOption: true, describe: 'for training, where the data set has splits' })
    .option('seed', { type: 'number', default: 0, describe: 'the same seed gives the same bytes' })
    .option('fiveWay', {
      type: 'number',
      default: 0,
      alias: 'five-way',
      describe: 'chexpert: so many more for each of the five competition findings, with that one alone (5x200)',
    })
    .option('workers', { type: 'number', describe: 'threads that draw; default: one a core' })
    .option('sheet', { type: 'string', describe: 'also write a contact sheet here (PNG)' })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' }) as Argv<Options>
}

export async function handler({ json, ...options }: ArgumentsCamelCase<Options>): Promise<void> {
  const { writePhantoms } = await import('../data/phantoms/index.js')
  const { kind, out, patients, seed, fiveWay, workers, sheet } = options
  const result = await writePhantoms({
    kind,
    out,
    patients,
    seed,
    fiveWay,
    workers,
    sheet,
    reporter: terminalReporter(),
  })
  process.stdout.write(
    json
      ? `${JSON.stringify(result, null, 2)}\n`
      : `${result.images} images of ${result.patients} patients in ${result.out}; tables: ${result.tables.join(', ')}\n`,
  )
}
