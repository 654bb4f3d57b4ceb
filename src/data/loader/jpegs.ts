import { native } from '../../torch/native.js'
import { MAX_PIXELS } from '../images/error.js'
import type { PreparedImage } from '../images/gray.js'
import type { ImageSource, PrepareSettings } from './decoders.js'

interface Job {
  readonly source: ImageSource
  readonly resolve: (image: PreparedImage | null) => void
  readonly reject: (error: Error) => void
}

/** Of one call: while this thread computes a step of training, those that work have enough to do. */
const MOST_IMAGES = 16
const MOST_PIXELS = 1 << 22

/**
 * The short way for what most X-rays are, 8-bit gray JPEGs: read, decoded, made a square and boxed by native code (native/jpeg.cpp,
 * square.cpp) on threads of libuv's pool, to the pixels that `prepareImage` makes. Whatever it does not know or finds a fault
 * with is left to that.
 */
export class JpegQueue {
  readonly #size: number
  readonly #workers: number
  readonly #most: number
  readonly #waiting: Job[] = []
  readonly #running = new Set<Promise<void>>()
  #closed = false

  constructor({ size }: PrepareSettings, workers: number) {
    this.#size = size
    this.#workers = workers
    this.#most = Math.max(1, Math.min(MOST_IMAGES, Math.floor(MOST_PIXELS / size ** 2)))
  }

  /** @returns null where the image is to be read in another way */
  prepare(source: ImageSource): Promise<PreparedImage | null> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ source, resolve, reject })
      // those that are asked for in one go come together
      if (this.#waiting.length === 1) queueMicrotask(() => this.#dispatch())
    })
  }

  /** Images that wait are left to the other way, which refuses them; those under way are waited for. */
  async close(): Promise<void> {
    this.#closed = true
    for (const { resolve } of this.#waiting.splice(0)) resolve(null)
    await Promise.all(this.#running)
  }

  #dispatch(): void {
    while (this.#waiting.length > 0 && this.#running.size < this.#workers) {
      const share = Math.ceil(this.#waiting.length / (this.#workers - this.#running.size))
      const running = this.#work(this.#waiting.splice(0, Math.min(share, this.#most)))
      this.#running.add(running)
      void running.then(() => {
        this.#running.delete(running)
        this.#dispatch()
      })
    }
  }

  async #work(jobs: readonly Job[]): Promise<void> {
    const size = this.#size
    try {
      const sources = jobs.map(({ source }) => source)
      const { pixels, boxes } = await native.prepareJpegs(sources, size, MAX_PIXELS)
      for (const [at, { resolve }] of jobs.entries()) {
        const [top, left, bottom, right] = boxes.subarray(4 * at, 4 * at + 4) as unknown as [
          number,
          number,
          number,
          number,
        ]
        const image = pixels.subarray(at * size * size, (at + 1) * size * size)
        const padded = { width: size, height: size, pixels: image }
        const isThere = top >= 0 && !this.#closed
        resolve(isThere ? { padded, box: { top, left, bottom, right }, warnings: [] } : null)
      }
    } catch (error) {
      for (const { reject } of jobs) reject(error as Error)
    }
  }
}
