import { workForLauncher } from '../torch/distributed/index.js'
import { type Evaluation, evaluate, type RetrievalEvaluation } from './evaluate.js'
import type { Options, Told } from './launch.js'

/*
 * The program of one of several processes that launchEvaluation() starts.
 */

await workForLauncher<Options, Told, Evaluation | RetrievalEvaluation>((options, { tell }) =>
  evaluate({
    ...options,
    onProgress: (images, total, part) => tell({ images, total, part }),
    logger: { warn: (warning) => tell({ warning }) },
  }),
)
