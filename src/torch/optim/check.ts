import { Tensor } from '../tensor.js'

/*
 * Checks of what is given: options, and state dicts, which come from files as Maps and from code as plain objects.
 */

/** A state dict as files give it: Maps or plain objects. */
export type DictLike = ReadonlyMap<unknown, unknown> | { readonly [name: string]: unknown }

/** weightDecay as weight_decay. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** A value for an error's text. */
export function show(value: unknown): string {
  if (value === null || typeof value !== 'object') return typeof value === 'string' ? `'${value}'` : String(value)
  if (value instanceof Tensor) return `a tensor of shape [${value.shape}]`
  return Array.isArray(value) ? `[${value.map(show).join(', ')}]` : 'an object'
}

/** @throws RangeError for a number or a list, TypeError for anything else, where it does not hold */
export function expectOption(holds: boolean, where: string, name: string, wanted: string, value: unknown): void {
  if (holds) return
  const message = `${where}: expected ${name} to be ${wanted}, but received ${show(value)}`
  throw typeof value === 'number' || Array.isArray(value) ? new RangeError(message) : new TypeError(message)
}

/** A number from `low` on, and no NaN. */
export function isAtLeast(low: number, value: unknown): value is number {
  return typeof value === 'number' && value >= low && value < Infinity
}

/** An entry of a Map or a plain object. */
export function entryOf(dict: DictLike, name: string): unknown {
  if (dict instanceof Map) return dict.get(name)
  return Object.hasOwn(dict, name) ? (dict as { readonly [name: string]: unknown })[name] : undefined
}

/** Whether it is a Map or an object, and no list or tensor. */
export function isDict(value: unknown): value is DictLike {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Tensor)
}

/** The names of a Map or a plain object. */
export function namesOf(dict: DictLike): unknown[] {
  return dict instanceof Map ? [...dict.keys()] : Object.keys(dict)
}
