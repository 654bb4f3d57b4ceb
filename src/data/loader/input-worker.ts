import { getNumThreads, receive, scope, send, setNumThreads, type TensorToken } from '../../torch/index.js'
import { inputOf } from '../augment/input.js'
import { answerAll } from './answer.js'
import type { InputRequest } from './inputs.js'

/*
 * A thread of InputPool: resamples and augments batches.
 */

// libtorch gives a thread the process's number when it first asks, also after it was told another one
getNumThreads()
setNumThreads(1)

answerAll<InputRequest, TensorToken>(async ({ padded, boxes, options }) => ({
  reply: scope(() => send(inputOf(receive(padded), boxes, options))),
}))
