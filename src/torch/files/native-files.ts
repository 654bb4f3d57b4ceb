import type { Handle, Native } from '../native.js'
import type { DType } from '../types.js'

export type { Handle } from '../native.js'

/** What reading and writing files needs of the native add-on. */
export type NativeFiles = Pick<
  Native,
  'mapFile' | 'tensorFromMapping' | 'tensorFromBytes' | 'tensorFromStorage' | 'copyBytes' | 'release'
>

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
