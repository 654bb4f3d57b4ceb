import { native, scopeDepth } from './native.js'
import { Tensor, track } from './tensor.js'

/*
 * Memory by scopes. What is made inside a scope is freed when it ends, but for what it returns. A finalizer is only the
 * net below: Node runs finalizers when the event loop turns, and a training loop never turns it.
 */

/** Something that knows which tensors it holds, so that a scope which returns it keeps them: a Module, an optimizer. */
export const heldTensors: unique symbol = Symbol('cleft.heldTensors')

export interface Holder {
  [heldTensors](): Iterable<Tensor>
}

function isHolder(value: object): value is Holder {
  return heldTensors in value
}

/** Adds the tensors inside a value (arrays, plain objects, Maps, Sets, Modules, at any depth) to `found`. */
export function collectTensors(
  value: unknown,
  found: Set<Tensor> = new Set(),
  seen: Set<object> = new Set(),
): Set<Tensor> {
  if (value instanceof Tensor) {
    found.add(value)
    return found
  }
  if (typeof value !== 'object' || value === null || seen.has(value)) return found
  seen.add(value)
  if (isHolder(value)) {
    for (const tensor of value[heldTensors]()) found.add(tensor)
  } else if (Array.isArray(value) || value instanceof Set) {
    for (const item of value) collectTensors(item, found, seen)
  } else if (value instanceof Map) {
    for (const [key, item] of value) {
      collectTensors(key, found, seen)
      collectTensors(item, found, seen)
    }
  } else if (!ArrayBuffer.isView(value) && !(value instanceof ArrayBuffer)) {
    for (const item of Object.values(value)) collectTensors(item, found, seen)
  }
  return found
}

function isPromise(value: unknown): boolean {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}

function refusePromise(value: unknown, name: string): void {
  if (isPromise(value)) {
    // nobody will await it: a rejection would end the process
    void Promise.resolve(value).catch(() => {})
    throw new TypeError(
      `${name}: expected a synchronous function, but it returned a Promise; for asynchronous code use \`using s = new torch.Scope()\` and s.run(...)`,
    )
  }
}

/** After a scope was left: what it kept lives outside every scope now, if none is open around it. */
function tellFinalizers(kept: Iterable<Tensor>): void {
  if (scopeDepth[0] !== 0) return
  for (const tensor of kept) track(tensor)
}

/**
 * Runs a function and frees every tensor made in it, but for those in what it returns (in arrays, objects, Maps and
 * Modules too), and those that something owns: parameters, optimizer state, what keep() was called on. Scopes nest: what
 * an inner scope returns belongs to the one around it. Also frees when the function throws.
 *
 * @throws TypeError where the function returns a Promise
 */
export function scope<T>(run: () => T): T {
  native.enterScope()
  let result: T
  try {
    result = run()
    refusePromise(result, 'scope')
  } catch (error) {
    native.exitScope(undefined)
    throw error
  }
  if (result === undefined || result === null || typeof result !== 'object') {
    native.exitScope(undefined)
    return result
  }
  if (result instanceof Tensor) {
    native.exitScope([result.handle])
    if (scopeDepth[0] === 0) track(result)
    return result
  }
  const kept = collectTensors(result)
  native.exitScope(Array.from(kept, (tensor) => tensor.handle))
  tellFinalizers(kept)
  return result
}

/**
 * A scope as an object, for asynchronous code: tensors made inside run() live until dispose().
 *
 * @example
 * using s = new torch.Scope()
 * const features = s.run(() => encoder.forward(x))
 * await save(features)
 */
export class Scope implements Disposable {
  private readonly id = native.createScope()
  private disposed = false

  /** Runs a synchronous function inside this scope. What it makes lives on until the scope is disposed of. */
  run<T>(run: () => T): T {
    if (this.disposed) throw new TypeError('Scope.run: expected a scope that is in use, but it was disposed of')
    native.resumeScope(this.id)
    try {
      const result = run()
      refusePromise(result, 'Scope.run')
      return result
    } finally {
      native.suspendScope(this.id, [])
    }
  }

  /** Frees what was made in this scope. */
  dispose(): void {
    if (this.disposed) return
    native.disposeScope(this.id)
    this.disposed = true
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Takes tensors out of every scope: they live until dispose(), or until JavaScript has let go of them. */
export function keep<T>(value: T): T {
  for (const tensor of collectTensors(value)) {
    native.keep(tensor.handle)
    track(tensor)
  }
  return value
}

/** Frees the tensors inside a value now. */
export function dispose(value: unknown): void {
  for (const tensor of collectTensors(value)) tensor.dispose()
}
