import { native } from '../native.js'
import { type LaunchEnvironment, readLaunchEnvironment } from './environment.js'
import type { NativeGroup } from './native.js'
import { PrefixStore, type Store, TCPStore } from './store.js'

/** 'gloo' is for tensors on the CPU, 'nccl' for those on a GPU. */
export type Backend = 'gloo' | 'nccl'

/** How long a collective may take where nothing else is said, in milliseconds: ten minutes. */
export const GROUP_TIMEOUT = 600_000

/** How long a process that leaves waits for the others, in milliseconds. */
const LEAVING = 10_000

export interface InitOptions {
  /** Default: 'nccl' where there are GPUs and the build has it, else 'gloo'. */
  backend?: Backend
  /** Default: as the launcher says, see {@link readLaunchEnvironment}; without one, the only process. */
  rank?: number
  worldSize?: number
  localRank?: number
  /** Where rank 0 keeps the store. */
  masterAddress?: string
  masterPort?: number
  /** A store that is open already, in place of an address. */
  store?: Store
  /** How long all ranks may take to come, and each collective to end, in milliseconds. Default: 600,000. */
  timeout?: number
}

export interface GroupOptions {
  /** Default: the group of initProcessGroup(). */
  group?: ProcessGroup
}

/** Processes that work together. After a collective has failed, or abort(), all that a group is asked for fails. */
export class ProcessGroup {
  #left = false

  /** @internal */
  constructor(
    readonly handle: NativeGroup,
    readonly backend: Backend,
    readonly rank: number,
    readonly size: number,
    readonly localRank: number,
    readonly store: Store,
    readonly timeout: number,
    /** @internal Where this process listens; null for the address of the machine's name. */
    readonly address: string | null,
  ) {}

  /** The default device of this rank's tensors. */
  get device(): string {
    return this.backend === 'gloo' ? 'cpu' : `cuda:${this.localRank}`
  }

  /** Fails what is under way, here and on the other ranks, with a reason. */
  async abort(reason: string): Promise<void> {
    await native.abortGroup(this.handle, reason)
  }

  /** Leaves in order: the ranks wait for one another, at most ten seconds. */
  async destroy(): Promise<void> {
    if (this.#left) return
    this.#left = true
    if (defaultGroup === this) defaultGroup = undefined
    await native.leaveGroup(this.handle, Math.min(LEAVING, this.timeout))
  }
}

let defaultGroup: ProcessGroup | undefined
let groupsMade = 0

/** Whether there is a group of all processes. */
export function isInitialized(): boolean {
  return defaultGroup !== undefined
}

/** The group of all processes. */
export function worldGroup(): ProcessGroup {
  if (defaultGroup === undefined) {
    throw new TypeError('distributed: expected a process group, but there is none; call initProcessGroup() first')
  }
  return defaultGroup
}

/** This process's rank, from 0 on. */
export function getRank(group: ProcessGroup = worldGroup()): number {
  return group.rank
}

/** How many processes there are. */
export function getWorldSize(group: ProcessGroup = worldGroup()): number {
  return group.size
}

/** Whether a backend is there to be used. */
export function isBackendAvailable(backend: Backend): boolean {
  return native.hasBackend(backend) && (backend === 'gloo' || native.info().cudaAvailable)
}

function placeOf(options: InitOptions): LaunchEnvironment {
  const launched = options.rank === undefined || options.worldSize === undefined ? readLaunchEnvironment() : null
  const rank = options.rank ?? launched?.rank ?? 0
  const worldSize = options.worldSize ?? launched?.worldSize ?? 1
  if (!Number.isInteger(rank) || !Number.isInteger(worldSize) || rank < 0 || rank >= worldSize) {
    throw new RangeError(
      `initProcessGroup: expected a rank from 0 to below the number of processes, but received rank ${rank} of ${worldSize}`,
    )
  }
  const masterPort = options.masterPort ?? launched?.masterPort
  if (masterPort === undefined && worldSize > 1 && options.store === undefined) {
    throw new TypeError(
      'initProcessGroup: expected masterAddress and masterPort beside rank and worldSize, or a launcher that sets MASTER_ADDR and MASTER_PORT',
    )
  }
  return {
    rank,
    worldSize,
    localRank: options.localRank ?? launched?.localRank ?? 0,
    masterAddress: options.masterAddress ?? launched?.masterAddress ?? '127.0.0.1',
    // A single process meets nobody: any free port does.
    masterPort: masterPort ?? 0,
    launcherKeepsStore: launched?.launcherKeepsStore ?? false,
    attempt: launched?.attempt ?? '0',
  }
}

async function openStore(place: LaunchEnvironment, timeout: number): Promise<Store> {
  const store = await TCPStore.open({
    host: place.masterAddress,
    port: place.masterPort,
    isServer: place.rank === 0 && !place.launcherKeepsStore,
    timeout,
  })
  return new PrefixStore(`cleft/${place.attempt}`, store)
}

/**
 * Brings all processes together. Each of them calls it; it ends when all have come. Sockets of Gloo are bound to the
 * loopback where that is where the processes meet, to the interface that GLOO_SOCKET_IFNAME names, or to the address of
 * this machine's name.
 *
 * @throws TorchError that names the ranks which did not come within the time-out
 * @throws RangeError, TypeError where the environment or the options are wrong
 */
export async function initProcessGroup(options: InitOptions = {}): Promise<ProcessGroup> {
  if (defaultGroup !== undefined) {
    throw new TypeError(
      'initProcessGroup: expected no process group yet, but there is one; destroyProcessGroup() first',
    )
  }
  const place = placeOf(options)
  const timeout = options.timeout ?? GROUP_TIMEOUT
  const backend = options.backend ?? (isBackendAvailable('nccl') ? 'nccl' : 'gloo')
  if (!isBackendAvailable(backend)) {
    throw new TypeError(
      `initProcessGroup: expected a backend that is there, but '${backend}' is not: ${native.hasBackend(backend) ? 'there is no GPU' : 'this libtorch or its headers lack it'}`,
    )
  }
  const store = options.store ?? (await openStore(place, timeout))
  const isLocal = /^(127\.|localhost$|::1$)/.test(place.masterAddress) && options.store === undefined
  const address = isLocal ? '127.0.0.1' : null
  const { rank, worldSize, localRank } = place
  const base = new PrefixStore('world', store)
  const handle = await native.makeGroup(base.handle, backend, rank, worldSize, timeout, address)
  groupsMade = 0
  defaultGroup = new ProcessGroup(handle, backend, rank, worldSize, localRank, store, timeout, address)
  return defaultGroup
}

/** Leaves the group of all processes: see {@link ProcessGroup.destroy}. Nothing happens where there is none. */
export async function destroyProcessGroup(): Promise<void> {
  await defaultGroup?.destroy()
}

/**
 * A group of some of the ranks. All ranks of the world call it, in the same order, those outside too.
 *
 * @param options.backend default: the world's
 * @returns the group, in which ranks count from 0 in the order given; null on a rank that is not in it
 */
export async function newGroup(
  ranks: readonly number[],
  options: { backend?: Backend } = {},
): Promise<ProcessGroup | null> {
  const world = worldGroup()
  const wrong = ranks.find((rank, index) => !(rank >= 0 && rank < world.size) || ranks.indexOf(rank) !== index)
  if (wrong !== undefined || ranks.length === 0) {
    throw new RangeError(
      `newGroup: expected ranks from 0 to ${world.size - 1}, each once, but received [${ranks.join(', ')}]`,
    )
  }
  groupsMade++
  const rank = ranks.indexOf(world.rank)
  if (rank < 0) return null
  const store = new PrefixStore(`group/${groupsMade}`, world.store)
  const { timeout, address, localRank } = world
  const { backend = world.backend } = options
  const handle = await native.makeGroup(store.handle, backend, rank, ranks.length, timeout, address)
  return new ProcessGroup(handle, backend, rank, ranks.length, localRank, store, timeout, address)
}
