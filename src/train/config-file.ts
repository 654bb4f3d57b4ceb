import { existsSync, readFileSync, statSync } from 'node:fs'
import { parse } from 'yaml'
import { type JsonObject, readJsonObject } from '../models/index.js'
import { readRecipe } from './recipes.js'
import type { TrainOptions } from './train.js'

/*
 * A run's options from recipes, files and flags. Each goes over the one before: the recipe, the file, --set in their order,
 * and what the caller says. Folders in them are as the process sees them. Nothing is checked here: train() does it.
 */

export interface RunSources {
  /** A recipe's name. Default: the file's own `recipe`, if it has one. */
  recipe?: string | undefined
  /** A JSON or YAML file: one of the user's, or config.json of a run. */
  file?: string | undefined
  /** 'key.path=value', the value as JSON where it is some, else as a text. */
  set?: readonly string[] | undefined
  /** More options, over everything. */
  options?: JsonObject | undefined
}

/** Options of a file, with settings and more over them. */
export function readOptions({ file, set = [], options = {} }: Omit<RunSources, 'recipe'>): JsonObject {
  const own = file === undefined ? {} : readConfigFile(file)
  return [...set.map(readSetting), options].reduce((below, above) => mergeOptions(below, above), own)
}

/** The options of a run, of whatever kind: train() checks them. */
export function readRunOptions({ recipe, file, set = [], options = {} }: RunSources): TrainOptions {
  const own = file === undefined ? {} : readConfigFile(file)
  const base = recipe ?? own.recipe
  if (base !== undefined && typeof base !== 'string') {
    throw new TypeError(`${file}: expected 'recipe' to be the name of one, but it is ${JSON.stringify(base)}`)
  }
  const layers = [own, ...set.map(readSetting), options]
  const start = base === undefined ? {} : readRecipe(base).options
  // what came of the recipe says it all: applied once more it could bring back what was replaced
  const { recipe: _, ...merged } = layers.reduce((below, above) => mergeOptions(below, above), start)
  return merged as unknown as TrainOptions
}

const MAX_BYTES = 16 << 20
/** Aliases that a YAML file may have: it is read whole into memory. */
const MAX_ALIASES = 100

function readConfigFile(path: string): JsonObject {
  if (!existsSync(path)) throw new Error(`expected a configuration file, but there is none at '${path}'`)
  if (!statSync(path).isFile()) throw new Error(`expected a configuration file, but '${path}' is none`)
  if (statSync(path).size > MAX_BYTES) {
    throw new RangeError(`expected a configuration file of ${MAX_BYTES} bytes at most, but '${path}' is larger`)
  }
  // JSON is YAML too, but errors and duplicate keys are JSON's own
  if (path.endsWith('.json')) return readJsonObject(path)
  const value = readYaml(path)
  if (isObject(value)) return value
  throw new TypeError(`${path}: expected options by name, but it holds something else`)
}

function readYaml(path: string): unknown {
  try {
    return parse(readFileSync(path, 'utf8'), { maxAliasCount: MAX_ALIASES, logLevel: 'error' })
  } catch (error) {
    // the lines after it show the place
    const [first = ''] = (error as Error).message.split('\n')
    throw new SyntaxError(`${path}: expected YAML or JSON, but ${first.replace(/:$/, '')}`)
  }
}

/** `a.b=1` to { a: { b: 1 } }. */
function readSetting(setting: string): JsonObject {
  const at = setting.indexOf('=')
  const names = setting.slice(0, Math.max(0, at)).split('.')
  if (at <= 0 || names.some((name) => !/^\w+$/.test(name) || name === '__proto__')) {
    throw new RangeError(`--set: expected key.path=value, as in optimizer.lr=1e-4, but received '${setting}'`)
  }
  return names.reduceRight<unknown>(
    (value, name) => ({ [name]: value }),
    readValue(setting.slice(at + 1)),
  ) as JsonObject
}

function readValue(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** What tells one kind of options from another: an object of another kind has nothing of the one below. */
const KINDS = ['type', 'kind'] as const
/** Models: a name is short for { model: name }, and a configuration of one is not mixed with another's. */
const TOWERS = ['image', 'text']
const WHOLE = 'model'

/** Options over others: objects by their names, all else whole. */
export function mergeOptions(below: JsonObject, above: JsonObject): JsonObject {
  if (KINDS.some((key) => above[key] !== undefined && below[key] !== undefined && above[key] !== below[key])) {
    return above
  }
  const merged: Record<string, unknown> = { ...below }
  for (const [key, value] of Object.entries(above)) {
    if (value === undefined) continue
    const before = merged[key]
    const base = TOWERS.includes(key) && typeof before === 'string' ? { [WHOLE]: before } : before
    merged[key] = key !== WHOLE && isObject(base) && isObject(value) ? mergeOptions(base, value) : value
  }
  return merged
}
