import type { ArgumentsCamelCase, Argv } from 'yargs'
import type { AdapterKind, ParameterTable } from '../clip/parameters.js'

export const command = 'params'
export const describe = 'Count parameters and trainable parameters: CLEFT with each adapter, and the BERT baselines'

interface Options {
  image: string
  text: string
  peft: string | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .option('image', {
      type: 'string',
      default: 'dinov2_vitb14_reg',
      describe: 'an image encoder: a preset or a folder',
    })
    .option('text', { type: 'string', default: 'biomedlm', describe: 'a text encoder: a preset or a folder' })
    .option('peft', {
      type: 'string',
      choices: ['lora', 'ia3', 'prefix', 'adalora', 'none'],
      describe: 'one adapter; default: all',
    })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' }) as Argv<Options>
}

function table({ rows, claims }: ParameterTable): string {
  const number = (value: number) => value.toLocaleString('en-US').padStart(16)
  const lines = [
    `${'model'.padEnd(24)}${'tower'.padEnd(18)}${'parameters'.padStart(16)}${'trainable'.padStart(16)}${'MiB'.padStart(16)}`,
  ]
  for (const [index, row] of rows.entries()) {
    lines.push(
      `${row.model.padEnd(24)}${row.tower.padEnd(18)}${number(row.total)}${number(row.trainable)}${number(Math.round(row.bytes / 2 ** 20))}`,
    )
    if (rows[index + 1]?.model !== row.model) {
      const own = rows.filter(({ model }) => model === row.model)
      const sum = (key: 'total' | 'trainable' | 'bytes') => own.reduce((total, each) => total + each[key], 0)
      lines.push(
        `${''.padEnd(24)}${'in all'.padEnd(18)}${number(sum('total'))}${number(sum('trainable'))}${number(Math.round(sum('bytes') / 2 ** 20))}`,
      )
    }
  }
  const percent = (value: number | null) => (value === null ? 'not counted' : `${(100 * value).toFixed(1)} %`)
  for (const { claim, paper, found } of claims)
    lines.push(`${claim}: ${percent(paper)} in the paper, ${percent(found)} counted`)
  return lines.join('\n')
}

export async function handler({ image, text, peft, json }: ArgumentsCamelCase<Options>): Promise<void> {
  const { parameterTable } = await import('../clip/parameters.js')
  const found = await parameterTable({ image, text, adapters: peft === undefined ? undefined : [peft as AdapterKind] })
  process.stdout.write(`${json ? JSON.stringify(found, null, 2) : table(found)}\n`)
}
