import { CHEXPERT_FINDINGS, type ChestStyle, chexpertCaption } from '../captions/index.js'
import type { Problems } from '../problems.js'
import { requireColumns, type Table } from '../tables/index.js'
import { leavesFolder, pathBelow } from './paths.js'
import { ageOf, findingOf, Interned, sexOf } from './rows.js'

/** The views that training uses: datasets/chexpert_dataset.py (github.com/XYPB/CLEFT). */
export const FRONTAL_VIEWS = ['AP', 'PA'] as const

export interface ChexpertRow {
  readonly row: number
  /** As the table has it. */
  readonly path: string
  /** A value for each of CHEXPERT_FINDINGS. */
  readonly findings: Int8Array
  readonly caption: string
  readonly frontal: boolean
  readonly view: string
  readonly sex: 'F' | 'M' | null
  readonly age: number | null
}

const ATTRIBUTES = ['Sex', 'Age', 'Frontal/Lateral'] as const

/**
 * The rows of train.csv, valid.csv or a CheXbert label file, whatever the order of the columns, that are of one of the views (null: all).
 * Sex, age and the side of the view may be missing.
 */
export async function* chexpertRows(
  table: Table,
  { style = 'plain', views = FRONTAL_VIEWS }: { style?: ChestStyle; views?: readonly string[] | null },
  problems: Problems,
): AsyncGenerator<ChexpertRow[]> {
  requireColumns(table, ['Path', 'AP/PA', ...CHEXPERT_FINDINGS])
  const attributes = ATTRIBUTES.filter((name) => table.columns.includes(name))
  const place = Object.fromEntries(attributes.map((name, index) => [name, 2 + CHEXPERT_FINDINGS.length + index]))
  const patterns = new Interned<{ findings: Int8Array | null; wrong: string; caption: string }>()
  for await (const rows of table.rows(['Path', 'AP/PA', ...CHEXPERT_FINDINGS, ...attributes], problems)) {
    const used: ChexpertRow[] = []
    for (const { row, cells } of rows) {
      const [path, view] = cells as [string, string]
      if (views !== null && !views.includes(view)) continue
      const own = cells.slice(2, 2 + CHEXPERT_FINDINGS.length)
      const { findings, wrong, caption } = patterns.get(own.join(), () => patternOf(own, style))
      const age = ageOf(cells[place.Age ?? -1] ?? '')
      if (pathBelow(path) === null) problems.add(leavesFolder(path), { row })
      else if (findings === null) problems.add(wrong, { row, path })
      else if (Number.isNaN(age)) problems.add(`Age: expected years, but received ${cells[place.Age!]}`, { row, path })
      else {
        const side = cells[place['Frontal/Lateral'] ?? -1]
        const frontal = side === undefined ? (FRONTAL_VIEWS as readonly string[]).includes(view) : side === 'Frontal'
        used.push({ row, path, findings, caption, frontal, view, sex: sexOf(cells[place.Sex ?? -1] ?? ''), age })
      }
    }
    if (used.length > 0) yield used
  }
}

function patternOf(cells: readonly string[], style: ChestStyle) {
  const values = cells.map(findingOf)
  const index = values.indexOf(null)
  if (index >= 0) {
    const wrong = `${CHEXPERT_FINDINGS[index]}: expected 1, 0, -1 or nothing, but received ${cells[index]!.slice(0, 40)}`
    return { findings: null, wrong, caption: '' }
  }
  const findings = Int8Array.from(values as number[])
  return { findings, wrong: '', caption: chexpertCaption(findings, style) }
}
