import type { nn } from '../torch/index.js'
import type { TargetOptions } from './config.js'
import { type Architecture, architectureOf, headPrefixOf, type Place, places } from './host.js'
import { isLinear } from './linear.js'

/*
 * Which modules a config names: peft's rules, on paths with and without the head's prefix.
 */

/** What peft takes where a config names no modules. */
const architectures: Readonly<Record<Architecture, { lora: string[]; ia3: string[]; feedforward: string[] }>> = {
  gpt2: { lora: ['c_attn'], ia3: ['c_attn', 'mlp.c_proj'], feedforward: ['mlp.c_proj'] },
  llama: { lora: ['q_proj', 'v_proj'], ia3: ['k_proj', 'v_proj', 'down_proj'], feedforward: ['down_proj'] },
  bert: { lora: ['query', 'value'], ia3: ['key', 'value', 'output.dense'], feedforward: ['output.dense'] },
}

export function defaultTargets(model: nn.Module, what: 'lora' | 'ia3' | 'feedforward'): string[] {
  const architecture = architectureOf(model)
  if (architecture !== null) return architectures[architecture][what]
  const option = what === 'feedforward' ? 'feedforwardModules' : 'targetModules'
  throw new TypeError(
    `addAdapter: expected ${option}, since there is no default for a ${model.constructor.name}, but received none`,
  )
}

/** A regular expression of Python's as one of JavaScript's, for names of modules. */
export function pythonPattern(pattern: string, whole: (inner: string) => string): RegExp {
  let flags = ''
  const translated = pattern
    .replace(/^\(\?([imsx]+)\)/, (_, letters: string) => {
      flags = letters
      return ''
    })
    .replace(/\(\?P</g, '(?<')
    .replace(/\(\?P=(\w+)\)/g, '\\k<$1>')
    .replace(/\\A/g, '^')
    .replace(/\\[Zz]/g, '$')
  try {
    return new RegExp(whole(translated), flags)
  } catch (error) {
    throw new SyntaxError(
      `addAdapter: expected a regular expression that JavaScript knows too, but received '${pattern}' (${(error as Error).message})`,
    )
  }
}

const fullMatch = (inner: string): string => `^(?:${inner})$`

/** Whether a path is one of the names, or ends in one after a dot; one string is a regular expression for all of it. */
function isNamed(path: string, names: string | readonly string[]): boolean {
  if (typeof names === 'string') return pythonPattern(names, fullMatch).test(path)
  return names.some((name) => path === name || path.endsWith(`.${name}`))
}

function layerNumber(path: string, pattern: string | readonly string[] | null): number | null {
  const patterns = pattern === null ? [] : typeof pattern === 'string' ? [pattern] : pattern
  const expressions =
    patterns.length === 0
      ? [/^.*?\.[^.]*\.(\d+)\./]
      : patterns.map((each) => pythonPattern(each, (inner) => `^(?:.*?\\.)?${inner}\\.(\\d+)\\.`))
  for (const expression of expressions) {
    const found = expression.exec(path)?.at(-1)
    if (found !== undefined) return Number(found)
  }
  return null
}

/** peft's check_target_module_exists() for one path. */
export function isTarget(path: string, options: TargetOptions): boolean {
  const { targetModules, excludeModules, layersToTransform, layersPattern } = options
  if (excludeModules && excludeModules.length > 0 && isNamed(path, excludeModules)) return false
  if (!targetModules || !isNamed(path, targetModules)) return false
  const layers = typeof layersToTransform === 'number' ? [layersToTransform] : (layersToTransform ?? [])
  if (typeof targetModules === 'string' || layers.length === 0) return true
  const layer = layerNumber(path, layersPattern ?? null)
  return layer !== null && layers.includes(layer)
}

/** The value for the first pattern that the end of a path matches. */
export function patternValue(path: string, patterns: Readonly<Record<string, number>>, otherwise: number): number {
  for (const [pattern, value] of Object.entries(patterns)) {
    if (pythonPattern(pattern, (inner) => `^(.*\\.)?(${inner})$`).test(path)) return value
  }
  return otherwise
}

/** peft's rule for IA3's feed-forward modules: the end of the path, with no regard to dots. */
export function isFeedforward(path: string, names: string | readonly string[]): boolean {
  if (typeof names === 'string') return pythonPattern(names, fullMatch).test(path)
  return names.some((name) => path.endsWith(name))
}

/** A module that gets an adapter. */
export interface Target extends Place {
  /** The path with the head's prefix in front, as patterns usually mean it. */
  fullPath: string
}

/** Heads that 'all-linear' leaves out. */
const heads = new Set(['lm_head', 'score', 'classifier', 'embed_out'])

/**
 * The modules that a config names, in the model's order.
 *
 * @throws RangeError where there is none, with the linear layers that there are, and where one is not linear
 */
export function findTargets(model: nn.Module, options: TargetOptions): Target[] {
  const prefix = headPrefixOf(model)
  const all = places(model).map((place) => ({ ...place, fullPath: prefix + place.path }))
  const linear = all.filter(({ module }) => isLinear(module)).map(({ path }) => path)
  const isAll = typeof options.targetModules === 'string' && options.targetModules.toLowerCase() === 'all-linear'
  const named: TargetOptions = isAll
    ? { ...options, targetModules: linear.filter((path) => !heads.has(path)) }
    : options
  const found = all.filter(({ path, fullPath }) => {
    if (path === '') return false
    // an exclusion counts under either name
    const isKept = isTarget(path, { targetModules: '.*', excludeModules: named.excludeModules })
    return isKept && (isTarget(fullPath, named) || isTarget(path, named))
  })
  if (found.length === 0) {
    const ends = [...new Set(linear.map((path) => path.replace(/^.*\.\d+\./, '')))]
    const limits = options.excludeModules || options.layersToTransform ? ' (with its exclusions and layers)' : ''
    throw new RangeError(
      `addAdapter: expected targetModules to name modules of ${model.constructor.name}, but ${JSON.stringify(options.targetModules)}${limits} names none; its linear layers are ${ends.slice(0, 20).join(', ')}`,
    )
  }
  const other = found.find(({ module }) => !isLinear(module))
  if (other !== undefined) {
    throw new TypeError(
      `addAdapter: expected targetModules to name linear layers, but ${other.path} is a ${other.module.constructor.name}; write a longer name`,
    )
  }
  return found
}
