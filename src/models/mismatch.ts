import { quote } from '../torch/files/error.js'
import type { Tensor } from '../torch/index.js'

/*
 * What is wrong between the tensors that a module wants and those that a checkpoint gives, in words that help.
 */

export interface Mismatch {
  /** What the module wants. */
  readonly targets: ReadonlyMap<string, Tensor>
  /** What there is, under the module's names; null for parts that cannot be put together. */
  readonly shapes: ReadonlyMap<string, readonly number[] | null>
  readonly missing: readonly string[]
  readonly unexpected: readonly string[]
  readonly conflicts: readonly string[]
}

/** All of it in one text, or null where nothing is wrong. */
export function describeMismatch(mismatch: Mismatch): { message: string; misshapen: string[] } | null {
  const { targets, shapes, missing, unexpected, conflicts } = mismatch
  const misshapen = [...targets].flatMap(([name, target]) => {
    const shape = shapes.get(name)
    return shape === undefined ? [] : (shapeProblem(name, target.shape, shape) ?? [])
  })
  if (missing.length + unexpected.length + conflicts.length + misshapen.length === 0) return null

  const taken = new Set<string>()
  const missingWords = missing.map((name) => {
    const near = nearest(name, targets.get(name)!.shape, unexpected, shapes, taken)
    return near === null ? name : `${name} (did you mean ${near}?)`
  })
  const prefix = commonPrefix(missing, unexpected)
  const parts = [
    ...(missing.length > 0 ? [`${missing.length} missing: ${missingWords.join(', ')}`] : []),
    ...(unexpected.length > 0 ? [`${unexpected.length} unexpected: ${unexpected.map(plain).join(', ')}`] : []),
    ...(misshapen.length > 0 ? [`${misshapen.length} of another shape: ${misshapen.join('; ')}`] : []),
    ...(conflicts.length > 0 ? [`${conflicts.length} given twice: ${conflicts.map(plain).join('; ')}`] : []),
    ...(prefix === null ? [] : [prefix]),
  ]
  return { message: parts.join('. '), misshapen }
}

/** Names out of a file: quoted where they are not plain. */
function plain(name: string): string {
  return /^[\w.,: -]{1,200}$/.test(name) ? name : quote(name)
}

function isTranspose(a: readonly number[], b: readonly number[]): boolean {
  return a.length === 2 && b.length === 2 && a[0] === b[1] && a[1] === b[0]
}

function shapeProblem(name: string, wanted: readonly number[], given: readonly number[] | null): string | null {
  if (given === null) return `${name}: expected shape [${wanted}], but the parts it is made of do not fit together`
  if (wanted.length === given.length && wanted.every((size, dim) => size === given[dim])) return null
  const hint = isTranspose(wanted, given) ? '; did you mean its transpose?' : ''
  return `${name}: expected shape [${wanted}], but received [${given}]${hint}`
}

/** The unexpected tensor of the same (or the transposed) shape whose name is most alike; each is named once. */
function nearest(
  name: string,
  shape: readonly number[],
  unexpected: readonly string[],
  shapes: ReadonlyMap<string, readonly number[] | null>,
  taken: Set<string>,
): string | null {
  let best: { name: string; score: number; hint: string } | null = null
  for (const candidate of unexpected) {
    const given = shapes.get(candidate)
    if (taken.has(candidate) || given === undefined || given === null) continue
    const isSame = given.length === shape.length && given.every((size, dim) => size === shape[dim])
    if (!isSame && !isTranspose(given, shape)) continue
    const score = likeness(name, candidate) - (isSame ? 0 : 0.1)
    if (score > 0.45 && score > (best?.score ?? 0))
      best = { name: candidate, score, hint: isSame ? '' : ', transposed' }
  }
  if (best === null) return null
  taken.add(best.name)
  return plain(best.name) + best.hint
}

/** From 0 to 1: pairs of letters in common (Dice 1945). Numbers must be the same: layer 1 is not layer 2. */
function likeness(a: string, b: string): number {
  const numbers = (text: string) => (text.match(/\d+/g) ?? []).join()
  if (numbers(a) !== numbers(b) && numbers(a) !== '' && numbers(b) !== '') return 0
  const pairs = (text: string) => Array.from({ length: Math.max(0, text.length - 1) }, (_, k) => text.slice(k, k + 2))
  const left = pairs(a.toLowerCase())
  const right = pairs(b.toLowerCase())
  const counts = new Map<string, number>()
  for (const pair of left) counts.set(pair, (counts.get(pair) ?? 0) + 1)
  let common = 0
  for (const pair of right) {
    const count = counts.get(pair) ?? 0
    if (count > 0) common += 1
    counts.set(pair, count - 1)
  }
  return (2 * common) / Math.max(1, left.length + right.length)
}

/** Wrappers put a word in front of all names (DataParallel 'module.', torch.compile '_orig_mod.'). */
function commonPrefix(missing: readonly string[], unexpected: readonly string[]): string | null {
  if (missing.length < 3) return null
  const given = new Set(unexpected)
  const outer = unexpected.find((name) => name.endsWith(`.${missing[0]}`))?.slice(0, -missing[0]!.length)
  if (outer !== undefined && missing.every((name) => given.has(outer + name))) {
    return `Did you mean the names without '${plain(outer)}' in front?`
  }
  const wanted = new Set(missing)
  const inner = missing.find((name) => name.endsWith(`.${unexpected[0]}`))?.slice(0, -unexpected[0]!.length)
  if (inner !== undefined && unexpected.every((name) => wanted.has(inner + name))) {
    return `Did you mean the names with '${inner}' in front?`
  }
  return null
}
