import { readFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { z } from 'zod'
import { codeOf } from '../setup/errors.js'
import { quote, quoteList, reasonOf } from '../torch/files/error.js'
import {
  type BootstrapOptions,
  DEFAULT_RESAMPLES,
  type Difference,
  differenceOf,
  type Estimate,
  estimateOf,
  evaluateOnce,
  resample,
} from './bootstrap.js'
import { measure, type OverallMetric, overallIndex, overallMetrics, targetIndex } from './measures.js'
import { type Predictions, reorderClasses, scales, selectRows, type Task, tasks } from './predictions.js'
import { readPredictions } from './predictions-file.js'

/*
 * Runs side by side, from the folders that reports were written to. All are resampled alike, so that differences are between
 * the same patients: much narrower than intervals that overlap or do not.
 */

/** What is read of metrics.json. */
const savedSummary = z.object({
  format: z.literal('cleft-metrics-1'),
  task: z.enum(tasks).nullable(),
  scale: z.enum(scales).nullable(),
  labels: z
    .object({ uncertain: z.enum(['exclude', 'negative', 'positive']), blank: z.enum(['exclude', 'negative']) })
    .nullable(),
  operatingPoint: z.object({ from: z.string() }).nullable(),
  perClass: z.array(z.object({ name: z.string(), threshold: z.number().nullable() })),
  provenance: z.object({
    name: z.string(),
    evaluation: z.string(),
    checkpoint: z.object({ name: z.string(), sha256: z.string() }).nullable(),
    data: z.object({ kind: z.string(), split: z.string(), hash: z.string() }),
  }),
})

export interface Run {
  readonly folder: string
  readonly name: string
  readonly evaluation: string
  readonly checkpoint: { readonly name: string; readonly sha256: string } | null
  readonly data: { readonly kind: string; readonly split: string; readonly hash: string }
  readonly predictions: Predictions
  /** Thresholds from its validation set, by the name of the class; null where it had none. */
  readonly thresholds: ReadonlyMap<string, number | null> | null
  readonly labels: z.infer<typeof savedSummary>['labels']
}

/** @throws Error in one sentence where the folder has no report of predictions */
export async function readRun(folder: string): Promise<Run> {
  const { task, scale, labels, operatingPoint, perClass, provenance } = readSaved(join(folder, 'metrics.json'))
  if (task === null || scale === null) {
    throw new Error(`${folder}: expected a run with predictions of classes or findings, but it is a retrieval alone`)
  }
  return {
    ...provenance,
    folder,
    labels,
    predictions: await readPredictions(join(folder, 'predictions.csv'), { task, scale }),
    thresholds:
      operatingPoint?.from === 'validation' ? new Map(perClass.map(({ name, threshold }) => [name, threshold])) : null,
  }
}

function readSaved(file: string): z.infer<typeof savedSummary> {
  let content: unknown
  try {
    content = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    const problem = ['ENOENT', 'ENOTDIR'].includes(codeOf(error) ?? '') ? 'there is none' : reasonOf(error)
    throw new Error(`${file}: expected a metrics.json as \`cleft eval --report\` writes it, but ${problem}`)
  }
  const found = savedSummary.safeParse(content)
  if (found.success) return found.data
  const [issue] = found.error.issues
  throw new Error(
    `${file}: expected a metrics.json as \`cleft eval --report\` writes it, but ${issue!.path.join('.') || 'the file'} is wrong: ${issue!.message}`,
  )
}

export interface ComparedRun {
  readonly folder: string
  readonly name: string
  readonly evaluation: string
  readonly checkpoint: Run['checkpoint']
  readonly metrics: Readonly<Partial<Record<OverallMetric, Estimate>>>
}

export interface RunDifference {
  /** Index into `runs`; the difference is this run minus the first. */
  readonly run: number
  readonly metrics: Readonly<Partial<Record<OverallMetric, Difference>>>
  readonly perClass: readonly { readonly name: string; readonly auc: Difference }[]
}

export interface Comparison {
  readonly task: Task
  readonly classes: readonly string[]
  readonly images: number
  readonly patients: number
  /** Images that only some of the runs have, and that are left out. */
  readonly leftOut: number
  readonly intervals: { readonly confidence: number; readonly resamples: number; readonly seed: number }
  readonly runs: readonly ComparedRun[]
  readonly differences: readonly RunDifference[]
}

export interface CompareOptions extends BootstrapOptions {
  /** Compare on the images that all runs have, where they do not all have the same. Default: false, an error. */
  shared?: boolean
}

/**
 * The first run against each of the others.
 *
 * @param folders of two runs or more, with metrics.json and predictions.csv
 * @throws Error in one sentence where they cannot be compared: other tasks, classes, labels or test sets
 */
export async function compareRuns(folders: readonly string[], options: CompareOptions = {}): Promise<Comparison> {
  const { resamples = DEFAULT_RESAMPLES, seed = 0, confidence = 0.95, shared = false } = options
  if (folders.length < 2) throw new Error(`expected two runs or more to compare, but received ${folders.length}`)
  if (new Set(folders.map((folder) => resolve(folder))).size < folders.length) {
    throw new Error('expected different runs to compare, but a folder comes twice')
  }
  const runs: Run[] = []
  for (const folder of folders) runs.push(await readRun(folder))
  for (const run of runs) checkSameTask(runs[0]!, run)
  const { aligned, leftOut } = align(runs, shared)
  const { patients, task, classes } = aligned[0]!
  const measures = aligned.map((predictions, k) => {
    const { thresholds, labels } = runs[k]!
    const names = task === 'binary' ? [classes[1]!] : classes
    return measure(predictions, {
      ...labels,
      thresholds: thresholds && names.map((name) => thresholds.get(name) ?? null),
    })
  })
  const columns = await resample(measures, patients, { ...options, resamples, seed })
  const values = measures.map((each) => evaluateOnce(each, patients.length))
  const people = new Set(patients).size
  const estimate = (k: number, index: number) => estimateOf(values[k]![index]!, columns[k]![index]!, people, confidence)
  const difference = (k: number, index: number) =>
    differenceOf(
      { a: values[0]![index]!, b: values[k]![index]! },
      { a: columns[0]![index]!, b: columns[k]![index]! },
      people,
      confidence,
    )
  const known = overallMetrics.filter((metric) => values.some((each) => !Number.isNaN(each[overallIndex(metric)])))
  const overall = <Found>(of: (index: number) => Found) =>
    Object.fromEntries(known.map((metric) => [metric, of(overallIndex(metric))]))
  return {
    task,
    classes,
    images: patients.length,
    patients: people,
    leftOut,
    intervals: { confidence, resamples, seed },
    runs: runs.map(({ folder, name, evaluation, checkpoint }, k) => ({
      folder,
      name,
      evaluation,
      checkpoint,
      metrics: overall((index) => estimate(k, index)),
    })),
    differences: runs.slice(1).map((_, before) => ({
      run: before + 1,
      metrics: overall((index) => difference(before + 1, index)),
      perClass: measures[0]!.targets.map(({ name }, target) => ({
        name,
        auc: difference(before + 1, targetIndex('auc', target)),
      })),
    })),
  }
}

function checkSameTask(first: Run, other: Run): void {
  const [a, b] = [first.predictions, other.predictions]
  const differ = (what: string, own: string, others: string) => {
    throw new Error(
      `expected runs of the same ${what}, but ${first.folder} has ${own} and ${other.folder} has ${others}; compare runs that were evaluated alike`,
    )
  }
  if (a.task !== b.task) differ('task', a.task, b.task)
  if ([...a.classes].sort().join('\n') !== [...b.classes].sort().join('\n')) {
    differ('classes', quoteList(a.classes), quoteList(b.classes))
  }
  if (a.task === 'binary' && a.classes[1] !== b.classes[1]) {
    differ('positive class', quote(a.classes[1]!), quote(b.classes[1]!))
  }
  if (JSON.stringify(first.labels) !== JSON.stringify(other.labels)) {
    differ('rule for uncertain and blank labels', JSON.stringify(first.labels), JSON.stringify(other.labels))
  }
}

/** Every run's predictions for the same images, in the first run's order of images and classes. */
function align(runs: readonly Run[], shared: boolean): { aligned: Predictions[]; leftOut: number } {
  const rowsOf = runs.map((run) => rowsByImage(run))
  const [first] = runs
  const common = first!.predictions.paths.filter((image) => rowsOf.every((rows) => rows.has(image)))
  const all = new Set(runs.flatMap(({ predictions }) => predictions.paths))
  const odd = runs.find(({ predictions }, k) => k > 0 && !sameImages(predictions, rowsOf[0]!))
  if (odd && (common.length === 0 || !shared)) refuseTestSets(first!, odd, rowsOf[0]!)
  const aligned = runs.map(({ predictions }, k) => {
    const rows = common.map((image) => rowsOf[k]!.get(image)!)
    const order = first!.predictions.classes.map((name) => predictions.classes.indexOf(name))
    return reorderClasses(selectRows(predictions, rows), order)
  })
  for (const [k, predictions] of aligned.entries()) {
    const wrong = predictions.labels.findIndex((label, at) => label !== aligned[0]!.labels[at])
    if (wrong < 0) continue
    const width = predictions.labels.length / common.length
    throw new Error(
      `expected the same labels in all runs, but ${first!.folder} and ${runs[k]!.folder} have others for image ${quote(common[Math.floor(wrong / width)]!)}; evaluate both on one version of the data`,
    )
  }
  return { aligned, leftOut: all.size - common.length }
}

function rowsByImage({ predictions, folder }: Run): Map<string, number> {
  const rows = new Map<string, number>()
  for (const [row, image] of predictions.paths.entries()) {
    if (rows.has(image)) {
      throw new Error(`${folder}: expected each image once, but ${quote(image)} has two rows in predictions.csv`)
    }
    rows.set(image, row)
  }
  return rows
}

function sameImages({ paths }: Predictions, rows: ReadonlyMap<string, number>): boolean {
  return paths.length === rows.size && paths.every((image) => rows.has(image))
}

function refuseTestSets(first: Run, odd: Run, rows: ReadonlyMap<string, number>): never {
  const both = odd.predictions.paths.filter((image) => rows.has(image)).length
  const describe = ({ folder, data, predictions }: Run) =>
    `${basename(folder)} has ${predictions.paths.length} images of ${data.kind}, ${data.split} (${data.hash.slice(0, 12)})`
  const advice =
    both > 0
      ? 'use --shared to compare on those alone'
      : 'evaluate both on the same one (names of images are hashed by the whole test set, so that a part of it has other names; --plain-paths keeps them)'
  throw new Error(
    `expected runs on the same test set, but ${describe(first)} and ${describe(odd)}, with ${both === 0 ? 'none' : both} in common; ${advice}`,
  )
}

/** Letters for runs, in tables: A, B, ... */
export function letterOf(run: number): string {
  return run < 26 ? String.fromCharCode(65 + run) : `run ${run + 1}`
}
