import type { Complex, DType } from '../types.js'
import { quote } from './error.js'

/*
 * What a pickle can hold.
 */

/** What a pickle holds. Lists and tuples are arrays, dicts are Maps (their keys may be numbers). */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Complex
  | PickleValue[]
  | Map<PickleValue, PickleValue>
  | Set<PickleValue>
  | PickleStub
  | TensorRef
  | StorageRef

/** A Python object, function or class that is not built: its names, and what the pickle would have done with it. */
export class PickleStub {
  /** The keyword arguments of a constructor, where it had any. */
  kwargs: PickleValue = null
  /** What the object would have been given to restore itself: its attributes in a Map, mostly. */
  state: PickleValue = null
  /** What would have been appended to it (a list's subclass). */
  items: PickleValue[] | null = null
  /** What would have been set on it by key (a dict's subclass). */
  entries: Map<PickleValue, PickleValue> | null = null

  /** @param args what it would have been called with; null for the function or class itself */
  constructor(
    readonly module: string,
    readonly name: string,
    readonly args: PickleValue[] | null,
  ) {}
}

/** A storage that a pickle names: the bytes are elsewhere in the file. */
export class StorageRef {
  constructor(
    /** null: bytes without a type (UntypedStorage) */
    readonly dtype: DType | null,
    readonly key: string,
    /** elements, or bytes where there is no dtype */
    readonly size: number,
    /** Part of the storage, in elements (files from before PyTorch 0.4). */
    readonly view: { readonly offset: number; readonly size: number } | null,
  ) {}
}

/** A tensor that a pickle describes. Offset and strides count elements. */
export class TensorRef {
  constructor(
    /** Bytes that are in the pickle itself are a NumPy array's. */
    readonly storage: StorageRef | Uint8Array,
    readonly dtype: DType,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
    readonly requiresGrad: boolean,
  ) {}
}

/** @internal Today's names of modules that were renamed. */
export function currentModule(module: string): string {
  if (module === '__builtin__') return 'builtins'
  if (module === 'copy_reg') return 'copyreg'
  return module.startsWith('numpy._core.') ? module.replace('numpy._core.', 'numpy.core.') : module
}

export function nameOf(stub: PickleStub): string {
  return `${stub.module}.${stub.name}`
}

/** @internal What a value is, for messages. */
export function kindOf(value: PickleValue): string {
  if (value === null) return 'None'
  if (Array.isArray(value)) return 'a list'
  if (value instanceof Map) return 'a dict'
  if (value instanceof Set) return 'a set'
  if (value instanceof Uint8Array) return 'bytes'
  if (value instanceof PickleStub) return quote(nameOf(value))
  if (value instanceof TensorRef) return 'a tensor'
  if (value instanceof StorageRef) return 'a storage'
  return typeof value === 'object' ? 'a complex number' : `a ${typeof value}`
}

/** @internal A Python integer as a number where that is exact. */
export function narrow(value: bigint): number | bigint {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}
