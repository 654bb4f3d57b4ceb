import type { ArgumentsCamelCase, Argv } from 'yargs'
import { onInterrupt } from '../setup/exit.js'
import { readLaunchEnvironment } from '../torch/distributed/environment.js'
import { StoppedError } from '../torch/distributed/work.js'
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
  processes: number | undefined
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
    .option('processes', {
      type: 'number',
      describe: 'of this machine that train together, each with a batch of its own; torchrun and Slurm start them too',
    })
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

/** The usual status after SIGTERM: another process was told to stop, and this one with it. */
const TERMINATED = 143

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const { config: file, recipe, stage, from, set, data, out, resume, processes, json } = options
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
      ...(processes !== undefined && { processes }),
    },
  })
  const stop = new AbortController()
  // of processes that a launcher started, the first speaks for all
  const speaks = (readLaunchEnvironment()?.rank ?? 0) === 0
  const log = new ConsoleLog()
  const lines = new Lines()
  let release = () => {}
  try {
    const job = train(run, { signal: stop.signal, logger: { warn: (message) => speaks && log.line(message) } })
    for await (const event of job) {
      if (speaks) log.write(event)
      if (speaks && json) {
        await lines.write(eventLine(event))
        await lines.flush()
      }
      // before it there is nothing to save
      if (event.type === 'start') {
        release = onInterrupt((status) => {
          if (speaks) log.line('stopping, with a checkpoint; once more ends at once')
          stop.abort(new Interrupted(status))
        })
      }
    }
    const result = await job
    log.close()
    if (speaks)
      process.stdout.write(json ? `${JSON.stringify({ type: 'result', ...result })}\n` : `${result.checkpoint}\n`)
  } catch (error) {
    log.close()
    if (!(error instanceof Interrupted || error instanceof StoppedError)) throw error
    if (speaks) log.line(`stopped; go on with --resume: ${run.out}`)
    process.exitCode = error instanceof Interrupted ? error.status : TERMINATED
  } finally {
    release()
    log.close()
  }
}
