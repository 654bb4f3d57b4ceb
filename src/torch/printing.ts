import { type Handle, native } from './native.js'
import type { Tensor } from './tensor.js'
import type { TypedArray } from './types.js'

/*
 * How a tensor looks in the console: what PyTorch's repr() gives, letter by letter. Only what is shown is read back, so a
 * tensor of gigabytes on a GPU prints as fast as a small one.
 */

export interface PrintOptions {
  /** Digits after the point. Default: 4. */
  precision?: number
  /** More elements than this are summarised. Default: 1000. */
  threshold?: number
  /** Elements shown at each end of a summarised dimension. Default: 3. */
  edgeitems?: number
  /** Letters in a line. Default: 80. */
  linewidth?: number
  /** Scientific notation always or never; null decides by the values. Default: null. */
  sciMode?: boolean | null
}

const defaults: Readonly<Required<PrintOptions>> = {
  precision: 4,
  threshold: 1000,
  edgeitems: 3,
  linewidth: 80,
  sciMode: null,
}
let current: Readonly<Required<PrintOptions>> = defaults

/**
 * Changes how tensors are printed, and gives the options that were in force before. What is not named stays as it is.
 *
 * @example torch.setPrintOptions({ precision: 2, sciMode: false })
 */
export function setPrintOptions(options: PrintOptions): Required<PrintOptions> {
  const before = { ...current }
  const changed = { ...current }
  const count = (name: 'precision' | 'threshold' | 'edgeitems' | 'linewidth', largest: number): void => {
    const value = options[name]
    if (value === undefined) return
    if (typeof value !== 'number') {
      throw new TypeError(`setPrintOptions: expected ${name} to be a number, but received ${String(value)}`)
    }
    const isEndless = value === Number.POSITIVE_INFINITY && largest === value
    if (!(Number.isSafeInteger(value) || isEndless) || value < 0 || value > largest) {
      throw new RangeError(
        `setPrintOptions: expected ${name} to be a whole number from 0${Number.isFinite(largest) ? ` to ${largest}` : ''}, but received ${value}`,
      )
    }
    changed[name] = value
  }
  count('precision', mostDigits)
  count('threshold', Number.POSITIVE_INFINITY)
  count('edgeitems', Number.MAX_SAFE_INTEGER)
  count('linewidth', Number.POSITIVE_INFINITY)
  if (options.sciMode !== undefined) {
    if (options.sciMode !== null && typeof options.sciMode !== 'boolean') {
      throw new TypeError(
        `setPrintOptions: expected sciMode to be a boolean or null, but received ${String(options.sciMode)}`,
      )
    }
    changed.sciMode = options.sciMode
  }
  current = changed
  return before
}

/** The options of printing that are in force. */
export function getPrintOptions(): Required<PrintOptions> {
  return { ...current }
}

// Numbers as Python writes them. JavaScript's toFixed() and toExponential() round ties away from zero, Python's to even.

const mostDigits = 90
/** Enough digits to tell a tie from its neighbours: both functions give a double's exact digits. */
const exactDigits = 100

function nonFinite(value: number): string {
  return Number.isNaN(value) ? 'nan' : value < 0 ? '-inf' : 'inf'
}

function isNegative(value: number): boolean {
  return value < 0 || Object.is(value, -0)
}

function roundHalfEven(digits: string, rest: string): bigint {
  const whole = BigInt(digits)
  const tie = `5${'0'.repeat(Math.max(0, rest.length - 1))}`
  const up = rest !== '' && (rest > tie || (rest === tie && whole % 2n === 1n))
  return up ? whole + 1n : whole
}

/** Python's f'{value:.{precision}f}'. */
export function fixed(value: number, precision: number): string {
  if (!Number.isFinite(value)) return nonFinite(value)
  const size = Math.abs(value)
  // from 2^53 on a double is whole, and from 1e21 on toFixed() leaves the notation
  const [whole, fraction] =
    size >= 2 ** 53
      ? [BigInt(size).toString(), '0'.repeat(exactDigits)]
      : (size.toFixed(exactDigits).split('.') as [string, string])
  const digits = roundHalfEven(whole + fraction.slice(0, precision), fraction.slice(precision))
    .toString()
    .padStart(precision + 1, '0')
  const split = digits.length - precision
  return `${isNegative(value) ? '-' : ''}${digits.slice(0, split)}${precision === 0 ? '' : `.${digits.slice(split)}`}`
}

/** Python's f'{value:.{precision}e}'. */
export function scientific(value: number, precision: number): string {
  if (!Number.isFinite(value)) return nonFinite(value)
  const [mantissa, power] = Math.abs(value).toExponential(exactDigits).split('e') as [string, string]
  const digits = mantissa.replace('.', '')
  let rounded = roundHalfEven(digits.slice(0, precision + 1), digits.slice(precision + 1))
    .toString()
    .padStart(precision + 1, '0')
  let exponent = Number(power)
  if (rounded.length > precision + 1) {
    rounded = rounded.slice(0, -1)
    exponent += 1
  }
  const text = precision === 0 ? rounded : `${rounded[0]}.${rounded.slice(1)}`
  const sign = exponent < 0 ? '-' : '+'
  return `${isNegative(value) ? '-' : ''}${text}e${sign}${String(Math.abs(exponent)).padStart(2, '0')}`
}

/** Values in one column width, so that rows stand in line. */
interface Column {
  readonly width: number
  format(index: number): string
}

function padded(texts: (index: number) => string, width: number): Column {
  return { width, format: (index) => texts(index).padStart(width) }
}

function widest(texts: Iterable<string>): number {
  let width = 1
  for (const text of texts) width = Math.max(width, text.length)
  return width
}

function wordColumn(count: number, word: (index: number) => string): Column {
  return padded(word, widest(Array.from({ length: count }, (_, index) => word(index))))
}

function floatColumn(count: number, value: (index: number) => number): Column {
  const { precision } = current
  const telling: number[] = []
  for (let index = 0; index < count; index += 1) {
    const each = value(index)
    if (Number.isFinite(each) && each !== 0) telling.push(each)
  }
  const whole = (each: number): string => (Number.isFinite(each) ? `${fixed(each, 0)}.` : nonFinite(each))
  if (telling.length === 0) return padded((index) => whole(value(index)), 1)
  let largest = 0
  let smallest = Number.POSITIVE_INFINITY
  for (const each of telling) {
    largest = Math.max(largest, Math.abs(each))
    smallest = Math.min(smallest, Math.abs(each))
  }
  const isScientific = current.sciMode ?? (largest / smallest > 1000 || largest > 1e8 || smallest < 1e-4)
  const text = isScientific
    ? (each: number) => scientific(each, precision)
    : telling.every(Number.isInteger)
      ? whole
      : (each: number) => fixed(each, precision)
  return padded((index) => text(value(index)), widest(telling.map(text)))
}

/** The text of each value of a typed array that a tensor of a dtype was read into. */
function elementColumns(values: TypedArray, dtype: string): { width: number; format(index: number): string } {
  if (dtype.startsWith('complex')) {
    const count = values.length / 2
    const real = floatColumn(count, (index) => Number(values[2 * index]))
    const imaginary = floatColumn(count, (index) => Number(values[2 * index + 1]))
    return {
      width: real.width + imaginary.width + 1,
      format: (index) => {
        const text = `${imaginary.format(index)}j`.trimStart()
        return `${real.format(index)}${text.startsWith('-') ? '' : '+'}${text}`
      },
    }
  }
  if (dtype.startsWith('float') || dtype === 'bfloat16')
    return floatColumn(values.length, (index) => Number(values[index]))
  if (dtype === 'bool') return wordColumn(values.length, (index) => (values[index] === 0 ? 'False' : 'True'))
  return wordColumn(values.length, (index) => String(values[index]))
}

function call(name: string, handle: Handle): unknown {
  const description = native.lookup(`aten::${name}`, '')
  if (description === null) throw new TypeError(`expected libtorch to have the operator aten::${name}, but it has not`)
  return native.call(description.id, handle)
}

/** Where along a dimension there are values to show. */
function shownIndices(size: number, summarize: boolean): number[] {
  const { edgeitems } = current
  if (!summarize || size <= 2 * edgeitems) return Array.from({ length: size }, (_, index) => index)
  return Array.from({ length: 2 * edgeitems }, (_, index) => (index < edgeitems ? index : size - 2 * edgeitems + index))
}

/** The values that are shown, and no others, in one indexing operation where the tensor is on its device. */
function readShown(handle: Handle, shape: readonly number[]): TypedArray {
  if (shape.every((size) => size <= 2 * current.edgeitems)) return native.toTypedArray(handle)
  const indices = shape.flatMap((size, dimension) => {
    const positions = BigInt64Array.from(shownIndices(size, true), BigInt)
    // each along a dimension of its own: together they broadcast to the shape of what is shown
    const view = shape.map((_, other) => (other === dimension ? positions.length : 1))
    return [5, native.fromTypedArray(positions, view, null)]
  })
  return native.toTypedArray(native.getIndex(handle, indices))
}

/** The values in brackets, `indent` letters from the left. */
function contents(handle: Handle, indent: number): string {
  const shape = native.shape(handle)
  const count = native.numberOfElements(handle)
  if (count === 0) return '[]'
  const { edgeitems, linewidth, threshold } = current
  const summarize = count > threshold
  if (summarize && edgeitems === 0) return '[...]'
  const column = elementColumns(
    summarize ? readShown(handle, shape) : native.toTypedArray(handle),
    native.dtype(handle),
  )
  const perLine = Math.max(1, Math.floor((linewidth - indent - (shape.length - 1)) / (column.width + 2)))
  let position = 0
  const build = (dimension: number): string => {
    if (dimension === shape.length) {
      position += 1
      return column.format(position - 1)
    }
    const isLast = dimension === shape.length - 1
    const shown = shownIndices(shape[dimension]!, summarize)
    const parts = shown.map(() => build(dimension + 1))
    if (shown.length < shape[dimension]!) parts.splice(edgeitems, 0, isLast ? ' ...' : '...')
    const left = ' '.repeat(indent + dimension + 1)
    if (!isLast) return `[${parts.join(`,${'\n'.repeat(shape.length - dimension - 1)}${left}`)}]`
    const lines: string[] = []
    for (let start = 0; start < parts.length; start += perLine)
      lines.push(parts.slice(start, start + perLine).join(', '))
    return `[${lines.join(`,\n${left}`)}]`
  }
  return build(0)
}

/** Python's str() of a tuple. */
function tuple(shape: readonly number[]): string {
  return shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`
}

function part(name: string, handle: Handle, indent: number, isMeta: boolean): string {
  const prefix = `${name}=tensor(`
  const shape = native.shape(handle)
  const text = isMeta ? '...' : contents(handle, indent + prefix.length)
  return `${prefix}${text}${isMeta || native.numberOfElements(handle) === 0 ? `, size=${tuple(shape)}` : ''})`
}

/** Indices and values of a sparse tensor. */
function sparseContents(handle: Handle, layout: string, indent: number, isMeta: boolean): string {
  const column = layout === 'sparse_csr' || layout === 'sparse_bsr'
  const parts =
    layout === 'sparse_coo'
      ? [
          ['indices', '_indices'],
          ['values', '_values'],
        ]
      : [
          column ? ['crow_indices', 'crow_indices'] : ['ccol_indices', 'ccol_indices'],
          column ? ['col_indices', 'col_indices'] : ['row_indices', 'row_indices'],
          ['values', 'values'],
        ]
  const texts = parts.map(([name, operation]) => part(name!, call(operation!, handle) as Handle, indent, isMeta))
  return texts.join(`,\n${' '.repeat(indent)}`)
}

const prefix = 'tensor('

function describe(handle: Handle): string {
  const suffixes: string[] = []
  const shape = native.shape(handle)
  const dtype = native.dtype(handle)
  const device = native.device(handle)
  const layout = native.layout(handle)
  const indent = prefix.length
  const isMeta = device.startsWith('meta')
  const defaultDtype = native.defaultDtype()
  const isDefault = [defaultDtype, defaultDtype === 'float64' ? 'complex128' : 'complex64', 'int64', 'bool'].includes(
    dtype,
  )
  if (device !== 'cpu') suffixes.push(`device='${device}'`)
  let text: string
  if (layout.startsWith('sparse')) {
    suffixes.push(`size=${tuple(shape)}`)
    if (!isMeta) suffixes.push(`nnz=${call('_nnz', handle)}`)
    if (!isDefault) suffixes.push(`dtype=torch.${dtype}`)
    text = sparseContents(handle, layout, indent, isMeta)
  } else if (isMeta) {
    suffixes.push(`size=${tuple(shape)}`)
    if (dtype !== defaultDtype) suffixes.push(`dtype=torch.${dtype}`)
    text = '...'
  } else if (native.numberOfElements(handle) === 0) {
    if (shape.length !== 1) suffixes.push(`size=${tuple(shape)}`)
    if (dtype !== defaultDtype) suffixes.push(`dtype=torch.${dtype}`)
    text = '[]'
  } else {
    if (current.edgeitems === 0) suffixes.push(`size=${tuple(shape)}`)
    if (!isDefault) suffixes.push(`dtype=torch.${dtype}`)
    text = contents(handle, indent)
  }
  if (layout !== 'strided') suffixes.push(`layout=torch.${layout}`)
  const { gradFunction, requiresGrad } = native.autogradInfo(handle)
  if (gradFunction !== null) suffixes.push(`grad_fn=<${shortName(gradFunction)}>`)
  else if (requiresGrad) suffixes.push('requires_grad=True')
  return withSuffixes(`${prefix}${text}`, suffixes, indent, layout === 'sparse_coo')
}

/** A node's name without C++ namespaces: torch::autograd::CppNode<cleft::F> is F. */
export function shortName(node: string): string {
  return node.replace(/^.*::/, '').replace(/>+$/, '')
}

function withSuffixes(text: string, suffixes: readonly string[], indent: number, newLine: boolean): string {
  let result = text
  let lastLine = text.length - text.lastIndexOf('\n') + 1
  for (const [index, suffix] of suffixes.entries()) {
    if ((newLine && index === 0) || lastLine + suffix.length + 2 > current.linewidth) {
      result += `,\n${' '.repeat(indent)}${suffix}`
      lastLine = indent + suffix.length
    } else {
      result += `, ${suffix}`
      lastLine += suffix.length + 2
    }
  }
  return `${result})`
}

/** How a tensor looks in the console, as PyTorch prints it. */
export function formatTensor(tensor: Tensor): string {
  const { handle } = tensor
  if (!native.isAlive(handle)) return 'tensor(<disposed>)'
  const gradBefore = native.setGradEnabled(false)
  native.enterScope()
  try {
    return describe(handle)
  } catch {
    // quantised and nested tensors, which have no values here; what prints must not throw
    return `tensor(..., dtype=torch.${native.dtype(handle)})`
  } finally {
    native.exitScope(undefined)
    native.setGradEnabled(gradBefore)
  }
}
