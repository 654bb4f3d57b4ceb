import * as torch from '../torch/index.js'

/** Runs a forward in a precision: 'float32', or what autocast computes in, on the device that the tensors are on. */
export function inPrecision<Result>(
  precision: 'float32' | 'bfloat16' | 'float16',
  device: torch.Device,
  work: () => Result,
): Result {
  if (precision === 'float32') return work()
  return torch.autocast({ device: device.startsWith('cuda') ? 'cuda' : 'cpu', dtype: precision }, work)
}
