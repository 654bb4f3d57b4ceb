/*
 * Random arguments for an operator, by the kinds and names in its schema. Most are such that the kernel is reached;
 * then one or two are made wrong. What is made here are descriptions in JSON, so that a call can be written down
 * before it is made, reported, and kept in regressions.mjs:
 *
 *   { t: [2, 3], d: 'float32', v: [1, 2] }   a tensor: shape, dtype, values (repeated as often as needed), and
 *       g: true requires grad, leaf: true is no result of an operation, x: how it lies in memory (see materialize.mjs)
 *   { n: '9007199254740993' } a bigint, { f: 'NaN' } a number that JSON has not, { u: 1 } undefined,
 *   { float: 2 } torch.float(2), { re, im } a complex number, { gen: 7 } a seeded Generator, { odd: 'function' } others
 */

export const floats = ['float32', 'float64', 'bfloat16', 'float16']
export const dtypes = [
  ...floats,
  'int64',
  'int32',
  'int16',
  'int8',
  'uint8',
  'bool',
  'complex64',
  'complex128',
  'uint16',
  'uint32',
  'uint64',
  'complex32',
  'float8_e4m3fn',
]
const layouts = ['strided', 'sparse_coo', 'sparse_csr', 'jagged']
const formats = ['contiguous_format', 'preserve_format', 'channels_last', 'channels_last_3d']
const strange = ['meta', 'sparse', 'disposed', 'csr', 'expanded', 'sliced', 'transposed', 'conj', 'neg']

/** Names of arguments that hold positions in another tensor. */
const indexNames =
  /^(index|indices|target|targets|offsets|pivots|LU_pivots|repeats|sorter|input_lengths|target_lengths|tensor_indices_or_sections|compressed_indices|plain_indices|crow_indices|ccol_indices|row_indices|col_indices|start)$/
const dimNames =
  /^(dim|dim0|dim1|dim2|axis0|axis1|dims|start_dim|end_dim|dimension|source|destination|dims_self|dims_other)$/

/** Words that the string arguments of libtorch know, all together. */
const words = {
  reduce: ['sum', 'prod', 'mean', 'amax', 'amin', 'add', 'multiply'],
  rounding_mode: ['floor', 'trunc'],
  padding: ['same', 'valid'],
  approximate: ['none', 'tanh'],
  norm: ['forward', 'backward', 'ortho'],
  indexing: ['ij', 'xy'],
  interpolation: ['linear', 'lower', 'higher', 'midpoint', 'nearest'],
  mode: ['constant', 'reflect', 'replicate', 'circular', 'reduced', 'complete', 'r'],
  pad_mode: ['reflect', 'constant', 'replicate', 'circular'],
  padding_side: ['left', 'right'],
  side: ['left', 'right'],
  UPLO: ['L', 'U'],
  driver: ['gels', 'gelsy', 'gelsd', 'gelss'],
  ord: ['fro', 'nuc'],
  p: ['fro', 'nuc'],
  equation: [
    'ij,jk->ik',
    'ii->i',
    'bij,bjk->bik',
    '...i,...i',
    'i,j',
    'ij->',
    'ij,ij',
    'a',
    'ii',
    '->',
    'i->ii',
    'ij,',
    '...,...',
    'ij...,jk...->ik...',
    'xy,yz,zx',
  ],
}

export const hugeNumbers = [
  2147483648,
  -2147483648,
  2147483647,
  4294967296,
  9007199254740991,
  -9007199254740991,
  { n: '4611686018427387904' },
  { n: '9223372036854775807' },
  { n: '-9223372036854775808' },
  { n: '9223372036854775808' },
  { n: '3074457345618258603' },
]
const oddNumbers = [
  -1,
  -2,
  0,
  1,
  7,
  65536,
  1000000,
  1.5,
  -0.5,
  { f: 'NaN' },
  { f: 'Infinity' },
  { f: '-Infinity' },
  { f: '-0' },
  1e300,
  5e-324,
]
const oddValues = [
  null,
  { u: 1 },
  '',
  'sum',
  'float32',
  true,
  false,
  [],
  [[]],
  [1, 'a'],
  [null],
  {},
  { odd: 'function' },
  { odd: 'symbol' },
  { odd: 'date' },
  { odd: 'uint8array' },
  { odd: 'sparse array' },
  { odd: 'huge array' },
  { odd: 'throwing getter' },
  { gen: 1 },
  { re: 1, im: 2 },
  { re: 'x', im: null },
  { float: 2 },
  { re: 1 },
]

/** @typedef {import('./random.mjs').Random} Random */

/** @param {Random} random */
function anyShape(random, most = 5) {
  const rank = random.chance(0.85) ? random.int(0, Math.min(3, most)) : random.int(0, most)
  return Array.from({ length: rank }, () => (random.chance(0.04) ? 0 : random.int(1, 4)))
}

/** @param {Random} random @param {string} dtype */
function valuesFor(random, dtype, count = random.int(1, 7)) {
  const integral = /^(u?int|bool)/.test(dtype)
  const unsigned = /^(uint|bool)/.test(dtype)
  return Array.from({ length: count }, () => {
    if (dtype === 'bool') return random.int(0, 1)
    if (integral)
      return random.chance(0.03) ? (unsigned ? 255 : random.pick([-128, 127])) : random.int(unsigned ? 0 : -3, 5)
    if (random.chance(0.03)) return random.pick([{ f: 'NaN' }, { f: 'Infinity' }, { f: '-Infinity' }, 1e30, -1e-30, 0])
    return Math.round((random.next() * 6 - 2) * 8) / 8
  })
}

/** What the tensors of one call have in common. */
class Theme {
  /** @param {Random} random */
  constructor(random) {
    this.random = random
    this.kind = random.pick(['same', 'same', 'same', 'broadcast', 'square', 'matmul', 'images', 'vectors', 'any'])
    this.base =
      this.kind === 'images'
        ? [random.int(1, 3), random.int(1, 4), random.int(2, 6), random.int(2, 6)]
        : anyShape(random)
    if (this.kind === 'images' && random.chance(0.3)) this.base.push(random.int(1, 4))
    if (this.kind === 'images' && random.chance(0.3)) this.base.shift()
    if (this.kind === 'same' && this.base.length === 0 && random.chance(0.7))
      this.base = [random.int(1, 4), random.int(1, 4)]
    this.n = random.int(1, 4)
    if (this.kind === 'square') this.base = [...(random.chance(0.3) ? [random.int(0, 2)] : []), this.n, this.n]
    if (this.kind === 'vectors') this.base = [this.n]
    this.batch = random.chance(0.4) ? [random.int(1, 2)] : []
    this.dtype = random.chance(0.6) ? 'float32' : random.pick(dtypes.slice(0, 12))
    if (random.chance(0.03)) this.dtype = random.pick(dtypes)
    this.grad = random.chance(0.4)
    this.first = true
  }

  shape() {
    const { random, base } = this
    switch (this.kind) {
      case 'broadcast': {
        const shape = base.map((size) => (random.chance(0.3) ? 1 : size))
        return random.chance(0.3) ? shape.slice(1) : shape
      }
      case 'matmul': {
        const columns = random.chance(0.8) ? this.n : random.int(0, 4)
        const rows = this.first || random.chance(0.2) ? random.int(1, 4) : this.n
        this.first = false
        return [...this.batch, rows, columns]
      }
      case 'any':
        return anyShape(random)
      case 'images':
        return random.chance(0.85) ? base : random.chance(0.5) ? [base[1] ?? 1] : anyShape(random)
      default:
        return base
    }
  }
}

/** @param {Theme} theme @param {Partial<{shape: number[], dtype: string, values: unknown[]}>} given */
export function anyTensor(theme, given = {}) {
  const { random } = theme
  const dtype = given.dtype ?? (random.chance(0.92) ? theme.dtype : random.pick(dtypes))
  const tensor = { t: given.shape ?? theme.shape(), d: dtype, v: given.values ?? valuesFor(random, dtype) }
  if (theme.grad && given.values === undefined && /^(b?float(16|32|64)$|complex)/.test(dtype) && random.chance(0.7))
    tensor.g = true
  if (tensor.g && random.chance(0.4)) tensor.leaf = true
  if (random.chance(0.12))
    tensor.x = random.pick(['transposed', 'sliced', 'expanded', 'transposed', 'conj', 'neg', 'channels_last'])
  return tensor
}

/** Positions, most of them inside a tensor of small sizes. @param {Theme} theme */
function indexTensor(theme, shape) {
  const { random } = theme
  const largest = random.chance(0.8)
    ? Math.max(0, Math.min(...(theme.base.length > 0 ? theme.base : [1])) - 1)
    : random.int(0, 5)
  const values = Array.from({ length: random.int(1, 5) }, () => random.int(0, largest))
  if (random.chance(0.2))
    values[random.int(0, values.length - 1)] = random.pick([
      -1,
      largest + 1,
      -largest - 2,
      100,
      -100,
      100000,
      -100000,
      1e9,
      2147483648,
      -4e9,
      { n: '4611686018427387904' },
    ])
  if (random.chance(0.15)) values.sort()
  return anyTensor(theme, {
    shape: shape ?? theme.shape(),
    dtype: random.chance(0.85) ? 'int64' : random.chance(0.7) ? 'int32' : random.pick(dtypes),
    values,
  })
}

/** @param {Theme} theme @param {string} name */
function wholeNumber(theme, name) {
  const { random } = theme
  const rank = theme.base.length
  if (dimNames.test(name)) return rank === 0 ? random.int(-1, 0) : random.int(-rank, rank - 1)
  if (/^(kernel_size|size|window_length|n_fft|output_size|win_length|upscale_factor|downscale_factor)$/.test(name))
    return random.int(1, 4)
  if (/^(stride|dilation|groups|step|hop_length|num_groups|split_size|chunks|sections|sections_or)$/.test(name))
    return random.int(1, 3)
  if (/^(padding|output_padding|reduction|edge_order)$/.test(name)) return random.int(0, 2)
  if (/^(mode|interpolation_mode|padding_mode|compute_mode)$/.test(name)) return random.int(0, 2)
  return random.int(-1, 5)
}

/** @param {Theme} theme @param {any} argument */
function list(theme, argument, make) {
  const { random } = theme
  const wanted =
    argument.listSize > 1
      ? argument.listSize
      : dimNames.test(argument.name)
        ? random.int(0, Math.max(1, theme.base.length))
        : random.int(0, 4)
  if (argument.listSize > 0 && random.chance(0.3)) return make()
  const result = Array.from({ length: wanted }, make)
  // dimensions that come twice are refused early
  return dimNames.test(argument.name) && random.chance(0.8) ? [...new Set(result)] : result
}

/** A value for one argument. @param {Theme} theme @param {any} argument */
function plausible(theme, argument) {
  const { random } = theme
  const { name, kind } = argument
  if (argument.optional && random.chance(0.4)) return null
  switch (kind) {
    case 'Tensor': {
      const one = () =>
        indexNames.test(name)
          ? indexTensor(theme)
          : name === 'mask' || name === 'condition'
            ? anyTensor(theme, { dtype: 'bool' })
            : anyTensor(theme)
      if (!argument.list) return one()
      return Array.from({ length: random.chance(0.1) ? 0 : random.int(1, 3) }, () =>
        argument.optionalElements && random.chance(0.3) ? null : one(),
      )
    }
    case 'int':
      if (!argument.list) return wholeNumber(theme, name)
      if (/^(size|shape|normalized_shape|output_size)$/.test(name) && random.chance(0.6)) {
        if (argument.listSize > 0) return Array.from({ length: argument.listSize }, () => random.int(1, 5))
        const shape = name === 'normalized_shape' ? theme.base.slice(-random.int(1, 2)) : theme.base
        return random.chance(0.8) ? shape : [...shape].reverse()
      }
      if (name === 'dims' && random.chance(0.6)) return theme.base.map((_, index) => index).reverse()
      return list(theme, argument, () => wholeNumber(theme, name))
    case 'float': {
      const one = () => random.pick([0, 1, 0.5, 2, -1, 1e-5, 0.1, 3, { f: 'Infinity' }])
      return argument.list ? list(theme, argument, one) : one()
    }
    case 'Scalar':
    case 'complex': {
      const one = () => random.pick([0, 1, 2, -1, 0.5, 3, 1.5, true, { n: '3' }, { float: 2 }, { re: 1, im: -1 }])
      return argument.list ? Array.from({ length: random.int(0, 3) }, one) : one()
    }
    case 'bool':
      return argument.list ? [random.chance(0.5), random.chance(0.5)] : random.chance(0.5)
    case 'str':
      return argument.list ? ['a'] : random.pick(words[name] ?? ['sum', 'none', 'linear', 'a'])
    case 'dtype':
      return random.chance(0.6) ? random.pick(floats) : random.pick(dtypes)
    case 'layout':
      return random.chance(0.8) ? 'strided' : random.pick(layouts)
    case 'memory_format':
      return random.pick(formats)
    case 'Device':
      return random.chance(0.9)
        ? 'cpu'
        : random.pick(['meta', 'cuda', 'cuda:1', 'mps', 'cpu:3', 'xla', 'lazy', 'vulkan', 'nonsense', ''])
    case 'Generator':
      return random.chance(0.5) ? { gen: random.int(0, 9) } : null
    default:
      return null
  }
}

const isTensor = (value) => typeof value === 'object' && value !== null && Array.isArray(value.t)

/** Something else in the place of a plausible value. @param {Theme} theme @param {any} argument */
function wrong(theme, argument, value) {
  const { random } = theme
  if (random.chance(0.12)) return random.pick(oddValues)
  if (Array.isArray(value) && argument.list) {
    const copy = [...value]
    switch (random.int(0, 5)) {
      case 0:
        return []
      case 1:
        return copy.slice(1)
      case 2:
        copy.push(copy.length > 0 ? random.pick(copy) : 1)
        return copy
      case 3:
        return random.chance(0.05)
          ? Array.from({ length: 300 }, () => copy[0] ?? 1)
          : Array.from({ length: 9 }, () => copy[0] ?? 1)
      default:
        if (copy.length > 0) {
          const at = random.int(0, copy.length - 1)
          copy[at] = wrong(theme, { ...argument, list: false }, copy[at])
        }
        return copy
    }
  }
  if (isTensor(value)) {
    const changed = { ...value }
    switch (random.int(0, 7)) {
      case 0:
        return { ...anyTensor(theme), x: random.pick(strange) }
      case 1:
        changed.d = random.pick(dtypes)
        if (!/^(b?float(16|32|64)$|complex)/.test(changed.d)) delete changed.g
        return changed
      case 2:
        changed.t = anyShape(random)
        return changed
      case 3:
        changed.t = value.t.map((size) => (random.chance(0.5) ? 0 : size))
        return changed
      case 4:
        changed.t = random.chance(0.5) ? [...value.t, random.int(1, 3)] : value.t.slice(1)
        return changed
      case 5: {
        if (value.t.length === 0) return { ...value, t: [0] }
        changed.t = [...value.t]
        const at = random.int(0, changed.t.length - 1)
        changed.t[at] = Math.max(0, changed.t[at] + random.pick([-1, 1, 5]))
        return changed
      }
      case 6:
        changed.v = /^(u?int|bool)/.test(value.d)
          ? [
              ...value.v,
              ...Array.from({ length: 2 }, () => random.pick([-1, 100, 2147483647, -2147483648, 5, 1000000, -1000000])),
            ]
          : [...value.v, random.pick([{ f: 'NaN' }, { f: 'Infinity' }, -1, 1e30, 1e9, -1e18])]
        return changed
      default:
        changed.x = random.pick(strange)
        return changed
    }
  }
  if (argument.kind === 'str' || argument.kind === 'dtype' || argument.kind === 'layout')
    return random.pick(['', 'nonsense', 'Sum', 'mean ', 'x'.repeat(300), '\0', '…', ...dtypes, ...layouts])
  if (random.chance(0.4)) return random.pick(hugeNumbers)
  if (argument.kind === 'int' && random.chance(0.7))
    return random.pick([-1, -2, -3, -5, 0, 1, 2, 6, 7, 17, 100, 1000, 65536])
  return random.pick(oddNumbers)
}

/** Shapes that belong together, where chance would seldom find them. @type {Record<string, (theme: Theme) => Record<string, unknown>>} */
const recipes = {}
/** @param {string} names @param {(theme: Theme, random: Random) => Record<string, unknown>} make */
function recipe(names, make) {
  for (const name of names.split(' ')) recipes[name] = (theme) => make(theme, theme.random)
}
const tensor = (theme, shape, more = {}) => anyTensor(theme, { shape, dtype: theme.dtype, ...more })
const floating = (theme) => {
  if (!floats.includes(theme.dtype) && !theme.dtype.startsWith('complex')) theme.dtype = 'float32'
}

for (const rank of [1, 2, 3]) {
  const sizes = (random, low, high) => Array.from({ length: rank }, () => random.int(low, high))
  recipe(`conv${rank}d conv_transpose${rank}d`, (theme, random) => {
    floating(theme)
    const groups = random.pick([1, 1, 2])
    const [input, output] = [groups * random.int(1, 2), groups * random.int(1, 2)]
    return {
      input: tensor(theme, [...(random.chance(0.8) ? [random.int(0, 2)] : []), input, ...sizes(random, 2, 6)]),
      weight: tensor(theme, [output, input / groups, ...sizes(random, 1, 3)]),
      bias: random.chance(0.5) ? null : tensor(theme, [output]),
      groups,
    }
  })
  recipe(`max_unpool${rank}d`, (theme, random) => {
    const shape = [random.int(1, 2), random.int(1, 2), ...sizes(random, 1, 3)]
    const extent = 4 ** rank
    return {
      self: tensor(theme, shape),
      indices: tensor(theme, shape, {
        dtype: 'int64',
        values: Array.from({ length: 6 }, () =>
          random.int(random.chance(0.1) ? -2 : 0, random.chance(0.1) ? extent : 3),
        ),
      }),
      output_size: sizes(random, 2, 4),
    }
  })
  recipe(
    `avg_pool${rank}d max_pool${rank}d max_pool${rank}d_with_indices adaptive_avg_pool${rank}d adaptive_max_pool${rank}d`,
    (theme, random) => ({
      self: tensor(theme, [
        ...(random.chance(0.8) ? [random.int(0, 2)] : []),
        random.int(0, 3),
        ...sizes(random, 1, 6),
      ]),
    }),
  )
  recipe(`fractional_max_pool${rank}d`, (theme, random) => {
    floating(theme)
    const [batch, channels] = [random.int(1, 2), random.int(1, 2)]
    return {
      self: tensor(theme, [batch, channels, ...sizes(random, 3, 6)]),
      kernel_size: random.int(1, 3),
      output_size: sizes(random, 1, 3),
      random_samples: tensor(theme, [batch, channels, rank], {
        values: [0.1, 0.5, 0.9, random.pick([0.99, 1, 2, -1, { f: 'NaN' }, 0])],
      }),
    }
  })
}
recipe('convolution convolution_overrideable', (theme, random) => {
  floating(theme)
  const rank = random.int(1, 3)
  const each = (low, high) => Array.from({ length: rank }, () => random.int(low, high))
  return {
    input: tensor(theme, [2, 2, ...each(2, 6)]),
    weight: tensor(theme, [2, 2, ...each(1, 3)]),
    bias: null,
    stride: each(1, 2),
    padding: each(0, 2),
    dilation: each(1, 2),
    output_padding: each(0, 1),
    groups: 1,
  }
})
recipe('conv_tbc', (theme, random) => ({
  self: tensor(theme, [4, 2, 3]),
  weight: tensor(theme, [random.int(1, 3), 3, 2]),
  bias: tensor(theme, [2]),
}))
for (const rank of [1, 2, 3]) {
  const space = (random) => Array.from({ length: rank }, () => random.int(1, 5))
  const up = ['linear1d', 'bilinear2d bicubic2d', 'trilinear3d'][rank - 1].split(' ')
  const names = [...up, `nearest${rank}d`].map((name) => `upsample_${name}`)
  recipe(
    [
      ...names,
      `_upsample_nearest_exact${rank}d`,
      ...(rank === 2 ? ['_upsample_bilinear2d_aa', '_upsample_bicubic2d_aa'] : []),
    ].join(' '),
    (theme, random) => {
      if (random.chance(0.8)) floating(theme)
      const given = random.chance(0.5)
      const scale = () => random.pick([0.5, 1, 1.5, 2, 3, 0, -1, 1e-9, { f: 'NaN' }])
      return {
        self: tensor(theme, [random.int(0, 2), random.int(0, 3), ...space(random)]),
        input: tensor(theme, [random.int(0, 2), random.int(0, 3), ...space(random)]),
        output_size: given ? space(random) : null,
        scale_factors: given ? null : Array.from({ length: rank }, scale),
      }
    },
  )
  recipe(`reflection_pad${rank}d replication_pad${rank}d`, (theme, random) => ({
    self: tensor(theme, [random.int(0, 2), random.int(0, 2), ...space(random)]),
    padding: Array.from({ length: 2 * rank }, () => random.int(-2, 3)),
  }))
}
recipe('im2col', (theme, random) => ({
  self: tensor(theme, [random.int(0, 2), random.int(0, 2), random.int(1, 5), random.int(1, 5)]),
}))
recipe('col2im', (theme, random) => {
  const kernel = [random.int(1, 2), random.int(1, 2)]
  const output = [random.int(2, 4), random.int(2, 4)]
  const blocks = (output[0] - kernel[0] + 1) * (output[1] - kernel[1] + 1)
  return {
    self: tensor(theme, [random.int(0, 2), kernel[0] * kernel[1] * random.int(0, 2), blocks]),
    output_size: output,
    kernel_size: kernel,
    dilation: [1, 1],
    padding: [0, 0],
    stride: [1, 1],
  }
})
recipe('embedding', (theme, random) => ({
  weight: tensor(theme, [5, 3]),
  indices: indexTensor(theme, anyShape(random, 2)),
}))
recipe('embedding_renorm embedding_renorm_', (theme, random) => {
  floating(theme)
  return { self: tensor(theme, [5, 3]), indices: indexTensor(theme, [random.int(1, 4)]), max_norm: 1, norm_type: 2 }
})
recipe('embedding_bag', (theme, random) => {
  floating(theme)
  const count = random.int(0, 6)
  const last = random.chance(0.3)
  const offsets = Array.from({ length: random.int(1, 4) }, () => random.int(0, count)).sort()
  if (random.chance(0.8)) offsets[0] = 0
  if (random.chance(0.2)) offsets[random.int(0, offsets.length - 1)] = random.pick([-1, 7, 100000, 1e9])
  const integers = random.chance(0.8) ? 'int64' : 'int32'
  return {
    weight: tensor(theme, [5, 3]),
    indices: tensor(theme, [count], {
      dtype: integers,
      values: Array.from({ length: 5 }, () => random.int(random.chance(0.08) ? -3 : 0, random.chance(0.08) ? 9 : 4)),
    }),
    offsets: tensor(theme, [offsets.length], { dtype: integers, values: offsets }),
    mode: random.int(0, 2),
    include_last_offset: last,
    per_sample_weights: random.chance(0.3) ? tensor(theme, [count]) : null,
  }
})
recipe('ctc_loss', (theme, random) => {
  const [steps, batch, classes] = [random.int(1, 5), random.int(1, 3), random.int(1, 4)]
  const lengths = (low, high) =>
    Array.from({ length: batch }, () =>
      random.chance(0.1) ? random.pick([-1, 0, 9, 1000, 2147483648]) : random.int(low, high),
    )
  const flat = random.chance(0.4)
  const [inputLengths, targetLengths] = [lengths(1, steps), lengths(0, 3)]
  const as = (values) => tensor(theme, [batch], { dtype: 'int64', values })
  return {
    log_probs: tensor(theme, [steps, batch, classes], { dtype: random.pick(['float32', 'float64']) }),
    targets: tensor(theme, flat ? [targetLengths.reduce((a, b) => a + Math.max(0, Math.min(b, 9)), 0)] : [batch, 3], {
      dtype: random.pick(['int64', 'int32']),
      values: Array.from({ length: 5 }, () =>
        random.int(random.chance(0.05) ? -5 : 0, classes - (random.chance(0.1) ? 0 : 1)),
      ),
    }),
    input_lengths: { either: [inputLengths, as(inputLengths)] },
    target_lengths: { either: [targetLengths, as(targetLengths)] },
    blank: random.chance(0.8) ? 0 : random.int(-1, classes),
  }
})
recipe('nll_loss cross_entropy_loss multi_margin_loss multilabel_margin_loss', (theme, random) => {
  floating(theme)
  const spatial = random.chance(0.4) ? [random.int(1, 3), random.int(1, 3)] : []
  const [batch, classes] = [random.int(0, 3), random.int(1, 4)]
  return {
    self: tensor(theme, [batch, classes, ...spatial]),
    target: indexTensor({ ...theme, base: [classes], random, shape: theme.shape }, [batch, ...spatial]),
    weight: random.chance(0.6) ? null : tensor(theme, [classes]),
    reduction: random.int(0, 2),
  }
})
recipe('batch_norm instance_norm', (theme, random) => {
  floating(theme)
  const channels = random.int(1, 3)
  const each = () => (random.chance(0.3) ? null : tensor(theme, [channels]))
  return {
    input: tensor(theme, [random.int(1, 3), channels, ...anyShape(random, 2)]),
    weight: each(),
    bias: each(),
    running_mean: each(),
    running_var: each(),
    momentum: 0.1,
    eps: 1e-5,
  }
})
recipe('group_norm channel_shuffle native_channel_shuffle pixel_shuffle pixel_unshuffle', (theme, random) => ({
  input: tensor(theme, [2, 4, 4, 4]),
  self: tensor(theme, [2, 4, 4, 4]),
  num_groups: random.pick([1, 2, 4]),
  groups: random.pick([1, 2, 4]),
  weight: tensor(theme, [4]),
  bias: tensor(theme, [4]),
  upscale_factor: random.int(1, 2),
  downscale_factor: random.int(1, 2),
}))
recipe('grid_sampler grid_sampler_2d grid_sampler_3d', (theme, random) => {
  floating(theme)
  const three = random.chance(0.4)
  const space = () => Array.from({ length: three ? 3 : 2 }, () => random.int(1, 4))
  return {
    input: tensor(theme, [2, random.int(1, 3), ...space()]),
    grid: tensor(theme, [2, ...space(), three ? 3 : 2], {
      values: [
        ...valuesFor(random, 'float32', 5),
        random.pick([0, 1, -1, 1.5, { f: 'NaN' }, { f: 'Infinity' }, 1e9, -1e18, 1e30]),
      ],
    }),
    interpolation_mode: random.int(0, 2),
    padding_mode: random.int(0, 2),
  }
})
recipe('affine_grid_generator', (theme, random) =>
  random.chance(0.5)
    ? { theta: tensor(theme, [2, 2, 3]), size: [2, 1, 3, 3] }
    : { theta: tensor(theme, [2, 3, 4]), size: [2, 1, 2, 3, 3] },
)
recipe('linear bilinear', (theme, random) => ({
  input: tensor(theme, [2, 3]),
  weight: tensor(theme, random.chance(0.5) ? [4, 3] : [4, 3, 2]),
  bias: random.chance(0.5) ? null : tensor(theme, [4]),
  input1: tensor(theme, [2, 3]),
  input2: tensor(theme, [2, 2]),
}))
recipe('scaled_dot_product_attention', (theme, random) => {
  floating(theme)
  const [length, other, width] = [random.int(0, 4), random.int(0, 4), random.int(0, 4)]
  return {
    query: tensor(theme, [2, 2, length, width]),
    key: tensor(theme, [2, 2, other, width]),
    value: tensor(theme, [2, 2, other, width]),
    attn_mask: random.chance(0.6) ? null : tensor(theme, [length, other], random.chance(0.5) ? { dtype: 'bool' } : {}),
    dropout_p: random.pick([0, 0, 0.5, 1]),
    is_causal: random.chance(0.3),
  }
})
recipe('linalg_ldl_solve linalg_lu_solve lu_solve lu_unpack', (theme, random) => {
  floating(theme)
  const n = random.int(1, 4)
  const batch = random.chance(0.3) ? [2] : []
  const matrix = tensor(theme, [...batch, n, n])
  const pivots = tensor(theme, [...batch, n], {
    dtype: 'int32',
    values: random.chance(0.6)
      ? Array.from({ length: n }, (_, k) => k + 1)
      : Array.from({ length: n }, () => random.pick([0, -1, 1, 2, n, n + 1, -n, -n - 1, 100, 100000, -100000])),
  })
  const right = tensor(theme, [...batch, n, random.int(0, 3)])
  return { LD: matrix, LU: matrix, LU_data: matrix, self: right, B: right, pivots, LU_pivots: pivots }
})
recipe('ormqr orgqr linalg_householder_product', (theme, random) => {
  floating(theme)
  const [m, n] = [random.int(1, 4), random.int(1, 4)]
  const k = random.int(0, Math.min(m, n))
  return {
    self: tensor(theme, [m, k]),
    input: tensor(theme, [m, k]),
    input2: tensor(theme, [k]),
    tau: tensor(theme, [k]),
    input3: tensor(theme, random.chance(0.5) ? [m, n] : [n, m]),
  }
})
recipe(
  'linalg_lstsq linalg_solve linalg_solve_ex linalg_solve_triangular triangular_solve cholesky_solve linalg_tensorsolve',
  (theme, random) => {
    floating(theme)
    const n = random.int(0, 3)
    const batch = random.chance(0.3) ? [2] : []
    const matrix = tensor(theme, [...batch, n, n])
    const right = tensor(theme, [...batch, n, random.int(0, 3)])
    return { self: matrix, A: matrix, B: right, b: right, other: tensor(theme, [n]), input2: matrix }
  },
)
recipe(
  'gather scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ take_along_dim index_add index_add_ index_copy index_copy_ index_fill index_fill_ index_reduce index_reduce_ index_select',
  (theme, random) => {
    const shape = theme.base.length === 0 ? [3] : theme.base
    const dim = random.int(0, shape.length - 1)
    const line = random.chance(0.5)
    const index = indexTensor(theme, line ? [random.int(0, 3)] : shape.map((size) => random.int(1, Math.max(1, size))))
    const source = line ? shape.map((size, at) => (at === dim ? index.t[0] : size)) : shape
    return {
      self: tensor(theme, shape),
      dim,
      index,
      indices: index,
      src: tensor(theme, source),
      source: tensor(theme, source),
    }
  },
)
recipe('put put_ take', (theme) => ({ index: indexTensor(theme, [3]), source: tensor(theme, [3]) }))
recipe('searchsorted bucketize', (theme, random) => {
  const count = random.int(0, 4)
  const sorter = tensor(theme, [count], {
    dtype: 'int64',
    values: random.chance(0.6)
      ? Array.from({ length: count }, (_, k) => k)
      : [0, 1, random.pick([-1, 5, 100000, -100000, 1e9])],
  })
  return {
    sorted_sequence: tensor(theme, [count]),
    boundaries: tensor(theme, [count]),
    sorter: random.chance(0.5) ? sorter : null,
  }
})
recipe('stft istft', (theme, random) => {
  const fft = random.pick([2, 4, 5])
  return {
    self: random.chance(0.5)
      ? tensor(theme, [2, 16])
      : tensor(theme, [2, Math.floor(fft / 2) + 1, 5], { dtype: 'complex64' }),
    n_fft: fft,
    window: random.chance(0.5) ? null : tensor(theme, [fft], { values: [1] }),
    hop_length: random.int(0, 3),
    win_length: random.chance(0.7) ? null : fft,
    return_complex: random.chance(0.7),
  }
})
recipe('as_strided as_strided_ as_strided_scatter as_strided_copy', (theme, random) => {
  const rank = random.int(0, 3)
  const size = Array.from({ length: rank }, () => random.int(0, 3))
  return {
    self: tensor(theme, [4, 4]),
    src: tensor(theme, size),
    size,
    stride: size.map(() => random.int(0, 3)),
    storage_offset: random.chance(0.5) ? null : random.int(0, 3),
  }
})
recipe('repeat_interleave', (theme, random) => ({
  repeats: random.chance(0.3)
    ? random.int(0, 3)
    : tensor(theme, [theme.base[0] ?? 1], { dtype: 'int64', values: [1, random.pick([0, 2, -1, 3])] }),
  dim: random.chance(0.5) ? 0 : null,
  output_size: random.chance(0.6) ? null : random.pick([0, 1, 4, 100]),
}))
recipe('histogram histogramdd histc bincount', (theme, random) => ({
  self: tensor(theme, random.chance(0.5) ? [6] : [5, 2], { dtype: random.chance(0.5) ? 'float32' : 'int64' }),
  bins: random.chance(0.5) ? random.int(1, 5) : tensor(theme, [4], { dtype: 'float32', values: [0, 1, 2, 3] }),
  minlength: random.int(0, 5),
  weight: null,
}))
recipe('multinomial', (theme, random) => ({
  self: tensor(theme, random.chance(0.5) ? [4] : [2, 4], {
    dtype: 'float32',
    values: [0.5, random.pick([0, 1, -1, { f: 'NaN' }, { f: 'Infinity' }]), 1],
  }),
  num_samples: random.int(1, 4),
  replacement: random.chance(0.5),
}))
recipe('einsum', (theme) => ({
  tensors: [anyTensor(theme, { shape: [theme.n, theme.n] }), anyTensor(theme, { shape: [theme.n, theme.n] })],
}))
recipe('cdist pdist pairwise_distance cosine_similarity linalg_vecdot', (theme, random) => ({
  x1: tensor(theme, [random.int(0, 3), theme.n]),
  x2: tensor(theme, [random.int(0, 3), theme.n]),
  self: tensor(theme, [random.int(0, 3), theme.n]),
}))
recipe('cross linalg_cross', (theme) => ({ self: tensor(theme, [2, 3]), other: tensor(theme, [2, 3]), dim: 1 }))
recipe('sparse_coo_tensor', (theme, random) => ({
  indices: tensor(theme, [2, 3], { dtype: 'int64', values: [0, 1, random.pick([0, 2, -1, 5, 100000])] }),
  values: tensor(theme, [3]),
  size: [3, 3],
}))
recipe('sparse_csr_tensor sparse_csc_tensor sparse_compressed_tensor', (theme, random) => {
  const crow = tensor(theme, [4], {
    dtype: 'int64',
    values: random.chance(0.6) ? [0, 1, 2, 3] : [0, random.pick([-1, 1, 5]), random.pick([2, 100000]), 3],
  })
  const col = tensor(theme, [3], {
    dtype: 'int64',
    values: random.chance(0.6) ? [0, 1, 2] : [0, random.pick([-1, 7, 100000]), 1],
  })
  return {
    crow_indices: crow,
    ccol_indices: crow,
    compressed_indices: crow,
    col_indices: col,
    row_indices: col,
    plain_indices: col,
    values: tensor(theme, [3]),
    size: [3, 3],
    layout: random.pick(['sparse_csr', 'sparse_csc', 'sparse_bsr']),
  }
})
recipe('lstm gru rnn_tanh rnn_relu', (theme, random) => {
  floating(theme)
  const [steps, batch, width, size] = [random.int(1, 3), random.int(1, 2), random.int(1, 3), random.int(1, 3)]
  const [layers, both, biases] = [random.int(1, 2), random.chance(0.3), random.chance(0.7)]
  const directions = both ? 2 : 1
  const make = (gates) => {
    const params = []
    for (let layer = 0; layer < layers; layer += 1) {
      for (let direction = 0; direction < directions; direction += 1) {
        params.push(
          tensor(theme, [gates * size, layer === 0 ? width : size * directions]),
          tensor(theme, [gates * size, size]),
        )
        if (biases) params.push(tensor(theme, [gates * size]), tensor(theme, [gates * size]))
      }
    }
    return params
  }
  const state = () => tensor(theme, [layers * directions, batch, size])
  return {
    input: tensor(theme, [steps, batch, width]),
    data: tensor(theme, [steps * batch, width]),
    batch_sizes: tensor(theme, [steps], { dtype: 'int64', values: [batch] }),
    hx: { either: [[state(), state()], state()] },
    params: make(random.pick([4, 3, 1])),
    has_biases: biases,
    num_layers: layers,
    dropout: 0,
    train: random.chance(0.3),
    bidirectional: both,
    batch_first: false,
  }
})
recipe('lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell', (theme, random) => {
  floating(theme)
  const [batch, width, size, gates] = [random.int(1, 2), random.int(1, 3), random.int(1, 3), random.pick([4, 3, 1])]
  const state = () => tensor(theme, [batch, size])
  const bias = () => (random.chance(0.3) ? null : tensor(theme, [gates * size]))
  return {
    input: tensor(theme, [batch, width]),
    hx: { either: [[state(), state()], state()] },
    w_ih: tensor(theme, [gates * size, width]),
    w_hh: tensor(theme, [gates * size, size]),
    b_ih: bias(),
    b_hh: bias(),
  }
})
recipe('native_batch_norm', (theme, random) => {
  floating(theme)
  const channels = random.int(1, 3)
  const each = () => (random.chance(0.3) ? null : tensor(theme, [channels]))
  return {
    input: tensor(theme, [random.int(1, 3), channels, ...anyShape(random, 2)]),
    weight: each(),
    bias: each(),
    running_mean: each(),
    running_var: each(),
    momentum: 0.1,
    eps: 1e-5,
  }
})
recipe('native_group_norm', (theme, random) => {
  floating(theme)
  return {
    input: tensor(theme, [2, 4, 3]),
    weight: random.chance(0.5) ? null : tensor(theme, [4]),
    bias: random.chance(0.5) ? null : tensor(theme, [4]),
    N: 2,
    C: 4,
    HxW: 3,
    group: random.pick([1, 2, 4]),
    eps: 1e-5,
  }
})
recipe('native_layer_norm', (theme) => {
  floating(theme)
  return {
    input: tensor(theme, [2, 3, 4]),
    normalized_shape: [4],
    weight: tensor(theme, [4]),
    bias: tensor(theme, [4]),
  }
})
recipe('unflatten_dense_tensors', (theme) => ({
  flat: tensor(theme, [6]),
  tensors: [tensor(theme, [2, 2]), tensor(theme, [2])],
}))
recipe('pad constant_pad_nd', (theme, random) => ({
  pad: Array.from({ length: 2 * random.int(0, Math.max(1, theme.base.length)) }, () => random.int(-2, 3)),
}))
recipe('cov corrcoef', (theme, random) => ({
  self: tensor(theme, [2, 4]),
  fweights: random.chance(0.5) ? null : tensor(theme, [4], { dtype: 'int64', values: [1, 2, random.int(-1, 3)] }),
  aweights: random.chance(0.5) ? null : tensor(theme, [4], { values: [1, random.pick([0, 2, -1])] }),
}))
recipe('unfold', (theme, random) => ({
  self: tensor(theme, [4, 4]),
  dimension: random.int(-2, 1),
  size: random.int(0, 4),
  step: random.int(1, 3),
}))
recipe('rms_norm layer_norm', (theme, random) => {
  floating(theme)
  const shape = theme.base.slice(-random.int(1, 2))
  return {
    normalized_shape: shape,
    weight: random.chance(0.4) ? null : tensor(theme, shape),
    bias: random.chance(0.4) ? null : tensor(theme, shape),
  }
})

/**
 * One call: the values of an operator's arguments in the schema's order, undefined ({u: 1}) for those left out.
 *
 * @param {Random} random @param {string} name without the namespace @param {readonly any[]} schema
 */
export function makeArguments(random, name, schema) {
  const theme = new Theme(random)
  const given = recipes[name] !== undefined && random.chance(0.85) ? recipes[name](theme) : {}
  const values = schema.map((argument) => {
    let value = given[argument.name]
    if (value !== null && typeof value === 'object' && 'either' in value)
      value = value.either[argument.kind === 'Tensor' && !argument.list ? 1 : 0]
    if (value !== undefined && isTensor(value) === (argument.kind === 'Tensor' && !argument.list)) return value
    if (Array.isArray(value) && argument.list) return value
    if (argument.hasDefault && random.chance(argument.keywordOnly ? 0.6 : 0.4)) return { u: 1 }
    return plausible(theme, argument)
  })
  const mutations = random.pick([0, 0, 0, 1, 1, 1, 1, 2, 2, 3])
  for (let k = 0; k < mutations && values.length > 0; k += 1) {
    const at = random.int(0, values.length - 1)
    values[at] = wrong(theme, schema[at], values[at]?.u === 1 ? plausible(theme, schema[at]) : values[at])
  }
  return values
}

/** Values that fit no schema at all. @param {Random} random */
export function junk(random) {
  const theme = new Theme(random)
  return Array.from({ length: random.int(0, 6) }, () =>
    random.chance(0.4)
      ? anyTensor(theme)
      : random.chance(0.5)
        ? random.pick(oddValues)
        : random.pick([...oddNumbers, ...hugeNumbers]),
  )
}
