import { existsSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { type DType, dtypeBytes } from '../types.js'
import { parseCheckpoint, tensorOf } from './checkpoint.js'
import { elementsOf } from './dtypes.js'
import { reasonOf, WeightsFileError } from './error.js'
import { InputFile } from './file.js'
import type { FilesBackend, NativeFiles } from './native-files.js'
import { readSafetensorsHeader, type WeightsFile } from './safetensors.js'
import { openSharded } from './sharded.js'
import { flattenTensors } from './state-dict.js'

export interface InspectedTensor {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly bytes: number
  /** The file it is in, where there are several. */
  readonly file?: string
}

/** What is in a weights file. */
export interface Inspection {
  readonly path: string
  readonly format: 'safetensors' | 'safetensors-sharded' | 'torch-zip' | 'torch-legacy'
  readonly tensors: readonly InspectedTensor[]
  /** All tensors' bytes; tied ones count each time. */
  readonly bytes: number
  /** What the file says in words (safetensors only). */
  readonly metadata: ReadonlyMap<string, string>
}

/**
 * Names, shapes, dtypes and bytes of the tensors in any weights file: a safetensors file, a folder or index of several, a
 * checkpoint of torch.save (its nested dicts flattened with dots). Goes by what the file is, not by its name; reads headers
 * and pickles only, makes no tensor, and needs no libtorch.
 * @throws WeightsFileError
 */
export async function inspect(path: string): Promise<Inspection> {
  if (existsSync(path) && (statSync(path).isDirectory() || path.endsWith('.json'))) {
    const sharded = openSharded(path, NO_TENSORS)
    return inspection(
      path,
      'safetensors-sharded',
      listed(sharded, (name) => basename(sharded.shard(name).path)),
      sharded.metadata,
    )
  }
  const file = InputFile.open(path)
  try {
    if (isSafetensors(file)) {
      const { tensors, metadata } = readSafetensorsHeader(file)
      const list = Array.from(tensors, ([name, { dtype, shape, byteLength }]) => ({
        name,
        dtype,
        shape,
        bytes: byteLength,
      }))
      return inspection(path, 'safetensors', list, metadata)
    }
    const { format, root } = await parseCheckpoint(file, {})
    let tensors: ReturnType<typeof tensorsIn>
    try {
      tensors = tensorsIn(root)
    } catch (thrown) {
      throw new WeightsFileError(path, `${reasonOf(thrown)} ('${path}'); the file is no checkpoint of a model`, {
        cause: thrown,
      })
    }
    const list = Array.from(tensors, ([name, { dtype, shape }]) => ({
      name,
      dtype,
      shape,
      bytes: (elementsOf(shape) ?? 0) * dtypeBytes[dtype],
    }))
    return inspection(path, format, list, new Map())
  } finally {
    file.close()
  }
}

function tensorsIn(root: unknown) {
  return flattenTensors(root, tensorOf)
}

/** By its name, or by its look: checkpoints have other first bytes. */
function isSafetensors(file: InputFile): boolean {
  if (file.path.endsWith('.safetensors')) return true
  if (file.size < 10) return false
  const head = file.read(0, 9, 'its beginning')
  return head.readBigUInt64LE() <= BigInt(file.size - 8) && head[8] === 0x7b
}

function listed(file: WeightsFile<unknown>, shard: (name: string) => string): InspectedTensor[] {
  return file.names.map((name) => {
    const { dtype, shape, byteLength } = file.info(name)
    return { name, dtype, shape, bytes: byteLength, file: shard(name) }
  })
}

function inspection(
  path: string,
  format: Inspection['format'],
  tensors: InspectedTensor[],
  metadata: ReadonlyMap<string, string>,
): Inspection {
  return { path, format, tensors, bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0), metadata }
}

const refuse = (): never => {
  throw new Error('inspect() makes no tensors')
}
const NO_NATIVE: NativeFiles = {
  mapFile: refuse,
  tensorFromMapping: refuse,
  tensorFromBytes: refuse,
  tensorFromStorage: refuse,
  copyBytes: refuse,
  release: refuse,
}
const NO_TENSORS: FilesBackend<never> = {
  native: NO_NATIVE,
  wrap: refuse,
  isTensor: (_value): _value is never => false,
  describe: refuse,
  open: refuse,
}
