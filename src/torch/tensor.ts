import { inspect } from 'node:util'
import { decodeRows, type NestedValue } from './decode.js'
import { type Index, withIndices } from './indexing.js'
import { type Handle, native, scopeDepth } from './native.js'
import type { TensorMethods } from './ops.generated.js'
import { formatTensor } from './printing.js'
import { type Device, type DType, dtypeBytes, type MemoryFormat, type Scalar, type TypedArray } from './types.js'

/** The net below the scopes: frees what JavaScript let go of, when the event loop turns. */
const finalizers = new FinalizationRegistry<Handle>((handle) => {
  native.release(handle)
})

let stacks: Map<Handle, string> | undefined

/** @internal Debug mode: remember where tensors are made. */
export function recordStacks(enabled: boolean): void {
  stacks = enabled ? new Map() : undefined
}

let lastStacks: Map<Handle, string> | undefined

/** @internal */
export function stackOf(handle: Handle): string | undefined {
  return (stacks ?? lastStacks)?.get(handle)
}

/** Those under the finalizer by track(): a tensor may leave many scopes, and each entry takes memory. */
const tracked = new WeakSet<Tensor>()

/** @internal Puts a tensor that no scope frees under the finalizer. */
export function track(tensor: Tensor): void {
  if (tracked.has(tensor)) return
  tracked.add(tensor)
  finalizers.register(tensor, tensor.handle)
}

/** @internal A tensor around a handle that native code made. */
export function wrap(handle: Handle): Tensor {
  const tensor = new Tensor(handle)
  if (scopeDepth[0] === 0) finalizers.register(tensor, handle)
  if (stacks !== undefined) {
    stacks.set(handle, new Error('made').stack?.split('\n').slice(2).join('\n') ?? '')
    lastStacks = stacks
  }
  return tensor
}

/** @internal The handle of what must be a tensor. */
export function handleOf(value: unknown, operation: string, argument: string): Handle {
  if (value instanceof Tensor) return value.handle
  const given =
    value === null || typeof value !== 'object' ? String(value) : Array.isArray(value) ? 'an array' : 'an object'
  throw new TypeError(`${operation}: expected ${argument} to be a Tensor, but received ${given}`)
}

export interface ToOptions {
  dtype?: DType
  device?: Device
  /** Do not wait for a copy between pinned memory and a GPU. Default: false. */
  nonBlocking?: boolean
  /** Copy even where nothing changes. Default: false. */
  copy?: boolean
  memoryFormat?: MemoryFormat
}

export interface BackwardOptions {
  /** Keep the graph for another backward. Default: createGraph. */
  retainGraph?: boolean
  /** Make gradients that can be differentiated again. Default: false. */
  createGraph?: boolean
  /** Accumulate into these leaves only. */
  inputs?: readonly Tensor[]
}

/** Undoes what registered it. */
export interface Removable {
  remove(): void
}

/**
 * A libtorch tensor. Every operator of ATen is a method (see {@link TensorMethods}); names are PyTorch's in camel case,
 * an underscore at the end changes the tensor in place, and keyword arguments come as a last object.
 *
 * A tensor holds memory outside of JavaScript: make it inside `torch.scope(...)`, declare it with `using`, or call
 * dispose(). Operations on a disposed tensor are TypeErrors.
 */
export interface Tensor extends TensorMethods {}
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the generated methods are installed on the prototype
export class Tensor implements Disposable {
  /** @internal */
  readonly handle: Handle

  /** @internal Tensors are made by factories: torch.tensor(), torch.zeros() and operators. */
  constructor(handle: Handle) {
    this.handle = handle
  }

  /** Sizes, the outermost first. */
  get shape(): number[] {
    return native.shape(this.handle)
  }

  /** The sizes, or the size of one dimension (from the end where negative). */
  size(): number[]
  size(dim: number): number
  size(dim?: number): number[] | number {
    const shape = this.shape
    if (dim === undefined) return shape
    const size = shape.at(dim)
    if (!Number.isInteger(dim) || size === undefined) {
      throw new RangeError(
        `size: expected dim from ${-shape.length} to ${shape.length - 1} for a tensor of shape [${shape}], but received ${dim}`,
      )
    }
    return size
  }

  get dtype(): DType {
    return native.dtype(this.handle)
  }

  get device(): string {
    return native.device(this.handle)
  }

  get layout(): string {
    return native.layout(this.handle)
  }

  /** The number of dimensions. */
  get ndim(): number {
    return native.dimensions(this.handle)
  }

  dim(): number {
    return native.dimensions(this.handle)
  }

  /** The number of elements. */
  numel(): number {
    return native.numberOfElements(this.handle)
  }

  /** Bytes of the elements. */
  get nbytes(): number {
    return this.numel() * this.elementSize()
  }

  elementSize(): number {
    return dtypeBytes[this.dtype]
  }

  /** Steps from one element to the next, in elements, a dimension each. */
  stride(): number[] {
    return native.strides(this.handle)
  }

  storageOffset(): number {
    return native.storageOffset(this.handle)
  }

  /** Bytes of the whole memory block, which other tensors may share. */
  storageBytes(): number {
    return native.storageBytes(this.handle)
  }

  /** Whether two tensors are over the same memory block. */
  sharesStorage(other: Tensor): boolean {
    return native.storageId(this.handle) === native.storageId(handleOf(other, 'sharesStorage', 'other'))
  }

  /** Whether both are one and the same tensor in libtorch. */
  isSame(other: Tensor): boolean {
    return native.isSame(this.handle, handleOf(other, 'isSame', 'other'))
  }

  isPinned(): boolean {
    return native.isPinned(this.handle)
  }

  get isCuda(): boolean {
    return this.device.startsWith('cuda')
  }

  get isMeta(): boolean {
    return this.device === 'meta'
  }

  /** False once the tensor was freed. */
  get isAlive(): boolean {
    return native.isAlive(this.handle)
  }

  // Values

  /**
   * The one value of a tensor with one element. Whole numbers beyond 2^53 come as bigints through itemBigInt().
   *
   * @throws RangeError for more elements, and for an int64 that a number does not hold exactly
   */
  item(): number {
    const value = native.item(this.handle)
    if (typeof value === 'bigint') {
      throw new RangeError(`item: expected a value that a number holds exactly, but it is ${value}; use itemBigInt()`)
    }
    if (typeof value === 'object') {
      throw new TypeError('item: expected a real tensor, but this one is complex; use itemComplex()')
    }
    return Number(value)
  }

  itemBigInt(): bigint {
    const value = native.item(this.handle)
    if (typeof value === 'object' || (typeof value === 'number' && !Number.isInteger(value))) {
      throw new TypeError(`itemBigInt: expected a whole number, but the tensor is of ${this.dtype}`)
    }
    return BigInt(value)
  }

  itemComplex(): { re: number; im: number } {
    const value = native.item(this.handle)
    return typeof value === 'object' ? value : { re: Number(value), im: 0 }
  }

  /**
   * The values as nested arrays: numbers, booleans for bool, {re, im} for complex; one value for no dimensions.
   *
   * @throws RangeError for an int64 that a number does not hold exactly: use toTypedArray()
   */
  toArray(): NestedValue {
    return decodeRows(this.toTypedArray(), this.shape, this.dtype)
  }

  /**
   * A copy of the values, row by row: float16 and bfloat16 as Float32Array, int64 as BigInt64Array, bool as Uint8Array,
   * complex as pairs.
   */
  toTypedArray(): TypedArray {
    return native.toTypedArray(this.handle)
  }

  /** toTypedArray() that lets the event loop turn until a GPU is done. The values are those of the moment of the call. */
  toTypedArrayAsync(): Promise<TypedArray> {
    return native.toTypedArrayAsync(this.handle)
  }

  // Indexing

  /**
   * PyTorch's `x[...]`: numbers, slices (`torch.slice(1, 3)` or '1:3'), null for a new dimension, '...' for all between,
   * booleans, masks, tensors and arrays of indices.
   *
   * @example x.at(0, '1:3', '...', null)
   */
  at(...indices: readonly Index[]): Tensor {
    return withIndices('at', indices, (encoded) => wrap(native.getIndex(this.handle, encoded)))
  }

  /** PyTorch's `x[...] = value`, in place. */
  setAt(indices: Index | readonly Index[], value: Tensor | Scalar): this {
    const isTensor = value instanceof Tensor
    withIndices('setAt', Array.isArray(indices) ? indices : [indices as Index], (encoded) =>
      native.setIndex(this.handle, encoded, isTensor ? value.handle : value, isTensor),
    )
    return this
  }

  /** This tensor's elements where the condition holds, the other's elsewhere. */
  where(condition: Tensor, other: Tensor | Scalar): Tensor {
    return operators().select(condition, this, other)
  }

  // Dtypes and devices

  /**
   * The tensor in another dtype or on another device, or itself where nothing changes.
   *
   * @example x.to('cuda'); x.to('bfloat16'); x.to({ device: 'cuda', dtype: 'float16', nonBlocking: true })
   */
  to(target: Device | DType | ToOptions | Tensor, options: ToOptions = {}): Tensor {
    if (typeof target === 'string') {
      return this.convert({
        ...options,
        ...(target in dtypeBytes ? { dtype: target as DType } : { device: target as Device }),
      })
    }
    if (typeof target !== 'object' || target === null) {
      throw new TypeError(`to: expected a dtype, a device, options or a Tensor, but received ${String(target)}`)
    }
    if (target instanceof Tensor) {
      return this.convert({ ...options, dtype: target.dtype, device: target.device as Device })
    }
    return this.convert({ ...target, ...options })
  }

  private convert({ dtype, device, nonBlocking = false, copy = false, memoryFormat, ...others }: ToOptions): Tensor {
    for (const name in others) {
      throw new TypeError(
        `to: expected the options dtype, device, nonBlocking, copy and memoryFormat, but received ${name}`,
      )
    }
    return operators().cast(this, { dtype, device, nonBlocking, copy, memoryFormat })
  }

  cpu(): Tensor {
    return this.convert({ device: 'cpu' })
  }

  cuda(index?: number): Tensor {
    return this.convert({ device: index === undefined ? 'cuda' : `cuda:${index}` })
  }

  float(): Tensor {
    return this.convert({ dtype: 'float32' })
  }

  double(): Tensor {
    return this.convert({ dtype: 'float64' })
  }

  half(): Tensor {
    return this.convert({ dtype: 'float16' })
  }

  bfloat16(): Tensor {
    return this.convert({ dtype: 'bfloat16' })
  }

  long(): Tensor {
    return this.convert({ dtype: 'int64' })
  }

  int(): Tensor {
    return this.convert({ dtype: 'int32' })
  }

  short(): Tensor {
    return this.convert({ dtype: 'int16' })
  }

  char(): Tensor {
    return this.convert({ dtype: 'int8' })
  }

  byte(): Tensor {
    return this.convert({ dtype: 'uint8' })
  }

  bool(): Tensor {
    return this.convert({ dtype: 'bool' })
  }

  /** The transpose of a matrix: the last two dimensions for more. */
  get mT(): Tensor {
    return this.transpose(-2, -1)
  }

  /** The transpose of a matrix. */
  get T(): Tensor {
    return this.t()
  }

  // Autograd

  get requiresGrad(): boolean {
    return native.autogradInfo(this.handle).requiresGrad
  }

  set requiresGrad(value: boolean) {
    native.setRequiresGrad(this.handle, value)
  }

  requiresGrad_(value = true): this {
    native.setRequiresGrad(this.handle, value)
    return this
  }

  get isLeaf(): boolean {
    return native.autogradInfo(this.handle).isLeaf
  }

  /** The name of the operation that made the tensor, or null for a leaf. */
  get gradFn(): string | null {
    return native.autogradInfo(this.handle).gradFunction
  }

  /** The gradient that backward() accumulated, or null. It belongs to this tensor. */
  get grad(): Tensor | null {
    const handle = native.gradient(this.handle)
    return handle === null ? null : wrap(handle)
  }

  set grad(value: Tensor | null) {
    native.setGradient(this.handle, value === null ? null : handleOf(value, 'grad', 'value'))
  }

  /** Keep the gradient of a tensor that is not a leaf. */
  retainGrad(): this {
    native.retainGradient(this.handle)
    return this
  }

  /**
   * Computes the gradients of this tensor and adds them to the `grad` of the leaves it depends on.
   *
   * @param gradient of this tensor's shape; may be left out where it has one element
   */
  backward(gradient: Tensor | null = null, options: BackwardOptions = {}): void {
    native.backward(
      [this.handle],
      gradient === null ? null : [handleOf(gradient, 'backward', 'gradient')],
      options.retainGraph ?? null,
      options.createGraph ?? false,
      (options.inputs ?? []).map((input) => handleOf(input, 'backward', 'inputs')),
    )
  }

  /** The same values outside of the graph; in-place changes show in both. */
  get data(): Tensor {
    return this.detach()
  }

  set data(value: Tensor) {
    native.setData(this.handle, handleOf(value, 'data', 'value'))
  }

  /**
   * Calls a function with the gradient of this tensor each time backward() has it. What it returns takes the gradient's
   * place. Tensors that it makes are freed when it returns.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: a hook that returns nothing is a hook
  registerHook(hook: (gradient: Tensor) => Tensor | undefined | null | void): Removable {
    if (typeof hook !== 'function') {
      throw new TypeError(`registerHook: expected the hook to be a function, but received ${String(hook)}`)
    }
    let isActive = true
    const position = native.registerHook(this.handle, ([gradient]) => {
      if (!isActive) return undefined
      const changed = hook(new Tensor(gradient))
      if (changed === undefined || changed === null) return undefined
      return [handleOf(changed, 'registerHook', 'what the hook returns')]
    })
    return {
      remove: () => {
        // the graph may still hold a tensor that was disposed of here: the flag reaches its hook too
        if (isActive && this.isAlive) native.removeHook(this.handle, position)
        isActive = false
      },
    }
  }

  // Life

  /** Frees the memory now, unless other tensors or the graph hold it too. A second call does nothing. */
  dispose(): void {
    native.release(this.handle)
  }

  [Symbol.dispose](): void {
    native.release(this.handle)
  }

  toString(): string {
    return formatTensor(this)
  }

  [inspect.custom](): string {
    return formatTensor(this)
  }

  [Symbol.toPrimitive](hint: string): number | string {
    return hint === 'string' ? this.toString() : this.item()
  }
}

// V8 keeps a field that has only ever held numbers in a box of its own, copied at each store and each read. A field that
// once held something else keeps the number as it came: 30 ns a call less.
new Tensor(undefined as unknown as Handle)

interface Helpers {
  cast(tensor: Tensor, options: ToOptions): Tensor
  select(condition: Tensor, tensor: Tensor, other: Tensor | Scalar): Tensor
}
let helpers: Helpers | undefined

/** @internal Operators that the methods above need: this file must not import the dispatcher, which imports it. */
export function setHelpers(given: Helpers): void {
  helpers = given
}

function operators(): Helpers {
  if (helpers === undefined) throw new Error('the operators are not installed')
  return helpers
}
