import { type DType, dtypeBytes } from '../types.js'

/**
 * safetensors' names, in the order in which its library writes tensors (largest alignment first; its `Dtype` enum,
 * backwards). complex128 and complex32 have none.
 */
const SAFETENSORS: readonly (readonly [name: string, dtype: DType])[] = [
  ['U64', 'uint64'],
  ['I64', 'int64'],
  ['F64', 'float64'],
  ['C64', 'complex64'],
  ['F32', 'float32'],
  ['U32', 'uint32'],
  ['I32', 'int32'],
  ['BF16', 'bfloat16'],
  ['F16', 'float16'],
  ['U16', 'uint16'],
  ['I16', 'int16'],
  ['F8_E4M3', 'float8_e4m3fn'],
  ['F8_E5M2', 'float8_e5m2'],
  ['I8', 'int8'],
  ['U8', 'uint8'],
  ['BOOL', 'bool'],
]

export const dtypeOfSafetensors: ReadonlyMap<string, DType> = new Map(SAFETENSORS)

/** Per dtype: its name in a safetensors header, and its place in the order of writing. */
export const safetensorsOfDtype: ReadonlyMap<DType, { name: string; rank: number }> = new Map(
  SAFETENSORS.map(([name, dtype], rank) => [dtype, { name, rank }]),
)

/** PyTorch's typed storage classes (`torch.FloatStorage`). Dtypes without one are saved over an UntypedStorage. */
export const storageClasses: ReadonlyMap<string, DType> = new Map<string, DType>([
  ['DoubleStorage', 'float64'],
  ['FloatStorage', 'float32'],
  ['HalfStorage', 'float16'],
  ['BFloat16Storage', 'bfloat16'],
  ['LongStorage', 'int64'],
  ['IntStorage', 'int32'],
  ['ShortStorage', 'int16'],
  ['CharStorage', 'int8'],
  ['ByteStorage', 'uint8'],
  ['BoolStorage', 'bool'],
  ['ComplexFloatStorage', 'complex64'],
  ['ComplexDoubleStorage', 'complex128'],
])

export const storageClassOfDtype: ReadonlyMap<DType, string> = new Map(
  Array.from(storageClasses, ([name, dtype]) => [dtype, name]),
)

/** Python's names of dtypes (`torch.half` is `torch.float16`). */
export const torchDtypes: ReadonlyMap<string, DType> = new Map<string, DType>([
  ...(Object.keys(dtypeBytes) as DType[]).map((name): [string, DType] => [name, name]),
  ['double', 'float64'],
  ['float', 'float32'],
  ['half', 'float16'],
  ['long', 'int64'],
  ['int', 'int32'],
  ['short', 'int16'],
  ['cfloat', 'complex64'],
  ['cdouble', 'complex128'],
  ['chalf', 'complex32'],
])

/** The product of a shape, or null where it is not a safe integer. */
export function elementsOf(shape: readonly number[]): number | null {
  // a size of 0 makes the product 0 whatever the others are, also where they would overflow on the way
  if (shape.includes(0)) return 0
  let elements = 1
  for (const size of shape) {
    elements *= size
    if (!Number.isSafeInteger(elements)) return null
  }
  return elements
}

/** More dimensions than any tensor has (PyTorch's own limit is 64 in places). */
export const MAX_DIMENSIONS = 64

/** A list of sizes or strides from a file: integers that are not negative and are exact in JavaScript. */
export function isSizes(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.length <= MAX_DIMENSIONS &&
    value.every((size) => typeof size === 'number' && Number.isSafeInteger(size) && size >= 0)
  )
}
