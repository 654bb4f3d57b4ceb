import type { DType } from '../types.js'

/** An integer that names a tensor in the native table. */
export type Handle = number

/** What reading and writing files needs of the native add-on. */
export interface NativeFiles {
  /** Maps a file privately (copy on write). The mapping lives as long as a tensor or a JavaScript value refers to it. */
  mapFile(path: string): object
  /**
   * A tensor over `byteLength` bytes of a mapping, from `byteOffset`: no copy where the address is aligned for the dtype,
   * a copy of those bytes where it is not. Strides and storage offset count elements; null strides are contiguous.
   */
  tensorFromMapping(
    mapping: object,
    byteOffset: number,
    byteLength: number,
    shape: readonly number[],
    strides: readonly number[] | null,
    storageOffset: number,
    dtype: DType,
  ): Handle
  /** A tensor over a copy of `bytes`. */
  tensorFromBytes(
    bytes: Uint8Array,
    shape: readonly number[],
    strides: readonly number[] | null,
    storageOffset: number,
    dtype: DType,
  ): Handle
  /**
   * A tensor over the whole storage of another one, read as `dtype`: nothing is copied, and the two share their memory
   * as PyTorch's views do. The offset counts elements of `dtype` from the start of the storage. Checks the bounds.
   */
  tensorFromStorage(
    storage: Handle,
    shape: readonly number[],
    strides: readonly number[] | null,
    storageOffset: number,
    dtype: DType,
  ): Handle
  /** A copy of a byte range of a contiguous tensor on the CPU. */
  copyBytes(handle: Handle, byteOffset: number, byteLength: number): Uint8Array
  /** Frees a handle. */
  release(handle: Handle): unknown
}

/** What the writers ask of a tensor. */
export interface TensorDescription {
  dtype: DType
  shape: readonly number[]
  /**
   * Equal for two tensors that show the same elements of the same memory, so that save() writes tied weights once;
   * null where nothing is known.
   */
  identity: string | null
}

/** A tensor's bytes, contiguous, on the CPU and without gradient, while they are written. */
export interface ReadableTensor {
  handle: Handle
  /** Frees the handle where it was made for this. */
  release(): void
}

/** How the readers and writers make and see tensors. `T` is the tensor class. */
export interface FilesBackend<T> {
  native: NativeFiles
  /** A tensor around a handle that was just made; `requiresGrad` is what a checkpoint said (safetensors: false). */
  wrap(handle: Handle, requiresGrad: boolean): T
  isTensor(value: unknown): value is T
  describe(tensor: T): TensorDescription
  /** The tensor's bytes for copyBytes. Moves and copies one tensor, where it must. */
  open(tensor: T): ReadableTensor
}
