import { existsSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { quote, quoteList, WeightsFileError } from './error.js'
import { InputFile } from './file.js'
import { JsonReader } from './json.js'
import type { FilesBackend } from './native-files.js'
import {
  MAX_HEADER_BYTES,
  noSuchTensor,
  openSafetensors,
  type SafetensorsFile,
  type TensorInfo,
  type WeightsFile,
} from './safetensors.js'

export const INDEX_NAME = 'model.safetensors.index.json'

/** Several safetensors files that are one: see {@link openSharded}. */
export class ShardedFile<T> implements WeightsFile<T> {
  readonly names: readonly string[]
  readonly metadata: ReadonlyMap<string, string>

  /** @internal */
  constructor(
    readonly path: string,
    private readonly shardOf: ReadonlyMap<string, SafetensorsFile<T>>,
    readonly shards: readonly SafetensorsFile<T>[],
  ) {
    this.names = Array.from(shardOf.keys())
    this.metadata = new Map(shards.flatMap((shard) => Array.from(shard.metadata)))
  }

  has(name: string): boolean {
    return this.shardOf.has(name)
  }

  /** The shard that holds a tensor. */
  shard(name: string): SafetensorsFile<T> {
    const shard = this.shardOf.get(name)
    if (shard === undefined) throw noSuchTensor(this.path, name, this.names)
    return shard
  }

  /** The byte offset is from the start of the tensor's shard. */
  info(name: string): TensorInfo {
    return this.shard(name).info(name)
  }

  tensor(name: string): T {
    return this.shard(name).tensor(name)
  }

  close(): void {
    for (const shard of this.shards) shard.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/**
 * Reads an index: `{"metadata": {...}, "weight_map": {tensor: file}}`, each file's name a plain name beside the index.
 * @internal
 * @throws WeightsFileError
 */
export function readIndex(path: string): ReadonlyMap<string, string> {
  const refuse = (problem: string) =>
    new WeightsFileError(path, `${problem} ('${path}'); the index is damaged or none of safetensors, get it again`)
  const file = InputFile.open(path)
  let text: string
  try {
    if (file.size > MAX_HEADER_BYTES)
      throw refuse(`expected an index of ${MAX_HEADER_BYTES} bytes at most, not ${file.size}`)
    const bytes = file.read(0, file.size, 'an index')
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (thrown) {
    if (thrown instanceof WeightsFileError) throw thrown
    throw refuse('expected an index in UTF-8')
  } finally {
    file.close()
  }
  let map: Map<string, string> | undefined
  const json = new JsonReader(text, (problem) => refuse(`safetensors index: ${problem}`))
  json.object((key) => {
    if (key !== 'weight_map') {
      json.skip()
      return
    }
    const weights = new Map<string, string>()
    map = weights
    json.object((name) => {
      const shard = json.string()
      // a name that leads elsewhere would let an index read any file
      if (!/^[^/\\:\0]+$/.test(shard) || shard === '.' || shard === '..') {
        throw refuse(`expected tensor ${quote(name)} in a file beside the index, not in ${quote(shard)}`)
      }
      weights.set(name, shard)
    })
  })
  json.end()
  if (map === undefined) throw refuse('expected an index with a weight_map, but it has none')
  return map
}

/**
 * Opens weights that are split into several safetensors files, by their index: a folder with
 * `model.safetensors.index.json`, or the path of an index. A folder with one `model.safetensors` and no index will do.
 * Every shard's header is read and checked.
 * @throws WeightsFileError where shards are missing (all are named), or do not hold what the index says
 */
export function openSharded<T>(path: string, backend: FilesBackend<T>): ShardedFile<T> {
  const index = indexOf(path)
  if (index.endsWith('.safetensors')) {
    const file = openSafetensors(index, backend)
    return new ShardedFile(path, new Map(file.names.map((name) => [name, file])), [file])
  }
  const weights = readIndex(index)
  const folder = dirname(index)
  const names = Array.from(new Set(weights.values()))
  const missing = names.filter((name) => !existsSync(join(folder, name)))
  if (missing.length > 0) {
    throw new WeightsFileError(
      path,
      `expected ${names.length} shards beside '${index}', but ${missing.length} are missing: ${quoteList(missing)}; get them too`,
    )
  }
  const shards = new Map(names.map((name) => [name, openSafetensors(join(folder, name), backend)]))
  const shardOf = new Map<string, SafetensorsFile<T>>()
  const absent: string[] = []
  for (const [name, shardName] of weights) {
    const shard = shards.get(shardName)
    if (shard?.has(name)) shardOf.set(name, shard)
    else absent.push(name)
  }
  if (absent.length > 0) {
    const wanted = absent.slice(0, 5).map((name) => `${quote(name)} (${quote(weights.get(name) ?? '')})`)
    throw new WeightsFileError(
      path,
      `expected the shards of '${index}' to hold what it says, but ${absent.length} tensors are not in theirs: ` +
        `${wanted.join(', ')}${absent.length > 5 ? ' ...' : ''}; the index belongs to other shards, get all of them again`,
    )
  }
  return new ShardedFile(path, shardOf, Array.from(shards.values()))
}

/** The index that a path means. */
function indexOf(path: string): string {
  if (!existsSync(path)) {
    throw new WeightsFileError(
      path,
      `expected a folder of weights or an index, but '${path}' does not exist; check the path`,
    )
  }
  if (!statSync(path).isDirectory()) {
    if (basename(path).endsWith('.json')) return path
    throw new WeightsFileError(
      path,
      `expected a folder or a .safetensors.index.json, not '${path}'; use openSafetensors()`,
    )
  }
  // transformers' order: the single file first
  for (const name of ['model.safetensors', INDEX_NAME]) {
    if (existsSync(join(path, name))) return join(path, name)
  }
  throw new WeightsFileError(path, `expected '${path}' to hold ${INDEX_NAME} or model.safetensors, but it has neither`)
}
