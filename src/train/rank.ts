import { messageOf } from '../setup/errors.js'
import { readLaunchEnvironment } from '../torch/distributed/environment.js'
import { STOPPED, type Told, toLine } from './launch.js'
import type { FullOptions } from './options/index.js'
import { StoppedError } from './run.js'
import { train } from './train.js'

/*
 * The program of one of several processes that launchTraining() starts: node rank.js OPTIONS-AS-JSON.
 */

const isFirst = (readLaunchEnvironment()?.rank ?? 0) === 0
const tell = (told: Told): void => {
  process.stdout.write(toLine(told))
}
const stop = new AbortController()
let hasBegun = false
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    // before it there is nothing to save
    if (!hasBegun) process.exit(STOPPED)
    stop.abort(new StoppedError('the run was stopped'))
  })
}

try {
  const logger = { warn: (warning: string) => isFirst && tell({ warning }) }
  const job = train(JSON.parse(process.argv[2]!) as FullOptions, { signal: stop.signal, logger })
  for await (const event of job) {
    hasBegun ||= event.type === 'start'
    if (isFirst) tell({ event })
  }
  const result = await job
  if (isFirst) tell({ result })
} catch (error) {
  if (!(error instanceof StoppedError)) {
    tell({ error: { name: error instanceof Error ? error.name : 'Error', message: messageOf(error) } })
  }
  process.exit(error instanceof StoppedError ? STOPPED : 1)
}
