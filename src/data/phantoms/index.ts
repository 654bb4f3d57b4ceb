import { readdir, readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import { type Reporter, silentReporter } from '../../setup/report.js'
import { contactSheet } from '../sheet.js'
import { MOST_FIVE_WAY } from './chexpert/kind.js'
import { FIVE_WAY } from './chexpert/labels.js'
import type { PhantomImage, PhantomSettings } from './kind.js'
import { PHANTOM_KINDS } from './kinds.js'
import type { PhantomShare } from './worker.js'
import { writePatient, writeWhole } from './write.js'

export type { PhantomSettings } from './kind.js'

/*
 * Phantoms: studies that were never anybody's, in the layout, tables and encodings of real data sets. They prove the
 * software and nothing about medicine.
 */

export interface PhantomOptions {
  /** 'chexpert', 'rsna' or 'embed'. */
  readonly kind: string
  /** A folder that is empty, or not there, or was begun with the same settings. */
  readonly out: string
  readonly patients: number
  /** Default: 0. */
  readonly seed?: number
  /** CheXpert only: patients for each of the five competition findings who have that one alone, in train.csv. Default: 0. */
  readonly fiveWay?: number
  /** Threads that draw; 1 draws in this one. Default: a thread a core. The bytes are the same. */
  readonly workers?: number
  /** Where a contact sheet (PNG) goes. Default: none. */
  readonly sheet?: string
  readonly reporter?: Reporter
}

export interface PhantomResult {
  readonly kind: PhantomSettings['kind']
  readonly out: string
  /** Those for validation and five-way tests included. */
  readonly patients: number
  readonly images: number
  readonly tables: readonly string[]
}

/** Says what a folder holds, so that work in it can go on and other folders are left alone. */
const MARKER = 'phantom.json'
/** Goes up when the same settings give other bytes. */
const VERSION = 1
/** How many images a sheet shows. */
const SHOWN = 24

const isKind = (kind: string): kind is PhantomSettings['kind'] => Object.hasOwn(PHANTOM_KINDS, kind)

function settingsOf({ kind, patients, seed = 0, fiveWay = 0 }: PhantomOptions): PhantomSettings {
  if (!isKind(kind)) {
    throw new RangeError(`expected a kind of ${Object.keys(PHANTOM_KINDS).join(', ')}, but received '${kind}'`)
  }
  const most = PHANTOM_KINDS[kind].most
  if (!(Number.isInteger(patients) && patients >= 1 && patients <= most)) {
    throw new RangeError(`expected patients to be a whole number from 1 to ${most}, but received ${patients}`)
  }
  if (!Number.isSafeInteger(seed)) throw new RangeError(`expected seed to be a whole number, but received ${seed}`)
  if (!(Number.isInteger(fiveWay) && fiveWay >= 0 && fiveWay <= MOST_FIVE_WAY)) {
    throw new RangeError(`expected five-way to be a whole number from 0 to ${MOST_FIVE_WAY}, but received ${fiveWay}`)
  }
  if (fiveWay > 0 && kind !== 'chexpert') {
    throw new RangeError(`expected five-way with chexpert only (${FIVE_WAY.join(', ')}), but the kind is ${kind}`)
  }
  return { kind, patients, seed, fiveWay }
}

/** Marks a folder as ours, or finds it so. */
async function claim(out: string, settings: PhantomSettings): Promise<void> {
  const marker = `${JSON.stringify({ phantom: settings, version: VERSION }, null, 2)}\n`
  const names: string[] = await readdir(out).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    if (error.code === 'ENOTDIR')
      throw new Error(`expected a folder for phantoms, but ${out} is a file; choose another`)
    throw new Error(`expected a folder for phantoms, but ${out} cannot be read (${error.code ?? error.message})`)
  })
  const there = names.includes(MARKER) ? await readFile(join(out, MARKER), 'utf8') : null
  if (there === marker) return
  if (there !== null) {
    throw new Error(
      `${out} holds phantoms of other settings (see ${MARKER} in it); choose another folder, or remove that one`,
    )
  }
  // What a stopped run left before the marker was whole is nobody else's.
  if (names.some((name) => name !== `${MARKER}.part`)) {
    throw new Error(
      `expected an empty folder for phantoms, but ${out} holds ${names.length} other files; choose another`,
    )
  }
  await writeWhole(join(out, MARKER), marker)
}

/** Where the compiled worker is: beside this file, or in dist/ where TypeScript itself is run (tests). */
const workerFile = (): URL =>
  import.meta.url.endsWith('.ts')
    ? new URL('../../../dist/data/phantoms/worker.js', import.meta.url)
    : new URL('./worker.js', import.meta.url)

/** One worker's share, until it is done. */
async function runWorker(share: PhantomShare, running: Worker[], onImages: (count: number) => void): Promise<void> {
  const worker = new Worker(workerFile(), { workerData: share })
  running.push(worker)
  await new Promise<void>((done, fail) => {
    worker.on('message', onImages)
    worker.on('error', fail)
    worker.on('exit', (code) =>
      code === 0 ? done() : fail(new Error(`a drawing thread ended with status ${code} before it was done`)),
    )
  })
}

async function drawAll(share: PhantomShare, workers: number, onImages: (count: number) => void): Promise<void> {
  const { out, settings, patients } = share
  const count = Math.min(workers, patients.length)
  if (count <= 1) {
    for (const patient of patients) onImages(await writePatient(out, settings, patient))
    return
  }
  const running: Worker[] = []
  try {
    await Promise.all(
      Array.from({ length: count }, (_, index) =>
        runWorker({ ...share, patients: patients.filter((_, at) => at % count === index) }, running, onImages),
      ),
    )
  } finally {
    await Promise.all(running.map((worker) => worker.terminate()))
  }
}

/** The first images with each caption, then others, in order. */
function chooseForSheet(settings: PhantomSettings): PhantomImage[] {
  const kind = PHANTOM_KINDS[settings.kind]
  const seen = new Set<string>()
  const chosen: PhantomImage[] = []
  const rest: PhantomImage[] = []
  for (const patient of kind.patients(settings)) {
    for (const image of kind.images(settings, patient)) {
      if (seen.has(image.caption)) rest.push(image)
      else chosen.push(image)
      seen.add(image.caption)
    }
    if (chosen.length >= SHOWN || rest.length > 40 * SHOWN) break
  }
  return [...chosen, ...rest].slice(0, SHOWN)
}

/** A contact sheet of the first phantoms that these settings give; nothing needs to be written for it. */
export async function phantomSheet(settings: PhantomSettings, reporter: Reporter = silentReporter): Promise<Buffer> {
  const items = chooseForSheet(settings).map((image) => ({ image: image.draw(), caption: image.caption }))
  return await contactSheet(items, { columns: 6, tile: 320, onWarning: (warning) => reporter.line(warning) })
}

/**
 * Writes phantoms as a data set lies on disk: images, tables, and phantom.json, which says what they were made from. The same
 * settings give the same bytes; a patient's files do not depend on how many patients there are. A run that was stopped goes on
 * with the same settings. Tables come last: a folder with tables is whole.
 *
 * @throws RangeError for settings out of range; Error where the folder is not empty, or cannot be written to
 */
export async function writePhantoms(options: PhantomOptions): Promise<PhantomResult> {
  const settings = settingsOf(options)
  const { workers = availableParallelism(), reporter = silentReporter } = options
  if (!(Number.isInteger(workers) && workers >= 1 && workers <= 256)) {
    throw new RangeError(`expected workers to be a whole number from 1 to 256, but received ${workers}`)
  }
  const out = resolve(options.out)
  await claim(out, settings)
  const kind = PHANTOM_KINDS[settings.kind]
  const patients = kind.patients(settings)
  const progress = reporter.progress(`phantoms: ${settings.kind}`, patients.length, 'patients')
  let [patientsDone, images] = [0, 0]
  await drawAll({ out, settings, patients }, workers, (count) => {
    images += count
    patientsDone += 1
    progress.update(patientsDone)
  })
  progress.finish()
  const tables = kind.tables(settings)
  for (const { path, lines } of tables) await writeWhole(join(out, path), `${[...lines].join('\n')}\n`)
  if (options.sheet !== undefined) await writeWhole(resolve(options.sheet), await phantomSheet(settings, reporter))
  return { kind: settings.kind, out, patients: patients.length, images, tables: tables.map(({ path }) => path) }
}
