import { createRequire } from 'node:module'
import { locateAddon } from '../setup/addon.js'
import type { DistributedNative } from './distributed/native.js'
import { TorchError } from './errors.js'
import type { DType, TypedArray } from './types.js'

/** A tensor's integer handle: see native/handle_table.hpp. */
export type Handle = number

/** Objects that only native code looks into. */
export type Opaque<Name extends string> = object & { readonly __opaque?: Name }

export interface OperatorArgument {
  readonly name: string
  readonly kind: string
  readonly optional: boolean
  readonly list: boolean
  readonly optionalElements: boolean
  readonly listSize: number
  readonly keywordOnly: boolean
  readonly hasDefault: boolean
}

export type ReturnKind = 'tensor' | 'tensors' | 'value'

export interface OperatorDescription {
  readonly id: number
  readonly arguments: readonly OperatorArgument[]
  readonly returns: 'self' | 'tensor' | 'tensors' | 'value' | 'several' | 'nothing'
  readonly returnKinds: readonly ReturnKind[]
  readonly returnNames: readonly string[]
}

export interface AddonInformation {
  readonly torchVersion: string
  readonly cudaBuild: boolean
  /** Whether what needs CUDA's own headers is built in: graphs, NCCL, the allocator's segments. */
  readonly cudaHeaders: boolean
  readonly cudaAvailable: boolean
  readonly devices: readonly { name: string; freeMemory: number; totalMemory: number }[]
  readonly threads: number
  readonly cpuCapability: string
}

export interface MemoryStatistics {
  readonly allocated: number
  readonly peakAllocated: number
  readonly reserved: number
  readonly peakReserved: number
  readonly outOfMemory: number
  readonly free: number
  readonly total: number
}

/** A piece of memory that the caching allocator got from the driver. Sizes in bytes. */
export interface MemorySegment {
  readonly device: number
  readonly address: bigint
  readonly bytes: number
  readonly allocated: number
  readonly active: number
  readonly isLarge: boolean
  /** In the pool of a graph. */
  readonly isPrivate: boolean
  readonly blocks: readonly {
    readonly bytes: number
    readonly requested: number
    readonly state: 'allocated' | 'awaiting a stream' | 'free'
  }[]
}

export interface AutocastBefore {
  readonly device: string
  readonly enabled: boolean
  readonly dtype: DType
  readonly cache: boolean
}

export interface FunctionForward {
  outputs: Handle[]
  saved: (Handle | null)[]
  dirty: Handle[]
  nonDifferentiable: Handle[]
  materialize: boolean
  backward: (gradients: (Handle | null)[], saved: (Handle | null)[]) => (Handle | null)[]
}

type StreamId = readonly number[]

/** What the add-on exports: native/addon.cpp and the files beside it. */
export interface Native extends DistributedNative {
  initialize(errorConstructor: typeof TorchError, scopeDepth: Int32Array): void
  info(): AddonInformation
  release(handle: Handle): boolean
  keep(handle: Handle): void
  isAlive(handle: Handle): boolean
  alias(handle: Handle): Handle
  enterScope(): void
  exitScope(kept: readonly Handle[] | undefined): void
  createScope(): number
  resumeScope(id: number): void
  suspendScope(id: number, kept: readonly Handle[]): void
  disposeScope(id: number): boolean
  counters(): { live: number; made: number; freed: number }
  liveBytes(): number
  liveHandles(): Handle[]

  call(id: number, ...values: readonly unknown[]): unknown
  lookup(name: string, overload: string): OperatorDescription | null
  schemas(): string[]

  fromTypedArray(data: TypedArray, shape: readonly number[], dtype: DType | null): Handle
  toTypedArray(handle: Handle): TypedArray
  toTypedArrayAsync(handle: Handle): Promise<TypedArray>
  item(handle: Handle): number | bigint | boolean | { re: number; im: number }
  shape(handle: Handle): number[]
  strides(handle: Handle): number[]
  storageOffset(handle: Handle): number
  dtype(handle: Handle): DType
  device(handle: Handle): string
  layout(handle: Handle): string
  traits(handle: Handle): number
  liesAs(a: Handle, b: Handle): boolean
  isDense(handle: Handle): boolean
  numberOfElements(handle: Handle): number
  dimensions(handle: Handle): number
  storageBytes(handle: Handle): number
  storageId(handle: Handle): bigint
  isPinned(handle: Handle): boolean
  version(handle: Handle): number
  isSame(a: Handle, b: Handle): boolean
  getIndex(handle: Handle, indices: readonly unknown[]): Handle
  setIndex(handle: Handle, indices: readonly unknown[], value: unknown, isTensor: boolean): void

  backward(
    outputs: readonly Handle[],
    gradients: readonly (Handle | null)[] | null,
    retainGraph: boolean | null,
    createGraph: boolean,
    inputs: readonly Handle[],
  ): void
  grad(
    outputs: readonly Handle[],
    inputs: readonly Handle[],
    gradients: readonly (Handle | null)[] | null,
    retainGraph: boolean | null,
    createGraph: boolean,
    allowUnused: boolean,
  ): (Handle | null)[]
  gradient(handle: Handle): Handle | null
  setGradient(handle: Handle, gradient: Handle | null): void
  setRequiresGrad(handle: Handle, requiresGrad: boolean): void
  autogradInfo(handle: Handle): {
    requiresGrad: boolean
    isLeaf: boolean
    retainsGrad: boolean
    gradFunction: string | null
  }
  retainGradient(handle: Handle): void
  setData(handle: Handle, source: Handle): void
  registerHook(handle: Handle, hook: (gradients: [Handle]) => Handle[] | undefined): number
  removeHook(handle: Handle, position: number): void
  applyFunction(inputs: readonly Handle[], forward: (inputs: Handle[]) => FunctionForward): Handle[]
  checkpoint(run: (inputs: Handle[]) => Handle[], inputs: readonly Handle[], preserveRandomState: boolean): Handle[]

  isGradEnabled(): boolean
  setGradEnabled(enabled: boolean): boolean
  enterInferenceMode(enabled: boolean): void
  exitInferenceMode(): void
  isInferenceModeEnabled(): boolean
  /** False where one runs already. */
  startProfiler(): boolean
  /** Name, calls, total and self milliseconds. */
  stopProfiler(): [string, number, number, number][]
  enterAutocast(device: string, enabled: boolean, dtype: DType | null, cache: boolean): AutocastBefore
  exitAutocast(before: AutocastBefore): void
  autocastState(device: string): { enabled: boolean; dtype: DType }
  numThreads(): number
  setNumThreads(threads: number): void
  defaultDtype(): DType
  setDefaultDtype(dtype: DType): void
  setDeterministic(enabled: boolean, warnOnly: boolean): void
  isDeterministic(): boolean
  setAnomalyDetection(enabled: boolean, checkNan: boolean): void
  contextSwitch(name: string, enabled?: boolean): boolean

  makeGenerator(device: string): Opaque<'generator'>
  manualSeed(seed: number | bigint): void
  seedGenerator(generator: Opaque<'generator'> | string, seed: number | bigint): void
  initialSeed(generator: Opaque<'generator'> | string): bigint
  generatorState(generator: Opaque<'generator'> | string): Handle
  setGeneratorState(generator: Opaque<'generator'> | string, state: Handle): void
  generatorDevice(generator: Opaque<'generator'>): string

  deviceCount(): number
  currentDevice(): number
  setDevice(device: number): void
  synchronize(device: number | null): void
  emptyCache(): void
  emptyCpuCache(): void
  memoryStatistics(device: number | null): MemoryStatistics
  resetPeakMemory(device: number | null): void
  memoryFraction(device: number | null): number
  setMemoryFraction(fraction: number, device: number | null): void
  memorySnapshot(): MemorySegment[]
  makeGraph(): Opaque<'graph'>
  beginCapture(graph: Opaque<'graph'>, pool: Opaque<'graph'> | null, generators: readonly Opaque<'generator'>[]): void
  endCapture(graph: Opaque<'graph'>): void
  replayGraph(graph: Opaque<'graph'>): void
  resetGraph(graph: Opaque<'graph'>): void
  setSyncDebug(mode: number): void
  startMemoryCount(): void
  memoryCount(resetPeak: boolean): { current: number; peak: number }
  stopMemoryCount(): void
  currentStream(device: number | null): StreamId
  newStream(device: number | null, priority: number): StreamId
  setStream(stream: StreamId): void
  synchronizeStream(stream: StreamId): void
  recordStream(handle: Handle, stream: StreamId): void
  newEvent(timing: boolean): Opaque<'event'>
  recordEvent(event: Opaque<'event'>, stream: StreamId): void
  waitEvent(event: Opaque<'event'>, stream: StreamId): void
  queryEvent(event: Opaque<'event'>): boolean
  synchronizeEvent(event: Opaque<'event'>): void
  elapsedTime(from: Opaque<'event'>, to: Opaque<'event'>): number

  /** Maps a file privately (copy on write). The mapping lives as long as a tensor or a JavaScript value refers to it. */
  mapFile(path: string): Opaque<'mapping'>
  /**
   * A tensor over `byteLength` bytes of a mapping, from `byteOffset`: no copy where the address is aligned for the dtype,
   * a copy of those bytes where it is not. Strides and storage offset count elements; null strides are contiguous.
   */
  tensorFromMapping(
    mapping: Opaque<'mapping'>,
    byteOffset: number,
    byteLength: number,
    shape: readonly number[],
    strides: readonly number[] | null,
    storageOffset: number,
    dtype: DType,
  ): Handle
  /** A tensor over a copy of `bytes`. */
  tensorFromBytes(
    bytes: Uint8Array,
    shape: readonly number[],
    strides: readonly number[] | null,
    storageOffset: number,
    dtype: DType,
  ): Handle
  /**
   * A tensor over the whole storage of another one, read as `dtype`: nothing is copied, and the two share their memory
   * as PyTorch's views do. The offset counts elements of `dtype` from the start of the storage. Checks the bounds.
   */
  tensorFromStorage(
    storage: Handle,
    shape: readonly number[],
    strides: readonly number[] | null,
    storageOffset: number,
    dtype: DType,
  ): Handle
  /** A copy of a byte range of a contiguous tensor on the CPU. */
  /**
   * Pages of a mapped file inside a contiguous tensor stop counting as memory of this process, and are read again where
   * they are needed. What was written to them is lost. Nothing happens for other tensors.
   */
  dropPages(handle: Handle): void
  copyBytes(handle: Handle, byteOffset: number, byteLength: number): Uint8Array

  /**
   * Gray JPEGs to squares of `size` pixels and Otsu's boxes (top, left, bottom, right, inclusive; -1 where an image is to be
   * read in another way), on threads of libuv's pool.
   */
  prepareJpegs(
    sources: readonly (string | Uint8Array)[],
    size: number,
    maxPixels: number,
  ): Promise<{ pixels: Uint8Array; boxes: Int32Array }>

  sendTensor(handle: Handle): bigint
  receiveTensor(token: bigint): Handle
  tensorsInTransit(): number

  scriptLoad(path: string, device: string | null): Opaque<'script'>
  scriptCall(module: Opaque<'script'>, method: string, values: readonly unknown[]): unknown
  scriptTensors(module: Opaque<'script'>, kind: 'parameters' | 'buffers'): [string, Handle][]
  scriptTrain(module: Opaque<'script'>, mode: boolean): void
  scriptTo(module: Opaque<'script'>, device: string | null, dtype: DType | null): void
  scriptMethods(module: Opaque<'script'>): string[]
  scriptSave(module: Opaque<'script'>, path: string): void
}

/** How many scopes are open: written by native code, read here without a call. */
export const scopeDepth = new Int32Array(1)

/**
 * Loads the add-on, and with it libgomp, which reads its settings from the environment just then. Its threads wait for one
 * another in a busy loop of milliseconds: with another process on the same cores the one that is waited for cannot run, and
 * a step of a small model took 20 to 50 times as long (2 cores, one of them busy). A short loop costs nothing where the
 * cores are free. Who has set one of the two variables is left alone; child processes do not inherit ours.
 */
function load(): Native {
  const isSet = ['OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'].some((name) => process.env[name] !== undefined)
  if (!isSet) process.env.GOMP_SPINCOUNT = '1000'
  try {
    return createRequire(import.meta.url)(locateAddon())
  } finally {
    if (!isSet) delete process.env.GOMP_SPINCOUNT
  }
}

export const native: Native = load()
native.initialize(TorchError, scopeDepth)
