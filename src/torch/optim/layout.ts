/*
 * How tensors lie in memory.
 */

export function isSameList(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index])
}

/** Whether a tensor's elements fill one block of memory, in whatever order of dimensions. */
export function isDense(shape: readonly number[], strides: readonly number[]): boolean {
  const order = shape.map((_, dim) => dim).filter((dim) => shape[dim] !== 1)
  order.sort((a, b) => strides[a]! - strides[b]!)
  let expected = 1
  for (const dim of order) {
    if (shape[dim] === 0) return true
    if (strides[dim] !== expected) return false
    expected *= shape[dim]!
  }
  return true
}
