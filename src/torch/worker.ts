import { native } from './native.js'
import { handleOf, type Tensor, wrap } from './tensor.js'

/** A tensor on its way to another worker thread: can be sent by postMessage, and collected once. */
export interface TensorToken {
  readonly cleftTensor: bigint
}

/**
 * Lets another worker of this process have a tensor without copying: `worker.postMessage(torch.send(x))` here,
 * `torch.receive(message)` there. Both then see the same memory. Tokens that nobody collects are dropped when the
 * sending thread ends; torch.memory.counters().inTransit counts them.
 */
export function send(tensor: Tensor): TensorToken {
  return { cleftTensor: native.sendTensor(handleOf(tensor, 'send', 'tensor')) }
}

/** @throws RangeError where the token was collected before, or its sender has ended */
export function receive(token: TensorToken): Tensor {
  const value: unknown = token?.cleftTensor
  if (typeof value !== 'bigint' || value !== BigInt.asUintN(64, value)) {
    throw new TypeError(`receive: expected a token that send() made, but received ${String(value)}`)
  }
  return wrap(native.receiveTensor(value))
}
