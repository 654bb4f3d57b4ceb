import type { DType } from '../types.js'
import { isSizes, storageClasses, torchDtypes } from './dtypes.js'
import { quote, type WeightsFileError } from './error.js'
import { kindOf, nameOf, narrow, PickleStub, type PickleValue, StorageRef, TensorRef } from './pickle-values.js'

/*
 * The calls that a pickle may make, done here and by nobody else: containers, numbers, tensors over storages.
 */

export interface CallContext {
  pay(bytes: number): void
  refuse(problem: string): WeightsFileError
}

/** What a known function makes of its arguments; undefined: these it does not know, so the call becomes a stub. */
export type KnownCall = (args: PickleValue[], context: CallContext) => PickleValue | undefined

/** (storage, offset, size, stride, requires_grad, hooks, metadata), or with a dtype before the metadata (v3). */
function rebuildTensor(args: PickleValue[], { refuse }: CallContext): PickleValue {
  const [storage, offset, shape, strides] = args
  const withDtype = typeof args[6] === 'string'
  const metadata = args[withDtype ? 7 : 6]
  if (!(storage instanceof StorageRef))
    throw refuse(`expected a tensor over a storage, not over ${kindOf(storage ?? null)}`)
  if (typeof offset !== 'number' || !Number.isSafeInteger(offset) || offset < 0) {
    throw refuse('expected the offset of a tensor to be an integer that is not negative')
  }
  if (!isSizes(shape) || !isSizes(strides) || shape.length !== strides.length) {
    throw refuse('expected sizes and strides of a tensor: equally many integers that are not negative')
  }
  const dtype = withDtype ? torchDtypes.get(args[6] as string) : storage.dtype
  if (dtype === undefined || dtype === null) throw refuse('expected a tensor with a dtype that is known')
  if (metadata instanceof Map && (metadata.get('conj') === true || metadata.get('neg') === true)) {
    // the bytes are those of another tensor: taken as they are they would be wrong
    throw refuse(
      'expected tensors with their values in place, but one is a conjugate or negative view; resolve it in Python',
    )
  }
  return new TensorRef(storage, dtype, offset, shape, strides, args[4] === true)
}

const rebuildParameter: KnownCall = ([data, requiresGrad]) =>
  data instanceof TensorRef
    ? new TensorRef(data.storage, data.dtype, data.offset, data.shape, data.strides, requiresGrad === true)
    : undefined

const copyList: KnownCall = ([items], { pay }) => {
  if (items === undefined) return []
  if (!Array.isArray(items) && !(items instanceof Set)) return undefined
  const copy = Array.from(items)
  pay(8 * copy.length)
  return copy
}

const copySet: KnownCall = (args, context) => {
  const items = copyList(args, context)
  if (!Array.isArray(items)) return undefined
  context.pay(48 * items.length)
  return new Set(items)
}

/** dict(), dict(mapping), dict(pairs). */
const copyDict: KnownCall = ([items], { pay }) => {
  if (items === undefined) return new Map()
  if (items instanceof Map) {
    pay(64 * items.size)
    return new Map(items)
  }
  if (!Array.isArray(items) || !items.every((pair) => Array.isArray(pair) && pair.length === 2)) return undefined
  pay(64 * items.length)
  return new Map(items as [PickleValue, PickleValue][])
}

/** encode(text, 'latin1'): how protocols 0 to 2 write bytes. Also bytes(text, 'latin1'). */
const encode: KnownCall = ([text, encoding = 'utf-8'], { pay }) => {
  if (text === undefined) return new Uint8Array()
  if (text instanceof Uint8Array) {
    pay(text.length + 100)
    return Uint8Array.from(text)
  }
  if (typeof text !== 'string' || typeof encoding !== 'string') return undefined
  const plain = encoding.toLowerCase().replaceAll(/[-_ ]/g, '')
  const known = plain === 'latin1' || plain === 'iso88591' ? 'latin1' : plain === 'utf8' ? 'utf8' : undefined
  if (known === undefined) return undefined
  pay(3 * text.length + 100)
  return Uint8Array.from(Buffer.from(text, known))
}

/** numpy.core.multiarray.scalar(dtype, bytes). */
const numpyScalar: KnownCall = ([dtype, bytes]) => {
  const type = numpyType(dtype)
  if (type === null || !(bytes instanceof Uint8Array)) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (view.byteLength !== type.size) return undefined
  const { little } = type
  switch (type.dtype) {
    case 'float64':
      return view.getFloat64(0, little)
    case 'float32':
      return view.getFloat32(0, little)
    case 'int64':
      return narrow(view.getBigInt64(0, little))
    case 'uint64':
      return narrow(view.getBigUint64(0, little))
    case 'int32':
      return view.getInt32(0, little)
    case 'uint32':
      return view.getUint32(0, little)
    case 'int16':
      return view.getInt16(0, little)
    case 'uint16':
      return view.getUint16(0, little)
    case 'int8':
      return view.getInt8(0)
    case 'uint8':
      return view.getUint8(0)
    case 'bool':
      return view.getUint8(0) !== 0
    default:
      return undefined
  }
}

export const CALLS: ReadonlyMap<string, KnownCall> = new Map<string, KnownCall>([
  ['torch._utils._rebuild_tensor', rebuildTensor],
  ['torch._utils._rebuild_tensor_v2', rebuildTensor],
  ['torch._utils._rebuild_tensor_v3', rebuildTensor],
  ['torch._utils._rebuild_parameter', rebuildParameter],
  ['torch._utils._rebuild_parameter_with_state', rebuildParameter],
  [
    // a tensor with attributes, or of a subclass: (function, class, its arguments, state)
    'torch._tensor._rebuild_from_type_v2',
    ([callee, , args], context) => {
      if (!(callee instanceof PickleStub) || callee.args !== null || !Array.isArray(args)) return undefined
      const name = nameOf(callee)
      // only functions that make a tensor themselves: not this one again, nested without end
      return name.startsWith('torch._utils._rebuild_') ? CALLS.get(name)?.(args, context) : undefined
    },
  ],
  ['torch.Size', copyList],
  [
    'torch.device',
    ([type, index]) => {
      if (typeof type !== 'string' || type.length > 100) return undefined
      return typeof index === 'number' ? `${type}:${index}` : type
    },
  ],
  ['collections.OrderedDict', copyDict],
  // the factory is dropped: nothing would call it
  ['collections.defaultdict', ([, items], context) => copyDict(items === undefined ? [] : [items], context)],
  ['collections.Counter', copyDict],
  ['collections.deque', copyList],
  ['builtins.dict', copyDict],
  ['builtins.list', copyList],
  ['builtins.tuple', copyList],
  ['builtins.set', copySet],
  ['builtins.frozenset', copySet],
  ['builtins.bytes', encode],
  ['builtins.bytearray', encode],
  ['_codecs.encode', encode],
  [
    'builtins.complex',
    ([re = 0, im = 0]) => (typeof re === 'number' && typeof im === 'number' ? { re, im } : undefined),
  ],
  [
    'builtins.int',
    ([value = 0]) => (typeof value === 'bigint' || Number.isInteger(value) ? (value as number | bigint) : undefined),
  ],
  ['builtins.float', ([value = 0]) => (typeof value === 'number' ? value : undefined)],
  ['builtins.bool', ([value = false]) => (typeof value === 'boolean' ? value : undefined)],
  ['builtins.str', ([value = '']) => (typeof value === 'string' ? value : undefined)],
  ['numpy.core.multiarray.scalar', numpyScalar],
])

interface NumpyType {
  dtype: DType
  size: number
  little: boolean
}

const NUMPY_TYPES: ReadonlyMap<string, DType> = new Map<string, DType>([
  ['f8', 'float64'],
  ['f4', 'float32'],
  ['f2', 'float16'],
  ['i8', 'int64'],
  ['i4', 'int32'],
  ['i2', 'int16'],
  ['i1', 'int8'],
  ['u8', 'uint64'],
  ['u4', 'uint32'],
  ['u2', 'uint16'],
  ['u1', 'uint8'],
  ['b1', 'bool'],
  ['c8', 'complex64'],
  ['c16', 'complex128'],
])

/** numpy.dtype('f4', False, True), then restored with (version, '<', ...). */
function numpyType(value: PickleValue | undefined): NumpyType | null {
  if (!(value instanceof PickleStub) || nameOf(value) !== 'numpy.dtype') return null
  const name = value.args?.[0]
  const dtype = typeof name === 'string' ? NUMPY_TYPES.get(name.replace(/^[<>|=]/, '')) : undefined
  if (dtype === undefined || typeof name !== 'string') return null
  const order = Array.isArray(value.state) ? value.state[1] : undefined
  return { dtype, size: Number(name.replace(/\D/g, '')), little: order !== '>' && !name.startsWith('>') }
}

/**
 * A NumPy array of numbers as a tensor: restored with (version, shape, dtype, is Fortran's order, bytes), or made by
 * `_frombuffer(bytes, dtype, shape, order)`. null for what is no array, or one of objects, words, or another byte order.
 */
export function numpyArray(stub: PickleStub): TensorRef | null {
  let shape: PickleValue | undefined
  let type: PickleValue | undefined
  let bytes: PickleValue | undefined
  let fortran = false
  const name = nameOf(stub)
  if (name === 'numpy.core.multiarray._reconstruct' && Array.isArray(stub.state)) {
    ;[, shape, type, , bytes] = stub.state
    fortran = stub.state[3] === true || stub.state[3] === 1
  } else if (name === 'numpy.core.numeric._frombuffer' && stub.args !== null) {
    ;[bytes, type, shape] = stub.args
    fortran = stub.args[3] === 'F'
  }
  const numpy = numpyType(type)
  if (numpy === null || !numpy.little || !(bytes instanceof Uint8Array) || !isSizes(shape)) return null
  const strides = new Array<number>(shape.length)
  const order = fortran ? shape.keys() : Array.from(shape.keys()).reverse()
  let elements = 1
  for (const k of order) {
    strides[k] = elements
    elements *= shape[k] as number
  }
  if (elements * numpy.size !== bytes.length) return null
  return new TensorRef(bytes, numpy.dtype, 0, shape, strides, false)
}

/**
 * What torch.save's persistent ids stand for: ('storage', class, key, location, size), in the old form with the part of
 * the storage that is meant as well: (view's key, offset, size) or None. In the old form ('module', class, file, source)
 * stands for the class.
 * @throws the error that refuse makes
 */
export function torchStorage(id: PickleValue, refuse: (problem: string) => Error): PickleValue {
  if (!Array.isArray(id) || typeof id[0] !== 'string') throw refuse(`expected the name of a storage, not ${kindOf(id)}`)
  if (id[0] === 'module' && id.length === 4) return id[1] as PickleValue
  const [what, type, keyValue, , size, viewValue] = id
  const key = typeof keyValue === 'number' ? String(keyValue) : keyValue
  if (what !== 'storage' || !(type instanceof PickleStub) || typeof key !== 'string' || key.length > 200) {
    throw refuse('expected the name of a storage: its class, key, place and size')
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw refuse(`expected the size of storage ${quote(key)} to be an integer that is not negative`)
  }
  const untyped = nameOf(type) === 'torch.storage.UntypedStorage' || nameOf(type) === 'torch.UntypedStorage'
  const dtype = type.module === 'torch' || type.module === 'torch.cuda' ? storageClasses.get(type.name) : undefined
  if (!untyped && dtype === undefined) {
    throw refuse(`expected a storage of a known class, but ${quote(key)} is a ${kindOf(type)}`)
  }
  let view: { offset: number; size: number } | null = null
  if (viewValue !== undefined && viewValue !== null) {
    const sizes = Array.isArray(viewValue) ? viewValue.slice(1) : null
    if (!isSizes(sizes) || sizes.length !== 2)
      throw refuse(`expected offset and size of a view of storage ${quote(key)}`)
    view = { offset: sizes[0] as number, size: sizes[1] as number }
  }
  return new StorageRef(dtype ?? null, key, size, view)
}
