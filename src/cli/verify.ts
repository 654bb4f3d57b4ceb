import type { ArgumentsCamelCase, Argv } from 'yargs'
import type { Verification } from '../eval/verify/index.js'

export const command = 'verify <cases..>'
export const describe = "Replay reference cases made by Python's libraries, and print how far off we are"

interface Options {
  cases: string[]
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('cases', { type: 'string', array: true, demandOption: true, describe: 'folders with a case.json' })
    .option('json', { type: 'boolean', default: false, describe: 'print one JSON object a line' })
}

function line({ case: name, pass, outputs, gradients, seconds, problems }: Verification): string {
  const show = ({ abs, rel }: Verification['outputs']) => `${abs.toExponential(1)} (${rel.toExponential(1)})`
  const words =
    problems.length > 0
      ? `  ${problems.slice(0, 3).join('; ')}${problems.length > 3 ? `; and ${problems.length - 3} more` : ''}`
      : ''
  return `${pass ? 'pass' : 'FAIL'}  ${name.padEnd(20)} outputs ${show(outputs)}  gradients ${show(gradients)}  ${seconds.toFixed(2)} s${words}`
}

/** Exit status: 1 where a case fails, 2 where one cannot be read. */
export async function handler({ cases, json }: ArgumentsCamelCase<Options>): Promise<void> {
  // imported here: setting up must work without the add-on
  const { verifyCase } = await import('../eval/verify/index.js')
  let status = 0
  for (const folder of cases) {
    try {
      const found = await verifyCase(folder)
      process.stdout.write(`${json ? JSON.stringify(found) : line(found)}\n`)
      if (!found.pass && status === 0) status = 1
    } catch (error) {
      status = 2
      const problem = error instanceof Error ? error.message : String(error)
      if (json) process.stdout.write(`${JSON.stringify({ case: folder, pass: false, problem })}\n`)
      process.stderr.write(`${folder}: ${problem}\n`)
    }
  }
  process.exitCode = status
}
