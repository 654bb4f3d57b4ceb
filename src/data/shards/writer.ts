import { join } from 'node:path'
import { fromTypedArray, saveSafetensors, scope } from '../../torch/index.js'
import type { PreparedImage } from '../images/gray.js'
import { claimFolder, lockFolder, type PreparedFolder, shardName, shardNames, shardNumber } from './format.js'
import { checkShard, hashOf, openShard } from './prepared.js'

/** About how many bytes of pixels a shard has: what a killed run loses at most, and what waits in memory. */
const SHARD_BYTES = 32 << 20

interface Waiting {
  readonly path: string
  readonly row: number
  readonly image: PreparedImage
}

/** Writes prepared images to a folder, a shard at a time; each is there as a whole, or not at all. */
export class ShardWriter {
  readonly #waiting: Waiting[] = []
  readonly #paths = new Set<string>()
  readonly #shardSize: number
  #next = 0
  #unlock: (() => void) | null

  /**
   * Opens a folder, or makes it. Shards that are there are compared with their hashes and kept.
   *
   * @param shardSize images in a shard. Default: about 32 MiB of pixels.
   * @throws where the folder was prepared otherwise or is not ours, is being written to, cannot be written, or has a shard
   * that is damaged
   */
  constructor(
    readonly folder: string,
    private readonly content: PreparedFolder,
    shardSize?: number,
  ) {
    const { size, bits } = content.settings
    this.#shardSize = shardSize ?? Math.max(1, Math.floor(SHARD_BYTES / ((size * size * bits) / 8)))
    claimFolder(folder, content)
    this.#unlock = lockFolder(folder)
    try {
      for (const name of shardNames(folder)) {
        const shard = openShard(join(folder, name), content.settings)
        try {
          checkShard(shard)
        } finally {
          shard.images.dispose()
        }
        for (const path of shard.paths) this.#paths.add(path)
        this.#next = shardNumber(name) + 1
      }
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Whether an image is on the disk, or about to be. */
  has(path: string): boolean {
    return this.#paths.has(path)
  }

  /** Writes a shard once there are enough. @throws where it cannot be written; those that were are safe. */
  add(path: string, row: number, image: PreparedImage): void {
    if (this.#paths.has(path)) return
    const { size, bits } = this.content.settings
    const { width, height, pixels } = image.padded
    if (width !== size || height !== size || pixels.BYTES_PER_ELEMENT * 8 !== bits) {
      throw new Error(
        `expected '${path}' prepared as ${size} x ${size} pixels of ${bits} bits, but it is ${width} x ${height} of ${pixels.BYTES_PER_ELEMENT * 8}`,
      )
    }
    this.#paths.add(path)
    this.#waiting.push({ path, row, image })
    if (this.#waiting.length >= this.#shardSize) this.flush()
  }

  /** Writes what waits. */
  flush(): void {
    const records = this.#waiting.splice(0)
    if (records.length === 0) return
    const { size, bits } = this.content.settings
    const count = records.length
    const pixels = bits === 8 ? new Uint8Array(count * size * size) : new Uint16Array(count * size * size)
    const boxes = new Int32Array(count * 4)
    const hashes = new Uint8Array(count * 32)
    for (const [at, { image }] of records.entries()) {
      const { top, left, bottom, right } = image.box
      pixels.set(image.padded.pixels, at * size * size)
      boxes.set([top, left, bottom, right], at * 4)
      hashes.set(hashOf(image.padded.pixels), at * 32)
    }
    scope(() =>
      saveSafetensors(
        {
          images: fromTypedArray(pixels, [count, 1, size, size]),
          boxes: fromTypedArray(boxes, [count, 4]),
          rows: fromTypedArray(
            BigInt64Array.from(records, ({ row }) => BigInt(row)),
            [count],
          ),
          hashes: fromTypedArray(hashes, [count, 32]),
        },
        join(this.folder, shardName(this.#next)),
        {
          metadata: {
            paths: JSON.stringify(records.map(({ path }) => path)),
            warnings: JSON.stringify(records.map(({ image }) => image.warnings)),
          },
        },
      ),
    )
    this.#next += 1
  }

  /** Lets another process write. What still waits is not written: see {@link flush}. */
  close(): void {
    this.#unlock?.()
    this.#unlock = null
  }
}
