import { workForLauncher } from '../torch/distributed/index.js'
import { evaluate } from './evaluate.js'
import type { Evaluation, RetrievalEvaluation } from './evaluation.js'
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
