import { workForLauncher } from '../torch/distributed/index.js'
import type { Told } from './launch.js'
import type { FullOptions } from './options/index.js'
import type { TrainResult } from './run.js'
import { train } from './train.js'

/*
 * The program of one of several processes that launchTraining() starts.
 */

await workForLauncher<FullOptions, Told, TrainResult>(async (options, { signal, canStop, tell }) => {
  const job = train(options, { signal, logger: { warn: (warning) => tell({ warning }) } })
  for await (const event of job) {
    // before it there is nothing to save
    if (event.type === 'start') canStop()
    tell({ event })
  }
  return await job
})
