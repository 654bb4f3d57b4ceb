import { operator } from './dispatch.js'
import { native } from './native.js'
import { isTypedArray, packNested, type Value } from './nested.js'
import { Tensor, wrap } from './tensor.js'
import {
  type Device,
  type DType,
  Float,
  type Layout,
  type MemoryFormat,
  type Nested,
  type Scalar,
  type TensorOptions,
  type TypedArray,
} from './types.js'

/*
 * Factories that read JavaScript data. A plain number is of the default dtype, whatever its value: a dtype must not
 * depend on whether a computed number happens to be whole. bigints and integer typed arrays say int64 and their own.
 */

export type TensorData = Nested<Value> | TypedArray | readonly TypedArray[] | Tensor

function fromNested(nested: Nested<Value>, dtype: DType | null): Tensor {
  const packed = packNested('tensor', nested, { dtype })
  return wrap(native.fromTypedArray(packed.data, packed.shape, packed.dtype))
}

/** Values of a typed array in a shape. A complex dtype takes them as they are read out: pairs; or as real parts alone. */
function fromFlat(data: TypedArray, shape: readonly number[], dtype: DType | null): Tensor {
  if (dtype === null || !dtype.startsWith('complex')) return wrap(native.fromTypedArray(data, shape, dtype))
  const elements = shape.reduce((product, size) => product * size, 1)
  if (elements > 0 && data.length === 2 * elements) return wrap(native.fromTypedArray(data, [...shape, 2], dtype))
  const real = wrap(native.fromTypedArray(data, shape, null))
  try {
    return real.to(dtype)
  } finally {
    real.dispose()
  }
}

/** On a GPU, without waiting for it: from memory that is pinned, and not given to others before it was read. */
function uploaded(tensor: Tensor, device: Device): Tensor {
  if (tensor.numel() === 0) return tensor.to(device)
  const pinned = tensor.pinMemory()
  try {
    return pinned.to(device, { nonBlocking: true })
  } finally {
    pinned.dispose()
  }
}

/** Where the options want the tensor. It is theirs: freed where something else is returned, or where that fails. */
function finish(tensor: Tensor, options: TensorOptions): Tensor {
  let result = tensor
  try {
    const device = options.device ?? 'cpu'
    if (device.startsWith('cuda')) result = uploaded(tensor, device)
    else if (device !== 'cpu') result = tensor.to(device)
    else if (options.pinMemory) result = tensor.pinMemory()
    if (options.requiresGrad) result.requiresGrad_()
  } catch (error) {
    if (result !== tensor) result.dispose()
    tensor.dispose()
    throw error
  }
  if (result !== tensor) tensor.dispose()
  return result
}

/**
 * A tensor with a copy of the data: nested arrays, typed arrays, one value, or another tensor.
 *
 * Without `dtype`: plain numbers are of the default dtype (float32), also where they are whole; bigints int64; booleans
 * bool; {re, im} complex; a typed array keeps its own.
 *
 * @throws RangeError where nested arrays have uneven lengths, or a number does not fit the dtype
 */
export function tensor(data: TensorData, options: TensorOptions = {}): Tensor {
  const dtype = options.dtype ?? null
  if (data instanceof Tensor) {
    const detached = data.detach()
    try {
      return finish(detached.to({ ...(dtype === null ? {} : { dtype }), copy: true }), options)
    } finally {
      detached.dispose()
    }
  }
  if (isTypedArray(data)) return finish(fromFlat(data, [data.length], dtype), options)
  if (Array.isArray(data) && data.length > 0 && data.every(isTypedArray)) {
    const natural = dtype ?? dtypeOfTypedArray(data[0] as TypedArray)
    return finish(fromNested(data as unknown as Nested<Value>, natural), options)
  }
  return finish(fromNested(data as Nested<Value>, dtype), options)
}

function dtypeOfTypedArray(data: TypedArray): DType {
  const name = data.constructor.name.replace('Array', '').replace('Clamped', '').replace('Big', '').toLowerCase()
  return name as DType
}

/**
 * A tensor of a shape with a copy of the typed array's values, row by row. For a complex dtype the array holds pairs, as
 * toTypedArray() gives them, or one real part for each element.
 */
export function fromTypedArray(data: TypedArray, shape: readonly number[], options: TensorOptions = {}): Tensor {
  return finish(fromFlat(data, shape, options.dtype ?? null), options)
}

function scalarDtype(value: Scalar): DType {
  if (typeof value === 'bigint') return 'int64'
  if (typeof value === 'boolean') return 'bool'
  if (typeof value === 'object' && !(value instanceof Float)) return 'complex64'
  return native.defaultDtype()
}

const fullOperator = operator('full', 'aten::full', [''])
const arangeOperator = operator('arange', 'aten::arange', ['', 'start', 'start_step'])
const emptyStridedOperator = operator('emptyStrided', 'aten::empty_strided', [''])

/** A tensor of one value. A plain number is of the default dtype; bigint int64; boolean bool. */
export function full(size: readonly number[], fillValue: Scalar, options: TensorOptions = {}): Tensor {
  return fullOperator.call([size, fillValue, { ...options, dtype: options.dtype ?? scalarDtype(fillValue) }]) as Tensor
}

/**
 * Numbers from `start` (0) up to and without `end`, `step` (1) apart. Whole numbers give int64, others the default dtype.
 *
 * @example torch.arange(5); torch.arange(2, 5); torch.arange(0, 1, 0.1)
 */
export function arange(end: number | bigint, options?: TensorOptions): Tensor
export function arange(start: number | bigint, end: number | bigint, options?: TensorOptions): Tensor
export function arange(
  start: number | bigint,
  end: number | bigint,
  step: number | bigint,
  options?: TensorOptions,
): Tensor
export function arange(...values: readonly unknown[]): Tensor {
  return arangeOperator.call(values) as Tensor
}

/** A tensor without set values, of a shape and strides. */
export function emptyStrided(size: readonly number[], stride: readonly number[], options: TensorOptions = {}): Tensor {
  return emptyStridedOperator.call([size, stride, options]) as Tensor
}

/** The dtype that an operation on both gives. */
export function promoteTypes(first: DType, second: DType): DType {
  const a = full([1], 0, { dtype: first, device: 'meta' })
  const b = full([1], 0, { dtype: second, device: 'meta' })
  const sum = a.add(b)
  const dtype = sum.dtype
  for (const each of [a, b, sum]) each.dispose()
  return dtype
}

export type { Device, Layout, MemoryFormat }
