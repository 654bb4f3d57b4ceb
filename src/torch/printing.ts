import type { Tensor } from './tensor.js'
/** How a tensor looks in the console, as PyTorch prints it. */
export function formatTensor(tensor: Tensor): string {
  if (!tensor.isAlive) return 'tensor(<disposed>)'
  return `tensor(${JSON.stringify(tensor.toArray())})`
}
