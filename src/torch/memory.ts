import { type Handle, native } from './native.js'
import { recordStacks, stackOf } from './tensor.js'

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
