import { native } from './native.js'
import { Tensor } from './tensor.js'
import { Float } from './types.js'

/*
 * What libtorch does not check itself. Most operators refuse wrong arguments with a sentence; those below read or write
 * outside of their tensors, divide by zero, loop for ever, or fail an internal assertion. Each guard says how libtorch
 * fails without it (found by test/torch/fuzz, whose regressions.mjs has a call for each). Guards hold for every way to
 * an operator, callOperator() included; operators without one pay nothing.
 *
 * Values inside of tensors are looked at only on the CPU: on a GPU the kernels check with device assertions, and
 * reading values would make it wait.
 */

/** An operator's arguments by name, in camel case; undefined where the default is taken. */
type Given = Readonly<Record<string, unknown>>

/** What is wrong ("expected ..., but received ..."), or undefined. */
export type Guard = (given: Given) => string | undefined

const isTensor = (value: unknown): value is Tensor => value instanceof Tensor

/** A number, or NaN for what is none. */
function asNumber(value: unknown): number {
  if (typeof value === 'number' || typeof value === 'bigint') return Number(value)
  return value instanceof Float ? value.float : Number.NaN
}

/** A list of numbers, where one number may stand for all. */
function asNumbers(value: unknown): number[] {
  if (Array.isArray(value)) return value.map(asNumber)
  return value === undefined || value === null ? [] : [asNumber(value)]
}

function wraps(tensors: readonly unknown[], run: (tensor: Tensor) => boolean): boolean {
  return tensors.some((tensor) => isTensor(tensor) && run(tensor))
}

function needsGraph(...values: readonly unknown[]): boolean {
  return native.isGradEnabled() && wraps(values, (tensor) => tensor.requiresGrad)
}

function hasValues(tensor: Tensor): boolean {
  return tensor.device === 'cpu' && tensor.layout === 'strided' && tensor.numel() > 0
}

const integerDtypes = new Set(['int64', 'int32', 'int16', 'int8', 'uint8'])

/** The values of a small tensor of integers on the CPU, row by row; undefined for others. */
function integersOf(value: unknown): number[] | undefined {
  if (!isTensor(value) || !hasValues(value) || !integerDtypes.has(value.dtype)) return undefined
  return Array.from(value.toTypedArray() as ArrayLike<number | bigint>, Number)
}

let extremaId: number | undefined

/** The smallest and the largest value of a real tensor on the CPU (NaN where there is one); undefined for others. */
function extremaOf(value: unknown): [number, number] | undefined {
  if (!isTensor(value) || !hasValues(value) || /complex|bool|^uint(16|32|64)|float8/.test(value.dtype)) return undefined
  extremaId ??= native.lookup('aten::aminmax', '')?.id
  if (extremaId === undefined) return undefined
  const handles = native.call(extremaId, value.handle) as [number, number]
  const found = handles.map((handle) => Number(native.item(handle))) as [number, number]
  for (const handle of handles) native.release(handle)
  return found
}

/** Whether all values of an index are inside [low, high). */
function outside(name: string, value: unknown, low: number, high: number): string | undefined {
  const extrema = extremaOf(value)
  if (extrema === undefined) return undefined
  const [smallest, largest] = extrema
  if (smallest >= low && largest < high) return undefined
  return `expected ${name} to hold values from ${low} to ${high - 1}, but received ${smallest < low ? smallest : largest}`
}

function shapeText(tensor: Tensor): string {
  return `[${tensor.shape.join(', ')}]`
}

/** 0 none, 1 mean, 2 sum. Others fail an internal assertion in some losses, and are taken for a sum in others. */
function reduction({ reduction: value }: Given): string | undefined {
  if (value === undefined) return undefined
  const number = asNumber(value)
  return number === 0 || number === 1 || number === 2
    ? undefined
    : `expected reduction to be 0 (none), 1 (mean) or 2 (sum), but received ${String(value)}`
}

/** Strides and an offset so large that the extent in bytes overflows 64 bits pass libtorch's check of the bounds. */
function strided({ size, stride, storageOffset, self }: Given): string | undefined {
  const sizes = asNumbers(size)
  const strides = asNumbers(stride)
  let extent = asNumber(storageOffset ?? 0)
  const negative = sizes.find((each) => each < 0)
  if (negative !== undefined) return `expected size not to be negative, but received ${negative}`
  for (const [k, each] of sizes.entries()) {
    if (each === 0) return undefined
    extent += (each - 1) * (strides[k] ?? 0)
  }
  if (extent < Number.MAX_SAFE_INTEGER / 16) return undefined
  return `expected size, stride and storageOffset to stay inside of the storage of ${isTensor(self) ? self.storageBytes() : 0} bytes, but the last element would be number ${extent}`
}

/** fails an internal assertion for a tensor that requires grad and has gaps */
function stridedScatter(given: Given): string | undefined {
  const { self } = given
  if (isTensor(self)) {
    if (self.layout !== 'strided') return `expected self to be of the layout strided, but received ${self.layout}`
    if (needsGraph(self) && !isContiguous(self))
      return 'expected self to be contiguous where it requires grad; call contiguous() first'
  }
  return strided(given)
}

function isContiguous(tensor: Tensor): boolean {
  const { shape } = tensor
  const strides = tensor.stride()
  let expected = 1
  for (let k = shape.length - 1; k >= 0; k -= 1) {
    if (shape[k] !== 1 && strides[k] !== expected) return false
    expected *= shape[k]!
  }
  return true
}

/** Targets outside of the classes are read from beyond the probabilities, silently; the steps of flat ones are not looked at. */
function ctcLoss(given: Given): string | undefined {
  const { logProbs, targets, targetLengths } = given
  if (!isTensor(logProbs) || !isTensor(targets) || logProbs.ndim < 2) return reduction(given)
  if (!integerDtypes.has(targets.dtype)) return `expected targets of int64 or int32, but received ${targets.dtype}`
  const values = integersOf(targets)
  const lengths = isTensor(targetLengths) ? integersOf(targetLengths) : asNumbers(targetLengths)
  if (values === undefined || lengths === undefined) return reduction(given)
  if (targets.ndim === 1 && !isContiguous(targets))
    return 'expected targets in one dimension to be contiguous; call contiguous() first'
  const classes = logProbs.shape.at(-1)!
  const width = targets.ndim === 2 ? targets.shape[1]! : undefined
  let start = 0
  for (const [row, length] of lengths.entries()) {
    // what is behind a row's length is padding
    const used =
      width === undefined
        ? values.slice(start, start + length)
        : values.slice(row * width, row * width + Math.min(length, width))
    const wrong = used.find((value) => !(value >= 0 && value < classes))
    if (wrong !== undefined) return `expected targets to be classes from 0 to ${classes - 1}, but received ${wrong}`
    if (length > 0) start += length
  }
  return reduction(given)
}

/** Bags that end beyond the indices, begin before others, or leave indices over are written outside of the result. */
function embeddingBag({ weight, indices, offsets, includeLastOffset }: Given): string | undefined {
  if (!isTensor(weight) || !isTensor(indices) || !isTensor(offsets)) return undefined
  if (indices.ndim !== 1)
    return `expected indices in one dimension, with offsets that part them, but received the shape ${shapeText(indices)}`
  if (offsets.ndim !== 1) return `expected offsets in one dimension, but received the shape ${shapeText(offsets)}`
  if (weight.ndim === 2) {
    const wrong = outside('indices', indices, 0, weight.shape[0]!)
    if (wrong !== undefined) return wrong
  }
  const count = indices.numel()
  if (offsets.shape[0] === 0 && count > 0) return `expected offsets that part the ${count} indices, but received none`
  const starts = integersOf(offsets)
  if (starts === undefined) return undefined
  if (starts[0] !== 0) return `expected offsets to begin with 0, but received ${starts[0]}`
  for (const [k, start] of starts.entries()) {
    if (start > count) return `expected offsets of at most ${count}, the number of indices, but received ${start}`
    if (k > 0 && start < starts[k - 1]!)
      return `expected offsets that do not fall, but received ${start} after ${starts[k - 1]}`
  }
  if (includeLastOffset === true && starts.at(-1) !== count) {
    return `expected the last of the offsets to be ${count}, the number of indices, since includeLastOffset is true, but received ${starts.at(-1)}`
  }
  return undefined
}

/** The gradient of positions that are not finite, or not once they are counted in pixels, is written outside of the input. */
function gridSampler({ input, grid, paddingMode }: Given): string | undefined {
  if (asNumber(paddingMode) === 0 || !needsGraph(input, grid)) return undefined
  const extrema = extremaOf(grid)
  if (extrema === undefined || extrema.every((each) => Math.abs(each) < 1e30)) return undefined
  return `expected grid to be finite with border and reflection padding and gradients, but it holds ${extrema.find((each) => !(Math.abs(each) < 1e30))}`
}

/** LAPACK swaps rows by pivots without a look at them. */
function pivotsOf(name: string, value: unknown, matrix: unknown, paired: boolean): string | undefined {
  if (!isTensor(value) || value.ndim === 0 || !isTensor(matrix) || matrix.ndim < 2) return undefined
  const pivots = integersOf(value)
  if (pivots === undefined) return undefined
  const rows = matrix.shape.at(-2)!
  const n = value.shape.at(-1)!
  for (let k = 0; k < pivots.length; k += 1) {
    const pivot = pivots[k]!
    const inside = pivot !== 0 && Math.abs(pivot) <= rows && (paired || pivot > 0)
    if (!inside)
      return `expected ${name} to hold rows from 1 to ${rows}${paired ? ', negative ones for blocks of two' : ''}, but received ${pivot}`
    if (pivot < 0) {
      // a block of two rows has the same negative pivot twice
      const next = (k + 1) % n === 0 ? undefined : pivots[k + 1]
      if (next !== pivot)
        return `expected a negative value of ${name} to come twice in a row, but received ${pivot} alone`
      k += 1
    }
  }
  return undefined
}

/** As many pivots as are read. */
function luUnpack({ LUData, LUPivots, unpackData }: Given): string | undefined {
  if (!isTensor(LUData) || !isTensor(LUPivots) || LUData.ndim < 2) return undefined
  const [rows, columns] = LUData.shape.slice(-2) as [number, number]
  const wanted = [...LUData.shape.slice(0, -2), Math.min(rows, columns)]
  if (String(LUPivots.shape) !== String(wanted))
    return `expected LUPivots of the shape [${wanted.join(', ')}] for a matrix of the shape ${shapeText(LUData)}, but received ${shapeText(LUPivots)}`
  return pivotsOf('LUPivots', LUPivots, LUData, false) ?? luUnpackGradient({ LUData, unpackData })
}

/** A tensor without plain memory comes back without any, and is then read, or fails an internal assertion. */
function stridedOnly({ self, src }: Given): string | undefined {
  for (const [name, each] of Object.entries({ self, src })) {
    if (isTensor(each) && each.layout !== 'strided')
      return `expected ${name} to be of the layout strided, but received ${each.layout}`
  }
  return undefined
}

/** A memory format is laid over memory that is too small for it where the tensor was expanded or has gaps. */
function resize(given: Given): string | undefined {
  const { self, memoryFormat } = given
  if (isTensor(self) && typeof memoryFormat === 'string' && self.layout === 'strided' && self.device !== 'meta') {
    const room = self.storageBytes() - self.storageOffset() * self.elementSize()
    if (self.nbytes > room)
      return `expected self to have memory of its own for each element where memoryFormat is given, but it has ${room} bytes for ${self.nbytes}`
  }
  return stridedOnly(given)
}

/** Copies into a compressed tensor from a plain one read what is not there. */
function copy({ self, src }: Given): string | undefined {
  return isTensor(self) && isTensor(src) && self.layout !== src.layout
    ? `expected src to be of the layout ${self.layout} as self is, but received ${src.layout}`
    : undefined
}

/** The gradient of what is not asked for is computed all the same, from tensors without elements. */
function luUnpackGradient({ LUData, unpackData }: Given): string | undefined {
  return unpackData === false && needsGraph(LUData)
    ? 'expected LUData not to require grad where unpackData is false; call detach() first'
    : undefined
}

/** libtorch's kernel for these dtypes fails an internal assertion, whatever the values. */
function indexReduce({ self, source, reduce, includeSelf }: Given): string | undefined {
  if (!isTensor(self) || (self.dtype !== 'bfloat16' && self.dtype !== 'float16')) return undefined
  return includeSelf === false || (reduce === 'prod' && needsGraph(self, source))
    ? `expected self of float32 or float64 where includeSelf is false, or for the gradient of 'prod', since libtorch has no working kernel for ${self.dtype}`
    : undefined
}

/** Values with gaps are read and written as if there were none, where steps over one element count too. */
function sparseValues({ values }: Given): string | undefined {
  if (!isTensor(values) || values.layout !== 'strided') return undefined
  const { shape } = values
  const exact = values
    .stride()
    .every((stride, dim) => stride === shape.slice(dim + 1).reduce((total, size) => total * Math.max(size, 1), 1))
  return isContiguous(values) && (exact || values.ndim < 2)
    ? undefined
    : "expected values without gaps in memory; call clone({ memoryFormat: 'contiguous_format' }) first"
}

/** The rows of each step of packed sequences. */
function packedSizes(batchSizes: Tensor, rows: number, batch: number): string | undefined {
  const sizes = integersOf(batchSizes)
  const fits =
    sizes !== undefined &&
    batchSizes.ndim === 1 &&
    sizes[0] === batch &&
    sizes.every((size, k) => size > 0 && (k === 0 || size <= sizes[k - 1]!)) &&
    sizes.reduce((total, size) => total + size, 0) === rows
  return fits
    ? undefined
    : `expected batchSizes to be whole numbers from ${batch} down to 1 with the sum ${rows}, but received ${sizes === undefined ? shapeText(batchSizes) : `[${sizes.join(', ')}]`}`
}

/** The weights of all layers are taken from a flat list, in fours or twos, without a look at its length and their shapes. */
function recurrent(gates: number): Guard {
  return ({ input, data, batchSizes, hx, params, hasBiases, numLayers, bidirectional, batchFirst }) => {
    const hidden = Array.isArray(hx) ? hx[0] : hx
    const cell = Array.isArray(hx) ? hx[1] : hx
    const x = input ?? data
    if (!isTensor(hidden) || !isTensor(cell) || !isTensor(x) || !Array.isArray(params))
      return Array.isArray(hx) ? `expected hx to be two tensors, but received ${hx.length}` : undefined
    if (Array.isArray(hx) && hx.length !== 2) return `expected hx to be two tensors, but received ${hx.length}`
    const rank = isTensor(batchSizes) ? 2 : 3
    if (x.ndim !== rank)
      return `expected ${rank === 2 ? 'data' : 'input'} to have ${rank} dimensions, but received the shape ${shapeText(x)}`
    if (hidden.ndim !== 3 || cell.ndim !== 3)
      return `expected hx to have 3 dimensions, but received the shape ${shapeText(hidden)}`
    const packed = isTensor(batchSizes) ? packedSizes(batchSizes, x.shape[0]!, hidden.shape.at(-2)!) : undefined
    if (packed !== undefined) return packed
    const size = cell.shape.at(-1)!
    const output = hidden.shape.at(-1)!
    const directions = bidirectional === true ? 2 : 1
    const layers = asNumber(numLayers)
    const batch = isTensor(batchSizes) ? hidden.shape[1]! : x.shape[batchFirst === true ? 0 : 1]!
    for (const [each, last] of [
      [hidden, output],
      [cell, size],
    ] as const) {
      const wantedState = [layers * directions, batch, last]
      if (String(each.shape) !== String(wantedState))
        return `expected hx of the shape [${wantedState.join(', ')}], but received ${shapeText(each)}`
    }
    const wanted: number[][] = []
    if (layers * directions * 2 > params.length)
      return `expected params for ${layers} layers and ${directions} directions, but received ${params.length} tensors`
    for (let layer = 0; layer < layers; layer += 1) {
      for (let direction = 0; direction < directions; direction += 1) {
        wanted.push([gates * size, layer === 0 ? x.shape.at(-1)! : output * directions], [gates * size, output])
        if (hasBiases === true) wanted.push([gates * size], [gates * size])
        if (output !== size) wanted.push([output, size])
      }
    }
    const given = params.map((each) => (isTensor(each) ? each.shape : []))
    if (String(wanted.map(String)) === String(given.map(String)) && wanted.length === given.length) return undefined
    return `expected params of the shapes ${JSON.stringify(wanted)}, but received ${JSON.stringify(given)}`
  }
}

/** MKL reads beyond a right side without columns. */
function leastSquares({ self, b }: Given): string | undefined {
  if (isTensor(self) && isTensor(b) && b.numel() === 0 && self.numel() > 0) {
    return `expected b to have elements, but received the shape ${shapeText(b)}`
  }
  return finite('self', self) ?? finite('b', b)
}

/** LAPACK's refusal of NaN and Infinity arrives as an internal assertion. */
function finite(name: string, value: unknown): string | undefined {
  if (!isTensor(value) || !/^b?float|^complex/.test(value.dtype) || !hasValues(value)) return undefined
  const real = value.dtype.startsWith('complex') ? realExtrema(value) : extremaOf(value)
  return real === undefined || real.every(Number.isFinite)
    ? undefined
    : `expected ${name} to be finite, but it holds NaN or Infinity`
}

function realExtrema(value: Tensor): [number, number] {
  const numbers = value.toTypedArray() as ArrayLike<number>
  for (let k = 0; k < numbers.length; k += 1) if (!Number.isFinite(numbers[k])) return [Number.NaN, Number.NaN]
  return [0, 0]
}

const floating = /^b?float(16|32|64)$/

/** Scales, shifts and running statistics are read by the input's channels, whatever their own number is. */
function batchNorm({ input, ...others }: Given): string | undefined {
  if (!isTensor(input) || input.ndim < 2)
    return isTensor(input)
      ? `expected input to have at least 2 dimensions, but received the shape ${shapeText(input)}`
      : undefined
  if (!floating.test(input.dtype)) return `expected input to be of a floating dtype, but received ${input.dtype}`
  const channels = input.shape[1]!
  const dtypes = new Set<string>()
  for (const name of ['weight', 'bias', 'runningMean', 'runningVar']) {
    const each = others[name]
    if (isTensor(each)) dtypes.add(each.dtype)
    if (isTensor(each) && (each.ndim !== 1 || each.shape[0] !== channels)) {
      return `expected ${name} to be of the shape [${channels}], one for each channel, but received ${shapeText(each)}`
    }
    if (isTensor(each) && !floating.test(each.dtype))
      return `expected ${name} to be of a floating dtype, but received ${each.dtype}`
    if (
      !isTensor(each) &&
      name.startsWith('running') &&
      (others.training === false || others.useInputStats === false)
    ) {
      return `expected ${name}, which is used where the statistics do not come from the input, but it is missing`
    }
  }
  if (dtypes.size > 1)
    return `expected weight, bias, runningMean and runningVar of one dtype, but received ${[...dtypes].join(' and ')}`
  return undefined
}

/** The numbers of samples, channels and groups are trusted: zero groups divide by zero, others read beyond. */
function nativeGroupNorm({ input, weight, bias, N, C, HxW, group }: Given): string | undefined {
  const [samples, channels, pixels, groups] = [asNumber(N), asNumber(C), asNumber(HxW), asNumber(group)]
  if (!(groups >= 1) || channels % groups !== 0)
    return `expected group to divide the ${channels} channels, but received ${groups}`
  if (isTensor(input) && input.numel() !== samples * channels * pixels) {
    return `expected N * C * HxW to be the ${input.numel()} elements of input, but received ${samples} * ${channels} * ${pixels}`
  }
  for (const [name, each] of Object.entries({ weight, bias })) {
    if (isTensor(each) && each.numel() !== channels)
      return `expected ${name} to have ${channels} elements, one for each channel, but received ${shapeText(each)}`
  }
  for (const [name, each] of Object.entries({ input, weight, bias })) {
    if (isTensor(each) && !isContiguous(each)) return `expected ${name} to be contiguous; call contiguous() first`
  }
  return undefined
}

/** The gradient for no rows at all reads from nothing. */
function pdist({ self }: Given): string | undefined {
  return isTensor(self) && self.shape[0] === 0 && needsGraph(self)
    ? 'expected self to have rows where it requires grad'
    : undefined
}

/** Negative repeats are found only after the result was written, beyond its end. */
function repeatInterleave({ repeats }: Given): string | undefined {
  const extrema = isTensor(repeats) ? extremaOf(repeats) : undefined
  return extrema !== undefined && extrema[0] < 0
    ? `expected repeats not to be negative, but received ${extrema[0]}`
    : undefined
}

/** Looks for a sample for ever where there is none. */
function binomial({ count, prob }: Given): string | undefined {
  return finite('count', count) ?? finite('prob', prob)
}

/** For the largest int64 the kernel looks for the number above it for ever. */
function randomFrom({ from }: Given): string | undefined {
  return Math.abs(asNumber(from)) > Number.MAX_SAFE_INTEGER
    ? `expected from to be a safe whole number, but received ${String(from)}`
    : undefined
}

/** libtorch 2.13 reads beyond an expanded tensor here and returns what lies there (Python's too). */
function median({ self }: Given): string | undefined {
  if (!isTensor(self) || self.device !== 'cpu' || self.layout !== 'strided') return undefined
  const { shape } = self
  return self.stride().some((stride, dim) => stride === 0 && shape[dim]! > 1)
    ? 'expected self not to be an expanded tensor, of which libtorch takes a wrong median; call contiguous() first'
    : undefined
}

/** Pivots are not repeated with the matrix where B has more batches. */
function ldlSolve({ LD, pivots, B }: Given): string | undefined {
  if (isTensor(LD) && isTensor(B) && LD.ndim >= 2 && B.ndim >= 2) {
    const [own, others] = [LD.shape.slice(0, -2), B.shape.slice(0, -2)]
    const fits =
      others.length <= own.length &&
      others.every((size, k) => size === 1 || size === own[own.length - others.length + k])
    if (!fits)
      return `expected LD to have the batches of B already, of the shape ${shapeText(B)}, but received ${shapeText(LD)}; call expand() on LD and pivots first`
  }
  return pivotsOf('pivots', pivots, LD, true)
}

/** Sizes that overflow 64 bits pass the checks of the size. */
function padding({ pad, padding: amounts }: Given): string | undefined {
  const wrong = asNumbers(pad ?? amounts).find((each) => Math.abs(each) > 2 ** 47)
  return wrong === undefined ? undefined : `expected padding that memory could hold, but received ${wrong}`
}

/** Sizes are cut to 32 bits after they were checked. */
function windows(given: Given): string | undefined {
  for (const name of ['outputSize', 'kernelSize', 'dilation', 'padding', 'stride']) {
    const wrong = asNumbers(given[name]).find((each) => Math.abs(each) >= 2 ** 31)
    if (wrong !== undefined) return `expected ${name} below 2^31, but received ${wrong}`
  }
  return undefined
}

/** The shapes of one step's state and weights are taken for granted. */
function recurrentCell(gates: number): Guard {
  return ({ input, hx, wIh, wHh, bIh, bHh }) => {
    const states: readonly unknown[] = Array.isArray(hx) ? hx : [hx]
    if (states.length !== (gates === 4 ? 2 : 1)) return `expected hx to be two tensors, but received ${states.length}`
    const first = states[0]
    if (!isTensor(input) || !isTensor(first)) return undefined
    const [batch, width] = [input.shape.slice(0, -1), input.shape.at(-1) ?? 0]
    const size = first.shape.at(-1) ?? 0
    const wanted: readonly [string, unknown, readonly number[]][] = [
      ...states.map((state): [string, unknown, readonly number[]] => ['hx', state, [...batch, size]]),
      ['wIh', wIh, [gates * size, width]],
      ['wHh', wHh, [gates * size, size]],
      ['bIh', bIh, [gates * size]],
      ['bHh', bHh, [gates * size]],
    ]
    if (input.ndim === 0 || input.ndim > 2)
      return `expected input to have 1 or 2 dimensions, but received the shape ${shapeText(input)}`
    for (const [name, each, shape] of wanted) {
      if (isTensor(each) && String(each.shape) !== String(shape))
        return `expected ${name} of the shape [${shape.join(', ')}], but received ${shapeText(each)}`
    }
    return undefined
  }
}

/** A window that steps over the whole input gives a position outside of it, and the gradient is written there. */
function maxPool(rank: number): Guard {
  return (given) => {
    const { self, padding: around, dilation } = given
    if (!isTensor(self) || self.ndim < rank) return undefined
    const sizes = self.shape.slice(-rank)
    const each = (value: unknown, otherwise: number, k: number) => {
      const list = asNumbers(value)
      return list[k] ?? list[0] ?? otherwise
    }
    for (const [k, size] of sizes.entries()) {
      const step = each(dilation, 1, k)
      if (each(around, 0, k) > 0 && step > size) {
        return `expected a dilation of at most ${size}, the size that is pooled, where there is padding, but received ${step}`
      }
    }
    return rank === 1 ? maxPool1d(given) : undefined
  }
}

/** No elements in one dimension, and a walk through 2^62 in another. */
function adaptivePool({ outputSize }: Given): string | undefined {
  const wrong = asNumbers(outputSize).find((each) => each > 2 ** 24)
  return wrong === undefined ? undefined : `expected outputSize to be at most ${2 ** 24}, but received ${wrong}`
}

const mostStep = 1 << 14

/** The transposed form, which is the gradient of the other, takes time by the square of the step: minutes for 65536. */
function convolution(given: Given): string | undefined {
  for (const name of ['stride', 'dilation']) {
    const wrong = asNumbers(given[name]).find((each) => each > mostStep)
    if (wrong !== undefined) return `expected ${name} to be at most ${mostStep}, but received ${wrong}`
  }
  return undefined
}

/** A kernel that is larger than what it pools is walked through all the same. */
function maxPool1d({ self, kernelSize, padding: around, dilation, ceilMode, stride }: Given): string | undefined {
  if (!isTensor(self) || self.ndim === 0) return undefined
  const [kernel, border] = [asNumbers(kernelSize)[0] ?? 1, asNumbers(around)[0] ?? 0]
  const reach = (kernel - 1) * (asNumbers(dilation)[0] ?? 1) + 1
  const room = self.shape.at(-1)! + 2 * border + (ceilMode === true ? (asNumbers(stride)[0] ?? kernel) - 1 : 0)
  return reach > room || kernel > 2 ** 24
    ? `expected kernelSize to fit ${self.shape.at(-1)} elements with a padding of ${border}, but received ${kernel}`
    : undefined
}

/** Groups of heads divide by the number of heads of key and value. */
function attention({ query, key, value, enableGqa }: Given): string | undefined {
  if (enableGqa !== true) return undefined
  for (const [name, each] of Object.entries({ query, key, value })) {
    if (isTensor(each) && each.ndim >= 3 && each.shape.at(-3) === 0)
      return `expected ${name} to have heads with enableGqa, but received the shape ${shapeText(each)}`
  }
  return undefined
}

const mostParts = 1 << 16

/** Each part is a tensor: a huge number of them takes all memory before libtorch refuses it. */
function parts(name: 'chunks' | 'sections'): Guard {
  return (given) => {
    const count = asNumber(given[name])
    return count > mostParts ? `expected ${name} to be at most ${mostParts}, but received ${count}` : undefined
  }
}

const mostDegree = 1 << 20

/** The largest value, NaN left out. */
function largestOf(value: Tensor): number {
  if (!hasValues(value) || value.dtype.startsWith('complex')) return 0
  let largest = 0
  for (const each of value.toTypedArray() as Iterable<number | bigint>) if (each > largest) largest = Number(each)
  return largest
}

/** Evaluated by recurrence, a step a degree, for each element: 2^62 steps are no answer. */
function degree({ n }: Given): string | undefined {
  const highest = isTensor(n) ? largestOf(n) : asNumber(n)
  return highest > mostDegree
    ? `expected n, the degree, to be at most ${mostDegree}, but received ${highest}`
    : undefined
}

/** The smallest int64 has no positive counterpart: libtorch halves it for ever. */
function power({ n }: Given): string | undefined {
  return Math.abs(asNumber(n)) > Number.MAX_SAFE_INTEGER
    ? `expected n to be a safe whole number, but received ${String(n)}`
    : undefined
}

/** Makes a grid of as many dimensions, of which there can be 64, with all the ways to choose in any order. */
function combinations({ self, r }: Given): string | undefined {
  const length = asNumber(r ?? 2)
  if (length > 64) return `expected r to be at most 64, but received ${String(r)}`
  if (!isTensor(self) || self.ndim !== 1 || self.shape[0]! ** length <= 1 << 26) return undefined
  return `expected at most ${1 << 26} ways to choose, but received ${self.shape[0]} elements and r ${length}`
}

/** Positions come from the samples without a check: others than those from 0 up to 1 point outside. */
function fractionalPool({ kernelSize, outputSize, randomSamples }: Given): string | undefined {
  if ([...asNumbers(kernelSize), ...asNumbers(outputSize)].some((each) => each < 1)) {
    return `expected kernelSize and outputSize of at least 1, but received [${asNumbers(kernelSize)}] and [${asNumbers(outputSize)}]`
  }
  const extrema = extremaOf(randomSamples)
  if (extrema === undefined || (extrema[0] >= 0 && extrema[1] < 1)) return undefined
  return `expected randomSamples from 0 up to 1, but received ${extrema[0] >= 0 ? extrema[1] : extrema[0]}`
}

/** Without any index the kernel's own assertion fails. */
function someIndex({ indices }: Given): string | undefined {
  return Array.isArray(indices) && !indices.some(isTensor) ? 'expected indices to hold at least one tensor' : undefined
}

/** Takes the difference of the numbers of dimensions as a length. */
function tensorSolve({ self, other }: Given): string | undefined {
  return isTensor(self) && isTensor(other) && self.ndim < other.ndim
    ? `expected other to have at most the ${self.ndim} dimensions of self, but received the shape ${shapeText(other)}`
    : undefined
}

/** The gradient takes the logarithm of the base, which a boolean has not. */
function booleanBase({ self, exponent }: Given): string | undefined {
  return typeof self === 'boolean' && needsGraph(exponent)
    ? 'expected self to be a number where exponent requires grad, but received a boolean'
    : undefined
}

/** Other dtypes have no wider one to sum in: an internal assertion. */
function renorm({ self }: Given): string | undefined {
  return isTensor(self) && !/^(b?float(16|32|64)|complex(64|128))$/.test(self.dtype)
    ? `expected self to be of a floating dtype or complex, but received ${self.dtype}`
    : undefined
}

/** libtorch wraps what goes wrong with the sizes into a text with its own C++ backtrace. */
function unflatten({ self, dim, sizes }: Given): string | undefined {
  if (!isTensor(self)) return undefined
  const rank = self.ndim
  const position = asNumber(dim)
  if (rank === 0) return 'expected self to have dimensions'
  if (position < -rank || position >= rank) return `expected dim from ${-rank} to ${rank - 1}, but received ${position}`
  const wanted = asNumbers(sizes)
  const open = wanted.filter((each) => each === -1).length
  const size = self.shape.at(position)!
  const product = wanted.reduce((total, each) => (each === -1 ? total : total * each), 1)
  const fits = open === 0 ? product === size : open === 1 && product > 0 && size % product === 0
  return fits && wanted.every((each) => each >= -1)
    ? undefined
    : `expected sizes with the product ${size}, at most one of them -1, but received [${wanted.join(', ')}]`
}

/** The guards of the operators that there are for one, two and three dimensions. */
function forEachRank(make: (rank: number) => [string, Guard][]): Record<string, Guard> {
  return Object.fromEntries([1, 2, 3].flatMap(make))
}

const polynomials = [
  'chebyshev_polynomial_t',
  'chebyshev_polynomial_u',
  'chebyshev_polynomial_v',
  'chebyshev_polynomial_w',
  'hermite_polynomial_h',
  'hermite_polynomial_he',
  'laguerre_polynomial_l',
  'legendre_polynomial_p',
  'shifted_chebyshev_polynomial_t',
  'shifted_chebyshev_polynomial_u',
  'shifted_chebyshev_polynomial_v',
  'shifted_chebyshev_polynomial_w',
]

const table: Readonly<Record<string, Guard>> = {
  as_strided: strided,
  as_strided_: strided,
  as_strided_copy: strided,
  as_strided_scatter: stridedScatter,
  ctc_loss: ctcLoss,
  embedding_bag: embeddingBag,
  _embedding_bag: embeddingBag,
  _embedding_bag_forward_only: embeddingBag,
  grid_sampler: gridSampler,
  grid_sampler_2d: gridSampler,
  grid_sampler_3d: gridSampler,
  linalg_ldl_solve: ldlSolve,
  linalg_lu_solve: ({ LU, pivots }) => pivotsOf('pivots', pivots, LU, false),
  lu_solve: ({ LUData, LUPivots }) => pivotsOf('LUPivots', LUPivots, LUData, false),
  lu_unpack: luUnpack,
  linalg_lstsq: leastSquares,
  linalg_eigvals: ({ self }) => finite('self', self),
  batch_norm: batchNorm,
  instance_norm: batchNorm,
  native_batch_norm: batchNorm,
  native_group_norm: nativeGroupNorm,
  pdist,
  repeat_interleave: repeatInterleave,
  scaled_dot_product_attention: attention,
  chunk: parts('chunks'),
  unsafe_chunk: parts('chunks'),
  tensor_split: parts('sections'),
  hsplit: parts('sections'),
  vsplit: parts('sections'),
  dsplit: parts('sections'),
  binomial,
  im2col: windows,
  col2im: windows,
  lstm_cell: recurrentCell(4),
  gru_cell: recurrentCell(3),
  rnn_tanh_cell: recurrentCell(1),
  rnn_relu_cell: recurrentCell(1),
  ...forEachRank((rank) => [
    [`max_pool${rank}d`, maxPool(rank)],
    [`max_pool${rank}d_with_indices`, maxPool(rank)],
  ]),
  ...forEachRank((rank) => [
    [`adaptive_avg_pool${rank}d`, adaptivePool],
    [`adaptive_max_pool${rank}d`, adaptivePool],
  ]),
  ...forEachRank((rank) => [
    [`conv${rank}d`, convolution],
    [`conv_transpose${rank}d`, convolution],
  ]),
  convolution,
  ...forEachRank((rank) => [
    [`reflection_pad${rank}d`, padding],
    [`replication_pad${rank}d`, padding],
  ]),
  pad: padding,
  constant_pad_nd: padding,
  'random.from': randomFrom,
  'random_.from': randomFrom,
  'median.dim': median,
  'nanmedian.dim': median,
  ...Object.fromEntries(polynomials.map((name) => [`special_${name}`, degree])),
  matrix_power: power,
  linalg_matrix_power: power,
  combinations,
  fractional_max_pool2d: fractionalPool,
  fractional_max_pool3d: fractionalPool,
  index: someIndex,
  index_put: someIndex,
  index_put_: someIndex,
  linalg_tensorsolve: tensorSolve,
  'pow.Scalar': booleanBase,
  renorm,
  renorm_: renorm,
  copy,
  select_scatter: stridedOnly,
  slice_scatter: stridedOnly,
  diagonal_scatter: stridedOnly,
  index_reduce: indexReduce,
  index_reduce_: indexReduce,
  sparse_coo_tensor: sparseValues,
  _sparse_coo_tensor_unsafe: sparseValues,
  lstm: recurrent(4),
  gru: recurrent(3),
  rnn_tanh: recurrent(1),
  rnn_relu: recurrent(1),
  resize,
  resize_: resize,
  resize_as: resize,
  resize_as_: resize,
  unflatten,
}

/** The guard of an overload (`aten::pow.Scalar`), by its full name and the names of its arguments. */
export function guardOf(fullName: string, argumentNames: readonly string[]): Guard | undefined {
  if (!fullName.startsWith('aten::')) return undefined
  const name = fullName.slice('aten::'.length)
  return table[name] ?? table[name.replace(/\..*/, '')] ?? (argumentNames.includes('reduction') ? reduction : undefined)
}
