import { Function as AutogradFunction, type FunctionContext } from '../autograd.js'
import type { Tensor } from '../tensor.js'
import { allGatherIntoTensor, reduceScatterTensor } from './collectives.js'
import { type GroupOptions, type ProcessGroup, worldGroup } from './group.js'

class AllGather extends AutogradFunction {
  static forward(context: FunctionContext & { group?: ProcessGroup }, tensor: Tensor, group: ProcessGroup): Tensor {
    context.group = group
    const [first = 1, ...rest] = tensor.shape
    const all = tensor.newEmpty([first * group.size, ...rest])
    allGatherIntoTensor(all, tensor, { group }).wait()
    return all
  }

  static backward(context: FunctionContext & { group?: ProcessGroup }, gradient: Tensor): Tensor {
    const group = context.group!
    const [first = 1, ...rest] = gradient.shape
    const own = gradient.newEmpty([first / group.size, ...rest])
    reduceScatterTensor(own, gradient, { group }).wait()
    return own
  }
}

/**
 * Every rank's tensor, one after the other along the first dimension, in the order of the ranks: [B, ...] on each of N
 * ranks becomes [N * B, ...] on all. Its gradient is the sum of what all ranks' losses say of this rank's part, so that
 * a loss over the global batch, with its negatives on all ranks, has the gradients of one process on the joined batch.
 * Both ways wait for all ranks: all must call backward() too.
 *
 * @throws TorchError where ranks bring different shapes
 */
export function allGatherWithGradient(tensor: Tensor, options: GroupOptions = {}): Tensor {
  if (tensor.dim() === 0) {
    throw new RangeError('allGatherWithGradient: expected a tensor with a first dimension, but received a scalar')
  }
  return AllGather.apply(tensor, options.group ?? worldGroup())
}
