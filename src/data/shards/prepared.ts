import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { z } from 'zod'
import { keep, openSafetensors, scope, type Tensor } from '../../torch/index.js'
import type { Box } from '../images/gray.js'
import type { PrepareSettings } from '../loader/decoders.js'
import { describeFolder, type PreparedFolder, readFolder, shardNames } from './format.js'

interface Shard {
  readonly file: string
  /** Mapped: nothing is read until it is used. */
  readonly images: Tensor
  readonly boxes: Int32Array
  readonly hashes: Uint8Array
  readonly paths: readonly string[]
  readonly warnings: readonly (readonly string[])[]
  /** Whose pixels were compared with their hash. */
  readonly checked: Uint8Array
}

const HASH_BYTES = 32
const pathsSchema = z.array(z.string())
const warningsSchema = z.array(z.array(z.string()))

/** The SHA-256 of pixels. */
export const hashOf = (pixels: Uint8Array | Uint16Array): Buffer =>
  createHash('sha256')
    .update(new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength))
    .digest()

/**
 * @internal Opens a shard.
 * @throws Error where it is no shard, is cut off, or was written with other settings
 */
export function openShard(file: string, { size, bits }: PrepareSettings): Shard {
  const refuse = (problem: string) =>
    new Error(`${problem} ('${file}'); the file is damaged: remove it, and run \`cleft prepare\` again`)
  const shard = (() => {
    try {
      return openSafetensors(file)
    } catch (error) {
      throw refuse((error as Error).message)
    }
  })()
  try {
    const list = <Item>(name: string, schema: z.ZodType<Item[]>): Item[] => {
      try {
        return schema.parse(JSON.parse(shard.metadata.get(name) ?? ''))
      } catch {
        throw refuse(`expected a list '${name}' in the shard's metadata`)
      }
    }
    const paths = list('paths', pathsSchema)
    const warnings = list('warnings', warningsSchema)
    const count = paths.length
    const expected = {
      images: [bits === 8 ? 'uint8' : 'uint16', [count, 1, size, size]],
      boxes: ['int32', [count, 4]],
      rows: ['int64', [count]],
      hashes: ['uint8', [count, HASH_BYTES]],
    } as const
    if (warnings.length !== count)
      throw refuse(`expected warnings for ${count} images, but there are ${warnings.length}`)
    for (const [name, [dtype, shape]] of Object.entries(expected)) {
      const found = shard.has(name) ? shard.info(name) : null
      if (found === null || found.dtype !== dtype || String(found.shape) !== String(shape)) {
        const came = found === null ? 'there is none' : `it is ${found.dtype} [${found.shape}]`
        throw refuse(`expected '${name}' of ${dtype} [${shape}] in the shard, but ${came}`)
      }
    }
    const values = (name: 'boxes' | 'hashes') => scope(() => shard.tensor(name).toTypedArray())
    return {
      file,
      images: keep(shard.tensor('images')),
      boxes: values('boxes') as Int32Array,
      hashes: values('hashes') as Uint8Array,
      paths,
      warnings,
      checked: new Uint8Array(count),
    }
  } finally {
    shard.close()
  }
}

/** Prepared images in a folder, mapped into memory. */
export class PreparedImages implements Disposable {
  readonly settings: PrepareSettings
  readonly kind: string
  readonly #shards: readonly Shard[]
  /** Where each path is: shard and place in it. */
  readonly #places = new Map<string, readonly [shard: Shard, place: number]>()

  private constructor({ settings, kind }: PreparedFolder, shards: readonly Shard[]) {
    this.settings = settings
    this.kind = kind
    this.#shards = shards
    for (const shard of shards) {
      for (const [place, path] of shard.paths.entries()) this.#places.set(path, [shard, place])
    }
  }

  /**
   * Opens a folder that `cleft prepare` made. Only headers are read.
   *
   * @throws where there is none, or where a shard is damaged
   */
  static open(folder: string): PreparedImages {
    const found = readFolder(folder)
    if (found === null) {
      throw new Error(
        `expected a folder of prepared images, but '${folder}' is none; make one with \`cleft prepare DATASET --out ${folder}\``,
      )
    }
    const shards: Shard[] = []
    try {
      for (const name of shardNames(folder)) shards.push(openShard(join(folder, name), found.settings))
    } catch (error) {
      for (const { images } of shards) images.dispose()
      throw error
    }
    return new PreparedImages(found, shards)
  }

  /** How many images there are. */
  get size(): number {
    return this.#places.size
  }

  has(path: string): boolean {
    return this.#places.has(path)
  }

  /** What was noticed when the image was prepared. */
  warnings(path: string): readonly string[] {
    const [shard, place] = this.#place(path)
    return shard.warnings[place]!
  }

  toString(): string {
    return `${this.size} images of ${describeFolder(this)}`
  }

  /**
   * An image in the mapped file, which is not copied. It is compared with its hash when it is first asked for.
   *
   * @returns [1, 1, S, S], uint8 or uint16 as the settings say, and Otsu's box; the tensor is the caller's
   * @throws where there is no such image, or where its pixels are not those that were written
   */
  view(path: string): { image: Tensor; box: Box } {
    const { images, place, box } = this.find(path)
    return { image: images.narrow(0, place, 1), box }
  }

  /**
   * As {@link view}, without a tensor for each image: `images` [N, 1, S, S] are all of one shard and stay these prepared
   * images' own; `place` is where among them it is.
   */
  find(path: string): { images: Tensor; place: number; box: Box } {
    const [shard, place] = this.#place(path)
    if (shard.checked[place] === 0) check(shard, place)
    const { images, boxes } = shard
    const at = 4 * place
    const box = { top: boxes[at]!, left: boxes[at + 1]!, bottom: boxes[at + 2]!, right: boxes[at + 3]! }
    return { images, place, box }
  }

  #place(path: string): readonly [Shard, number] {
    const place = this.#places.get(path)
    if (place === undefined) {
      throw new Error(
        `expected '${path}' among the ${this.size} prepared images, but it is not there; run \`cleft prepare\` again`,
      )
    }
    return place
  }

  [Symbol.dispose](): void {
    for (const { images } of this.#shards) images.dispose()
    this.#places.clear()
  }
}

/** @throws where an image's pixels are not those that were written */
function check(shard: Shard, place: number): void {
  const found = hashOf(scope(() => shard.images.select(0, place).toTypedArray() as Uint8Array | Uint16Array))
  if (!found.equals(shard.hashes.subarray(HASH_BYTES * place, HASH_BYTES * (place + 1)))) {
    throw new Error(
      `expected the pixels of '${shard.paths[place]}' that were written to '${shard.file}', but their hash differs; the file is damaged: remove it, and run \`cleft prepare\` again`,
    )
  }
  shard.checked[place] = 1
}

/** @internal Compares every image of a shard with its hash. */
export function checkShard(shard: Shard): void {
  for (let place = 0; place < shard.paths.length; place += 1) {
    check(shard, place)
  }
}
