import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'
import { createFiles, type FilesBackend } from '../../../src/torch/files/index.js'
import type { Handle } from '../../../src/torch/files/native-files.js'
import { type DType, dtypeBytes } from '../../../src/torch/types.js'

/** A tensor without libtorch: where it lies in which bytes. */
export class FakeTensor {
  constructor(
    readonly handle: Handle,
    readonly requiresGrad: boolean,
  ) {}

  get view(): FakeView {
    const view = table.get(this.handle)
    if (view === undefined) throw new Error(`handle ${this.handle} was released`)
    return view
  }

  get dtype(): DType {
    return this.view.dtype
  }

  get shape(): readonly number[] {
    return this.view.shape
  }

  /** The elements, row by row. */
  get values(): (number | bigint)[] {
    const { shape, strides, offset, storage, dtype } = this.view
    const values: (number | bigint)[] = []
    const visit = (dimension: number, at: number): void => {
      if (dimension === shape.length) values.push(...elementAt(storage, at, dtype))
      else {
        const size = shape[dimension] as number
        for (let i = 0; i < size; i += 1) visit(dimension + 1, at + i * (strides[dimension] as number))
      }
    }
    visit(0, offset)
    return values
  }
}

export interface FakeView {
  storage: Buffer
  shape: readonly number[]
  strides: readonly number[]
  offset: number
  dtype: DType
  /** How it came to be. */
  made: string
}

const table = new Map<Handle, FakeView>()
let next = 1
/** What was asked of native code, for tests that count. */
export const calls: string[] = []
export const liveHandles = () => table.size

function contiguous(shape: readonly number[]): number[] {
  return shape.map((_, k) => shape.slice(k + 1).reduce((product, size) => product * Math.max(size, 1), 1))
}

function add(
  storage: Buffer,
  shape: readonly number[],
  strides: readonly number[] | null,
  offset: number,
  dtype: DType,
  made: string,
): Handle {
  const view = { storage, shape, strides: strides ?? contiguous(shape), offset, dtype, made }
  // native code checks again; a test that gets here with a view outside of its storage has found a hole
  const last = shape.reduce((sum, size, k) => sum + (size - 1) * (view.strides[k] as number), offset)
  if (!shape.includes(0) && (last + 1) * dtypeBytes[dtype] > storage.length)
    throw new RangeError('outside of its storage')
  table.set(next, view)
  calls.push(made)
  next += 1
  return next - 1
}

function viewOf(handle: Handle): FakeView {
  return new FakeTensor(handle, false).view
}

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = (bits & 1023) / 1024
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15)
}

function float8(bits: number, exponentBits: number): number {
  const mantissaBits = 7 - exponentBits
  const exponent = (bits >> mantissaBits) & (2 ** exponentBits - 1)
  const fraction = (bits & (2 ** mantissaBits - 1)) / 2 ** mantissaBits
  const bias = 2 ** (exponentBits - 1) - 1
  return exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias)
}

function elementAt(storage: Buffer, index: number, dtype: DType): (number | bigint)[] {
  const at = index * dtypeBytes[dtype]
  switch (dtype) {
    case 'float64':
      return [storage.readDoubleLE(at)]
    case 'float32':
      return [storage.readFloatLE(at)]
    case 'float16':
      return [half(storage.readUInt16LE(at))]
    case 'bfloat16': {
      const wide = Buffer.alloc(4)
      storage.copy(wide, 2, at, at + 2)
      return [wide.readFloatLE()]
    }
    case 'float8_e4m3fn':
      return [float8(storage.readUInt8(at), 4)]
    case 'float8_e5m2':
      return [float8(storage.readUInt8(at), 5)]
    case 'int64':
      return [storage.readBigInt64LE(at)]
    case 'uint64':
      return [storage.readBigUInt64LE(at)]
    case 'int32':
      return [storage.readInt32LE(at)]
    case 'uint32':
      return [storage.readUInt32LE(at)]
    case 'int16':
      return [storage.readInt16LE(at)]
    case 'uint16':
      return [storage.readUInt16LE(at)]
    case 'int8':
      return [storage.readInt8(at)]
    case 'uint8':
    case 'bool':
      return [storage.readUInt8(at)]
    case 'complex64':
      return [storage.readFloatLE(at), storage.readFloatLE(at + 4)]
    case 'complex128':
      return [storage.readDoubleLE(at), storage.readDoubleLE(at + 8)]
    case 'complex32':
      return [half(storage.readUInt16LE(at)), half(storage.readUInt16LE(at + 2))]
  }
}

export const backend: FilesBackend<FakeTensor> = {
  native: {
    mapFile(path) {
      calls.push('mapFile')
      return { bytes: readFileSync(path) }
    },
    tensorFromMapping(mapping, byteOffset, byteLength, shape, strides, offset, dtype) {
      const { bytes } = mapping as { bytes: Buffer }
      if (byteOffset + byteLength > bytes.length) throw new RangeError('outside of the file')
      const range = bytes.subarray(byteOffset, byteOffset + byteLength)
      return add(range, shape, strides, offset, dtype, byteOffset % dtypeBytes[dtype] === 0 ? 'mapped' : 'copied')
    },
    tensorFromBytes(bytes, shape, strides, offset, dtype) {
      return add(Buffer.from(bytes), shape, strides, offset, dtype, 'copied')
    },
    tensorFromStorage(handle, shape, strides, offset, dtype) {
      const { storage, made } = viewOf(handle)
      return add(storage, shape, strides, offset, dtype, made)
    },
    copyBytes(handle, offset, length) {
      const { storage } = viewOf(handle)
      if (offset + length > storage.length) throw new RangeError('outside of the tensor')
      return Uint8Array.from(storage.subarray(offset, offset + length))
    },
    release(handle) {
      if (!table.delete(handle)) throw new Error(`handle ${handle} was released before`)
      return true
    },
  },
  wrap: (handle, requiresGrad) => new FakeTensor(handle, requiresGrad),
  isTensor: (value): value is FakeTensor => value instanceof FakeTensor,
  describe(tensor) {
    const { dtype, shape, storage, offset, strides } = tensor.view
    const identity = storages.get(storage) ?? storages.size
    storages.set(storage, identity)
    return { dtype, shape, identity: `${identity} ${offset} ${strides.join()}` }
  },
  open(tensor) {
    // contiguous, as native code makes it
    const { shape, strides, offset, storage, dtype } = tensor.view
    const size = dtypeBytes[dtype]
    const pieces: Buffer[] = []
    const visit = (dimension: number, at: number): void => {
      if (dimension === shape.length) pieces.push(storage.subarray(at * size, (at + 1) * size))
      else
        for (let i = 0; i < (shape[dimension] as number); i += 1)
          visit(dimension + 1, at + i * (strides[dimension] as number))
    }
    visit(0, offset)
    const handle = add(Buffer.concat(pieces), shape, null, 0, dtype, 'opened')
    return { handle, release: () => backend.native.release(handle) }
  },
}
const storages = new Map<Buffer, number>()

export const files = createFiles(backend)

/** A tensor of float32s, or of bytes of another dtype. */
export function fake(
  values: readonly number[] | Uint8Array,
  shape: readonly number[],
  dtype: DType = 'float32',
): FakeTensor {
  const bytes = values instanceof Uint8Array ? values : new Uint8Array(Float32Array.from(values).buffer)
  return backend.wrap(backend.native.tensorFromBytes(bytes, shape, null, 0, dtype), false)
}

export function fixture(name: string): string {
  return fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url))
}

/** A folder that is gone after the tests of a file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'cleft-files-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
