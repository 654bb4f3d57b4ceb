/** The element types of tensors, by PyTorch's names. */
export type DType =
  | 'float32'
  | 'float64'
  | 'float16'
  | 'bfloat16'
  | 'int64'
  | 'int32'
  | 'int16'
  | 'int8'
  | 'uint8'
  | 'uint16'
  | 'uint32'
  | 'uint64'
  | 'bool'
  | 'complex64'
  | 'complex128'
  | 'complex32'
  | 'float8_e4m3fn'
  | 'float8_e5m2'

/** Where a tensor lives. `cuda` is the current CUDA device. */
export type Device = 'cpu' | 'cuda' | 'mps' | 'xpu' | 'meta' | `cuda:${number}` | `xpu:${number}` | `cpu:${number}`

export type Layout = 'strided' | 'sparse_coo' | 'sparse_csr' | 'sparse_csc' | 'sparse_bsr' | 'sparse_bsc' | 'jagged'

export type MemoryFormat = 'contiguous_format' | 'preserve_format' | 'channels_last' | 'channels_last_3d'

/** A complex number. */
export interface Complex {
  readonly re: number
  readonly im: number
}

/** A number that is a float whatever its value: see {@link float}. */
export class Float {
  constructor(readonly float: number) {}
}

/**
 * Says that a number is a float even where it is whole. JavaScript does not tell 2 from 2.0, and an operator reads 2 as
 * an integer: `torch.tensor([1n]).mul(2)` stays int64, `torch.tensor([1n]).mul(torch.float(2))` is float32.
 */
export function float(value: number): Float {
  return new Float(value)
}

/** What operators take for a number. A whole number is an int64, any other a float; `float(2)` is explicit. */
export type Scalar = number | bigint | boolean | Float | Complex

export type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Uint8Array
  | Uint8ClampedArray
  | Uint16Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array

/** Numbers in nested arrays, the outermost first. */
export type Nested<T> = T | readonly Nested<T>[]

export interface TensorOptions {
  /** Default: the default dtype (float32), or what the data says. */
  dtype?: DType | null
  /** Default: 'cpu'. */
  device?: Device | null
  layout?: Layout | null
  /** Page-locked memory, for copies to a GPU that do not wait. */
  pinMemory?: boolean | null
  /** Record operations on the tensor for backward(). Default: false. */
  requiresGrad?: boolean
}

export const dtypeBytes: Readonly<Record<DType, number>> = {
  float64: 8,
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int64: 8,
  int32: 4,
  int16: 2,
  int8: 1,
  uint8: 1,
  uint16: 2,
  uint32: 4,
  uint64: 8,
  bool: 1,
  complex128: 16,
  complex64: 8,
  complex32: 4,
  float8_e4m3fn: 1,
  float8_e5m2: 1,
}
