import type { ArgumentsCamelCase, Argv } from 'yargs'
import { diagnose, formatDiagnosis } from '../setup/doctor.js'

export const command = 'doctor'
export const describe = 'Show what is installed, what is wrong, and the command that mends it'

interface Options {
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs.option('json', { type: 'boolean', default: false, describe: 'print one JSON object' })
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const diagnosis = await diagnose()
  process.stdout.write(options.json ? `${JSON.stringify(diagnosis, null, 2)}\n` : formatDiagnosis(diagnosis))
  process.exitCode = diagnosis.ok ? 0 : 1
}
