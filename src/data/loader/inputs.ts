import { getNumThreads, keep, receive, send, type Tensor, type TensorToken } from '../../torch/index.js'
import type { InputOptions } from '../augment/input.js'
import type { Box } from '../images/index.js'
import { Threads } from './threads.js'

/** A batch on its way to the last stage. */
export interface InputRequest {
  readonly padded: TensorToken
  readonly boxes: readonly Box[]
  readonly options: InputOptions
}

/**
 * The last stage on the CPU, in worker threads with one core each: beside the training step and the decoders, and twice as fast
 * as one thread that divides every small operation over two cores.
 */
export class InputPool {
  readonly #threads: Threads<InputRequest, TensorToken>

  /** @throws RangeError for a number of workers below 1 */
  constructor({ workers = 2 }: { workers?: number } = {}) {
    // what a worker sets becomes the number of every thread that has none yet: this one gets its own now
    getNumThreads()
    this.#threads = new Threads({ file: 'input-worker', workers, inFlight: 1 })
  }

  /** `inputOf` elsewhere. @returns a tensor that belongs to the caller */
  async input(padded: Tensor, boxes: readonly Box[], options: InputOptions): Promise<Tensor> {
    return keep(receive(await this.#threads.ask({ padded: send(padded), boxes, options })))
  }

  close(): Promise<void> {
    return this.#threads.close()
  }
}
