import type * as torch from '../torch/index.js'

let isMimicked = false

/** Whether kernels are chosen that are good on the CPU alone. */
export const choosesForCpu = (tensor: torch.Tensor): boolean => tensor.device === 'cpu' && !isMimicked

/**
 * Runs something with the kernels that a GPU would run, though the tensors are on the CPU: slower, and with the memory that
 * it takes there.
 */
export function withKernelsOfGpu<Result>(run: () => Result): Result {
  const before = isMimicked
  isMimicked = true
  try {
    return run()
  } finally {
    isMimicked = before
  }
}
