import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Progress } from '../../setup/report.js'
import type { Problem } from '../problems.js'
import { POSITIVE, type Sample } from '../sample.js'
import type { LoadedDataset } from './dataset.js'

/** What is in a data set, in numbers. */
export interface DatasetSummary {
  readonly kind: string
  readonly root: string
  readonly hash: string
  readonly images: number
  readonly patients: number
  readonly views: Readonly<Record<string, number>>
  /** Of images with one class. */
  readonly classes: Readonly<Record<string, number>>
  /** Of every finding: positive, negative, uncertain, not mentioned. */
  readonly findings: Readonly<Record<string, FindingCounts>>
  /** Images with both findings positive, by two names. Empty where there are no findings. */
  readonly cooccurrence: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly captions: CaptionSummary | null
  readonly notes: readonly string[]
  readonly problems: readonly Problem[]
}

export interface FindingCounts {
  readonly positive: number
  readonly negative: number
  readonly uncertain: number
  readonly blank: number
}

export interface CaptionSummary {
  readonly distinct: number
  /** Words of a caption, over the images. */
  readonly words: { readonly min: number; readonly mean: number; readonly max: number }
  /** The most frequent, with their counts. */
  readonly frequent: readonly (readonly [string, number])[]
}

const FREQUENT = 5

function count<Key>(keys: Iterable<Key>): Map<Key, number> {
  const counts = new Map<Key, number>()
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1)
  return counts
}

function summarizeFindings(samples: readonly Sample[], names: readonly string[]) {
  // few patterns, many samples
  const patterns = new Map<string, { findings: Int8Array; images: number }>()
  for (const { findings } of samples) {
    if (findings === null) continue
    const key = findings.join()
    const there = patterns.get(key)
    if (there === undefined) patterns.set(key, { findings, images: 1 })
    else there.images += 1
  }
  const all = [...patterns.values()]
  const withValue = (index: number, wanted: number) =>
    all.reduce((sum, { findings, images }) => sum + (findings[index] === wanted ? images : 0), 0)
  const both = (one: number, other: number) =>
    all.reduce((sum, { findings, images }) => {
      return sum + (findings[one] === POSITIVE && findings[other] === POSITIVE ? images : 0)
    }, 0)
  const counted = names.map((name, index): [string, FindingCounts] => [
    name,
    {
      positive: withValue(index, 1),
      negative: withValue(index, 0),
      uncertain: withValue(index, -1),
      blank: withValue(index, -2),
    },
  ])
  const cooccurrence = names.map((name, one) => [
    name,
    Object.fromEntries(names.map((other, index) => [other, both(one, index)])),
  ])
  return { findings: Object.fromEntries(counted), cooccurrence: Object.fromEntries(cooccurrence) }
}

function summarizeCaptions(samples: readonly Sample[]): CaptionSummary | null {
  const counts = count(samples.flatMap(({ caption }) => caption ?? []))
  if (counts.size === 0) return null
  let images = 0
  let total = 0
  let [min, max] = [Number.POSITIVE_INFINITY, 0]
  for (const [caption, times] of counts) {
    const words = caption.split(/\s+/).filter((word) => word !== '').length
    images += times
    total += times * words
    min = Math.min(min, words)
    max = Math.max(max, words)
  }
  const frequent = [...counts].sort((left, right) => right[1] - left[1]).slice(0, FREQUENT)
  return { distinct: counts.size, words: { min, mean: total / images, max }, frequent }
}

/** Counts what a data set holds. */
export function summarize(dataset: LoadedDataset): DatasetSummary {
  const { kind, root, hash, samples, classes, findings, notes } = dataset
  const labels = count(samples.map(({ label }) => label))
  return {
    kind,
    root,
    hash,
    images: samples.length,
    patients: new Set(samples.map(({ patient }) => patient)).size,
    views: Object.fromEntries(count(samples.map(({ attributes }) => attributes.view ?? 'unknown'))),
    classes: Object.fromEntries(classes.map(({ name }, label) => [name, labels.get(label) ?? 0])),
    ...summarizeFindings(samples, findings),
    captions: summarizeCaptions(samples),
    notes,
    problems: dataset.problems.list,
  }
}

/** How many files are asked for at a time. */
const AT_ONCE = 64

/** Images that are not there, or are empty. That a file can be decoded only decoding shows. */
export async function missingFiles(dataset: LoadedDataset, progress: Progress): Promise<Problem[]> {
  // samples of archives were found in them
  if (dataset.open !== undefined) return []
  const missing: Problem[] = []
  const { samples, root } = dataset
  for (let from = 0; from < samples.length; from += AT_ONCE) {
    const found = samples.slice(from, from + AT_ONCE).map(async ({ row, path }): Promise<Problem[]> => {
      const file = await stat(join(root, path)).catch(() => null)
      if (file?.isFile() === true && file.size > 0) return []
      const came = file === null ? 'there is none' : file.isFile() ? 'it is empty' : 'it is a folder'
      return [{ row, path, problem: `expected a file, but ${came}` }]
    })
    missing.push(...(await Promise.all(found)).flat())
    progress.update(Math.min(samples.length, from + AT_ONCE))
  }
  progress.finish()
  return missing
}
