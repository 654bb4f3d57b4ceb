import type { ArgumentsCamelCase, Argv } from 'yargs'
import type { DType } from '../torch/types.js'

export const command = 'convert <input> <output>'
export const describe = 'Convert weights: published CLEFT checkpoints, transformers folders, .pt/.bin/.ckpt, adapters'

const layouts = ['cleft', 'transformers', 'hub', 'peft'] as const
const dtypes = ['float32', 'bfloat16', 'float16'] as const satisfies readonly DType[]

interface Options {
  input: string
  output: string
  to: (typeof layouts)[number] | undefined
  image: string | undefined
  text: string | undefined
  alpha: number | undefined
  'maximum-length': number | undefined
  dtype: (typeof dtypes)[number] | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('input', { type: 'string', demandOption: true, describe: 'a file or a folder' })
    .positional('output', {
      type: 'string',
      demandOption: true,
      describe: 'a folder; for the weights of one model also a file (.safetensors, .pt, .pth, .bin)',
    })
    .option('to', {
      choices: layouts,
      describe:
        "the layout; default: 'cleft' (our model folder) for published checkpoints, 'peft' for adapters, else 'transformers'",
    })
    .option('image', {
      type: 'string',
      describe: 'the image encoder: a preset or a folder with config.json; default: the preset that fits',
    })
    .option('text', { type: 'string', describe: 'the language model, likewise' })
    .option('alpha', {
      type: 'number',
      describe: "LoRA's alpha, which the file does not say; default: 32, as published",
    })
    .option('maximum-length', {
      type: 'number',
      describe:
        'most tokens of a text of a published checkpoint, which the file does not say; default: 64, as for chest X-rays; mammograms have 72, their natural and structural captions 144',
    })
    .option('dtype', { choices: dtypes, describe: 'what floating-point tensors become; default: as they are' })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' })
    .example('$0 convert cleft.ckpt cleft/', 'a published checkpoint as a model folder')
    .example('$0 convert cleft.ckpt parts/ --to transformers', 'its towers and adapter for Python')
    .example(
      '$0 convert dinov2_vitb14_reg4_pretrain.pth dinov2/ --image dinov2_vitb14_reg',
      "the hub's file",
    ) as Argv<Options>
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { input, output, to, image, text, alpha, 'maximum-length': maximumLength, dtype, json } = options
  if (maximumLength !== undefined && !(Number.isInteger(maximumLength) && maximumLength > 0)) {
    throw new Error(`expected --maximum-length to be a whole number above 0, but received ${maximumLength}`)
  }
  const { convert } = await import('../clip/convert.js')
  const converted = await convert(input, output, { to, image, text, alpha, maximumLength, dtype })
  process.stdout.write(
    json
      ? `${JSON.stringify(converted)}\n`
      : `${converted.from} to ${converted.to}\n${converted.files.map((file) => `  ${file}\n`).join('')}`,
  )
}
