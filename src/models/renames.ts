/*
 * Names of tensors in checkpoints and in modules. A table of renames is data: templates of names, in which `{i}` stands
 * for one part between dots and `{rest*}` for one or more.
 */

export interface RenameRule {
  /** A name in the checkpoint. Several are joined along `dim`, in this order. */
  readonly from: string | readonly string[]
  /** The module's name. Several split the tensor into equal parts along `dim`, in this order. Null: not wanted. */
  readonly to: string | readonly string[] | null
  /** Default: 0. */
  readonly dim?: number
  /** Whether the checkpoint's matrix is the transpose of the module's. Default: false. */
  readonly transpose?: boolean
}

/** The first rule that fits a name counts. A name that none fits stays as it is. */
export type RenameTable = readonly RenameRule[]

/** How a module's tensor comes out of a checkpoint's. */
export type Recipe =
  | { readonly kind: 'source'; readonly name: string }
  | { readonly kind: 'part'; readonly of: Recipe; readonly index: number; readonly count: number; readonly dim: number }
  | { readonly kind: 'join'; readonly of: readonly Recipe[]; readonly dim: number }
  | { readonly kind: 'transpose'; readonly of: Recipe }

export interface RenamePlan {
  /** By the module's names. */
  readonly recipes: ReadonlyMap<string, Recipe>
  /** Names of the checkpoint that the tables leave out. */
  readonly skipped: readonly string[]
  /** A sentence for each of the module's names that two tensors would have. */
  readonly conflicts: readonly string[]
}

type Values = ReadonlyMap<string, string>

const placeholder = /\{(\w+)(\*?)\}/g

/** A test of names by a template; it gives what the placeholders stand for. */
function matcher(template: string): (name: string) => Values | null {
  const keys: string[] = []
  let pattern = ''
  let end = 0
  for (const match of template.matchAll(placeholder)) {
    pattern += escapeRegExp(template.slice(end, match.index)) + (match[2] === '*' ? '(.+)' : '([^.]+)')
    keys.push(match[1]!)
    end = match.index + match[0].length
  }
  const expression = new RegExp(`^${pattern}${escapeRegExp(template.slice(end))}$`, 's')
  return (name) => {
    const found = expression.exec(name)
    return found === null ? null : new Map(keys.map((key, k) => [key, found[k + 1]!]))
  }
}

function escapeRegExp(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&')
}

function fill(template: string, values: Values): string {
  return template.replaceAll(placeholder, (_, key: string) => values.get(key) ?? '')
}

/** Whether a name is as a template says. */
export function fitsTemplate(template: string, name: string): boolean {
  return matcher(template)(name) !== null
}

function listOf<T>(value: T | readonly T[]): readonly T[] {
  return Array.isArray(value) ? (value as readonly T[]) : [value as T]
}

/** What the module's tensors are made of, by tables applied one after the other. */
export function planRenames(names: readonly string[], tables: readonly RenameTable[]): RenamePlan {
  const skipped: string[] = []
  const conflicts: string[] = []
  let recipes: ReadonlyMap<string, Recipe> = new Map(names.map((name) => [name, { kind: 'source', name }]))
  for (const table of tables) recipes = applyTable(recipes, table, skipped, conflicts)
  return { recipes, skipped, conflicts }
}

function applyTable(
  before: ReadonlyMap<string, Recipe>,
  table: RenameTable,
  skipped: string[],
  conflicts: string[],
): ReadonlyMap<string, Recipe> {
  const after = new Map<string, Recipe>()
  const origin = new Map<string, string>()
  const put = (name: string, recipe: Recipe, from: string): void => {
    const other = origin.get(name)
    if (other !== undefined) conflicts.push(`${name} from ${other} and from ${from}`)
    origin.set(name, from)
    after.set(name, recipe)
  }
  const rules = table.map((rule) => ({ rule, matchers: listOf(rule.from).map(matcher) }))
  /** Tensors that wait for the others that they are joined with. */
  const waiting = new Map<string, { rule: RenameRule; found: (Recipe | undefined)[]; names: string[] }>()

  for (const [name, recipe] of before) {
    let isDone = false
    for (const { rule, matchers } of rules) {
      const slot = matchers.findIndex((matches) => matches(name) !== null)
      if (slot < 0) continue
      const values = matchers[slot]!(name)!
      const made: Recipe = rule.transpose ? { kind: 'transpose', of: recipe } : recipe
      const { dim = 0 } = rule
      isDone = true
      if (rule.to === null) {
        skipped.push(name)
      } else if (matchers.length > 1) {
        const target = fill(listOf(rule.to)[0]!, values)
        const group = waiting.get(target) ?? { rule, found: new Array(matchers.length).fill(undefined), names: [] }
        group.found[slot] = made
        group.names[slot] = name
        waiting.set(target, group)
      } else if (typeof rule.to === 'string') {
        put(fill(rule.to, values), made, name)
      } else {
        const count = rule.to.length
        for (const [index, to] of rule.to.entries()) {
          put(fill(to, values), { kind: 'part', of: made, index, count, dim }, name)
        }
      }
      break
    }
    if (!isDone) put(name, recipe, name)
  }
  for (const [target, { rule, found, names }] of waiting) {
    if (found.every((each) => each !== undefined)) {
      put(target, { kind: 'join', of: found, dim: rule.dim ?? 0 }, names.join(', '))
    } else {
      // a part is not there: the others are reported under their own names
      for (const [slot, recipe] of found.entries()) {
        if (recipe !== undefined) put(names[slot]!, recipe, names[slot]!)
      }
    }
  }
  return after
}

/**
 * The table from the module's names to the checkpoint's. What the table leaves out stays out; a rule whose names say less
 * than the others' (two names for one) gives the first.
 */
export function invertTable(table: RenameTable): RenameTable {
  return table.flatMap((rule) => {
    if (rule.to === null) return []
    // what stands for several parts says so where it is looked for
    const wide = new Set(
      listOf(rule.from).flatMap((each) => [...each.matchAll(/\{(\w+)\*\}/g)].map((match) => match[1])),
    )
    const widen = (template: string) =>
      template.replaceAll(placeholder, (_, key) => (wide.has(key) ? `{${key}*}` : `{${key}}`))
    return [{ ...rule, from: typeof rule.to === 'string' ? widen(rule.to) : rule.to.map(widen), to: rule.from }]
  })
}

/** The shape that a recipe gives, or null where its parts do not fit. */
export function shapeOfRecipe(recipe: Recipe, shapeOf: (name: string) => readonly number[]): number[] | null {
  switch (recipe.kind) {
    case 'source':
      return [...shapeOf(recipe.name)]
    case 'transpose': {
      const shape = shapeOfRecipe(recipe.of, shapeOf)
      return shape === null || shape.length !== 2 ? null : shape.reverse()
    }
    case 'part': {
      const shape = shapeOfRecipe(recipe.of, shapeOf)
      const size = shape?.[recipe.dim]
      if (shape === null || size === undefined || size % recipe.count !== 0) return null
      shape[recipe.dim] = size / recipe.count
      return shape
    }
    case 'join': {
      const shapes = recipe.of.map((each) => shapeOfRecipe(each, shapeOf))
      const first = shapes[0]
      if (first === undefined || first === null || first[recipe.dim] === undefined) return null
      const total = [...first]
      for (const shape of shapes.slice(1)) {
        const isFit = shape?.length === first.length && shape.every((n, d) => d === recipe.dim || n === first[d])
        if (!isFit) return null
        total[recipe.dim]! += shape[recipe.dim]!
      }
      return total
    }
  }
}

/** The checkpoint's names that a recipe reads. */
export function sourcesOf(recipe: Recipe): readonly string[] {
  if (recipe.kind === 'source') return [recipe.name]
  return recipe.kind === 'join' ? recipe.of.flatMap(sourcesOf) : sourcesOf(recipe.of)
}
