import { dtypeBytes, Float } from '../types.js'
import { elementsOf, storageClassOfDtype } from './dtypes.js'
import { writeFileSafely } from './file.js'
import type { FilesBackend } from './native-files.js'
import { ZipWriter } from './zip.js'

/** What save() takes: what JavaScript and Python both have. */
export type SaveableObject<T> =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Float
  | T
  | readonly SaveableObject<T>[]
  | ReadonlyMap<string | number | bigint | boolean, SaveableObject<T>>
  | { readonly [key: string]: SaveableObject<T> }

/**
 * Writes a checkpoint that Python's `torch.load(path, weights_only=True)` reads, in the zip form. Maps and plain objects
 * become dicts, arrays lists, whole numbers ints (`float(2)` is a float whatever its value), Uint8Arrays bytes. Tensors are
 * written contiguous and without gradient; the same elements under several names (tied weights) are written once and are
 * tied when they are loaded. The file is written beside its place, synchronised and renamed.
 *
 * @throws TypeError for what Python's reader would not take, with the place where it is
 */
export function save<T>(object: SaveableObject<T>, path: string, backend: FilesBackend<T>): void {
  const pickler = new Pickler(backend)
  const pickle = pickler.pickle(object)
  writeFileSafely(path, (file) => {
    const zip = new ZipWriter(file)
    zip.addBytes('archive/data.pkl', pickle)
    zip.addBytes('archive/byteorder', Buffer.from('little'))
    for (const [key, { tensor, bytes }] of pickler.storages.entries()) {
      if (bytes === 0) {
        zip.addBytes(`archive/data/${key}`, new Uint8Array())
        continue
      }
      const readable = backend.open(tensor)
      try {
        zip.add(`archive/data/${key}`, bytes, (at, count) => backend.native.copyBytes(readable.handle, at, count))
      } finally {
        readable.release()
      }
    }
    zip.addBytes('archive/version', Buffer.from('3\n'))
    zip.end()
  })
}

const MAX_DEPTH = 256

/** Writes pickles of protocol 2, as torch.save does. */
class Pickler<T> {
  /** The tensors whose bytes are to follow, by key. */
  readonly storages: { tensor: T; bytes: number }[] = []
  private readonly parts: Buffer[] = []
  /** Objects that are there already: written once, however often they are met, also inside themselves. */
  private readonly memo = new Map<unknown, number>()
  private memoSize = 0
  private readonly storageKeys = new Map<string, number>()

  constructor(private readonly backend: FilesBackend<T>) {}

  pickle(object: SaveableObject<T>): Buffer {
    this.parts.push(Buffer.of(0x80, 2))
    this.value(object, 'object', 0)
    this.parts.push(Buffer.from('.'))
    return Buffer.concat(this.parts)
  }

  private code(text: string): void {
    this.parts.push(Buffer.from(text, 'latin1'))
  }

  private value(value: unknown, place: string, depth: number): void {
    if (depth > MAX_DEPTH)
      throw new RangeError(`save: expected objects nested ${MAX_DEPTH} deep at most, but they are deeper`)
    if (value === null) this.code('N')
    else if (typeof value === 'boolean') this.code(value ? '\x88' : '\x89')
    else if (typeof value === 'string') this.text(value)
    else if (typeof value === 'number') this.number(value)
    else if (typeof value === 'bigint') this.long(value)
    else if (value instanceof Float) this.float(value.float)
    else if (typeof value !== 'object' || !this.object(value, place, depth)) {
      const kind = typeof value === 'object' ? (value.constructor?.name ?? 'object') : typeof value
      throw new TypeError(
        `save: expected ${place} to be a tensor, a number, text, bytes, null, an array, a Map or a plain object, but it is ${kind}`,
      )
    }
  }

  /** False for an object that has no place in a checkpoint. */
  private object(value: object, place: string, depth: number): boolean {
    const index = this.memo.get(value)
    const prototype: unknown = Object.getPrototypeOf(value)
    if (index !== undefined) this.recall(index)
    else if (this.backend.isTensor(value)) this.tensor(value)
    else if (value instanceof Uint8Array) this.bytes(value)
    else if (Array.isArray(value)) this.list(value, place, depth)
    else if (value instanceof Map) this.dict(value, value, place, depth)
    else if (prototype === Object.prototype || prototype === null) this.dict(value, Object.entries(value), place, depth)
    else return false
    return true
  }

  private list(items: readonly unknown[], place: string, depth: number): void {
    this.code(']')
    this.remember(items)
    if (items.length === 0) return
    this.code('(')
    // by number: a hole in an array is undefined, and refused
    for (let i = 0; i < items.length; i += 1) this.value(items[i], `${place}[${i}]`, depth + 1)
    this.code('e')
  }

  private dict(object: object, entries: Iterable<readonly [unknown, unknown]>, place: string, depth: number): void {
    this.code('}')
    this.remember(object)
    this.code('(')
    for (const [key, value] of entries) {
      if (!['string', 'number', 'bigint', 'boolean'].includes(typeof key)) {
        throw new TypeError(
          `save: expected the keys of ${place} to be text, numbers or booleans, but one is ${typeof key}`,
        )
      }
      this.value(key, place, depth + 1)
      this.value(value, `${place}.${String(key)}`, depth + 1)
    }
    this.code('u')
  }

  private remember(value: unknown): void {
    const index = this.memoSize
    this.memoSize += 1
    this.memo.set(value, index)
    this.numbered(0x72, index)
  }

  private recall(index: number): void {
    this.numbered(0x6a, index)
  }

  /** An instruction with a number of 32 bits. */
  private numbered(code: number, value: number): void {
    const bytes = Buffer.alloc(5)
    bytes.writeUInt8(code)
    bytes.writeUInt32LE(value, 1)
    this.parts.push(bytes)
  }

  private text(text: string): void {
    const bytes = Buffer.from(text)
    this.numbered(0x58, bytes.length)
    this.parts.push(bytes)
  }

  private number(value: number): void {
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) this.integer(value)
    else this.float(value)
  }

  private integer(value: number): void {
    if (value < -0x80000000 || value > 0x7fffffff) this.long(BigInt(value))
    else this.numbered(0x4a, value >>> 0)
  }

  private long(value: bigint): void {
    const bytes: number[] = []
    let rest = value
    // two's complement, little endian, as short as the sign allows
    for (;;) {
      const byte = Number(rest & 0xffn)
      bytes.push(byte)
      rest >>= 8n
      if ((rest === 0n && byte < 0x80) || (rest === -1n && byte >= 0x80)) break
    }
    if (bytes.length > 255) throw new RangeError('save: expected integers of 255 bytes at most, but one is longer')
    this.parts.push(Buffer.of(0x8a, bytes.length, ...bytes))
  }

  private float(value: number): void {
    const bytes = Buffer.alloc(9)
    bytes.writeUInt8(0x47)
    bytes.writeDoubleBE(value, 1)
    this.parts.push(bytes)
  }

  /** Protocol 2 has no bytes: they are text that is encoded again. */
  private bytes(bytes: Uint8Array): void {
    this.global('_codecs', 'encode')
    this.text(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1'))
    this.text('latin1')
    this.code('\x86R')
    this.remember(bytes)
  }

  private global(module: string, name: string): void {
    this.code(`c${module}\n${name}\n`)
  }

  private sizes(sizes: readonly number[]): void {
    this.code('(')
    for (const size of sizes) this.integer(size)
    this.code('t')
  }

  private tensor(tensor: T): void {
    const { dtype, shape, identity } = this.backend.describe(tensor)
    const elements = elementsOf(shape) ?? 0
    const same = identity === null || elements === 0 ? null : `${identity} ${dtype} ${shape.join(',')}`
    let key = same === null ? undefined : this.storageKeys.get(same)
    if (key === undefined) {
      key = this.storages.length
      this.storages.push({ tensor, bytes: elements * dtypeBytes[dtype] })
      if (same !== null) this.storageKeys.set(same, key)
    }
    const storageClass = storageClassOfDtype.get(dtype)
    // dtypes that came after the storage classes were given up say which they are
    this.global('torch._utils', storageClass === undefined ? '_rebuild_tensor_v3' : '_rebuild_tensor_v2')
    this.code('((')
    this.text('storage')
    if (storageClass === undefined) this.global('torch.storage', 'UntypedStorage')
    else this.global('torch', storageClass)
    this.text(String(key))
    this.text('cpu')
    this.integer(storageClass === undefined ? elements * dtypeBytes[dtype] : elements)
    this.code('tQ')
    this.integer(0)
    this.sizes(shape)
    this.sizes(shape.map((_, k) => shape.slice(k + 1).reduce((product, size) => product * Math.max(size, 1), 1)))
    this.code('\x89')
    this.global('collections', 'OrderedDict')
    this.code(')R')
    if (storageClass === undefined) this.global('torch', dtype)
    this.code('tR')
    this.remember(tensor)
  }
}
