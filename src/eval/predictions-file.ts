import { createHash, createHmac } from 'node:crypto'
import { createReadStream, createWriteStream, renameSync, rmSync } from 'node:fs'
import { basename } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { parse } from 'csv-parse'
import { stringify } from 'csv-stringify'
import type { Attributes } from '../data/sample.js'
import { codeOf } from '../setup/errors.js'
import { quote, reasonOf } from '../torch/files/error.js'
import { argmaxRows } from './metrics.js'
import { checkPredictions, type Predictions, type Scale, type Task } from './predictions.js'

/*
 * predictions.csv: one row an image. image, patient, sex, age, view, side; then label and predicted, the names of classes
 * (where the task is multi-label: a column `label:FINDING` for each, 1, 0, -1 or empty); then `score:CLASS` for each class.
 * Scores have nine digits, so that a float32 comes back as it was.
 */

/**
 * Names for images and patients that do not tell who they are: the same wherever the same test set is used, so that runs can
 * be compared, and not to be guessed from an identifier: the key of the hash is made of all images and patients of the
 * test set, and stored nowhere. Who has the whole test set can compute it; who has a part of it, or lists of possible
 * identifiers, cannot.
 */
export class Identifiers {
  readonly #key: Buffer

  constructor(paths: readonly string[], patients: readonly string[]) {
    const rows = paths.map((path, k) => JSON.stringify([path, patients[k]])).sort()
    this.#key = createHash('sha256').update(rows.join('\n')).digest()
  }

  /** 16 hexadecimal digits. */
  image(path: string): string {
    return this.#hash('image', path)
  }

  patient(patient: string): string {
    return this.#hash('patient', patient)
  }

  #hash(kind: string, name: string): string {
    return createHmac('sha256', this.#key)
      .update(JSON.stringify([kind, name]))
      .digest('hex')
      .slice(0, 16)
  }
}

export interface WriteOptions {
  /** Write the images' paths as they are. They often hold the patient's number. Default: false, hashed. */
  plainPaths?: boolean
}

/** Ages above 89 are identifiers by the rules of HIPAA (45 CFR 164.514): 90 stands for all of them. */
const OLDEST = 90

/** A name that a spreadsheet does not take for a formula. */
function cellOf(name: string): string {
  return /^[=+\-@\t\r'\uff1d\uff0b\uff0d\uff20]/.test(name) ? `'${name}` : name
}

const attributeColumns = ['sex', 'age', 'view', 'side'] as const

export async function writePredictions(
  file: string,
  predictions: Predictions,
  { plainPaths = false }: WriteOptions = {},
): Promise<void> {
  checkPredictions(predictions)
  const beside = `${file}.part`
  try {
    await pipeline(rowsOf(predictions, plainPaths), stringify(), createWriteStream(beside))
    renameSync(beside, file)
  } catch (error) {
    rmSync(beside, { force: true })
    throw error
  }
}

function* rowsOf(predictions: Predictions, plainPaths: boolean): Generator<(string | number)[]> {
  const { task, classes, scores, paths, patients, attributes } = predictions
  const C = classes.length
  const labelColumns = task === 'multi-label' ? classes.map((name) => `label:${name}`) : ['label', 'predicted']
  yield ['image', 'patient', ...attributeColumns, ...labelColumns, ...classes.map((name) => `score:${name}`)]
  const identifiers = new Identifiers(paths, patients)
  const decided = argmaxRows(scores, C)
  for (const [row, path] of paths.entries()) {
    const { sex, age, view, side } = attributes[row]!
    const own = scores.subarray(row * C, (row + 1) * C)
    const labels =
      predictions.task === 'multi-label'
        ? Array.from(predictions.labels.subarray(row * C, (row + 1) * C), (label) => (label === -2 ? '' : label))
        : [predictions.labels[row]!, decided[row]!].map((k) => cellOf(classes[k]!))
    yield [
      plainPaths ? cellOf(path) : identifiers.image(path),
      identifiers.patient(patients[row]!),
      sex ?? '',
      age === null ? '' : Math.min(age, OLDEST),
      cellOf(view ?? ''),
      side ?? '',
      ...labels,
      ...Array.from(own, (score) => String(Number(score.toPrecision(9)))),
    ]
  }
}

/**
 * Predictions as {@link writePredictions} wrote them. Paths and patients are what the file has: hashes mostly.
 *
 * @param as what the file does not say: metrics.json beside it does
 * @throws Error in one sentence where the file is not such a table
 */
export async function readPredictions(file: string, as: { task: Task; scale: Scale }): Promise<Predictions> {
  const reader = new TableReader(file, as.task)
  // what the reader refuses: the pipeline may call it an aborted operation
  let refused: unknown
  const read = async (records: AsyncIterable<string[]>) => {
    for await (const record of records) {
      try {
        reader.add(record)
      } catch (error) {
        refused = error
        throw error
      }
    }
  }
  try {
    await pipeline(createReadStream(file), parse({ bom: true, max_record_size: 1 << 24 }), read)
  } catch (error) {
    if (refused) throw refused
    const code = codeOf(error)
    if (code !== 'ENOENT' && code?.startsWith('CSV_') !== true) throw error
    const problem = code === 'ENOENT' ? 'there is no such file' : reasonOf(error)
    throw new Error(`${file}: expected a table of predictions, but ${problem}`)
  }
  return reader.finish(as.scale)
}

class TableReader {
  #header: string[] | null = null
  #classes: string[] = []
  #codes = new Map<string, number>()
  #rows = 0
  readonly #scores: number[] = []
  readonly #labels: number[] = []
  readonly #patients: string[] = []
  readonly #paths: string[] = []
  readonly #attributes: Attributes[] = []

  constructor(
    readonly file: string,
    readonly task: Task,
  ) {}

  #refuse(expected: string, received: string): never {
    const place = this.#rows === 0 ? '' : `, row ${this.#rows}`
    throw new Error(`${basename(this.file)}${place}: expected ${expected}, but received ${received}`)
  }

  add(record: string[]): void {
    if (this.#header === null) {
      this.#begin(record)
      return
    }
    this.#rows += 1
    const [image, patient, sex, age, view, side] = record as [string, string, string, string, string, string]
    this.#paths.push(image)
    this.#patients.push(patient)
    this.#attributes.push({
      sex: sex === 'F' || sex === 'M' ? sex : null,
      age: age === '' ? null : this.#number(age, 'an age'),
      view: view === '' ? null : view,
      side: side === 'L' || side === 'R' ? side : null,
    })
    const firstScore = record.length - this.#classes.length
    const labels = this.task === 'multi-label' ? record.slice(6, firstScore) : record.slice(6, 7)
    for (const cell of labels) this.#labels.push(this.#label(cell))
    for (const cell of record.slice(firstScore)) this.#scores.push(this.#number(cell, 'a score'))
  }

  #begin(header: string[]): void {
    this.#header = header
    const named = (prefix: string) =>
      header.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length))
    this.#classes = named('score:')
    const labels = this.task === 'multi-label' ? this.#classes.map((name) => `label:${name}`) : ['label', 'predicted']
    const expected = [
      'image',
      'patient',
      ...attributeColumns,
      ...labels,
      ...this.#classes.map((name) => `score:${name}`),
    ]
    if (
      this.#classes.length === 0 ||
      expected.length !== header.length ||
      expected.some((name, k) => name !== header[k])
    ) {
      this.#refuse(
        `the columns image, patient, ${attributeColumns.join(', ')}, labels and scores of a ${this.task} task`,
        quote(header.join(',')),
      )
    }
    this.#codes = new Map(this.#classes.map((name, k) => [cellOf(name), k]))
  }

  #label(cell: string): number {
    const label = this.task === 'multi-label' ? { '1': 1, '0': 0, '-1': -1, '': -2 }[cell] : this.#codes.get(cell)
    return (
      label ?? this.#refuse(this.task === 'multi-label' ? '1, 0, -1 or nothing' : 'one of the classes', quote(cell))
    )
  }

  #number(cell: string, what: string): number {
    const value = cell.trim() === '' ? Number.NaN : Number(cell)
    return Number.isFinite(value) ? value : this.#refuse(what, quote(cell))
  }

  finish(scale: Scale): Predictions {
    const shared = {
      classes: this.#classes,
      scale,
      scores: Float32Array.from(this.#scores),
      patients: this.#patients,
      attributes: this.#attributes,
      paths: this.#paths,
    }
    const predictions: Predictions =
      this.task === 'multi-label'
        ? { ...shared, task: this.task, labels: Int8Array.from(this.#labels) }
        : { ...shared, task: this.task, labels: Int32Array.from(this.#labels) }
    checkPredictions(predictions, basename(this.file))
    return predictions
  }
}
