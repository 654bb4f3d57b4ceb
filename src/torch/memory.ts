import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type Handle, native } from './native.js'
import { recordStacks, stackOf } from './tensor.js'
import type { Device } from './types.js'

export interface MemoryCounters {
  /** Tensor handles alive in this thread. */
  readonly live: number
  /** Handles made since the start. */
  readonly made: number
  /** Handles freed since the start. */
  readonly freed: number
  /** Bytes of the distinct memory blocks behind the live handles. */
  readonly bytes: number
  /** Tensors sent to other workers and not collected yet, in the whole process. */
  readonly inTransit: number
}

/** What this thread holds. Tensors that only autograd's graph or a Module in C++ holds are not counted. */
export function counters(): MemoryCounters {
  return { ...native.counters(), bytes: native.liveBytes(), inTransit: native.tensorsInTransit() }
}

export interface LiveTensor {
  readonly shape: readonly number[]
  readonly dtype: string
  readonly device: string
  readonly bytes: number
  /** Where it was made; only where debug mode was on. */
  readonly madeAt: string | undefined
}

/** Remembers from now on where each tensor is made, for liveTensors(). Slow: for finding leaks. */
export function setDebug(enabled: boolean): void {
  recordStacks(enabled)
}

const describe = (handle: Handle): LiveTensor => ({
  shape: native.shape(handle),
  dtype: native.dtype(handle),
  device: native.device(handle),
  bytes: native.storageBytes(handle),
  madeAt: stackOf(handle),
})

/** The live tensors of this thread; in debug mode with the place where each was made. */
export function liveTensors(): LiveTensor[] {
  return native.liveHandles().map(describe)
}

/**
 * Runs a function and returns the tensors that it left behind, with the places where they were made.
 *
 * @example console.log(torch.memory.leaks(() => step()))
 */
export function leaks(run: () => void): LiveTensor[] {
  const before = new Set(native.liveHandles())
  recordStacks(true)
  try {
    run()
  } finally {
    recordStacks(false)
  }
  return native
    .liveHandles()
    .filter((handle) => !before.has(handle))
    .map(describe)
}

/**
 * Frees what JavaScript has let go of and not freed yet, and gives what is kept for tensors to come back: a GPU's memory to
 * the driver, the CPU's (on Linux, of tensors of 1 MiB or more, never more than tensors took at once) to the system.
 * Takes some milliseconds: for when memory has run out, or a job that needed much is done.
 */
export async function collect(): Promise<void> {
  // only to be had by a flag, which may be set at any time
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  for (let round = 0; round < 2; round += 1) {
    if (typeof gc === 'function') gc()
    // finalizers have their turn after the work under way
    await new Promise<void>((resolve) => setTimeout(resolve, 0))
  }
  if (native.deviceCount() > 0) native.emptyCache()
  native.emptyCpuCache()
}

export interface MemoryUse {
  /** Bytes of tensors that were made since the start and are alive. */
  readonly current: number
  /** The most that it was. */
  readonly peak: number
}

/**
 * Counts the memory that tensors take: on the CPU what is allocated by this thread from the start on, on a GPU what the
 * caching allocator has given out beyond what was in use at the start. Files that are mapped do not count.
 *
 * @example
 * using count = new torch.memory.Count('cpu')
 * step()
 * console.log(count.read().peak)
 */
export class Count implements Disposable {
  readonly #index: number | null
  readonly #before: number = 0
  #isRunning = true

  /** @throws RangeError where this thread counts already (on the CPU), or there is no such GPU */
  constructor(device: Device = 'cpu') {
    this.#index = device === 'cpu' ? null : Number(device.split(':')[1] ?? native.currentDevice())
    if (this.#index === null) {
      native.startMemoryCount()
      return
    }
    native.resetPeakMemory(this.#index)
    this.#before = native.memoryStatistics(this.#index).allocated
  }

  /** What it is now; with `resetPeak` the peak begins anew. */
  read(options: { resetPeak?: boolean } = {}): MemoryUse {
    const { resetPeak = false } = options
    if (this.#index === null) return native.memoryCount(resetPeak)
    const { allocated, peakAllocated } = native.memoryStatistics(this.#index)
    if (resetPeak) native.resetPeakMemory(this.#index)
    return { current: allocated - this.#before, peak: peakAllocated - this.#before }
  }

  [Symbol.dispose](): void {
    if (this.#isRunning && this.#index === null) native.stopMemoryCount()
    this.#isRunning = false
  }
}
