import { existsSync, rmSync } from 'node:fs'
import { basename } from 'node:path'
import { type DType, dtypeBytes } from '../types.js'
import { elementsOf, safetensorsOfDtype } from './dtypes.js'
import { quote, WeightsFileError } from './error.js'
import { OutputFile, writeFileSafely } from './file.js'
import type { FilesBackend } from './native-files.js'
import { MAX_HEADER_BYTES } from './safetensors.js'

export interface SaveSafetensorsOptions {
  /** Words beside the tensors (`__metadata__`). transformers wants `{ format: 'pt' }`, and it is there by default. */
  metadata?: Readonly<Record<string, string>>
  /**
   * Split into files with at most so many bytes of tensors each (`model-00001-of-00003.safetensors`) and an index, where
   * there are more; a larger tensor gets a file for itself. Default: one file.
   */
  maxShardBytes?: number
}

/** Tensors with their names, in any of the usual forms. */
export type NamedTensors<T> = Iterable<readonly [string, T]> | Readonly<Record<string, T>>

interface Entry<T> {
  name: string
  tensor: T
  dtype: DType
  shape: readonly number[]
  bytes: number
}

/**
 * Writes a safetensors file, as Python's library does: by dtype (largest alignment first), then by name; the header padded
 * to a multiple of 8. Tensors are copied through a small buffer, one at a time, from wherever they are. The file is written
 * beside its place, synchronised and renamed, so that a crash leaves the one before. A tensor that is not contiguous is
 * written as if it were, and one that is there under two names twice.
 *
 * @returns the files written, the index last
 * @throws WeightsFileError for a dtype that the format has no name for (complex128), a name twice, a disk that is full
 */
export function saveSafetensors<T>(
  tensors: NamedTensors<T>,
  path: string,
  backend: FilesBackend<T>,
  options: SaveSafetensorsOptions = {},
): string[] {
  const entries = collect(tensors, path, backend)
  const metadata = options.metadata ?? { format: 'pt' }
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') {
      throw new TypeError(
        `saveSafetensors: expected metadata to be strings, but ${quote(key)} is of type ${typeof value}`,
      )
    }
  }
  const limit = options.maxShardBytes ?? Number.POSITIVE_INFINITY
  if (!(limit > 0)) {
    throw new RangeError(`saveSafetensors: expected maxShardBytes to be a number above 0, but received ${limit}`)
  }
  const shards = split(entries, limit)
  if (shards.length === 1) {
    writeFileSafely(path, (file) => writeShard(file, shards[0] as Entry<T>[], metadata, backend))
    return [path]
  }

  const stem = path.endsWith('.safetensors') ? path.slice(0, -'.safetensors'.length) : path
  const count = String(shards.length).padStart(5, '0')
  const paths = shards.map((_, i) => `${stem}-${String(i + 1).padStart(5, '0')}-of-${count}.safetensors`)
  const files: OutputFile[] = []
  const index = `${stem}.safetensors.index.json`
  try {
    // all of them first, then all the names, the index last: what is there before stays whole as long as possible
    for (const [i, shard] of shards.entries()) {
      const file = new OutputFile(paths[i] as string)
      files.push(file)
      writeShard(file, shard, metadata, backend)
      file.finish()
    }
    const indexFile = new OutputFile(index)
    files.push(indexFile)
    indexFile.write(Buffer.from(indexText(shards, paths)))
    indexFile.finish()
    for (const file of files) file.commit()
  } catch (thrown) {
    for (const file of files) file.discard()
    throw thrown
  }
  // a single file of the same name would be read in place of the index
  if (existsSync(path)) rmSync(path)
  return [...paths, index]
}

function collect<T>(tensors: NamedTensors<T>, path: string, backend: FilesBackend<T>): Entry<T>[] {
  const pairs = Symbol.iterator in tensors ? (tensors as Iterable<readonly [string, T]>) : Object.entries(tensors)
  const entries: Entry<T>[] = []
  const seen = new Set<string>()
  for (const [name, tensor] of pairs) {
    // a lone half of a surrogate pair has no UTF-8
    if (typeof name !== 'string' || name === '__metadata__' || Buffer.from(name).toString() !== name) {
      throw new TypeError(
        `saveSafetensors: expected names that are text other than __metadata__, not ${quote(String(name))}`,
      )
    }
    if (seen.has(name)) throw new WeightsFileError(path, `expected every name once, but ${quote(name)} is there twice`)
    seen.add(name)
    if (!backend.isTensor(tensor))
      throw new TypeError(`saveSafetensors: expected ${quote(name)} to be a tensor, but it is none`)
    const { dtype, shape } = backend.describe(tensor)
    if (!safetensorsOfDtype.has(dtype)) {
      throw new WeightsFileError(
        path,
        `expected a dtype that safetensors has, but ${quote(name)} is ${dtype}; convert it or save to a .pt file`,
      )
    }
    entries.push({ name, tensor, dtype, shape: Array.from(shape), bytes: (elementsOf(shape) ?? 0) * dtypeBytes[dtype] })
  }
  return entries
}

/** In the order they came in, as Hugging Face's writers do. */
function split<T>(entries: readonly Entry<T>[], limit: number): Entry<T>[][] {
  const shards: Entry<T>[][] = []
  let current: Entry<T>[] = []
  let bytes = 0
  for (const entry of entries) {
    if (current.length > 0 && bytes + entry.bytes > limit) {
      shards.push(current)
      current = []
      bytes = 0
    }
    current.push(entry)
    bytes += entry.bytes
  }
  shards.push(current)
  return shards
}

function writeShard<T>(
  file: OutputFile,
  unordered: readonly Entry<T>[],
  metadata: Readonly<Record<string, string>>,
  backend: FilesBackend<T>,
): void {
  const rank = (entry: Entry<T>) => safetensorsOfDtype.get(entry.dtype)?.rank ?? 0
  const entries = unordered
    .map((entry) => ({ entry, key: Buffer.from(entry.name) }))
    // by the bytes of UTF-8, as Rust compares strings; JavaScript compares halves of surrogate pairs
    .sort((a, b) => rank(a.entry) - rank(b.entry) || Buffer.compare(a.key, b.key))
    .map(({ entry }) => entry)

  const parts: string[] = []
  const words = Object.entries(metadata)
  // joined by hand: an object would take `__proto__` for something else, and put names that are integers first
  if (words.length > 0) {
    parts.push(`"__metadata__":{${words.map(([k, v]) => `${JSON.stringify(k)}:${JSON.stringify(v)}`).join(',')}}`)
  }
  let offset = 0
  for (const { name, dtype, shape, bytes } of entries) {
    const dtypeName = safetensorsOfDtype.get(dtype)?.name ?? ''
    parts.push(
      `${JSON.stringify(name)}:{"dtype":"${dtypeName}","shape":[${shape.join(',')}],` +
        `"data_offsets":[${offset},${offset + bytes}]}`,
    )
    offset += bytes
  }
  const json = Buffer.from(`{${parts.join(',')}}`)
  const padding = (8 - (json.length % 8)) % 8
  if (json.length + padding > MAX_HEADER_BYTES) {
    throw new WeightsFileError(
      file.path,
      `expected names and metadata below ${MAX_HEADER_BYTES} bytes, not ${json.length}`,
    )
  }
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length + padding))
  file.write(Buffer.concat([length, json, Buffer.alloc(padding, ' ')]))
  for (const { tensor, bytes } of entries) {
    if (bytes === 0) continue
    const readable = backend.open(tensor)
    try {
      file.writeChunks(bytes, (at, count) => backend.native.copyBytes(readable.handle, at, count))
    } finally {
      readable.release()
    }
  }
}

function indexText<T>(shards: readonly Entry<T>[][], paths: readonly string[]): string {
  let total = 0
  const lines: string[] = []
  for (const [i, shard] of shards.entries()) {
    const file = basename(paths[i] as string)
    for (const { name, bytes } of shard) {
      total += bytes
      lines.push(`    ${JSON.stringify(name)}: ${JSON.stringify(file)}`)
    }
  }
  return `{\n  "metadata": {\n    "total_size": ${total}\n  },\n  "weight_map": {\n${lines.join(',\n')}\n  }\n}\n`
}
