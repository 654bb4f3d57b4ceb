import { availableParallelism } from 'node:os'
import type { Box, PreparedImage, Windowing } from '../images/index.js'
import { JpegQueue } from './jpegs.js'
import { Threads, type ThreadsOptions } from './threads.js'

/** What an image is read from: a file's path, or its bytes where it lies inside of another file. */
export type ImageSource = string | Uint8Array

/** How images are prepared. Two sets of prepared images are the same where this is. */
export interface PrepareSettings {
  /** Side of the padded square in pixels. */
  readonly size: number
  /** Bits of a pixel. */
  readonly bits: 8 | 16
  /** How DICOM's values become gray levels. */
  readonly windowing: Windowing
}

export const publishedSettings: PrepareSettings = { size: 256, bits: 8, windowing: 'published' }

/** Makes prepared images of files. */
export interface Decoder {
  readonly settings: PrepareSettings
  /** How many it works on at a time; more wait. */
  readonly concurrency: number
  /** @throws Error that says what is wrong with the file */
  prepare(source: ImageSource): Promise<PreparedImage>
  close(): Promise<void>
}

/** What a worker is told once. */
export interface DecodeData {
  readonly settings: PrepareSettings
  readonly module: string | undefined
}

/** A prepared image on its way between threads. */
export interface DecodeReply {
  readonly pixels: Uint8Array | Uint16Array
  readonly box: Box
  readonly warnings: readonly string[]
}

export interface DecoderPoolOptions {
  readonly settings?: PrepareSettings
  /** Threads. Default: one for each core. */
  readonly workers?: number
  /** @internal For tests: the URL of another module whose `prepareImage` is called. */
  readonly module?: string
}

/** In one thread: while one image waits for its file or for sharp's own threads, another is worked on. */
const IN_FLIGHT = 2

/**
 * Prepares images in worker threads, which start when they are needed: 8-bit gray JPEGs do not. sharp decodes in libuv's pool, which is one for the whole process, and 4 threads unless
 * UV_THREADPOOL_SIZE said otherwise when it started.
 */
export class DecoderPool implements Decoder {
  readonly settings: PrepareSettings
  readonly concurrency: number
  readonly #jpegs: JpegQueue | null
  readonly #options: ThreadsOptions
  #threads: Threads<ImageSource, DecodeReply> | null = null
  #closed = false

  /** @throws RangeError for a number of workers below 1 */
  constructor({ settings = publishedSettings, workers = availableParallelism(), module }: DecoderPoolOptions = {}) {
    if (!(Number.isInteger(workers) && workers > 0)) {
      throw new RangeError(`expected workers to be a whole number above 0, but received ${workers}`)
    }
    this.settings = settings
    this.concurrency = workers * IN_FLIGHT
    const data: DecodeData = { settings, module }
    this.#options = { file: 'decode-worker', workers, inFlight: IN_FLIGHT, data }
    this.#jpegs = settings.bits === 8 && module === undefined ? new JpegQueue(settings, workers) : null
  }

  async prepare(source: ImageSource): Promise<PreparedImage> {
    if (this.#closed) throw new Error('expected worker threads that are open, but they were closed')
    const found = await this.#jpegs?.prepare(source)
    if (found) return found
    if (this.#closed) throw new Error('the worker threads were closed')
    this.#threads ??= new Threads(this.#options)
    const { pixels, box, warnings } = await this.#threads.ask(source)
    const { size } = this.settings
    return { padded: { width: size, height: size, pixels }, box, warnings }
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([this.#jpegs?.close(), this.#threads?.close()])
  }
}
