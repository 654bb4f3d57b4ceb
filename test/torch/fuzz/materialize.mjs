/* From the descriptions of arguments.mjs to values: needs the compiled package (environment variable CLEFT_DIST). */
import { pathToFileURL } from 'node:url'

const dist = process.env.CLEFT_DIST
if (dist === undefined)
  throw new Error('expected the environment variable CLEFT_DIST to name the folder of the compiled package')
const load = (path) => import(pathToFileURL(`${dist}/${path}`).href)

export const torch = await load('torch/index.js')
export const { native } = await load('torch/native.js')
export const { guardOf } = await load('torch/guards.js')
const { wrap } = await load('torch/tensor.js')

/** @param {unknown} value */
function plainNumber(value) {
  if (typeof value === 'object' && value !== null) {
    if ('n' in value) return Number(value.n)
    if ('f' in value) return Number(value.f)
  }
  return Number(value)
}

/** @param {unknown} value */
function plainBigInt(value) {
  if (typeof value === 'object' && value !== null && 'n' in value) return BigInt.asIntN(64, BigInt(value.n))
  const number = plainNumber(value)
  return Number.isFinite(number) ? BigInt.asIntN(64, BigInt(Math.trunc(number))) : 0n
}

function dense({ t: shape, d: dtype, v: values }) {
  const complex = dtype.startsWith('complex')
  const full = complex ? [...shape, 2] : shape
  const count = full.reduce((product, size) => product * size, 1)
  const integral = /^(u?int)/.test(dtype)
  const data = integral ? new BigInt64Array(count) : new Float64Array(count)
  for (let k = 0; k < count; k += 1)
    data[k] = integral ? plainBigInt(values[k % values.length]) : plainNumber(values[k % values.length])
  return wrap(native.fromTypedArray(data, full, dtype))
}

/** A tensor with these values that lies otherwise in memory, or is of another kind. */
function lay(spec) {
  const { t: shape, x: how } = spec
  const call = (name, ...values) => torch.callOperator(name, ...values)
  const rank = shape.length
  switch (how) {
    case 'meta':
      return call('aten::empty.memory_format', shape, { dtype: spec.d, device: 'meta' })
    case 'disposed': {
      const tensor = dense(spec)
      tensor.dispose()
      return tensor
    }
    case 'sparse':
      return dense(spec).toSparse()
    case 'csr':
      return dense(spec).toSparse({ layout: 'sparse_csr' })
    case 'transposed':
      return rank < 2
        ? dense(spec)
        : dense(spec)
            .transpose(0, rank - 1)
            .contiguous()
            .transpose(0, rank - 1)
    case 'sliced': {
      if (rank === 0) return dense(spec)
      const wide = dense({ ...spec, t: [...shape.slice(0, -1), shape[rank - 1] * 2 + 1] })
      return call('aten::slice.Tensor', wide, rank - 1, 1, null, 2)
    }
    case 'expanded':
      return rank === 0 ? dense(spec) : dense({ ...spec, t: [1, ...shape.slice(1)] }).expand(shape)
    case 'channels_last':
      return rank === 4 ? dense(spec).contiguous({ memoryFormat: 'channels_last' }) : dense(spec)
    case 'conj':
      return spec.d.startsWith('complex') ? dense(spec).conj() : dense(spec)
    case 'neg':
      return /^(b?float|complex)/.test(spec.d) ? call('aten::_neg_view', dense(spec)) : dense(spec)
    default:
      return dense(spec)
  }
}

function makeTensor(spec) {
  let tensor
  try {
    tensor = lay(spec)
  } catch {
    // not every dtype and shape has every layout
    tensor = dense(spec)
  }
  if (spec.g && tensor.isAlive) {
    try {
      tensor = tensor.detach().requiresGrad_()
      if (!spec.leaf) tensor = torch.callOperator('aten::mul.Scalar', tensor, 1)
    } catch {
      return tensor
    }
  }
  return tensor
}

const odd = {
  function: () => () => 1,
  symbol: () => Symbol('odd'),
  date: () => new Date(0),
  uint8array: () => new Uint8Array(3),
  'sparse array': () => {
    const list = []
    list[2] = 1
    return list
  },
  'huge array': () => new Array(4294967295),
  'throwing getter': () => ({
    get re() {
      throw new RangeError('thrown by a getter')
    },
    im: 1,
  }),
}

/** @param {unknown} spec @returns {unknown} */
export function materialize(spec) {
  if (typeof spec !== 'object' || spec === null) return spec
  if (Array.isArray(spec)) return spec.map(materialize)
  if (Array.isArray(spec.t)) return makeTensor(spec)
  if ('n' in spec) return BigInt(spec.n)
  if ('f' in spec) return Number(spec.f)
  if ('u' in spec) return undefined
  if ('gen' in spec) return new torch.Generator().manualSeed(spec.gen)
  if ('float' in spec) return torch.float(spec.float)
  if ('odd' in spec) return odd[spec.odd]()
  return { ...spec }
}
