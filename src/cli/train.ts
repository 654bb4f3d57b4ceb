import type { ArgumentsCamelCase, Argv } from 'yargs'
import { onInterrupt } from '../setup/exit.js'
import { listRecipes } from '../train/recipes.js'
import { Lines } from './lines.js'

export const command = 'train [config]'
export const describe = 'Train by a recipe, a JSON or YAML file, or both; Ctrl-C leaves a checkpoint to go on from'

const stages = ['pretrain', 'prompt', 'linear-probe', 'fine-tune'] as const

export interface Options {
  config: string | undefined
  recipe: string | undefined
  stage: string | undefined
  from: string | undefined
  set: string[]
  data: string | undefined
  out: string | undefined
  resume: boolean
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return yargs
    .positional('config', { type: 'string', describe: 'options as JSON or YAML; config.json of a run repeats it' })
    .option('recipe', { type: 'string', describe: `options to begin with: ${listRecipes().join(', ')}` })
    .option('set', {
      type: 'string',
      array: true,
      nargs: 1,
      default: [],
      describe: 'key.path=value, over recipe and file: --set optimizer.lr=1e-4',
    })
    .option('stage', {
      choices: stages,
      describe: 'default: as recipe or file say; all but the first begin with --from',
    })
    .option('from', { type: 'string', describe: 'a checkpoint to begin with; its data and folder are the defaults' })
    .option('data', { type: 'string', describe: "the data set's folder: data.root" })
    .option('out', { type: 'string', describe: "the run's folder" })
    .option('resume', { type: 'boolean', default: false, describe: 'go on from the last checkpoint in it' })
    .option('json', {
      type: 'boolean',
      default: false,
      describe: 'events on standard output, one JSON object a line, the result last',
    }) as unknown as Argv<Options>
}

/** Why a run was stopped. */
class Interrupted extends Error {
  constructor(readonly status: number) {
    super('interrupted')
  }
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { config: file, recipe, stage, from, set, data, out, resume, json } = options
  if (file === undefined && recipe === undefined && from === undefined && set.length === 0) {
    throw new Error(
      'expected a configuration file, --recipe, --from or --set, but received none; see: npx cleft train --help',
    )
  }
  const { ConsoleLog, eventLine, readRunOptions, train } = await import('../train/index.js')
  const run = readRunOptions({
    recipe,
    file,
    set,
    options: {
      ...(stage !== undefined && { stage }),
      ...(from !== undefined && { from }),
      ...(data !== undefined && { data: { root: data } }),
      ...(out !== undefined && { out }),
      ...(resume && { resume }),
    },
  })
  const stop = new AbortController()
  const log = new ConsoleLog()
  const lines = new Lines()
  let release = () => {}
  try {
    const job = train(run, { signal: stop.signal, logger: { warn: (message) => log.line(message) } })
    for await (const event of job) {
      log.write(event)
      if (json) {
        await lines.write(eventLine(event))
        await lines.flush()
      }
      // before it there is nothing to save
      if (event.type === 'start') {
        release = onInterrupt((status) => {
          log.line('stopping, with a checkpoint; once more ends at once')
          stop.abort(new Interrupted(status))
        })
      }
    }
    const result = await job
    log.close()
    process.stdout.write(json ? `${JSON.stringify({ type: 'result', ...result })}\n` : `${result.checkpoint}\n`)
  } catch (error) {
    log.close()
    if (!(error instanceof Interrupted)) throw error
    log.line(`stopped; go on with --resume: ${run.out}`)
    process.exitCode = error.status
  } finally {
    release()
    log.close()
  }
}
