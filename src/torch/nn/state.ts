import { noGrad } from '../modes.js'
import { emptyLike } from '../ops.generated.js'
import { scope } from '../scope.js'
import type { Tensor, ToOptions } from '../tensor.js'
import { type Device, type DType, dtypeBytes } from '../types.js'
import { adopt, type Parameter } from './parameter.js'

/*
 * What changes the tensors that a module holds: checkpoints, devices, dtypes. The objects stay the same.
 */

export type StateSource = ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>

export interface LoadOptions {
  /** Whether a missing or an unexpected name is an error. Default: true. */
  strict?: boolean
  /** Take the source's memory, dtype and device instead of copying. Default: false. */
  assign?: boolean
}

export interface LoadResult {
  /** Names that the module has and the source has not. */
  missing: string[]
  /** Names that the source has and the module has not. */
  unexpected: string[]
}

/** Why a state does not fit a module. Nothing was loaded. */
export class StateDictError extends Error {
  override name = 'StateDictError'

  /** @internal */
  constructor(
    message: string,
    readonly missing: readonly string[],
    readonly unexpected: readonly string[],
    /** A sentence for each tensor of another shape. */
    readonly misshapen: readonly string[],
  ) {
    super(message)
  }
}

/** Wrappers put a word in front of all names (DataParallel 'module.', torch.compile '_orig_mod.'). */
function prefixHint(missing: readonly string[], unexpected: readonly string[]): string {
  const wanted = missing[0]
  if (wanted === undefined) return ''
  const found = unexpected.find((name) => name.endsWith(`.${wanted}`))
  if (found !== undefined) return `; did you mean the names without '${found.slice(0, -wanted.length)}' in front?`
  const inner = unexpected.find((name) => wanted.endsWith(`.${name}`))
  return inner === undefined ? '' : `; did you mean the names with '${wanted.slice(0, -inner.length)}' in front?`
}

function shapeProblem(name: string, wanted: readonly number[], given: readonly number[]): string | null {
  if (wanted.length === given.length && wanted.every((size, dim) => size === given[dim])) return null
  const isTransposed = wanted.length === 2 && given.length === 2 && wanted[0] === given[1] && wanted[1] === given[0]
  return `${name}: expected shape [${wanted}], but received [${given}]${isTransposed ? '; did you mean its transpose?' : ''}`
}

/** @internal Module.loadStateDict(). */
export function adoptState(
  owner: string,
  targets: ReadonlyMap<string, Tensor>,
  source: StateSource,
  { strict = true, assign = false }: LoadOptions,
): LoadResult {
  const given: ReadonlyMap<string, Tensor> = source instanceof Map ? source : new Map(Object.entries(source))
  // a tied parameter needs one of its names only: files of safetensors keep one
  const found = new Set([...targets].filter(([name]) => given.has(name)).map(([, target]) => target))
  const missing = [...targets].filter(([, target]) => !found.has(target)).map(([name]) => name)
  const unexpected = [...given.keys()].filter((name) => !targets.has(name))
  const pairs = [...targets].flatMap(([name, target]) => {
    const value = given.get(name)
    return value === undefined ? [] : [{ name, target, value }]
  })
  const misshapen = pairs.flatMap(({ name, target, value }) => shapeProblem(name, target.shape, value.shape) ?? [])
  if (misshapen.length > 0 || (strict && missing.length + unexpected.length > 0)) {
    const parts = [
      ...(strict && missing.length > 0 ? [`${missing.length} missing: ${missing.join(', ')}`] : []),
      ...(strict && unexpected.length > 0 ? [`${unexpected.length} unexpected: ${unexpected.join(', ')}`] : []),
      ...(misshapen.length > 0 ? [`${misshapen.length} of another shape: ${misshapen.join('; ')}`] : []),
    ]
    throw new StateDictError(
      `loadStateDict: expected the ${targets.size} tensors of ${owner}, but received ${given.size}: ${parts.join('. ')}${prefixHint(missing, unexpected)}`,
      missing,
      unexpected,
      misshapen,
    )
  }
  for (const { name, target, value } of pairs) checkValues(name, target, value, assign)
  noGrad(() => {
    for (const { target, value } of pairs) {
      if (!assign) {
        target.copy_(value)
      } else {
        // a gradient of other values, and perhaps of another dtype
        target.grad = null
        adopt(target, value)
      }
    }
  })
  return { missing, unexpected }
}

function checkValues(name: string, target: Tensor, value: Tensor, assign: boolean): void {
  if (value.isMeta && !target.isMeta) {
    throw new TypeError(`loadStateDict: expected values for ${name}, but the given tensor is on 'meta' and has none`)
  }
  if (!assign && target.isMeta) {
    throw new TypeError(
      `loadStateDict: expected a module with memory, but ${name} is on 'meta'; use { assign: true }, or toEmpty(device) before`,
    )
  }
  if (target.isComplex() !== value.isComplex() && !target.isComplex()) {
    throw new TypeError(`loadStateDict: expected real values for ${name}, but received ${value.dtype}`)
  }
  if (assign && target.requiresGrad && !value.isFloatingPoint() && !value.isComplex()) {
    throw new TypeError(
      `loadStateDict: expected floating-point values for the parameter ${name}, but received ${value.dtype}`,
    )
  }
}

/** @internal Module.to(). */
export function convertTensors(
  parameters: readonly [string, Parameter][],
  buffers: readonly [string, Tensor][],
  target: Device | DType | Pick<ToOptions, 'device' | 'dtype' | 'nonBlocking'>,
): void {
  const options: Pick<ToOptions, 'device' | 'dtype' | 'nonBlocking'> =
    typeof target !== 'string'
      ? target
      : target in dtypeBytes
        ? { dtype: target as DType }
        : { device: target as Device }
  const { device, dtype, nonBlocking = false } = options
  if (dtype !== undefined && !/^(b?float|complex)/.test(dtype)) {
    throw new TypeError(`Module.to: expected a floating-point or complex dtype, but received ${dtype}`)
  }
  const all = [...parameters, ...buffers]
  const empty = device === undefined || device === 'meta' ? undefined : all.find(([, tensor]) => tensor.isMeta)
  if (empty !== undefined) {
    throw new TypeError(
      `Module.to: expected tensors with values, but ${empty[0]} is on 'meta'; use toEmpty('${device}') and load values after`,
    )
  }
  const converted = (tensor: Tensor) =>
    tensor.to({ device, nonBlocking, dtype: tensor.isFloatingPoint() || tensor.isComplex() ? dtype : undefined })
  noGrad(() =>
    scope(() => {
      for (const [, tensor] of all) {
        const gradient = tensor.grad
        const moved = converted(tensor.data)
        const isChanged = moved.dtype !== tensor.dtype || moved.device !== tensor.device
        if (!isChanged) continue
        // libtorch wants a gradient of its tensor's dtype and device at all times
        if (gradient !== null) tensor.grad = null
        adopt(tensor, moved)
        if (gradient !== null) tensor.grad = converted(gradient)
      }
    }),
  )
}

/** @internal Module.toEmpty(). */
export function emptyTensors(tensors: readonly Tensor[], device: Device): void {
  noGrad(() =>
    scope(() => {
      for (const tensor of tensors) {
        tensor.grad = null
        adopt(tensor, emptyLike(tensor, { device }))
      }
    }),
  )
}
