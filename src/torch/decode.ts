import type { DType, TypedArray } from './types.js'

export type NestedValue = number | boolean | { re: number; im: number } | NestedValue[]

/** Values row by row as nested arrays of a shape. */
export function decodeRows(values: TypedArray, shape: readonly number[], dtype: DType): NestedValue {
  const read = reader(values, dtype)
  let position = 0
  const build = (depth: number): NestedValue => {
    if (depth === shape.length) {
      position += 1
      return read(position - 1)
    }
    const row: NestedValue[] = []
    for (let index = 0; index < shape[depth]!; index += 1) row.push(build(depth + 1))
    return row
  }
  return build(0)
}

function reader(values: TypedArray, dtype: DType): (index: number) => NestedValue {
  if (dtype === 'bool') return (index) => values[index] === 1
  if (dtype.startsWith('complex')) {
    return (index) => ({ re: Number(values[2 * index]), im: Number(values[2 * index + 1]) })
  }
  if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
    return (index) => {
      const value = Number(values[index])
      if (!Number.isSafeInteger(value)) {
        throw new RangeError(
          `toArray: expected values that numbers hold exactly, but one is ${values[index]}; use toTypedArray()`,
        )
      }
      return value
    }
  }
  return (index) => Number(values[index])
}
