import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join, posix } from 'node:path'
import type { ClassPrompt, Sample } from '../sample.js'
import {
  makeManifest,
  partsOf,
  ranked,
  rankOf,
  readManifest,
  SPLIT_NAMES,
  type SplitManifest,
  type SplitName,
  splitPatients,
  writeManifest,
} from '../split.js'
import type { SplitsSpec } from './spec.js'

/** What the kinds have in common: datasetSpec's. */
export interface SelectSpec {
  readonly root: string
  readonly split: SplitName | 'all'
  readonly splits: SplitsSpec
  readonly perClass?: number
  readonly fraction: number
  readonly seed: number
  readonly keepSize: boolean
  readonly balance: boolean
}

const sorted = (value: object) =>
  JSON.stringify(Object.entries(value).sort(([left], [right]) => (left < right ? -1 : 1)))

async function drawnSplit(
  kind: string,
  samples: readonly Sample[],
  { fractions, seed, manifest }: Extract<SplitsSpec, { fractions: object }>,
): Promise<SplitManifest> {
  if (manifest !== undefined && existsSync(manifest)) {
    const stored = await readManifest(manifest)
    if (stored.kind !== kind || stored.seed !== seed || sorted(stored.fractions ?? {}) !== sorted(fractions)) {
      throw new Error(
        `${manifest}: expected a split of ${kind} with seed ${seed} into ${JSON.stringify(fractions)}, but it is of ${stored.kind} with seed ${stored.seed} into ${JSON.stringify(stored.fractions)}; name another file`,
      )
    }
    return stored
  }
  const splits = splitPatients(
    samples.map(({ patient }) => patient),
    fractions,
    seed,
  )
  const made = makeManifest(kind, splits, { seed, fractions })
  if (manifest !== undefined) writeManifest(manifest, made)
  return made
}

/** Patients by the user's lists of patients, paths or file names. */
export async function splitByLists(
  kind: string,
  samples: readonly Sample[],
  lists: Partial<Record<SplitName, string>>,
): Promise<SplitManifest> {
  const named = new Map<string, SplitName>()
  for (const name of SPLIT_NAMES) {
    const file = lists[name]
    if (file === undefined) continue
    for (const line of (await readFile(file, 'utf8')).split(/\r?\n/)) {
      const key = line.trim()
      const other = named.get(key)
      if (key !== '' && other !== undefined && other !== name) {
        throw new Error(`${file}: expected each line in one list, but ${key} is in ${other} and ${name}`)
      }
      if (key !== '') named.set(key, name)
    }
  }
  const splits: Partial<Record<SplitName, Set<string>>> = {}
  for (const name of SPLIT_NAMES) if (lists[name] !== undefined) splits[name] = new Set()
  for (const { patient, path } of samples) {
    const name = named.get(path) ?? named.get(posix.basename(path)) ?? named.get(patient)
    if (name !== undefined) splits[name]!.add(patient)
  }
  return makeManifest(
    kind,
    Object.fromEntries(Object.entries(splits).map(([name, patients]) => [name, [...patients].sort()])),
  )
}

async function manifestFor(
  kind: string,
  samples: readonly Sample[],
  splits: SplitsSpec,
  official: (() => Promise<SplitManifest>) | null,
): Promise<SplitManifest> {
  if (splits === 'official') {
    if (official !== null) return await official()
    throw new Error(`expected fractions, a manifest or lists for the split of ${kind}, which has no official one`)
  }
  if ('fractions' in splits) return await drawnSplit(kind, samples, splits)
  if ('lists' in splits) return await splitByLists(kind, samples, splits.lists)
  return await readManifest(splits.manifest)
}

/** The first `count` of each class in a seeded order; their own order is kept. */
function firstOfClasses(samples: readonly Sample[], count: number, seed: number, purpose: string): Set<Sample> {
  const chosen = new Set<Sample>()
  const labels = new Set(samples.map(({ label }) => label))
  for (const label of labels) {
    if (label === null) continue
    for (const sample of byRank(
      samples.filter((each) => each.label === label),
      seed,
      purpose,
    ).slice(0, count)) {
      chosen.add(sample)
    }
  }
  return chosen
}

/** In a seeded order that depends on path and row alone. */
export function byRank(samples: readonly Sample[], seed: number, purpose: string): Sample[] {
  return samples
    .map((sample) => ({ sample, rank: rankOf(seed, purpose, sample.path) }))
    .sort((left, right) => left.rank - right.rank || left.sample.row - right.sample.row)
    .map(({ sample }) => sample)
}

/**
 * So many images of each class.
 *
 * @throws Error where a class has fewer
 */
export function chooseClasses(
  samples: readonly Sample[],
  classes: readonly ClassPrompt[],
  count: number,
  seed: number,
  purpose = 'class',
): Sample[] {
  for (const [label, { name }] of classes.entries()) {
    const there = samples.filter((sample) => sample.label === label).length
    if (there < count)
      throw new Error(`expected ${count} images of the class ${name}, but there are ${there}; ask for fewer`)
  }
  const chosen = firstOfClasses(samples, count, seed, purpose)
  return samples.filter((sample) => chosen.has(sample))
}

/** So many images of each class, or all where a class has fewer. */
export function atMostOfClasses(samples: readonly Sample[], count: number, seed = 42): Sample[] {
  const chosen = firstOfClasses(samples, count, seed, 'class')
  return samples.filter((sample) => chosen.has(sample))
}

/** As many images of each class as the rarest has. */
export function balanceClasses(samples: readonly Sample[], classes: readonly ClassPrompt[], seed: number): Sample[] {
  const counts = classes.map((_, label) => samples.filter((sample) => sample.label === label).length)
  const chosen = firstOfClasses(samples, Math.min(...counts), seed, 'balance')
  return samples.filter((sample) => chosen.has(sample))
}

/** Weights inversely to the frequency of each sample's class: 1 / its count. */
export function classWeights(samples: readonly Sample[]): Float64Array {
  const counts = new Map<number, number>()
  for (const { label } of samples) {
    if (label === null)
      throw new Error('expected a class for every image to balance classes, but some have none or several')
    counts.set(label, (counts.get(label) ?? 0) + 1)
  }
  return Float64Array.from(samples, ({ label }) => 1 / counts.get(label!)!)
}

export interface Selection {
  readonly samples: readonly Sample[]
  readonly split: { readonly name: string; readonly hash: string } | null
  readonly weights: Float64Array | null
}

/**
 * The part, the classes and the fraction that a spec asks for.
 *
 * @param official the data set's own split, where it has one
 * @param refine of the part, before the fraction: who else is left out
 */
export async function select(
  kind: string,
  all: readonly Sample[],
  classes: readonly ClassPrompt[],
  spec: SelectSpec,
  official: (() => Promise<SplitManifest>) | null = null,
  refine: (samples: readonly Sample[]) => readonly Sample[] = (samples) => samples,
): Promise<Selection> {
  let samples = all
  let split: Selection['split'] = null
  if (spec.split !== 'all') {
    const manifest = await manifestFor(kind, all, spec.splits, official)
    const parts = partsOf(manifest)
    samples = all.filter(({ patient }) => parts.get(patient) === spec.split)
    split = { name: spec.split, hash: manifest.hash }
    if (samples.length === 0) {
      throw new Error(
        `expected images in the part ${spec.split} of ${spec.root}, but the split has none of its ${all.length} there`,
      )
    }
  }
  samples = refine(samples)
  if (spec.perClass !== undefined) samples = chooseClasses(samples, classes, spec.perClass, spec.seed)
  if (spec.fraction < 1) {
    const count = Math.max(1, Math.round(spec.fraction * samples.length))
    const chosen = new Set(byRank(samples, spec.seed, 'fraction').slice(0, count))
    samples = samples.filter((sample) => chosen.has(sample))
  }
  if (spec.keepSize) samples = Array.from({ length: Math.floor(1 / spec.fraction) }, () => samples).flat()
  if (samples.length === 0) throw new Error(`expected images in ${spec.root}, but what was asked for leaves none`)
  return { samples, split, weights: spec.balance ? classWeights(samples) : null }
}

/** A list of names in the data set's folder, or an error that says what to do without it. */
export async function officialLists(
  kind: string,
  root: string,
  samples: readonly Sample[],
  files: { readonly train: string; readonly test: string },
  validFraction: number,
): Promise<SplitManifest> {
  for (const file of [files.train, files.test]) {
    if (!existsSync(join(root, file))) {
      throw new Error(
        `expected ${join(root, file)} for the official split, but there is no such file; put it there, or give splits of your own`,
      )
    }
  }
  const { splits } = await splitByLists(kind, samples, {
    train: join(root, files.train),
    test: join(root, files.test),
  })
  const order = ranked(splits.train ?? [], 0, 'valid')
  const valid = order.slice(0, Math.round(validFraction * order.length))
  const isValid = new Set(valid)
  return makeManifest(kind, {
    train: (splits.train ?? []).filter((patient) => !isValid.has(patient)),
    valid: valid.sort(),
    test: splits.test ?? [],
  })
}
