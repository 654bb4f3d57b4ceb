import type { Problems } from '../problems.js'
import { type Table, TableError } from '../tables/index.js'
import { leavesFolder, pathBelow } from './paths.js'
import { ageOf, sexOf, textOf } from './rows.js'

/** Where the challenge's archive unpacks the images. */
export const RSNA_IMAGES = 'stage_2_train_images'

export interface RsnaImage {
  /** The first of its rows: the table has one for every box. */
  readonly row: number
  readonly path: string
  readonly patient: string
  /** 1: pneumonia. */
  readonly label: 0 | 1
}

export interface RsnaTables {
  readonly labels: Table
  /** The DICOM files' headers as a table (PatientID, PatientSex, PatientAge, ViewPosition), where there is one. */
  readonly headers: Table | null
}

/** @throws TableError where there is no label table, or a table of neither kind */
export function sortRsnaTables(tables: readonly Table[]): RsnaTables {
  const labels = tables.filter(({ columns }) => columns.includes('patientId') && columns.includes('Target'))
  if (labels.length !== 1) {
    throw new TableError(
      `expected one table with the columns patientId and Target (stage_2_train_labels.csv), but received ${labels.length} of ${tables.map(({ path }) => path).join(', ')}`,
    )
  }
  // stage_2_detailed_class_info.csv says nothing that is used here
  const rest = tables.filter((table) => table !== labels[0] && !table.columns.includes('class'))
  const headers = rest.find(({ columns }) => columns.includes('PatientID')) ?? null
  const unknown = rest.find((table) => table !== headers)
  if (unknown !== undefined) {
    throw new TableError(
      `${unknown.path}: expected a table of RSNA's pneumonia challenge, but its columns are ${unknown.columns.slice(0, 30).join(', ')}`,
    )
  }
  return { labels: labels[0]!, headers }
}

/** The images of stage_2_train_labels.csv, each once, in the order of their first rows. */
export async function rsnaImages(table: Table, problems: Problems): Promise<RsnaImage[]> {
  const images = new Map<string, RsnaImage>()
  for await (const rows of table.rows(['patientId', 'Target'], problems)) {
    for (const { row, cells } of rows) {
      const [patient, target] = cells as [string, string]
      const path = `${RSNA_IMAGES}/${patient}.dcm`
      const label = Number.parseFloat(target)
      const there = images.get(patient)
      if (patient === '') problems.add('expected a patientId, but the cell is empty', { row })
      else if (pathBelow(path) === null || patient.includes('/')) problems.add(leavesFolder(patient), { row })
      else if (!/^[01](\.0+)?$/.test(target)) {
        problems.add(`Target: expected 0 or 1, but received ${JSON.stringify(target.slice(0, 40))}`, { row, path })
      } else if (there === undefined) images.set(patient, { row, path, patient, label: label === 1 ? 1 : 0 })
      else if (there.label !== label) {
        problems.add(`Target: expected ${there.label} as in row ${there.row}, but received ${label}`, { row, path })
      }
    }
  }
  return [...images.values()]
}

export interface RsnaHeader {
  readonly sex: 'F' | 'M' | null
  readonly age: number | null
  readonly view: string | null
}

/** Sex, age and view by patient. */
export async function rsnaHeaders(table: Table, problems: Problems): Promise<Map<string, RsnaHeader>> {
  const headers = new Map<string, RsnaHeader>()
  for await (const rows of table.rows(['PatientID', 'PatientSex', 'PatientAge', 'ViewPosition'], problems)) {
    for (const { cells } of rows) {
      const [patient, sex, age, view] = cells as [string, string, string, string]
      const years = ageOf(age)
      headers.set(patient, { sex: sexOf(sex), age: Number.isNaN(years) ? null : years, view: textOf(view) })
    }
  }
  return headers
}
