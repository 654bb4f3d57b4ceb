import { empty } from '../ops.generated.js'
import { scope } from '../scope.js'
import type { Device, DType } from '../types.js'
import { Parameter } from './parameter.js'

/** Where and in which dtype a layer makes its parameters. */
export interface FactoryOptions {
  /** Default: that of {@link construct}, else 'cpu'. */
  device?: Device | null
  /** Default: that of {@link construct}, else the default dtype. */
  dtype?: DType | null
}

export interface ConstructOptions extends FactoryOptions {
  /** False leaves parameters without set values, for a checkpoint to fill. Default: true. On 'meta' there is nothing to set. */
  initialize?: boolean
}

let current: ConstructOptions = {}

/**
 * Runs a function in which layers make their parameters on a device and in a dtype, unless they are told otherwise.
 *
 * @example
 * const net = nn.construct({ device: 'meta' }, () => new Net())
 * net.loadStateDict(tensors, { assign: true })
 */
export function construct<T>(options: ConstructOptions, build: () => T): T {
  const before = current
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null)
  current = { ...before, ...Object.fromEntries(given) }
  try {
    const built = build()
    if (built instanceof Promise) {
      built.catch(() => {})
      throw new TypeError(
        'construct: expected a synchronous function, since its options end when it returns, but it returned a Promise',
      )
    }
    return built
  } finally {
    current = before
  }
}

/** {@link construct} on the meta device: parameters have a shape and a dtype, but no memory, and are not initialised. */
export function onMeta<T>(build: () => T): T {
  return construct({ device: 'meta' }, build)
}

/** The options for factories of tensors in a module's constructor: its own, else those of {@link construct}. */
export function factoryOptions(own: FactoryOptions = {}): { device: Device | null; dtype: DType | null } {
  return { device: own.device ?? current.device ?? null, dtype: own.dtype ?? current.dtype ?? null }
}

/** False inside `construct({ initialize: false }, ...)`. */
export function isInitializing(): boolean {
  return current.initialize ?? true
}

/** A parameter without set values. */
export function emptyParameter(shape: readonly number[], options: FactoryOptions = {}): Parameter {
  return scope(() => new Parameter(empty(shape, factoryOptions(options))))
}
