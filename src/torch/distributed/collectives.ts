import { native } from '../native.js'
import { handleOf, type Tensor } from '../tensor.js'
import { type GroupOptions, type ProcessGroup, worldGroup } from './group.js'
import type { CollectiveName, NativeWork } from './native.js'

/*
 * Collectives, in PyTorch's words. All ranks of a group call the same ones in the same order. Each gives a Work at once:
 * `await` it, or call wait(), before the tensors are read or written. None is seen by autograd: allGatherWithGradient() is.
 */

const reductions = { sum: 0, avg: 1, product: 2, min: 3, max: 4, band: 5, bor: 6, bxor: 7 } as const

/** How values of several ranks become one. 'avg' is for NCCL; 'band', 'bor' and 'bxor' are for integers, with Gloo. */
export type ReduceOp = keyof typeof reductions

/** PyTorch's names of the reductions. */
export const ReduceOp = {
  SUM: 'sum',
  AVG: 'avg',
  PRODUCT: 'product',
  MIN: 'min',
  MAX: 'max',
  BAND: 'band',
  BOR: 'bor',
  BXOR: 'bxor',
} as const satisfies Record<string, ReduceOp>

/** A collective on its way. It keeps the memory that it reads and writes, whatever becomes of the tensors. */
export class Work implements PromiseLike<undefined> {
  #promise: Promise<undefined> | undefined

  /** @internal */
  constructor(private readonly handle: NativeWork) {}

  /**
   * Blocks until the collective has ended; with NCCL, until the current stream is sure to wait for it.
   *
   * @throws TorchError that names the rank which is missing, late, or asks for something else
   */
  wait(): void {
    native.waitWork(this.handle)
  }

  /** Whether it has ended, well or not. */
  get isCompleted(): boolean {
    return native.isWorkCompleted(this.handle)
  }

  /** `await work`: the event loop turns meanwhile. */
  // biome-ignore lint/suspicious/noThenProperty: to be awaited is what it is for
  then<Value = undefined, Failure = never>(
    onEnd?: ((value: undefined) => Value | PromiseLike<Value>) | null,
    onFailure?: ((reason: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Value | Failure> {
    this.#promise ??= native.workPromise(this.handle)
    return this.#promise.then(onEnd, onFailure)
  }
}

export interface CollectiveOptions extends GroupOptions {
  /** In milliseconds. Default: the group's. */
  timeout?: number
}

export interface ReduceOptions extends CollectiveOptions {
  /** Default: 'sum'. */
  op?: ReduceOp
}

interface Given {
  name: CollectiveName
  outputs?: readonly Tensor[]
  inputs?: readonly Tensor[]
  options: ReduceOptions
  peer?: number
  tag?: number
}

function checkReduction(name: string, op: ReduceOp, group: ProcessGroup, tensors: readonly Tensor[]): void {
  if (!Object.hasOwn(reductions, op)) {
    throw new TypeError(`${name}: expected one of ${Object.keys(reductions).join(', ')}, but received '${String(op)}'`)
  }
  if (op === 'avg' && group.backend === 'gloo') {
    throw new TypeError(`${name}: expected a reduction that Gloo has, but 'avg' is NCCL's; use 'sum' and divide`)
  }
  const isBitwise = op === 'band' || op === 'bor' || op === 'bxor'
  if (isBitwise && name.startsWith('reduceScatter')) {
    throw new TypeError(`${name}: expected 'sum', 'avg', 'product', 'min' or 'max', but received '${op}'`)
  }
  if (isBitwise && tensors.some((tensor) => !/^(u?int|bool)/.test(tensor.dtype))) {
    throw new TypeError(`${name}: expected tensors of integers for '${op}', but received ${tensors[0]?.dtype}`)
  }
}

function start({ name, outputs = [], inputs = [], options, peer = 0, tag = 0 }: Given): Work {
  const group = options.group ?? worldGroup()
  if (!Number.isInteger(peer) || peer < 0 || peer >= group.size) {
    throw new RangeError(`${name}: expected a rank from 0 to ${group.size - 1}, but received ${peer}`)
  }
  const op = options.op ?? 'sum'
  if (options.op !== undefined) checkReduction(name, op, group, [...outputs, ...inputs])
  const handle = native.collective(
    group.handle,
    name,
    outputs.map((tensor) => handleOf(tensor, name, 'each output')),
    inputs.map((tensor) => handleOf(tensor, name, 'each input')),
    reductions[op],
    peer,
    tag,
    options.timeout ?? -1,
  )
  return new Work(handle)
}

export interface SourceOptions extends CollectiveOptions {
  /** The rank that has the values. Default: 0. */
  source?: number
}

export interface DestinationOptions extends CollectiveOptions {
  /** The rank that gets the result. Default: 0. */
  destination?: number
}

/** Copies the source's tensor into everybody's, in place. */
export function broadcast(tensor: Tensor, options: SourceOptions = {}): Work {
  return start({ name: 'broadcast', outputs: [tensor], options, peer: options.source })
}

/** Reduces tensors of one shape over all ranks, in place: everybody gets the result. */
export function allReduce(tensor: Tensor, options: ReduceOptions = {}): Work {
  return start({ name: 'allReduce', outputs: [tensor], options })
}

/** Like {@link allReduce}, but the destination alone gets the result; the others' tensors hold anything then. */
export function reduce(tensor: Tensor, options: DestinationOptions & ReduceOptions = {}): Work {
  return start({ name: 'reduce', outputs: [tensor], options, peer: options.destination })
}

/** outputs[k] becomes rank k's tensor. All are of one shape. */
export function allGather(outputs: readonly Tensor[], tensor: Tensor, options: CollectiveOptions = {}): Work {
  return start({ name: 'allGather', outputs, inputs: [tensor], options })
}

/** Like {@link allGather}, one after the other into one tensor of `worldSize` times the elements. */
export function allGatherIntoTensor(output: Tensor, tensor: Tensor, options: CollectiveOptions = {}): Work {
  return start({ name: 'allGatherIntoTensor', outputs: [output], inputs: [tensor], options })
}

/** Like {@link allGather}, but the destination alone gives outputs and gets the tensors; the others give []. */
export function gather(outputs: readonly Tensor[], tensor: Tensor, options: DestinationOptions = {}): Work {
  return start({ name: 'gather', outputs, inputs: [tensor], options, peer: options.destination })
}

/** Rank k's output becomes the source's inputs[k]. The others give [] as inputs. */
export function scatter(output: Tensor, inputs: readonly Tensor[], options: SourceOptions = {}): Work {
  return start({ name: 'scatter', outputs: [output], inputs, options, peer: options.source })
}

/** Rank k's output becomes the reduction of everybody's inputs[k]. */
export function reduceScatter(output: Tensor, inputs: readonly Tensor[], options: ReduceOptions = {}): Work {
  return start({ name: 'reduceScatter', outputs: [output], inputs, options })
}

/** Like {@link reduceScatter}, of one tensor that is cut into `worldSize` equal parts along its first dimension. */
export function reduceScatterTensor(output: Tensor, input: Tensor, options: ReduceOptions = {}): Work {
  return start({ name: 'reduceScatterTensor', outputs: [output], inputs: [input], options })
}

/** outputs[k] becomes rank k's inputs[own rank]. */
export function allToAll(outputs: readonly Tensor[], inputs: readonly Tensor[], options: CollectiveOptions = {}): Work {
  return start({ name: 'allToAll', outputs, inputs, options })
}

export interface MessageOptions extends GroupOptions {
  /** Which of several messages between two ranks this is. Default: 0. */
  tag?: number
}

function message(name: 'send' | 'recv', tensor: Tensor, peer: number, { group, tag = 0 }: MessageOptions): Work {
  const own = (group ?? worldGroup()).rank
  if (peer === own) throw new RangeError(`${name}: expected another rank, but received this one, ${own}`)
  const list = name === 'send' ? { inputs: [tensor] } : { outputs: [tensor] }
  return start({ name, ...list, options: { group }, peer, tag })
}

/** Sends a tensor to one rank, which calls {@link recv}. */
export function send(tensor: Tensor, destination: number, options: MessageOptions = {}): Work {
  return message('send', tensor, destination, options)
}

/** Fills a tensor with what one rank sends: as many elements, of the same dtype. */
export function recv(tensor: Tensor, source: number, options: MessageOptions = {}): Work {
  return message('recv', tensor, source, options)
}

/** Ends when all ranks have come to it. */
export function barrier(options: CollectiveOptions = {}): Work {
  return start({ name: 'barrier', options })
}
