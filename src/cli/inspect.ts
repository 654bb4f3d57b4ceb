import type { ArgumentsCamelCase, Argv } from 'yargs'
import { inspect } from '../torch/files/inspect.js'

export const command = 'inspect <file>'
export const describe = 'List names, shapes, dtypes and bytes of the tensors in a weights file; runs nothing in it'

interface Options {
  file: string
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('file', {
      type: 'string',
      demandOption: true,
      describe: 'safetensors, .pt, .bin, .ckpt, or a folder of shards',
    })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' })
}

export async function handler({ file, json }: ArgumentsCamelCase<Options>): Promise<void> {
  const { path, format, tensors, bytes, metadata } = await inspect(file)
  if (json) {
    process.stdout.write(
      `${JSON.stringify({ path, format, bytes, metadata: Object.fromEntries(metadata), tensors }, null, 2)}\n`,
    )
    return
  }
  const width = Math.min(80, Math.max(4, ...tensors.map(({ name }) => name.length)))
  for (const { name, dtype, shape, bytes: own } of tensors) {
    process.stdout.write(
      `${name.padEnd(width)}  ${dtype.padEnd(9)} ${`[${shape.join(', ')}]`.padEnd(20)} ${own.toLocaleString('en-US').padStart(14)} bytes\n`,
    )
  }
  process.stdout.write(`${tensors.length} tensors, ${bytes.toLocaleString('en-US')} bytes, ${format}\n`)
}
