import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Options of a run under a name. */
export interface Recipe {
  readonly name: string
  /** What it is, in a sentence. */
  readonly about: string
  /** Without what is the user's: where the data is, and where the run goes. */
  readonly options: Readonly<Record<string, unknown>>
}

// beside the sources, also for the compiled file: dist/train/../../src/train
const folder = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'src', 'train', 'recipes')

export function listRecipes(): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .map((file) => basename(file, '.json'))
    .sort()
}

/** @throws RangeError for a name that no recipe has */
export function readRecipe(name: string): Recipe {
  const names = listRecipes()
  if (!names.includes(name)) {
    throw new RangeError(`recipe: expected one of ${names.join(', ')}, but received '${name}'`)
  }
  const json = JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as Omit<Recipe, 'name'>
  return { ...json, name }
}
