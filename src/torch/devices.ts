import { type AddonInformation, type MemorySegment, type MemoryStatistics, native, type Opaque } from './native.js'
import { handleOf, type Tensor } from './tensor.js'
import type { Device } from './types.js'

/** What is loaded: libtorch's version, devices with memory, threads, the processor's instruction set. */
export function info(): AddonInformation {
  return native.info()
}

/** A device by its name; 'auto' is a GPU where there is one, else the CPU. */
export function deviceOf(name: string): Device {
  if (name !== 'auto') return name as Device
  return info().cudaAvailable ? 'cuda' : 'cpu'
}

type StreamId = readonly number[]

/** A queue of work on a GPU. */
export class Stream {
  /** @internal */
  readonly id: StreamId

  private constructor(id: StreamId) {
    this.id = id
  }

  /** A new stream of a device (the current one), of a priority (0; lower numbers first). */
  static create(options: { device?: number; priority?: number } = {}): Stream {
    return new Stream(native.newStream(options.device ?? null, options.priority ?? 0))
  }

  static current(device: number | null = null): Stream {
    return new Stream(native.currentStream(device))
  }

  /** Waits until everything queued is done. */
  synchronize(): void {
    native.synchronizeStream(this.id)
  }

  /** Lets this stream wait for an event. */
  waitEvent(event: Event): void {
    native.waitEvent(event.native, this.id)
  }

  recordEvent(event: Event = new Event()): Event {
    native.recordEvent(event.native, this.id)
    return event
  }

  /**
   * Keeps the memory of a tensor that this stream uses and another one made from being given to others until this one has
   * done with it, though the tensor is freed before.
   */
  keepAlive(tensor: Tensor): void {
    native.recordStream(handleOf(tensor, 'Stream.keepAlive', 'tensor'), this.id)
  }

  /** Runs a function with this as the current stream. */
  run<T>(run: () => T): T {
    const before = native.currentStream(this.id[1] ?? null)
    native.setStream(this.id)
    try {
      return run()
    } finally {
      native.setStream(before)
    }
  }
}

/** A point in a stream's queue. */
export class Event {
  /** @internal */
  readonly native: Opaque<'event'>

  constructor(options: { timing?: boolean } = {}) {
    this.native = native.newEvent(options.timing ?? false)
  }

  record(stream: Stream = Stream.current()): this {
    native.recordEvent(this.native, stream.id)
    return this
  }

  /** Whether everything before it is done. */
  query(): boolean {
    return native.queryEvent(this.native)
  }

  synchronize(): void {
    native.synchronizeEvent(this.native)
  }

  /** Milliseconds from this event to a later one; both made with `timing`. */
  elapsedTime(later: Event): number {
    return native.elapsedTime(this.native, later.native)
  }
}

/** GPUs. Functions other than isAvailable() and deviceCount() are RangeErrors where there is none. */
export const cuda = {
  isAvailable: (): boolean => native.deviceCount() > 0,
  deviceCount: (): number => native.deviceCount(),
  currentDevice: (): number => native.currentDevice(),
  setDevice: (device: number): void => native.setDevice(device),
  /** Waits until everything queued on a device (the current one) is done. */
  synchronize: (device: number | null = null): void => native.synchronize(device),
  /** Gives the memory that the caching allocator holds for reuse back to the driver. */
  emptyCache: (): void => native.emptyCache(),
  /** Bytes: allocated to tensors, reserved from the driver, their peaks, free and total of the device. */
  memoryStatistics: (device: number | null = null): MemoryStatistics => native.memoryStatistics(device),
  resetPeakMemory: (device: number | null = null): void => native.resetPeakMemory(device),
  /** The share of a device's memory that this process may take. */
  memoryFraction: (device: number | null = null): number => native.memoryFraction(device),
  /** Sets it, above 0 and up to 1: more than that is out of memory though the device has some left. */
  setMemoryFraction: (fraction: number, device: number | null = null): void =>
    native.setMemoryFraction(fraction, device),
  /** What the caching allocator got from the driver, piece by piece, and what lies there: for finding fragmentation. */
  memorySnapshot: (): MemorySegment[] => native.memorySnapshot(),
  /** What happens where the program waits for the device, as `item()` does: for finding what slows a step down. Default: 'off'. */
  setSyncDebug: (mode: 'off' | 'warn' | 'error'): void => native.setSyncDebug(['off', 'warn', 'error'].indexOf(mode)),
  Stream,
  Event,
}
