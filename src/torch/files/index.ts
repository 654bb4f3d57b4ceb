/*
 * Files of weights: safetensors (mapped into memory, split or whole), and the checkpoints of Python's torch.save. Nothing
 * that a file says is trusted, and nothing in it is run.
 */
import { type LoadedObject, type LoadOptions, load } from './checkpoint.js'
import { type SaveableObject, save } from './checkpoint-writer.js'
import type { FilesBackend } from './native-files.js'
import { openSafetensors, type SafetensorsFile } from './safetensors.js'
import { type NamedTensors, type SaveSafetensorsOptions, saveSafetensors } from './safetensors-writer.js'
import { openSharded, type ShardedFile } from './sharded.js'
import { type StateDictOptions, toStateDict } from './state-dict.js'

export type { LoadedObject, LoadOptions } from './checkpoint.js'
export type { SaveableObject } from './checkpoint-writer.js'
export { WeightsFileError } from './error.js'
export { type InspectedTensor, type Inspection, inspect } from './inspect.js'
export type { FilesBackend, NativeFiles, ReadableTensor, TensorDescription } from './native-files.js'
export { PickleStub } from './pickle-values.js'
export type { SafetensorsFile, TensorInfo, WeightsFile } from './safetensors.js'
export type { NamedTensors, SaveSafetensorsOptions } from './safetensors-writer.js'
export type { ShardedFile } from './sharded.js'
export { type StateDictOptions, USUAL_WRAPPERS } from './state-dict.js'

/** The functions for one class of tensors. */
export interface Files<T> {
  openSafetensors(path: string): SafetensorsFile<T>
  openSharded(path: string): ShardedFile<T>
  saveSafetensors(tensors: NamedTensors<T>, path: string, options?: SaveSafetensorsOptions): string[]
  load(path: string, options?: LoadOptions): Promise<LoadedObject<T>>
  save(object: SaveableObject<T>, path: string): void
  toStateDict(loaded: LoadedObject<T>, options?: StateDictOptions): Map<string, T>
}

/** @internal Binds the readers and writers to a class of tensors. */
export function createFiles<T>(backend: FilesBackend<T>): Files<T> {
  return {
    openSafetensors: (path) => openSafetensors(path, backend),
    openSharded: (path) => openSharded(path, backend),
    saveSafetensors: (tensors, path, options) => saveSafetensors(tensors, path, backend, options),
    load: (path, options) => load(path, backend, options),
    save: (object, path) => save(object, path, backend),
    toStateDict: (loaded, options) => toStateDict(loaded, (value) => backend.isTensor(value), options),
  }
}
