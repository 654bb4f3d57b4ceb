import { existsSync, readdirSync } from 'node:fs'
import { basename, delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type JsonObject, readJsonObject } from './config.js'

/** A model that has a name: where it is, what may be done with it, and its architecture. */
export interface Preset {
  readonly name: string
  /** Its JSON file. */
  readonly path: string
  readonly kind: 'image' | 'text'
  /** On the Hugging Face hub. */
  readonly repository: string | null
  /** A branch, a tag or a commit of the repository. */
  readonly revision: string | null
  /** A folder on this machine, in place of the hub. */
  readonly folder: string | null
  readonly licence: string
  /** config.json, for what has none of its own, and for sizes without files. */
  readonly config: JsonObject
}

// beside the sources, also for the compiled file: dist/models/../../src/models
const ownFolder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'src', 'models', 'presets')

/** Folders with presets, the user's first: those given, those of CLEFT_PRESETS, the package's own. */
export function presetFolders(given: readonly string[] = []): readonly string[] {
  const environment = (process.env.CLEFT_PRESETS ?? '').split(delimiter).filter((folder) => folder !== '')
  return [...given, ...environment, ownFolder]
}

/** The names of all presets. */
export function listPresets(folders: readonly string[] = []): readonly string[] {
  const names = presetFolders(folders)
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).filter((file) => file.endsWith('.json')))
  return [...new Set(names.map((file) => basename(file, '.json')))].sort()
}

/** The preset of a name, or null where there is none. */
export function findPreset(name: string, folders: readonly string[] = []): Preset | null {
  if (!/^[\w.-]+$/.test(name)) return null
  const path = presetFolders(folders)
    .map((folder) => join(folder, `${name}.json`))
    .find((each) => existsSync(each))
  return path === undefined ? null : readPreset(name, path)
}

function readPreset(name: string, path: string): Preset {
  const json = readJsonObject(path)
  const text = (key: string): string | null => {
    const value = json[key]
    if (value === undefined || value === null) return null
    if (typeof value === 'string') return value
    throw new TypeError(`${path}: expected '${key}' to be a text, but it is a ${typeof value}; correct it`)
  }
  const { config } = json
  if (typeof config !== 'object' || config === null || !('model_type' in config)) {
    throw new TypeError(`${path}: expected 'config' to be an object with a model_type, but it is not; correct it`)
  }
  const kind = text('kind')
  if (kind !== 'image' && kind !== 'text') {
    throw new TypeError(`${path}: expected 'kind' to be image or text, but it is ${kind}; correct it`)
  }
  const folder = text('folder')
  return {
    name,
    path,
    kind,
    repository: text('repository'),
    revision: text('revision'),
    folder: folder === null ? null : resolve(dirname(path), folder),
    licence: text('licence') ?? 'unknown',
    config: config as JsonObject,
  }
}
