import type { Handle, Opaque } from '../native.js'

export type NativeStore = Opaque<'store'>
export type NativeGroup = Opaque<'group'>
export type NativeWork = Opaque<'work'>
export type NativeReducer = Opaque<'reducer'>

/** The names that native/distributed.cpp knows. */
export type CollectiveName =
  | 'broadcast'
  | 'allReduce'
  | 'reduce'
  | 'allGather'
  | 'allGatherIntoTensor'
  | 'gather'
  | 'scatter'
  | 'reduceScatter'
  | 'reduceScatterTensor'
  | 'allToAll'
  | 'send'
  | 'recv'
  | 'barrier'

/** What native/distributed.cpp and native/distributed_reducer.cpp export. Times are in milliseconds. */
export interface DistributedNative {
  openStore(host: string, port: number, isServer: boolean, timeout: number): Promise<NativeStore>
  prefixStore(store: NativeStore, prefix: string): NativeStore
  storePort(store: NativeStore): number
  storeSet(store: NativeStore, key: string, value: Uint8Array): void
  /** Blocks until the key is there. */
  storeGet(store: NativeStore, key: string): Uint8Array
  storeAdd(store: NativeStore, key: string, amount: number): number | bigint
  storeCheck(store: NativeStore, keys: readonly string[]): boolean
  storeDelete(store: NativeStore, key: string): boolean
  storeCompareSet(store: NativeStore, key: string, expected: Uint8Array, desired: Uint8Array): Uint8Array
  storeCount(store: NativeStore): number

  hasBackend(name: string): boolean
  makeGroup(
    store: NativeStore,
    backend: string,
    rank: number,
    size: number,
    timeout: number,
    address: string | null,
  ): Promise<NativeGroup>
  leaveGroup(group: NativeGroup, patience: number): Promise<void>
  abortGroup(group: NativeGroup, reason: string): Promise<void>
  collective(
    group: NativeGroup,
    name: CollectiveName,
    outputs: readonly Handle[],
    inputs: readonly Handle[],
    reduceOp: number,
    peer: number,
    tag: number,
    timeout: number,
  ): NativeWork
  waitWork(work: NativeWork): void
  isWorkCompleted(work: NativeWork): boolean
  workPromise(work: NativeWork): Promise<undefined>

  newReducer(
    group: NativeGroup,
    parameters: readonly Handle[],
    names: readonly string[],
    bucketBytes: number,
    firstBucketBytes: number,
    gradientAsBucketView: boolean,
  ): NativeReducer
  reducerForward(reducer: NativeReducer): void
  reducerBackward(reducer: NativeReducer, outputs: readonly Handle[]): void
  reducerCheck(reducer: NativeReducer): void
  disposeReducer(reducer: NativeReducer): void
}
