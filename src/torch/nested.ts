import { native } from './native.js'
import type { Complex, DType, Nested, TypedArray } from './types.js'

/** One element of the data that tensors are made of. */
export type Value = number | bigint | boolean | Complex

/** Data ready for native code. Complex values are pairs, in a last dimension of two. */
export interface Packed {
  readonly data: TypedArray
  readonly shape: readonly number[]
  readonly dtype: DType
}

interface Flat {
  readonly values: Value[]
  readonly shape: number[]
}

export function isTypedArray(value: unknown): value is TypedArray {
  return ArrayBuffer.isView(value) && !(value instanceof DataView)
}

/** As many as PyTorch reads. */
const mostDimensions = 128

function flatten(operation: string, data: Nested<Value>): Flat {
  const shape: number[] = []
  for (let level: unknown = data; Array.isArray(level) || isTypedArray(level); level = level[0]) {
    // an array inside itself has no end
    if (shape.length === mostDimensions) {
      throw new RangeError(`${operation}: expected at most ${mostDimensions} nested arrays, but received more`)
    }
    shape.push(level.length)
  }
  const values: Value[] = []
  const visit = (level: unknown, depth: number): void => {
    if (Array.isArray(level) || isTypedArray(level)) {
      if (depth >= shape.length || level.length !== shape[depth]) {
        throw new RangeError(
          `${operation}: expected nested arrays of one length at each depth, but at depth ${depth} ${shape[depth] ?? 'a number'} and ${level.length} were found`,
        )
      }
      for (const item of level as readonly unknown[]) visit(item, depth + 1)
    } else if (depth !== shape.length) {
      throw new RangeError(
        `${operation}: expected nested arrays of one length at each depth, but at depth ${depth} a value stands where an array of ${shape[depth]} does elsewhere`,
      )
    } else values.push(checked(operation, level))
  }
  visit(data, 0)
  return { values, shape }
}

function checked(operation: string, value: unknown): Value {
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') return value
  if (typeof value === 'object' && value !== null) {
    const { re, im } = value as Partial<Complex>
    if (typeof re === 'number' && typeof im === 'number') return { re, im }
  }
  throw new TypeError(
    `${operation}: expected numbers, bigints, booleans or {re, im} in the data, but received ${value === null ? 'null' : typeof value === 'string' ? `the string '${value}'` : typeof value}`,
  )
}

function naturalDtype(operation: string, values: readonly Value[]): DType {
  const kinds = new Set(values.map((value) => (typeof value === 'object' ? 'complex' : typeof value)))
  if (kinds.has('complex')) return native.defaultDtype() === 'float64' ? 'complex128' : 'complex64'
  if (kinds.size > 1 && kinds.has('bigint')) {
    throw new TypeError(
      `${operation}: expected data of one kind, but received bigints among numbers or booleans; say which dtype is meant with { dtype }`,
    )
  }
  if (kinds.has('bigint')) return 'int64'
  if (kinds.has('boolean') && kinds.size === 1) return 'bool'
  return native.defaultDtype()
}

function isComplex(dtype: DType): boolean {
  return dtype.startsWith('complex')
}

function isInteger(dtype: DType): boolean {
  return dtype.startsWith('int') || dtype.startsWith('uint')
}

const integerLimits: Readonly<Record<string, readonly [bigint, bigint]>> = Object.fromEntries(
  [8, 16, 32, 64].flatMap((bits) => [
    [`int${bits}`, [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits - 1) - 1n] as const],
    [`uint${bits}`, [0n, 2n ** BigInt(bits) - 1n] as const],
  ]),
)

/** Values of one kind in the typed array that carries them to native code without loss. */
function pack(operation: string, values: readonly Value[], dtype: DType): TypedArray {
  if (isComplex(dtype)) {
    return Float64Array.from(
      values.flatMap((value) => (typeof value === 'object' ? [value.re, value.im] : [Number(value), 0])),
    )
  }
  if (isInteger(dtype)) {
    const [low, high] = integerLimits[dtype]!
    const whole = values.map((value) => {
      if (typeof value === 'object' || (typeof value === 'number' && !Number.isInteger(value))) {
        throw new RangeError(
          `${operation}: expected whole numbers for dtype ${dtype}, but received ${typeof value === 'object' ? 'a complex number' : value}`,
        )
      }
      if (typeof value === 'number' && !Number.isSafeInteger(value)) {
        throw new RangeError(`${operation}: expected safe whole numbers, but received ${value}; give it as a bigint`)
      }
      const integer = BigInt(value)
      if (integer < low || integer > high) {
        throw new RangeError(
          `${operation}: expected numbers from ${low} to ${high} for dtype ${dtype}, but received ${integer}`,
        )
      }
      return integer
    })
    return dtype === 'uint64' ? BigUint64Array.from(whole) : BigInt64Array.from(whole)
  }
  const numbers = values.map((value) => {
    if (typeof value === 'object') {
      throw new TypeError(`${operation}: expected real numbers for dtype ${dtype}, but received a complex number`)
    }
    return Number(value)
  })
  // through float64, so that the one rounding is libtorch's
  return dtype === 'float32' ? Float32Array.from(numbers) : Float64Array.from(numbers)
}

/** Nested arrays as one typed array and a shape; whole plain numbers are int64 where `integers` says so (indices). */
export function packNested(
  operation: string,
  nested: Nested<Value>,
  options: { dtype?: DType | null; integers?: boolean } = {},
): Packed {
  const { values, shape } = flatten(operation, nested)
  let dtype = options.dtype ?? naturalDtype(operation, values)
  if (options.integers && dtype !== 'bool' && (options.dtype ?? null) === null) dtype = 'int64'
  return { data: pack(operation, values, dtype), shape: isComplex(dtype) ? [...shape, 2] : shape, dtype }
}
