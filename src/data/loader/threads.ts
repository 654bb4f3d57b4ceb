import { Worker } from 'node:worker_threads'

/*
 * Work in other threads: each question is answered by one of several workers, which all run the same file.
 */

/** A message to a worker. */
export interface Question<Request> {
  readonly id: number
  readonly request: Request
}

/** A message from a worker. */
export type Answer<Reply> = { readonly id: number } & ({ readonly error: string } | { readonly reply: Reply })

interface Job<Request, Reply> {
  readonly request: Request
  readonly resolve: (reply: Reply) => void
  readonly reject: (error: Error) => void
  /** Asked again by itself, after a thread failed that had several: only one of them can be to blame. */
  readonly alone: boolean
}

interface Thread<Request, Reply> {
  readonly worker: Worker
  readonly jobs: Map<number, Job<Request, Reply>>
}

export interface ThreadsOptions {
  /** Name of the worker's file beside this one, without its ending. */
  readonly file: string
  readonly workers: number
  /** Questions that a worker has at a time. */
  readonly inFlight: number
  readonly data?: unknown
}

/** Of a worker's JavaScript heap: what needs more ends its worker, and not the process. */
const HEAP_MIB = 1024

/** Workers need compiled files; tests run TypeScript's sources, and have the compiled ones beside them. */
const urlOf = (file: string) => new URL(`${file}.js`, import.meta.url.replace('/src/', '/dist/'))

/** Threads that answer. One that ends is replaced, and the question that ended it is refused. */
export class Threads<Request, Reply> {
  readonly #options: ThreadsOptions
  readonly #threads: Thread<Request, Reply>[] = []
  readonly #waiting: Job<Request, Reply>[] = []
  #next = 0
  #closed = false

  /** @throws RangeError for a number of workers below 1 */
  constructor(options: ThreadsOptions) {
    const { workers } = options
    if (!(Number.isInteger(workers) && workers > 0)) {
      throw new RangeError(`expected workers to be a whole number above 0, but received ${workers}`)
    }
    this.#options = options
    for (let thread = 0; thread < workers; thread += 1) this.#start()
  }

  ask(request: Request): Promise<Reply> {
    if (this.#closed) return Promise.reject(new Error('expected worker threads that are open, but they were closed'))
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request, resolve, reject, alone: false })
      this.#dispatch()
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    const threads = this.#threads.splice(0)
    const left = [...this.#waiting.splice(0), ...threads.flatMap(({ jobs }) => [...jobs.values()])]
    for (const job of left) job.reject(new Error('the worker threads were closed'))
    await Promise.all(
      threads.map(({ worker }) => {
        // an answer that comes now would let the thread rest, and the process end before the thread has
        worker.removeAllListeners('message')
        return worker.terminate()
      }),
    )
  }

  #start(): void {
    const worker = new Worker(urlOf(this.#options.file), {
      workerData: this.#options.data,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
    })
    const thread: Thread<Request, Reply> = { worker, jobs: new Map() }
    this.#threads.push(thread)
    let reason = 'it ended'
    worker.on('message', (answer: Answer<Reply>) => {
      const job = thread.jobs.get(answer.id)
      thread.jobs.delete(answer.id)
      rest(thread)
      if ('error' in answer) job?.reject(new Error(answer.error))
      else job?.resolve(answer.reply)
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
      else for (const job of jobs) job.reject(new Error(`the thread that worked on it failed: ${reason}`))
      // one that had nothing to do cannot start at all: another would end as it did
      if (jobs.length > 0) this.#start()
      else if (this.#threads.length === 0) {
        for (const job of this.#waiting.splice(0)) job.reject(new Error(`no worker thread can start: ${reason}`))
      }
      this.#dispatch()
    })
    rest(thread)
  }

  #dispatch(): void {
    const { inFlight } = this.#options
    const roomOf = ({ jobs }: Thread<Request, Reply>) => ([...jobs.values()].some(({ alone }) => alone) ? 1 : inFlight)
    while (this.#waiting.length > 0 && this.#threads.length > 0) {
      const thread = this.#threads.reduce((least, each) => (each.jobs.size < least.jobs.size ? each : least))
      const job = this.#waiting[0]!
      if (thread.jobs.size >= (job.alone ? 1 : roomOf(thread))) return
      this.#waiting.shift()
      const id = this.#next
      this.#next += 1
      thread.jobs.set(id, job)
      thread.worker.postMessage({ id, request: job.request } satisfies Question<Request>)
      rest(thread)
    }
  }
}

/** Only threads with work keep the process from ending. */
function rest({ worker, jobs }: Thread<unknown, never>): void {
  if (jobs.size === 0) worker.unref()
  else worker.ref()
}
