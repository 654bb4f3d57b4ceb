import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { messageOf } from '../setup/errors.js'
import { writeRecord } from '../setup/files.js'

/*
 * Splits by patient: never an image of one patient on two sides. A split depends on the seed and on who the patients are, not on their
 * order or on anything else that was drawn.
 */

export const SPLIT_NAMES = ['train', 'valid', 'test'] as const
export type SplitName = (typeof SPLIT_NAMES)[number]
export type Fractions = Readonly<Partial<Record<SplitName, number>>>

/** Who is in which part, as stored in a file. */
export interface SplitManifest {
  readonly version: 1
  /** Of the data set. */
  readonly kind: string
  /** What it was drawn with; null for a user's own lists. */
  readonly seed: number | null
  readonly fractions: Fractions | null
  /** Patients by part, sorted. */
  readonly splits: Readonly<Partial<Record<SplitName, readonly string[]>>>
  /** SHA-256 of `splits`. */
  readonly hash: string
}

/** A place in a seeded order that depends on the key alone: below 2^48. */
export function rankOf(seed: number, purpose: string, key: string): number {
  return createHash('sha256')
    .update(JSON.stringify([seed, purpose, key]))
    .digest()
    .readUIntBE(0, 6)
}

/** The keys in a seeded order that does not depend on theirs; each once. */
export function ranked(keys: Iterable<string>, seed: number, purpose: string): string[] {
  const ranks = [...new Set(keys)].map((key) => ({ key, rank: rankOf(seed, purpose, key) }))
  return ranks.sort((left, right) => left.rank - right.rank || (left.key < right.key ? -1 : 1)).map(({ key }) => key)
}

/**
 * Draws the parts.
 *
 * @param fractions of the patients; their sum is 1 at most
 * @throws RangeError for fractions that are not above 0, or are more than 1 together
 */
export function splitPatients(
  patients: Iterable<string>,
  fractions: Fractions,
  seed: number,
): Partial<Record<SplitName, string[]>> {
  const parts = SPLIT_NAMES.flatMap((name) => {
    const fraction = fractions[name]
    return fraction === undefined ? [] : { name, fraction }
  })
  const sum = parts.reduce((total, { fraction }) => total + fraction, 0)
  if (parts.length === 0 || parts.some(({ fraction }) => !(fraction > 0)) || sum > 1 + 1e-9) {
    throw new RangeError(
      `expected fractions above 0 that are 1 together at most, but received ${JSON.stringify(fractions)}`,
    )
  }
  const order = ranked(patients, seed, 'split')
  const splits: Partial<Record<SplitName, string[]>> = {}
  let from = 0
  let reached = 0
  for (const { name, fraction } of parts) {
    reached += fraction
    const to = Math.round(Math.min(1, reached) * order.length)
    splits[name] = order.slice(from, to).sort()
    from = to
  }
  return splits
}

function hashOf(splits: SplitManifest['splits']): string {
  const sorted = SPLIT_NAMES.flatMap((name) => (splits[name] === undefined ? [] : [[name, [...splits[name]].sort()]]))
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex')
}

/** @throws Error where a patient is in two parts */
export function makeManifest(
  kind: string,
  splits: SplitManifest['splits'],
  drawn: { seed: number; fractions: Fractions } | null = null,
): SplitManifest {
  const seen = new Map<string, SplitName>()
  for (const name of SPLIT_NAMES) {
    for (const patient of splits[name] ?? []) {
      const other = seen.get(patient)
      if (other !== undefined && other !== name) {
        throw new Error(`expected each patient in one part of a split, but ${patient} is in ${other} and ${name}`)
      }
      seen.set(patient, name)
    }
  }
  return {
    version: 1,
    kind,
    seed: drawn?.seed ?? null,
    fractions: drawn?.fractions ?? null,
    splits,
    hash: hashOf(splits),
  }
}

const parts = <Value extends z.ZodType>(value: Value) =>
  z.strictObject({ train: value.optional(), valid: value.optional(), test: value.optional() })

const manifestSchema = z.strictObject({
  version: z.literal(1),
  kind: z.string(),
  seed: z.number().nullable(),
  fractions: parts(z.number()).nullable(),
  splits: parts(z.array(z.string())),
  hash: z.string(),
})

/** Writes beside and renames: a reader never sees half of it. */
export function writeManifest(file: string, manifest: SplitManifest): void {
  writeRecord(file, manifest)
}

/** @throws Error where the file is no manifest, a patient is in two parts, or the lists are not those that the hash is of */
export async function readManifest(file: string): Promise<SplitManifest> {
  let manifest: SplitManifest
  try {
    manifest = manifestSchema.parse(JSON.parse(await readFile(file, 'utf8')))
  } catch (error) {
    const reason = error instanceof z.ZodError ? z.prettifyError(error).replaceAll('\n', ' ') : messageOf(error)
    throw new Error(`${file}: expected the manifest of a split, but it cannot be read as one: ${reason}`)
  }
  const { hash } = makeManifest(manifest.kind, manifest.splits)
  if (hash !== manifest.hash) {
    throw new Error(
      `${file}: expected the split ${manifest.hash}, but its lists are those of ${hash}: they were changed`,
    )
  }
  return manifest
}

/** Part by patient. */
export function partsOf({ splits }: Pick<SplitManifest, 'splits'>): Map<string, SplitName> {
  const found = new Map<string, SplitName>()
  for (const name of SPLIT_NAMES) for (const patient of splits[name] ?? []) found.set(patient, name)
  return found
}
