import { type Handle, native } from './native.js'
import { packNested } from './nested.js'
import { Tensor } from './tensor.js'
import type { Nested } from './types.js'

/** Part of a dimension, as Python's `start:stop:step`. */
export class Slice {
  constructor(
    readonly start: number | null,
    readonly stop: number | null,
    readonly step: number | null,
  ) {}
}

/** `slice(stop)`, `slice(start, stop)` or `slice(start, stop, step)`; null leaves an end open. */
export function slice(first: number | null = null, second?: number | null, step: number | null = null): Slice {
  return second === undefined ? new Slice(null, first, step) : new Slice(first, second, step)
}

export type Index = number | null | boolean | string | Slice | Tensor | Nested<number> | Nested<boolean>

const slicePattern = /^(-?\d*):(-?\d*)(?::(\d*))?$/

function parseSlice(operation: string, text: string): Slice {
  const match = slicePattern.exec(text.replaceAll(' ', ''))
  if (match === null || match[1] === '-' || match[2] === '-') {
    throw new TypeError(
      `${operation}: expected an index like '1:3', ':', '::2' or '...', but received the string '${text}'`,
    )
  }
  const part = (value: string | undefined) => (value === undefined || value === '' ? null : Number(value))
  return new Slice(part(match[1]), part(match[2]), part(match[3]))
}

/**
 * Runs a function with indices as native code reads them: a flat list of codes and their values (native/tensor_data.cpp).
 * Tensors that arrays of indices become are freed when it returns.
 */
export function withIndices<T>(operation: string, indices: readonly Index[], run: (encoded: unknown[]) => T): T {
  const encoded: unknown[] = []
  const temporary: Handle[] = []
  try {
    for (const index of indices) encodeOne(operation, index, encoded, temporary)
    return run(encoded)
  } finally {
    for (const handle of temporary) native.release(handle)
  }
}

function encodeOne(operation: string, index: Index, encoded: unknown[], temporary: Handle[]): void {
  if (typeof index === 'number') {
    if (!Number.isSafeInteger(index)) {
      throw new RangeError(`${operation}: expected an index to be a whole number, but received ${index}`)
    }
    encoded.push(0, index)
  } else if (index === null) encoded.push(1)
  else if (index === '...') encoded.push(2)
  else if (typeof index === 'boolean') encoded.push(3, index)
  else if (typeof index === 'string') encodeOne(operation, parseSlice(operation, index), encoded, temporary)
  else if (index instanceof Slice) encoded.push(4, index.start, index.stop, index.step)
  else if (index instanceof Tensor) encoded.push(5, index.handle)
  else if (Array.isArray(index)) {
    const { data, shape, dtype } = packNested(operation, index as Nested<number>, { integers: true })
    const handle = native.fromTypedArray(data, shape, dtype)
    temporary.push(handle)
    encoded.push(5, handle)
  } else {
    throw new TypeError(
      `${operation}: expected an index to be a number, slice, null, '...', boolean, tensor or array, but received ${typeof index}`,
    )
  }
}
