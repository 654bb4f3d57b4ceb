import { type DType, dtypeBytes } from '../types.js'
import { dtypeOfSafetensors, elementsOf, MAX_DIMENSIONS } from './dtypes.js'
import { quote, quoteList, reasonOf, WeightsFileError } from './error.js'
import { InputFile } from './file.js'
import { JsonReader } from './json.js'
import type { FilesBackend } from './native-files.js'

/** What a weights file says of a tensor. */
export interface TensorInfo {
  readonly dtype: DType
  readonly shape: readonly number[]
  /** Where its bytes begin, from the start of the file. */
  readonly byteOffset: number
  readonly byteLength: number
}

/** Weights by name, read when they are asked for: one safetensors file, or several that belong together. */
export interface WeightsFile<T> extends Disposable {
  readonly path: string
  /** The tensors' names, in the file's order. */
  readonly names: readonly string[]
  /** What the writer added in words (`__metadata__`). */
  readonly metadata: ReadonlyMap<string, string>
  has(name: string): boolean
  /** @throws WeightsFileError where there is no such tensor */
  info(name: string): TensorInfo
  /**
   * The tensor, over the file's own pages: nothing is read until it is used, and changing it does not change the file.
   * Each call makes a new one, which belongs to the caller.
   * @throws WeightsFileError where there is no such tensor
   */
  tensor(name: string): T
  /** Lets go of the file. Tensors made from it stay valid. */
  close(): void
}

/** The library's own limit of a header's bytes (`MAX_HEADER_SIZE` in safetensors/src/tensor.rs). */
export const MAX_HEADER_BYTES = 100_000_000
/** Against headers made to fill the memory: real files have some thousands of tensors and a few metadata. */
const MAX_TENSORS = 1_000_000
const MAX_METADATA = 100_000

/** @internal A header, checked: every byte of the file belongs to exactly one tensor. */
export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly metadata: ReadonlyMap<string, string>
}

/**
 * Reads and checks the header of a safetensors file, and nothing else of it.
 *
 * The format (https://huggingface.co/docs/safetensors): 8 bytes, the header's length N (little endian); N bytes of JSON,
 * `{"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string: string}}`, padded with blanks; the
 * tensors' bytes, without holes, to the end of the file.
 * @internal
 * @throws WeightsFileError for everything that is not so
 */
export function readSafetensorsHeader(file: InputFile): SafetensorsHeader {
  const path = file.path
  const refuse = (problem: string) =>
    new WeightsFileError(path, `${problem} ('${path}'); the file is damaged or no safetensors file, get it again`)
  if (file.size < 10) throw refuse(`expected a safetensors file of 10 bytes at least, but it has ${file.size}`)
  const length = file.read(0, 8, 'a safetensors header').readBigUInt64LE()
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw refuse(`expected a safetensors header of ${MAX_HEADER_BYTES} bytes at most, but its length says ${length}`)
  }
  const dataStart = 8 + Number(length)
  if (dataStart > file.size) {
    throw refuse(`expected a safetensors header inside the file's ${file.size} bytes, but its length says ${length}`)
  }
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(file.read(8, Number(length), 'its header'))
  } catch (thrown) {
    if (thrown instanceof WeightsFileError) throw thrown
    throw refuse('expected a safetensors header in UTF-8')
  }
  // the format asks for it, so that the header cannot be something else too
  if (!text.startsWith('{'))
    throw refuse(`expected a safetensors header to begin with {, but it is ${quote(text.slice(0, 20))}`)

  const tensors = new Map<string, TensorInfo>()
  const metadata = new Map<string, string>()
  const json = new JsonReader(text, (problem) => refuse(`safetensors header: ${problem}`))
  json.object((name) => {
    if (name === '__metadata__') {
      json.object((key) => {
        if (metadata.size === MAX_METADATA) throw refuse(`expected ${MAX_METADATA} metadata at most`)
        metadata.set(key, json.string())
      })
      return
    }
    if (tensors.size === MAX_TENSORS) throw refuse(`expected ${MAX_TENSORS} tensors at most`)
    let dtypeName: string | undefined
    let shape: number[] | undefined
    let offsets: number[] | undefined
    json.object((key) => {
      if (key === 'dtype') dtypeName = json.string()
      else if (key === 'shape') shape = json.integers(MAX_DIMENSIONS)
      else if (key === 'data_offsets') offsets = json.integers(2)
      else json.skip()
    })
    if (dtypeName === undefined || shape === undefined || offsets?.length !== 2) {
      throw refuse(`expected dtype, shape and two data_offsets for tensor ${quote(name)}`)
    }
    const dtype = dtypeOfSafetensors.get(dtypeName)
    if (dtype === undefined) {
      const known = Array.from(dtypeOfSafetensors.keys()).join(', ')
      throw refuse(`expected tensor ${quote(name)} to be one of ${known}, but its dtype is ${quote(dtypeName)}`)
    }
    const [begin, end] = offsets as [number, number]
    const elements = elementsOf(shape)
    if (elements === null || !Number.isSafeInteger(elements * dtypeBytes[dtype])) {
      throw refuse(
        `expected tensor ${quote(name)} to have a size below 2^53 bytes, but its shape is [${shape.join(', ')}]`,
      )
    }
    const byteLength = elements * dtypeBytes[dtype]
    if (end < begin || end - begin !== byteLength) {
      throw refuse(
        `expected tensor ${quote(name)}, ${dtypeName} [${shape.join(', ')}], to take ${byteLength} bytes, ` +
          `but its offsets are ${begin} to ${end}`,
      )
    }
    if (end > file.size - dataStart) {
      throw refuse(
        `expected tensor ${quote(name)} to end inside the ${file.size - dataStart} bytes of data, but it ends at byte ${end}`,
      )
    }
    tensors.set(name, { dtype, shape, byteOffset: dataStart + begin, byteLength })
  })
  json.end()

  // without overlaps and without holes: each begins where the one before ended, the first at 0, the last ends the file
  let position = dataStart
  const order = Array.from(tensors).sort(([, a], [, b]) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength)
  for (const [name, { byteOffset, byteLength }] of order) {
    if (byteOffset !== position) {
      const problem = byteOffset < position ? 'overlaps the one before it' : 'leaves a hole before it'
      throw refuse(
        `expected tensor ${quote(name)} to begin at byte ${position - dataStart} of the data, ` +
          `but it begins at ${byteOffset - dataStart} and ${problem}`,
      )
    }
    position += byteLength
  }
  if (position !== file.size) {
    throw refuse(`expected the file to end with its last tensor at byte ${position}, but it has ${file.size} bytes`)
  }
  return { tensors, metadata }
}

/** One safetensors file: see {@link openSafetensors}. */
export class SafetensorsFile<T> implements WeightsFile<T> {
  readonly names: readonly string[]
  readonly metadata: ReadonlyMap<string, string>
  private readonly tensors: ReadonlyMap<string, TensorInfo>
  private mapping: object | undefined
  private closed = false

  /** @internal */
  constructor(
    readonly path: string,
    header: SafetensorsHeader,
    private readonly backend: FilesBackend<T>,
  ) {
    this.tensors = header.tensors
    this.metadata = header.metadata
    this.names = Array.from(header.tensors.keys())
  }

  has(name: string): boolean {
    return this.tensors.has(name)
  }

  info(name: string): TensorInfo {
    const info = this.tensors.get(name)
    if (info === undefined) throw noSuchTensor(this.path, name, this.names)
    return info
  }

  tensor(name: string): T {
    const { dtype, shape, byteOffset, byteLength } = this.info(name)
    const { native } = this.backend
    if (this.closed) {
      throw new WeightsFileError(this.path, `expected '${this.path}' to be open, but it was closed; open it again`)
    }
    try {
      this.mapping ??= native.mapFile(this.path)
      const handle = native.tensorFromMapping(this.mapping, byteOffset, byteLength, shape, null, 0, dtype)
      return this.backend.wrap(handle, false)
    } catch (thrown) {
      // above all: the file was replaced by a shorter one after its header was read
      const message = `expected to map tensor ${quote(name)} of '${this.path}', but that failed: ${reasonOf(thrown)}`
      throw new WeightsFileError(this.path, message, { cause: thrown })
    }
  }

  close(): void {
    this.closed = true
    this.mapping = undefined
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** @internal */
export function noSuchTensor(path: string, name: string, names: readonly string[]): WeightsFileError {
  return new WeightsFileError(
    path,
    `expected a tensor ${quote(name)} in '${path}', but there is none; it has ${names.length}: ${quoteList(names)}`,
  )
}

/**
 * Opens a safetensors file: reads and checks its header. Tensors are mapped into memory when they are asked for, so
 * opening costs the same for one megabyte and for a hundred gigabytes.
 * @throws WeightsFileError where the file is not exactly what the format asks for
 */
export function openSafetensors<T>(path: string, backend: FilesBackend<T>): SafetensorsFile<T> {
  const file = InputFile.open(path)
  try {
    return new SafetensorsFile(path, readSafetensorsHeader(file), backend)
  } finally {
    file.close()
  }
}
