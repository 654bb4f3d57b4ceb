import { endianness } from 'node:os'
import type { Complex, DType } from '../types.js'
import { dtypeBytes } from '../types.js'
import { elementsOf } from './dtypes.js'
import { quote, quoteList, reasonOf, WeightsFileError } from './error.js'
import { InputFile } from './file.js'
import type { FilesBackend, Handle } from './native-files.js'
import { unpickle } from './pickle.js'
import { numpyArray, torchStorage } from './pickle-calls.js'
import { MAX_PICKLE_BYTES, PickleSource } from './pickle-source.js'
import { PickleStub, type PickleValue, StorageRef, TensorRef } from './pickle-values.js'
import { readEntry, readZip, type ZipEntry } from './zip.js'

/**
 * What torch.save wrote, in JavaScript's terms: dicts are Maps, lists and tuples arrays, tensors tensors on the CPU,
 * integers beyond 2^53 bigints, `torch.dtype` and `torch.device` strings, `torch.Size` an array, NumPy's scalars numbers
 * and its arrays of numbers tensors. Every other object is a {@link PickleStub}: its names and state, nothing built.
 */
export type LoadedObject<T> =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Complex
  | LoadedObject<T>[]
  | Map<LoadedObject<T>, LoadedObject<T>>
  | Set<LoadedObject<T>>
  | PickleStub
  | T

export interface LoadOptions {
  /** About how many bytes of memory the objects other than tensors may take. Default: 256 MiB. */
  maxMemory?: number
}

/** Where a storage's bytes are. */
interface StorageBytes {
  readonly size: number
  readonly start: number
  /** It has to be inflated first. */
  readonly entry: ZipEntry | null
}

/** @internal A checkpoint that was read but for its tensors' data. Every tensor is known to lie inside its storage. */
export interface ParsedCheckpoint {
  readonly format: 'torch-zip' | 'torch-legacy'
  readonly root: PickleValue
  /** The tensors (and bare storages) in it. */
  readonly references: readonly (TensorRef | StorageRef | PickleStub)[]
  readonly storages: ReadonlyMap<string, StorageBytes>
}

/** The number that files from before PyTorch 1.6 begin with (torch/serialization.py). */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn
const LEGACY_PROTOCOL = 1001
/** Highest `version` of the zip form (caffe2/serialize/versions.h). */
const MAX_ZIP_VERSION = 10
/** What all deflated entries of a file may come to: this, or so many times the file. torch.save deflates nothing. */
const MAX_INFLATED = 256 << 20
const MAX_INFLATED_TIMES = 4
/** A tensor may repeat its storage (stride 0), but must not turn a few bytes into terabytes. */
const MAX_EXPANDED = 256 << 20
const MAX_EXPANDED_TIMES = 16

/**
 * Reads a checkpoint that Python's torch.save wrote (`.pt`, `.pth`, `.bin`, `.ckpt`), in the zip form (PyTorch 1.6 and
 * later) or the one before. Nothing in it is imported, called or run. Tensors are on the CPU, over the file's own pages
 * where they are aligned there (the zip form), and share their memory where they did when they were saved.
 *
 * @throws WeightsFileError for everything else: TorchScript archives, tar files (before PyTorch 0.1.10), big-endian files,
 * damaged and hostile ones
 */
export async function load<T>(
  path: string,
  backend: FilesBackend<T>,
  options: LoadOptions = {},
): Promise<LoadedObject<T>> {
  const file = InputFile.open(path)
  try {
    const parsed = await parseCheckpoint(file, options)
    return materialize(file, parsed, backend)
  } finally {
    file.close()
  }
}

/**
 * @internal Reads everything but the tensors' data.
 * @throws WeightsFileError
 */
export async function parseCheckpoint(file: InputFile, options: LoadOptions): Promise<ParsedCheckpoint> {
  const head = file.read(0, Math.min(file.size, 512), 'its beginning')
  refuseOthers(file, head)
  const parsed = head.readUInt32LE(0) === 0x04034b50 ? await parseZip(file, options) : parseLegacy(file, options)
  for (const reference of parsed.references) checkReference(file, reference, parsed.storages)
  return parsed
}

/** Says what a file is that is no checkpoint. */
function refuseOthers(file: InputFile, head: Buffer): void {
  const { path, size } = file
  const refuse = (what: string, todo: string) =>
    new WeightsFileError(path, `expected a checkpoint of torch.save, but '${path}' is ${what}; ${todo}`)
  if (size < 16) throw refuse(`${size} bytes long`, 'get it again')
  const text = head.toString('latin1')
  if (head.readBigUInt64LE() <= BigInt(size - 8) && text[8] === '{')
    throw refuse('a safetensors file', 'use openSafetensors()')
  if (text.startsWith('version https://git-lfs'))
    throw refuse('a pointer of Git LFS', 'fetch the file itself: git lfs pull')
  if (/^\s*<(!doctype|html|\?xml)/i.test(text)) throw refuse('a web page', 'download the file itself')
  if (text.startsWith('\x89HDF')) throw refuse('an HDF5 file', 'convert it in Python')
  if (text.slice(257, 262) === 'ustar' || /^(sys_info|storages|tensors|pickle)\0/.test(text)) {
    throw refuse(
      'a tar file, the form from before PyTorch 0.1.10',
      'load it with an old PyTorch in Python and save it again',
    )
  }
}

// -- the zip form -----------------------------------------------------------------------------------------------------

async function parseZip(file: InputFile, options: LoadOptions): Promise<ParsedCheckpoint> {
  const { path } = file
  const refuse = (problem: string) =>
    new WeightsFileError(path, `${problem} ('${path}'); the file is damaged or no checkpoint, get it again`)
  const entries = await readZip(file)
  const names = Array.from(entries.keys())
  const pickles = names.filter((name) => /^[^/]+\/data\.pkl$/.test(name))
  const root = pickles[0]?.slice(0, -'data.pkl'.length)
  if (names.some((name) => /^[^/]+\/constants\.pkl$/.test(name)) || names.some((name) => /^[^/]+\/code\//.test(name))) {
    throw new WeightsFileError(
      path,
      `expected a checkpoint of torch.save, but '${path}' is a TorchScript archive; use torch.jit.load()`,
    )
  }
  if (root === undefined || pickles.length > 1) {
    throw refuse(`expected one data.pkl in the archive, but there are ${pickles.length} among ${quoteList(names)}`)
  }
  let inflated = Math.max(MAX_INFLATED, MAX_INFLATED_TIMES * file.size)
  const pay = (entry: ZipEntry) => {
    if (!entry.deflated) return
    inflated -= entry.size
    if (inflated < 0)
      throw refuse(`expected entries that inflate to a few times the file, but ${quote(entry.name)} takes more`)
  }
  const small = (name: string, limit: number): Buffer | null => {
    const entry = entries.get(`${root}${name}`)
    if (entry === undefined) return null
    if (entry.size > limit || entry.storedSize > limit) {
      throw refuse(
        `expected ${name} to have ${limit} bytes at most, but it has ${Math.max(entry.size, entry.storedSize)}`,
      )
    }
    pay(entry)
    return readEntry(file, entry)
  }
  const order = small('byteorder', 64)?.toString('latin1').trim() ?? 'little'
  if (order !== 'little') {
    throw new WeightsFileError(
      path,
      `expected a little-endian checkpoint, but '${path}' says ${quote(order)}; save it again on a little-endian machine`,
    )
  }
  const version = small('version', 64)?.toString('latin1').trim()
  if (
    version !== undefined &&
    !(/^[0-9]{1,3}$/.test(version) && Number(version) >= 1 && Number(version) <= MAX_ZIP_VERSION)
  ) {
    throw refuse(`expected a checkpoint of version 1 to ${MAX_ZIP_VERSION}, but it says ${quote(version)}`)
  }

  const storages = new Map<string, StorageBytes>()
  const value = unpickle(new PickleSource(small('data.pkl', MAX_PICKLE_BYTES) ?? Buffer.alloc(0)), {
    path,
    maxMemory: options.maxMemory,
    persistent: (id) => {
      const storage = torchStorage(id, refuse)
      if (storage instanceof StorageRef && !storages.has(storage.key)) {
        const entry = entries.get(`${root}data/${storage.key}`)
        if (entry === undefined) throw refuse(`expected an entry data/${storage.key} for a storage, but there is none`)
        pay(entry)
        storages.set(storage.key, { size: entry.size, start: entry.start, entry: entry.deflated ? entry : null })
      }
      return storage
    },
  })
  return { format: 'torch-zip', root: value, references: referencesIn(value), storages }
}

// -- the form before PyTorch 1.6 --------------------------------------------------------------------------------------

/**
 * Five pickles (a magic number, the protocol, facts of the machine, the object, the keys of its storages), then each
 * storage in the order of the keys: how many elements (8 bytes), and the elements.
 */
function parseLegacy(file: InputFile, options: LoadOptions): ParsedCheckpoint {
  const { path } = file
  const refuse = (problem: string) =>
    new WeightsFileError(path, `${problem} ('${path}'); the file is damaged or no checkpoint, get it again`)
  let length = Math.min(file.size, 1 << 16)
  const source = new PickleSource(file.read(0, length, 'its pickles'), (end) => {
    if (end > file.size) return null
    if (end > MAX_PICKLE_BYTES)
      throw refuse(`expected pickles of ${MAX_PICKLE_BYTES} bytes at most, but they are longer`)
    length = Math.min(file.size, Math.max(end, 4 * length), MAX_PICKLE_BYTES)
    return file.read(0, length, 'its pickles')
  })
  let magic: PickleValue = null
  try {
    magic = unpickle(source, { path, maxMemory: 1 << 20 })
  } catch {
    // it is no pickle: said below
  }
  if (magic !== LEGACY_MAGIC) {
    throw new WeightsFileError(
      path,
      `expected a checkpoint of torch.save, but '${path}' is neither its zip archive nor its older form; ` +
        'if it is a plain pickle, load it in Python and save it with torch.save',
    )
  }
  const protocol = unpickle(source, { path, maxMemory: 1 << 20 })
  if (protocol !== LEGACY_PROTOCOL) throw refuse(`expected protocol ${LEGACY_PROTOCOL}, not ${quote(String(protocol))}`)
  const machine = unpickle(source, { path, maxMemory: 1 << 20 })
  if (machine instanceof Map && machine.get('little_endian') === false) {
    throw new WeightsFileError(
      path,
      `expected a little-endian checkpoint, but '${path}' is big-endian; save it again on a little-endian machine`,
    )
  }
  const wanted = new Map<string, StorageRef>()
  const value = unpickle(source, {
    path,
    maxMemory: options.maxMemory,
    persistent: (id) => {
      const storage = torchStorage(id, refuse)
      if (storage instanceof StorageRef && !wanted.has(storage.key)) wanted.set(storage.key, storage)
      return storage
    },
  })
  const keys = unpickle(source, { path, maxMemory: options.maxMemory })
  if (!Array.isArray(keys)) throw refuse('expected a list of storages after the object')
  const storages = new Map<string, StorageBytes>()
  let position = source.position
  for (const keyValue of keys) {
    const key = String(typeof keyValue === 'string' || typeof keyValue === 'number' ? keyValue : '')
    const storage = wanted.get(key)
    if (storage === undefined || storages.has(key)) {
      throw refuse(`expected every storage to be used and to be there once, but ${quote(key)} is not`)
    }
    const elements = file.read(position, 8, `the size of storage ${quote(key)}`).readBigUInt64LE()
    if (elements !== BigInt(storage.size)) {
      throw refuse(`expected storage ${quote(key)} to have ${storage.size} elements, but its size says ${elements}`)
    }
    const size = storage.size * (storage.dtype === null ? 1 : dtypeBytes[storage.dtype])
    position += 8
    if (!(size <= file.size - position)) {
      throw refuse(`expected ${size} bytes of storage ${quote(key)}, but only ${file.size - position} are left`)
    }
    storages.set(key, { size, start: position, entry: null })
    position += size
  }
  const missing = Array.from(wanted.keys()).filter((key) => !storages.has(key))
  if (missing.length > 0) throw refuse(`expected the data of every storage, but ${quoteList(missing)} are missing`)
  return { format: 'torch-legacy', root: value, references: referencesIn(value), storages }
}

// -- tensors ----------------------------------------------------------------------------------------------------------

/** Every container and stub in an object, once, without calling itself: objects may be deep, and inside themselves. */
function* containersIn(root: PickleValue): Iterable<PickleValue> {
  const seen = new Set<PickleValue>()
  const stack: PickleValue[] = [root]
  while (stack.length > 0) {
    const value = stack.pop() ?? null
    if (value === null || typeof value !== 'object' || seen.has(value)) continue
    if (value instanceof Uint8Array || 're' in value) continue
    seen.add(value)
    yield value
    if (Array.isArray(value) || value instanceof Set) {
      for (const item of value) stack.push(item)
    } else if (value instanceof Map) {
      for (const [key, item] of value) stack.push(item, key)
    } else if (value instanceof PickleStub) {
      stack.push(value.args, value.kwargs, value.state, value.items, value.entries)
    }
  }
}

function referencesIn(root: PickleValue): (TensorRef | StorageRef | PickleStub)[] {
  const references: (TensorRef | StorageRef | PickleStub)[] = []
  for (const value of containersIn(root)) {
    if (value instanceof TensorRef || value instanceof StorageRef) references.push(value)
    else if (value instanceof PickleStub && numpyArray(value) !== null) references.push(value)
  }
  return references
}

/** @internal The tensor that a reference stands for; a bare storage is a tensor of one dimension. */
export function tensorOf(reference: unknown): TensorRef | null {
  if (reference instanceof TensorRef) return reference
  if (reference instanceof PickleStub) return numpyArray(reference)
  if (!(reference instanceof StorageRef)) return null
  return new TensorRef(reference, reference.dtype ?? 'uint8', 0, [reference.view?.size ?? reference.size], [1], false)
}

/** Refuses what would read outside of a storage: its size, sizes and strides are all from the file. */
function checkReference(
  file: InputFile,
  reference: TensorRef | StorageRef | PickleStub,
  storages: ReadonlyMap<string, StorageBytes>,
): void {
  const tensor = tensorOf(reference)
  if (tensor === null) return
  const { storage, dtype, shape, strides } = tensor
  const refuse = (problem: string) =>
    new WeightsFileError(file.path, `${problem} ('${file.path}'); the file is damaged, get it again`)
  const size = dtypeBytes[dtype]
  let bytes: number
  let first = tensor.offset
  if (storage instanceof StorageRef) {
    const there = storages.get(storage.key)?.size ?? 0
    const item = storage.dtype === null ? 1 : dtypeBytes[storage.dtype]
    if (!(storage.size * item <= there)) {
      throw refuse(`expected ${storage.size * item} bytes of storage ${quote(storage.key)}, but there are ${there}`)
    }
    bytes = storage.size * item
    if (storage.view !== null) {
      const { offset, size: length } = storage.view
      if (!(offset + length <= storage.size)) {
        throw refuse(
          `expected a view inside the ${storage.size} elements of storage ${quote(storage.key)}, not ${offset} + ${length}`,
        )
      }
      first += offset
      bytes = (offset + length) * item
    }
  } else {
    bytes = storage.length
  }
  const elements = elementsOf(shape)
  if (elements === null) throw refuse(`expected a tensor below 2^53 elements, not [${shape.join(', ')}]`)
  if (elements === 0) return
  // the largest sum that is formed is checked on the way: products beyond 2^53 are not exact, but stay beyond
  const last = shape.reduce((sum, length, k) => sum + (length - 1) * (strides[k] as number), first)
  if (!((last + 1) * size <= bytes)) {
    throw refuse(
      `expected a tensor inside the ${bytes} bytes of its storage, but shape [${shape.join(', ')}], ` +
        `strides [${strides.join(', ')}] and offset ${first} of ${dtype} reach to byte ${(last + 1) * size}`,
    )
  }
  const limit = Math.max(MAX_EXPANDED, MAX_EXPANDED_TIMES * file.size)
  if (elements * size > limit) {
    throw refuse(
      `expected tensors of ${limit} bytes at most in a file of ${file.size}, but one repeats its storage to ${elements * size}`,
    )
  }
}

/** Puts tensors in the place of what refers to them. Makes all or none. */
function materialize<T>(file: InputFile, parsed: ParsedCheckpoint, backend: FilesBackend<T>): LoadedObject<T> {
  const { native } = backend
  const tensors = new Map(parsed.references.map((reference) => [reference, tensorOf(reference) as TensorRef]))
  const flats = new Map<string, Handle>()
  const handles = new Map<TensorRef | StorageRef | PickleStub, Handle>()
  try {
    if (endianness() !== 'LE') throw new Error('this machine is big-endian')
    openStorages(file, parsed, tensors.values(), backend, flats)
    for (const [reference, { storage, dtype, offset, shape, strides }] of tensors) {
      let handle: Handle
      if (shape.includes(0)) {
        handle = native.tensorFromBytes(new Uint8Array(), shape, null, 0, dtype)
      } else if (storage instanceof StorageRef) {
        const flat = flats.get(storage.key) as Handle
        handle = native.tensorFromStorage(flat, shape, strides, offset + (storage.view?.offset ?? 0), dtype)
      } else {
        handle = native.tensorFromBytes(storage, shape, strides, offset, dtype)
      }
      handles.set(reference, handle)
    }
  } catch (thrown) {
    for (const handle of handles.values()) native.release(handle)
    if (thrown instanceof WeightsFileError) throw thrown
    const message = `expected to make ${tensors.size} tensors of '${file.path}', but that failed: ${reasonOf(thrown)}`
    throw new WeightsFileError(file.path, message, { cause: thrown })
  } finally {
    // tensors keep what they use
    for (const flat of flats.values()) native.release(flat)
  }
  const made = new Map<PickleValue, T>()
  for (const [reference, handle] of handles) {
    made.set(reference, backend.wrap(handle, tensors.get(reference)?.requiresGrad ?? false))
  }
  return replace(parsed.root, made)
}

/** One flat tensor a storage, which its tensors are views of. */
function openStorages<T>(
  file: InputFile,
  parsed: ParsedCheckpoint,
  tensors: Iterable<TensorRef>,
  { native }: FilesBackend<T>,
  flats: Map<string, Handle>,
): void {
  // the widest dtype says what the bytes have to be aligned for
  const widest = new Map<string, DType>()
  for (const { storage, dtype, shape } of tensors) {
    if (!(storage instanceof StorageRef) || shape.includes(0)) continue
    const before = widest.get(storage.key)
    if (before === undefined || dtypeBytes[before] < dtypeBytes[dtype]) widest.set(storage.key, dtype)
  }
  let mapping: object | undefined
  for (const [key, dtype] of widest) {
    const { start, size, entry } = parsed.storages.get(key) as StorageBytes
    if (entry !== null) {
      flats.set(key, native.tensorFromBytes(readEntry(file, entry), [size], null, 0, 'uint8'))
      continue
    }
    mapping ??= native.mapFile(file.path)
    // native copies what is not aligned for the dtype it is told, so here it is told
    const flat: DType = start % dtypeBytes[dtype] === 0 ? 'uint8' : dtype
    const length = Math.floor(size / dtypeBytes[flat])
    flats.set(key, native.tensorFromMapping(mapping, start, length * dtypeBytes[flat], [length], null, 0, flat))
  }
}

/** Puts tensors in their places, in the object itself: it was made here, and nobody else has seen it. */
function replace<T>(root: PickleValue, made: ReadonlyMap<PickleValue, T>): LoadedObject<T> {
  // from here on the containers hold tensors of T, which their type does not say
  const at = (value: PickleValue): PickleValue => (made.has(value) ? (made.get(value) as PickleValue) : value)
  // found before the first is changed: a tensor is no container to look into
  for (const value of Array.from(containersIn(root))) {
    if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) if (made.has(item)) value[i] = at(item)
    } else if (value instanceof Map) {
      const entries = Array.from(value)
      if (!entries.some(([key, item]) => made.has(key) || made.has(item))) continue
      value.clear()
      for (const [key, item] of entries) value.set(at(key), at(item))
    } else if (value instanceof Set) {
      const items = Array.from(value)
      if (!items.some((item) => made.has(item))) continue
      value.clear()
      for (const item of items) value.add(at(item))
    } else if (value instanceof PickleStub) {
      value.kwargs = at(value.kwargs)
      value.state = at(value.state)
    }
  }
  return at(root) as LoadedObject<T>
}
