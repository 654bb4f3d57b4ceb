import type { ArgumentsCamelCase, Argv } from 'yargs'
import type { Plan } from '../train/index.js'

export const command = 'plan [config]'
export const describe = 'Predict the memory of a training step of any stage, and batch sizes that fit; trains nothing'

interface Options {
  config: string | undefined
  recipe: string | undefined
  set: string[]
  data: string | undefined
  memory: string | undefined
  device: 'cpu' | 'cuda' | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('config', { type: 'string', describe: 'options as JSON or YAML, as for cleft train' })
    .option('recipe', { type: 'string', describe: 'options to begin with: see cleft train --help' })
    .option('set', {
      type: 'string',
      array: true,
      nargs: 1,
      default: [],
      describe: 'key.path=value, over recipe and file: --set batchSize=288',
    })
    .option('data', { type: 'string', describe: "the data set's folder, whose captions are looked at: data.root" })
    .option('memory', {
      type: 'string',
      describe: "what the device has, as 24GiB; default: the GPU's, where there is one",
    })
    .option('device', {
      choices: ['cpu', 'cuda'] as const,
      describe: 'whose kernels are planned with; default: cuda where --memory is given or a GPU is here',
    })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' }) as unknown as Argv<Options>
}

const UNITS: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** 24GiB, 24G or a number of bytes. */
function bytesOf(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?)?$/i.exec(text)
  const value = match === null ? 0 : Number(match[1]) * (UNITS[match[2]?.toUpperCase() ?? ''] ?? 1)
  if (value > 0) return value
  throw new RangeError(`--memory: expected a size as 24GiB, but received '${text}'`)
}

function size(bytes: number): string {
  if (bytes < 2 ** 30) return `${(bytes / 2 ** 20).toFixed(1)} MiB`
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`
}

function table({ device, shape, tokens, memory, features, available, fits, suggestions, notes }: Plan): string {
  const { total, ...parts } = memory
  const lines = Object.entries(parts).map(([name, bytes]) => `  ${name.padEnd(14)}${size(bytes).padStart(12)}`)
  const describeShape = ({ batchSize, microBatch, checkpointing }: Plan['shape']) =>
    `batchSize ${batchSize}${microBatch < batchSize ? `, microBatch ${microBatch}` : ''}${checkpointing ? ', checkpointing' : ''}`
  const verdict = fits === null ? '' : `: ${fits ? 'fits' : 'does not fit'} into ${size(available ?? 0)}`
  return [
    `a step on ${device === 'cuda' ? 'a GPU' : 'the CPU'} of ${describeShape(shape)}${tokens > 0 ? `, ${tokens.toLocaleString('en-US')} tokens of text` : ''}`,
    ...lines,
    `  ${'at the peak'.padEnd(14)}${size(total).padStart(12)}${verdict}`,
    ...(features === null ? [] : [`before the first step, where features are computed once: ${size(features)}`]),
    ...suggestions.map((each) => `${each.why}: ${describeShape(each)}, ${size(each.total)}`),
    ...(fits === false && suggestions.length === 0 ? ['nothing smaller fits: take smaller models, or adapters'] : []),
    ...notes.map((note) => `note: ${note}`),
  ].join('\n')
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { config: file, recipe, set, data, memory, device, json } = options
  if (file === undefined && recipe === undefined && set.length === 0) {
    throw new Error('expected a configuration file, --recipe or --set, but received none; see: npx cleft plan --help')
  }
  const { planStep, readRunOptions } = await import('../train/index.js')
  const run = readRunOptions({ recipe, file, set, options: data === undefined ? {} : { data: { root: data } } })
  const plan = await planStep(run, {
    ...(memory !== undefined && { available: bytesOf(memory) }),
    ...(device !== undefined && { device }),
  })
  process.stdout.write(`${json ? JSON.stringify(plan, null, 2) : table(plan)}\n`)
}
