import { quoteList } from './error.js'
import { PickleStub } from './pickle-values.js'

/** Deeper than any real object; ends walks through hostile ones. */
const MAX_DEPTH = 256
const MAX_TENSORS = 250_000
/** A few shared lists can stand for 2^100 paths: a walk looks at so many values and no more. */
const MAX_VISITED = 50_000_000

interface Frame {
  readonly container: object
  readonly parent: Frame | null
  readonly depth: number
  readonly name: string
}

/**
 * Every tensor inside nested dicts, lists and pickled modules, by its path: names joined by dots, as in a state dict. A
 * pickled torch.nn.Module gives what its state_dict() would. Objects inside themselves are passed over.
 *
 * @internal
 * @param find turns what is a tensor into what is wanted, and everything else into null
 * @throws RangeError for objects that are too deep or too many to name
 */
export function flattenTensors<R>(root: unknown, find: (value: unknown) => R | null): Map<string, R> {
  const found = new Map<string, R>()
  const stack: [name: string, value: unknown, parent: Frame | null][] = [['', root, null]]
  let visited = 0
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const [name, value, parent] = next
    const tensor = find(value)
    if (tensor !== null) {
      // a module and a dict could give one name twice: the first stays, as it would be found first
      if (!found.has(name)) found.set(name, tensor)
      if (found.size > MAX_TENSORS)
        throw new RangeError(`expected ${MAX_TENSORS} tensors at most in one object, but there are more`)
      continue
    }
    const children = childrenOf(value)
    if (children === null || isInside(value as object, parent)) continue
    const frame = { container: value as object, parent, depth: (parent?.depth ?? 0) + 1, name }
    if (frame.depth > MAX_DEPTH)
      throw new RangeError(`expected objects nested ${MAX_DEPTH} deep at most, but they are deeper`)
    const before = stack.length
    for (const [key, child] of children) {
      visited += 1
      if (visited > MAX_VISITED)
        throw new RangeError(`expected ${MAX_VISITED} values at most in one object, but there are more`)
      if (typeof child === 'object' && child !== null) stack.push([name === '' ? key : `${name}.${key}`, child, frame])
    }
    // the last pushed is taken first: turned round, names come in the file's order
    reverseFrom(stack, before)
  }
  return found
}

function reverseFrom<V>(list: V[], start: number): void {
  for (let i = start, j = list.length - 1; i < j; i += 1, j -= 1) {
    const value = list[i] as V
    list[i] = list[j] as V
    list[j] = value
  }
}

function isInside(container: object, parent: Frame | null): boolean {
  for (let frame = parent; frame !== null; frame = frame.parent) if (frame.container === container) return true
  return false
}

/** What is in a container, by name; null for what is none. */
function childrenOf(value: unknown): Iterable<[string, unknown]> | null {
  if (Array.isArray(value)) return named(value.entries())
  if (value instanceof Map) return named(value.entries())
  if (!(value instanceof PickleStub)) return null
  const children: [string, unknown][] = []
  if (value.entries !== null) children.push(...named(value.entries.entries()))
  if (!(value.state instanceof Map)) return children
  const isModule = value.state.has('_parameters') && value.state.has('_modules')
  if (!isModule) return [...children, ...named(value.state.entries())]
  for (const key of ['_parameters', '_buffers', '_modules']) {
    const part = value.state.get(key)
    if (part instanceof Map) children.push(...named(part.entries()))
  }
  return children
}

function* named(entries: Iterable<[unknown, unknown]>): Iterable<[string, unknown]> {
  for (const [key, value] of entries) {
    if (typeof key === 'string' || typeof key === 'number' || typeof key === 'bigint') yield [String(key), value]
  }
}

/** Under which key checkpoints usually keep a model's tensors. */
export const USUAL_WRAPPERS: readonly string[] = [
  'state_dict',
  'model_state_dict',
  'model',
  'module',
  'teacher',
  'student',
  'ema',
  'model_ema',
  'params',
]

export interface StateDictOptions {
  /**
   * Where in the object the tensors are: one key, or several to try in turn (USUAL_WRAPPERS are the usual ones). Dots go
   * deeper ('ema.state_dict') where there is no such key itself. Default: the object as a whole.
   */
  key?: string | readonly string[]
}

/**
 * The tensors of a loaded checkpoint by name, in its order: nested dicts are flattened with dots, what is no tensor (an
 * epoch, options) is left out. Wrappers are opened only where `key` says so.
 * @throws TypeError where there is no such key, or no tensor: it names the keys that are there
 */
export function toStateDict<T>(
  loaded: unknown,
  isTensor: (value: unknown) => value is T,
  options: StateDictOptions = {},
): Map<string, T> {
  const keys = options.key === undefined ? [] : typeof options.key === 'string' ? [options.key] : options.key
  let inside: unknown = loaded
  if (options.key !== undefined) {
    inside = keys.map((key) => descend(loaded, key)).find((value) => value !== undefined)
    if (inside === undefined) {
      throw new TypeError(
        `toStateDict: expected a key ${keys.map((k) => `'${k}'`).join(' or ')}, but the checkpoint has ${keysOf(loaded)}`,
      )
    }
  }
  const tensors = flattenTensors(inside, (value) => (isTensor(value) ? value : null))
  if (tensors.size === 0) {
    throw new TypeError(
      `toStateDict: expected tensors, but there is none; the checkpoint has ${keysOf(loaded)}; give the key they are under`,
    )
  }
  return tensors
}

function descend(value: unknown, key: string): unknown {
  const here = value instanceof PickleStub ? (value.entries ?? value.state) : value
  if (!(here instanceof Map)) return undefined
  if (here.has(key)) return here.get(key)
  const dot = key.indexOf('.')
  return dot < 0 || !here.has(key.slice(0, dot)) ? undefined : descend(here.get(key.slice(0, dot)), key.slice(dot + 1))
}

function keysOf(value: unknown): string {
  if (!(value instanceof Map)) return 'no keys'
  return `the keys ${quoteList(Array.from(value.keys(), String))}`
}
