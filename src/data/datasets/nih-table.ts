import { NIH_FINDINGS, nihCaption } from '../captions/index.js'
import type { Problems } from '../problems.js'
import { NEGATIVE, POSITIVE } from '../sample.js'
import type { Table } from '../tables/index.js'
import { leavesFolder, pathBelow } from './paths.js'
import { ageOf, Interned, sexOf, textOf } from './rows.js'

const COLUMNS = ['Image Index', 'Finding Labels', 'Patient ID'] as const
const ATTRIBUTES = ['Patient Age', 'Patient Gender', 'View Position'] as const

export interface NihRow {
  readonly row: number
  /** The name of the file. */
  readonly path: string
  readonly patient: string
  /** A value for each of NIH_FINDINGS: 1, else 0. */
  readonly findings: Int8Array
  readonly caption: string
  readonly view: string | null
  readonly sex: 'F' | 'M' | null
  readonly age: number | null
}

function patternOf(cell: string, style: 'plain' | 'prompt') {
  const names = cell.split('|').map((name) => name.trim())
  const unknown = names.find((name) => name !== 'No Finding' && !(NIH_FINDINGS as readonly string[]).includes(name))
  const findings = Int8Array.from(NIH_FINDINGS, (name) => (names.includes(name) ? POSITIVE : NEGATIVE))
  return { unknown, findings, caption: nihCaption(names, style) }
}

/** The rows of ChestX-ray14's Data_Entry_2017.csv or Data_Entry_2017_v2020.csv. */
export async function* nihRows(
  table: Table,
  { style = 'plain' }: { style?: 'plain' | 'prompt' },
  problems: Problems,
): AsyncGenerator<NihRow[]> {
  const patterns = new Interned<ReturnType<typeof patternOf>>()
  const attributes = ATTRIBUTES.filter((name) => table.columns.includes(name))
  const place = Object.fromEntries(attributes.map((name, index) => [name, COLUMNS.length + index]))
  for await (const rows of table.rows([...COLUMNS, ...attributes], problems)) {
    const used: NihRow[] = []
    for (const { row, cells } of rows) {
      const [path, labels, patient] = cells as [string, string, string]
      const { unknown, findings, caption } = patterns.get(labels, () => patternOf(labels, style))
      const age = ageOf(cells[place['Patient Age'] ?? -1] ?? '')
      if (pathBelow(path) === null) problems.add(leavesFolder(path), { row })
      else if (patient === '') problems.add('expected a patient, but the cell is empty', { row, path })
      else if (unknown !== undefined) {
        problems.add(
          `expected findings of ChestX-ray14 or No Finding, but received ${JSON.stringify(unknown.slice(0, 40))}`,
          {
            row,
            path,
          },
        )
      } else if (Number.isNaN(age)) problems.add('expected an age in years', { row, path })
      else {
        const view = textOf(cells[place['View Position'] ?? -1])
        used.push({
          row,
          path,
          patient,
          findings,
          caption,
          view,
          sex: sexOf(cells[place['Patient Gender'] ?? -1] ?? ''),
          age,
        })
      }
    }
    if (used.length > 0) yield used
  }
}
