import { setTimeout as sleep } from 'node:timers/promises'
import { TorchError } from '../errors.js'
import { native } from '../native.js'
import type { NativeStore } from './native.js'

/** How long stores wait where nothing else is said, in milliseconds: PyTorch's five minutes. */
export const STORE_TIMEOUT = 300_000

const encoder = new TextEncoder()

function bytesOf(value: string | Uint8Array): Uint8Array {
  return typeof value === 'string' ? encoder.encode(value) : value
}

export interface WaitOptions {
  /** In milliseconds. Default: the store's. */
  timeout?: number
}

/**
 * Keys and values that all processes share: how they find one another. What only asks or says takes a round trip to the
 * process that keeps the store; what waits for a key is a Promise.
 */
export abstract class Store {
  /** @internal */
  abstract readonly handle: NativeStore
  /** How long get() and wait() wait, in milliseconds. */
  abstract readonly timeout: number

  /** Sets a key, whatever it was. */
  set(key: string, value: string | Uint8Array): void {
    native.storeSet(this.handle, key, bytesOf(value))
  }

  /**
   * The value of a key, once somebody has set it.
   *
   * @throws TorchError where it is not set within the time-out
   */
  async get(key: string, options: WaitOptions = {}): Promise<Uint8Array> {
    await this.wait([key], options)
    return native.storeGet(this.handle, key)
  }

  /** get(), as text. */
  async getText(key: string, options: WaitOptions = {}): Promise<string> {
    return new TextDecoder().decode(await this.get(key, options))
  }

  /** Adds to a key's number, which is 0 before, and gives the sum. */
  add(key: string, amount: number): number {
    return Number(native.storeAdd(this.handle, key, amount))
  }

  /** Whether all of the keys are set. */
  check(keys: readonly string[]): boolean {
    return native.storeCheck(this.handle, keys)
  }

  /** Waits until all of the keys are set. */
  async wait(keys: readonly string[], { timeout = this.timeout }: WaitOptions = {}): Promise<void> {
    const end = Date.now() + timeout
    // A connection serves one call at a time: one that blocked in it would block whoever is to set the key.
    for (let pause = 1; !this.check(keys); pause = Math.min(50, pause * 2)) {
      if (Date.now() >= end) {
        const missing = keys.filter((key) => !this.check([key]))
        throw new TorchError(
          `Store.wait: expected ${missing.map((key) => `'${key}'`).join(', ')} to be set within ${timeout / 1000} s, but nobody did`,
        )
      }
      await sleep(pause)
    }
  }

  /** Removes a key, and says whether it was there. */
  delete(key: string): boolean {
    return native.storeDelete(this.handle, key)
  }

  /** Sets a key if its value is `expected` ('' for one that is not set), and gives the value that it has then. */
  compareSet(key: string, expected: string | Uint8Array, desired: string | Uint8Array): Uint8Array {
    return native.storeCompareSet(this.handle, key, bytesOf(expected), bytesOf(desired))
  }

  /** How many keys there are in the whole store. */
  numKeys(): number {
    return native.storeCount(this.handle)
  }
}

export interface TCPStoreOptions {
  /** The machine of the process that keeps the store. */
  host: string
  /** 0, for the server alone, is a free port: see {@link TCPStore.port}. */
  port: number
  /** Whether this process keeps the store. Exactly one does. Default: false. */
  isServer?: boolean
  /** In milliseconds, to connect and to wait for keys. Default: 300,000. */
  timeout?: number
}

/** PyTorch's TCPStore: a server in one process, and clients in all. */
export class TCPStore extends Store {
  private constructor(
    readonly handle: NativeStore,
    readonly host: string,
    readonly timeout: number,
  ) {
    super()
  }

  /**
   * Opens the store, or a connection to it.
   *
   * @throws TorchError where the port is taken (server), or no server answers within the time-out
   */
  static async open({ host, port, isServer = false, timeout = STORE_TIMEOUT }: TCPStoreOptions): Promise<TCPStore> {
    return new TCPStore(await native.openStore(host, port, isServer, timeout), host, timeout)
  }

  get port(): number {
    return native.storePort(this.handle)
  }
}

/** A store inside of another: its keys get a prefix. */
export class PrefixStore extends Store {
  readonly handle: NativeStore
  readonly timeout: number

  constructor(prefix: string, store: Store) {
    super()
    this.handle = native.prefixStore(store.handle, prefix)
    this.timeout = store.timeout
  }
}
