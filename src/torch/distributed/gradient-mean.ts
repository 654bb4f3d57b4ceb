import { backward } from '../autograd.js'
import { native } from '../native.js'
import { zeros } from '../ops.generated.js'
import { scope } from '../scope.js'
import type { Tensor } from '../tensor.js'
import type { Device } from '../types.js'
import type { ProcessGroup } from './group.js'
import type { NativeReducer } from './native.js'

const MIB = 2 ** 20
/** Gradients are reduced together in buckets of about this many bytes. */
export const BUCKET_BYTES = 25 * MIB
/** The first bucket is smaller, so that reducing starts early. */
export const FIRST_BUCKET_BYTES = MIB

/**
 * Gradients that are the processes' mean when the last backward() of a step ends: libtorch's own DDP Reducer, which reduces
 * buckets of them while that backward() still runs. A step may have others before it, whose gradients add up on each process
 * and are reduced with the last one's. Of one process everything is as it was.
 *
 * Gradients are views of the buckets: set them to null before each step, by which those that a step leaves out are found.
 */
export class GradientMean implements Disposable {
  readonly #reducer: NativeReducer | null
  readonly #parameters: readonly Tensor[]

  /**
   * @param named what trains, the same and in the same order on all processes: as a model has its layers, first to last
   * @throws TorchError where the processes' parameters differ
   */
  constructor(group: ProcessGroup | null, named: readonly (readonly [string, Tensor])[]) {
    this.#parameters = named.map(([, parameter]) => parameter)
    if (group === null || named.length === 0) {
      this.#reducer = null
      return
    }
    this.#reducer = native.newReducer(
      group.handle,
      this.#parameters.map(({ handle }) => handle),
      named.map(([name]) => name),
      BUCKET_BYTES,
      FIRST_BUCKET_BYTES,
      true,
    )
    this.#settleBuckets()
  }

  /**
   * libtorch puts parameters into buckets anew in the order that the first backward() comes to them, which also decides the
   * order of sums over more than two processes: a run that goes on would not be exact. A backward() of zeros settles them in
   * the reverse order of the parameters, whatever the first step is.
   */
  #settleBuckets(): void {
    const reducer = this.#reducer!
    native.reducerForward(reducer)
    native.reducerBackward(
      reducer,
      this.#parameters.map(({ handle }) => handle),
    )
    for (const parameter of this.#parameters.toReversed()) {
      scope(() => backward([parameter], [zerosOf(parameter)]))
    }
    native.reducerCheck(reducer)
    for (const { handle } of this.#parameters) native.setGradient(handle, null)
  }

  /**
   * The last backward() of a step, with a gradient of the output where that is no single value.
   *
   * @throws TypeError that names the parameters which got no gradient in this step
   */
  backward(output: Tensor, gradient: Tensor | null = null): void {
    if (this.#reducer === null) backward([output], [gradient])
    else this.#reduceIn(this.#reducer, [output], [gradient])
  }

  /** Where the last backward() of a step was one like the others: reduces what has added up. */
  reduce(): void {
    if (this.#reducer !== null) this.#reduceIn(this.#reducer, [], [])
  }

  #reduceIn(reducer: NativeReducer, outputs: readonly Tensor[], gradients: readonly (Tensor | null)[]): void {
    scope(() => {
      // Those that a backward() before has come to, and this one perhaps does not: each is waited for, once.
      const begun = this.#parameters.filter((each) => scope(() => each.grad !== null))
      const all = [...outputs, ...begun]
      native.reducerForward(reducer)
      native.reducerBackward(
        reducer,
        all.map(({ handle }) => handle),
      )
      backward(all, [...gradients, ...begun.map(zerosOf)])
      native.reducerCheck(reducer)
    })
  }

  [Symbol.dispose](): void {
    if (this.#reducer !== null) native.disposeReducer(this.#reducer)
  }
}

/** Of a parameter's shape, without its memory. */
function zerosOf({ shape, dtype, device }: Tensor): Tensor {
  return zeros([], { dtype, device: device as Device }).expand(shape)
}
