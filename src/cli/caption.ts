import type { ArgumentsCamelCase, Argv } from 'yargs'
import { CAPTION_KINDS, type CaptionKind, captionsOf } from '../data/datasets/caption-lines.js'
import { describeProblem, Problems } from '../data/problems.js'
import { Lines } from './lines.js'

export const command = 'caption <kind> <tables..>'
export const describe = 'Show the caption of every row that training would use, and class prompts; needs no images'

interface Options {
  kind: CaptionKind
  tables: string[]
  style: string | undefined
  prompts: boolean
  'max-problems': number
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('kind', { choices: CAPTION_KINDS, demandOption: true, describe: 'the data set' })
    .positional('tables', {
      type: 'string',
      array: true,
      demandOption: true,
      describe: 'its tables, in any order: CSV, JSONL or Parquet; plain, gzip or zip',
    })
    .option('style', {
      type: 'string',
      describe:
        'chexpert: plain, negative, prompt; embed: default, simple, natural, structural; nih: plain, prompt; rsna: plain, published, prompt. Default: the first',
    })
    .option('prompts', { type: 'boolean', default: false, describe: 'also the class prompts, first' })
    .option('max-problems', {
      type: 'number',
      default: 0.01,
      describe: 'the fraction of rows that may be unusable',
    })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object a line' }) as Argv<Options>
}

/** Written out on standard error; of the others, the number. */
const SHOWN = 5

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { kind, tables, style, json } = options
  const problems = new Problems()
  const captions = await captionsOf(kind, tables, style, problems)
  const out = new Lines()
  if (options.prompts || kind === 'rsna') {
    for (const [task, classes] of captions.prompts) {
      for (const { name, prompts } of classes) {
        for (const prompt of prompts) {
          await out.write(json ? JSON.stringify({ task, class: name, prompt }) : `${task}\t${name}\t${prompt}`)
        }
      }
    }
  }
  let rows = 0
  for await (const lines of captions.lines()) {
    rows += lines.length
    for (const line of lines) {
      await out.write(json ? JSON.stringify(line) : `${line.row}\t${line.path}\t${line.caption ?? line.label}`)
    }
  }
  await out.flush()
  for (const note of captions.notes) process.stderr.write(`${note}\n`)
  problems.check(rows + problems.count, options['max-problems'])
  for (const problem of problems.list.slice(0, SHOWN)) process.stderr.write(`left out: ${describeProblem(problem)}\n`)
  const more = problems.count - SHOWN
  if (more > 0) process.stderr.write(`left out: ${more} more\n`)
}
