import * as torch from '../torch/index.js'
import type { Evaluation, RetrievalEvaluation } from './evaluation.js'
import type { EvaluateOptions, EvaluationPart } from './options.js'

/** What the first process tells. */
export type Told =
  | { readonly images: number; readonly total: number; readonly part: EvaluationPart }
  | { readonly warning: string }
export type Options = Omit<EvaluateOptions, 'signal' | 'onProgress' | 'logger'>

/** Compiled, also where tests run TypeScript's sources. */
const program = new URL('rank.js', import.meta.url.replace('/src/', '/dist/'))

/** Runs evaluate() in as many processes of this machine as the options say. */
export function launchEvaluation({
  signal,
  onProgress,
  logger = console,
  ...options
}: EvaluateOptions): Promise<Evaluation | RetrievalEvaluation> {
  return torch.distributed.launchWork<Told, Evaluation | RetrievalEvaluation>(options.processes!, program, options, {
    signal,
    onMessage: (told) =>
      'warning' in told ? logger.warn(told.warning) : onProgress?.(told.images, told.total, told.part),
    onText: (line, rank) => logger.warn(`process ${rank}: ${line}`),
  })
}
