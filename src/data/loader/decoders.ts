import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Box, PreparedImage, Windowing } from '../images/index.js'

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

/** A message to a worker. */
export interface DecodeRequest {
  readonly id: number
  readonly source: ImageSource
}

/** A message from a worker. */
export type DecodeReply =
  | { readonly id: number; readonly error: string }
  | {
      readonly id: number
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
/** Of a worker's JavaScript heap. A file made to fill the memory ends its worker, and not the process. */
const HEAP_MIB = 1024

interface Job {
  readonly source: ImageSource
  readonly resolve: (image: PreparedImage) => void
  readonly reject: (error: Error) => void
  /** Tried again by itself, after a thread failed that had several files: only one of them can be to blame. */
  readonly alone: boolean
}

interface Thread {
  readonly worker: Worker
  readonly jobs: Map<number, Job>
}

const roomOf = ({ jobs }: Thread) => ([...jobs.values()].some((job) => job.alone) ? 1 : IN_FLIGHT)

/** Where the compiled worker is; TypeScript's sources, which tests run directly, are no use to a thread of its own. */
const workerUrl = new URL(import.meta.url.replace('/src/', '/dist/').replace(/decoders\.[jt]s$/, 'decode-worker.js'))

/** Prepares images in worker threads. A thread that ends is replaced; the file that ended it is refused. */
export class DecoderPool implements Decoder {
  readonly settings: PrepareSettings
  readonly concurrency: number
  readonly #module: string | undefined
  readonly #threads: Thread[] = []
  readonly #waiting: Job[] = []
  #next = 0
  #closed = false

  /** @throws RangeError for a number of workers below 1 */
  constructor({ settings = publishedSettings, workers = availableParallelism(), module }: DecoderPoolOptions = {}) {
    if (!(Number.isInteger(workers) && workers > 0)) {
      throw new RangeError(`DecoderPool: expected workers to be a whole number above 0, but received ${workers}`)
    }
    this.settings = settings
    this.concurrency = workers * IN_FLIGHT
    this.#module = module
    // libuv's pool, which sharp works in, is one for all threads, and 4 unless told before its first use
    process.env.UV_THREADPOOL_SIZE ??= String(Math.max(4, workers))
    for (let thread = 0; thread < workers; thread += 1) this.#start()
  }

  prepare(source: ImageSource): Promise<PreparedImage> {
    if (this.#closed) return Promise.reject(new Error('expected a decoder that is open, but it was closed'))
    return new Promise((resolve, reject) => {
      this.#waiting.push({ source, resolve, reject, alone: false })
      this.#dispatch()
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    const threads = this.#threads.splice(0)
    const left = [...this.#waiting.splice(0), ...threads.flatMap(({ jobs }) => [...jobs.values()])]
    for (const job of left) job.reject(new Error('the decoder was closed'))
    await Promise.all(threads.map(({ worker }) => worker.terminate()))
  }

  #start(): void {
    const worker = new Worker(workerUrl, {
      workerData: { settings: this.settings, module: this.#module },
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
    })
    const thread: Thread = { worker, jobs: new Map() }
    this.#threads.push(thread)
    let reason = 'it ended'
    worker.on('message', (reply: DecodeReply) => {
      const job = thread.jobs.get(reply.id)
      thread.jobs.delete(reply.id)
      this.#rest(thread)
      if (job !== undefined) this.#settle(job, reply)
      this.#dispatch()
    })
    worker.on('error', (error) => {
      reason = error.message
    })
    worker.on('exit', () => {
      const place = this.#threads.indexOf(thread)
      if (place < 0) return
      this.#threads.splice(place, 1)
      const jobs = [...thread.jobs.values()]
      if (jobs.length > 1) this.#waiting.unshift(...jobs.map((job) => ({ ...job, alone: true })))
      else for (const job of jobs) job.reject(new Error(`the thread that read the file failed: ${reason}`))
      // one that had nothing to do cannot start at all: another would end as it did
      if (jobs.length > 0) this.#start()
      else if (this.#threads.length === 0) {
        for (const job of this.#waiting.splice(0)) job.reject(new Error(`no thread to read files can start: ${reason}`))
      }
      this.#dispatch()
    })
    this.#rest(thread)
  }

  /** Only threads with work keep the process from ending. */
  #rest({ worker, jobs }: Thread): void {
    if (jobs.size === 0) worker.unref()
    else worker.ref()
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      const thread = this.#threads.reduce<Thread | undefined>(
        (least, each) => (least === undefined || each.jobs.size < least.jobs.size ? each : least),
        undefined,
      )
      const job = this.#waiting[0]!
      if (thread === undefined || thread.jobs.size >= (job.alone ? 1 : roomOf(thread))) return
      this.#waiting.shift()
      const id = this.#next
      this.#next += 1
      thread.jobs.set(id, job)
      thread.worker.postMessage({ id, source: job.source } satisfies DecodeRequest)
      this.#rest(thread)
    }
  }

  #settle(job: Job, reply: DecodeReply): void {
    if ('error' in reply) {
      job.reject(new Error(reply.error))
      return
    }
    const { pixels, box, warnings } = reply
    const { size } = this.settings
    job.resolve({ padded: { width: size, height: size, pixels }, box, warnings })
  }
}
