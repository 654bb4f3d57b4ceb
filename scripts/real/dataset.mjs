// A folder of images by class and a table about them, as a data set of kind 'table' with folds by patient.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { stringify } from 'csv-stringify/sync'
import { patientOfPath } from '../../dist/data/datasets/paths.js'
import { DecoderPool, openDataset, Problems, prepareDataset } from '../../dist/data/index.js'
import { openTable } from '../../dist/data/tables/index.js'

const IMAGE = /\.(jpe?g|png|tiff?|webp|dcm)$/i
const FOLDS = 5

export const TEMPLATE = 'this is a chest x ray of a patient with'

/** 'Pleural_Thickening|Effusion' to 'pleural thickening effusion'. */
const wordsOf = (cell) => cell.replaceAll(/[|_-]/g, ' ').toLowerCase()

/** As the Python peer has it: the first byte of a hash. */
const foldOf = (group) => createHash('sha256').update(group).digest()[0] % FOLDS

/**
 * @typedef {object} Columns of the table
 * @property {string} image its file's name
 * @property {string} findings joined by '|'
 * @property {string} patient
 * @property {string} sex @property {string} age @property {string} view where they are there
 */

/**
 * Reads the folder's images, class by class, and what the table says of them. An image that is not in the table has the
 * words of its class, and is a patient of its own.
 *
 * @param {{ images: string, table: string, columns: Columns, words: Record<string, string> }} options
 */
export async function readImages({ images, table, columns, words }) {
  const about = await readTable(table, columns)
  const classes = readdirSync(images, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort()
  if (classes.length < 2) {
    throw new Error(
      `--images: expected a folder for each class in ${images}, but found ${classes.join(', ') || 'none'}`,
    )
  }
  const prompts = Object.fromEntries(classes.map((name) => [name, [`${TEMPLATE} ${words[name] ?? wordsOf(name)}`]]))
  const rows = classes.flatMap((label) =>
    readdirSync(join(images, label))
      .filter((name) => IMAGE.test(name))
      .sort()
      .map((name) => {
        const known = about.get(name)
        return {
          path: `${label}/${name}`,
          label,
          text: known === undefined ? prompts[label][0] : `${TEMPLATE} ${wordsOf(known.findings)}`,
          // by the name of the file, where that says it: with the zeros that a table may have lost
          patient: patientOfPath(name) === name ? known?.patient || name : patientOfPath(name),
          sex: known?.sex ?? '',
          age: known?.age ?? '',
          view: known?.view ?? '',
        }
      }),
  )
  return { classes, prompts, rows, known: rows.filter(({ path }) => about.has(basename(path))).length }
}

async function readTable(file, columns) {
  const table = await openTable(file)
  const names = Object.entries(columns).filter(([, name]) => table.columns.includes(name))
  for (const needed of ['image', 'findings', 'patient']) {
    if (names.some(([what]) => what === needed)) continue
    throw new Error(
      `--table: expected a column '${columns[needed]}' in ${file}, but it has ${table.columns.join(', ')}; say which it is: --${needed}-column`,
    )
  }
  const about = new Map()
  for await (const rows of table.rows(
    names.map(([, name]) => name),
    new Problems(),
  )) {
    for (const { cells } of rows) {
      const row = Object.fromEntries(names.map(([what], at) => [what, cells[at]]))
      about.set(row.image, row)
    }
  }
  return about
}

/**
 * Writes the table and the lists of one fold, and gives the data set's description.
 *
 * @param {{ images: string, folder: string, fold: number, read: Awaited<ReturnType<typeof readImages>>, random: boolean }} options
 *   `random`: folds by image, as published for these images, and not by patient
 */
export function writeFold({ images, folder, fold, read, random }) {
  mkdirSync(folder, { recursive: true })
  const rows = read.rows.map((row) => ({ ...row, patient: random ? basename(row.path) : row.patient }))
  const table = join(folder, 'images.csv')
  writeFileSync(table, stringify(rows, { header: true }))
  const lists = { train: new Set(), valid: new Set(), test: new Set() }
  for (const { patient } of rows) {
    const part = foldOf(patient) === fold ? 'test' : isValidation(patient) ? 'valid' : 'train'
    lists[part].add(patient)
  }
  const files = Object.fromEntries(Object.keys(lists).map((part) => [part, resolve(folder, `${part}.txt`)]))
  for (const [part, patients] of Object.entries(lists)) writeFileSync(files[part], `${[...patients].join('\n')}\n`)
  return {
    kind: 'table',
    root: resolve(images),
    table: resolve(table),
    columns: { path: 'path', text: 'text', label: 'label', patient: 'patient', sex: 'sex', age: 'age', view: 'view' },
    prompts: read.prompts,
    splits: { lists: files },
  }
}

/** An eighth of the patients that are not tested: what checkpoints are chosen by. */
const isValidation = (patient) => createHash('sha256').update(`validation ${patient}`).digest()[0] % 8 === 0

/** Decodes every image of a data set once, whatever its split. `more`: options of prepareDataset(). */
export async function prepareAll(spec, folder, more = {}) {
  const decoder = new DecoderPool({})
  try {
    await prepareDataset(await openDataset({ ...spec, split: 'all' }), folder, { decoder, ...more })
  } finally {
    await decoder.close()
  }
}
