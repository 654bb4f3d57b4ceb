import { Problems } from '../problems.js'
import { POSITIVE, type Sample } from '../sample.js'
import { isMissing, openTable } from '../tables/index.js'
import { LoadedDataset, withPrompts } from './dataset.js'
import { fillTemplate, templatePrompts } from './folder.js'
import { findTable, leavesFolder, pathBelow, patientOfPath } from './paths.js'
import { ageOf, byValue, findingOf, sexOf, textOf } from './rows.js'
import { select } from './select.js'
import type { SpecOf } from './spec.js'

type TableSpec = SpecOf<'table'>

interface Read {
  readonly sample: Sample
  /** The cell of the label column; '' for none. */
  readonly label: string
}

/** A row as a sample, or what is wrong with it. */
function readRow(
  row: number,
  cell: (name: string | undefined) => string,
  { columns, prefix, captions }: TableSpec,
): Read | string {
  const path = pathBelow(prefix + cell(columns.path))
  if (path === null || cell(columns.path) === '') return leavesFolder(prefix + cell(columns.path))
  const text = cell(columns.text)
  const label = isMissing(cell(columns.label)) ? '' : cell(columns.label)
  if (columns.text !== undefined && isMissing(text)) return `${columns.text}: expected a text, but the cell is empty`
  const values = columns.findings?.map((name) => findingOf(cell(name)))
  const wrong = values?.indexOf(null) ?? -1
  if (wrong >= 0) {
    const name = columns.findings![wrong]!
    return `${name}: expected 1, 0, -1 or nothing, but received ${cell(name).slice(0, 40)}`
  }
  const age = ageOf(cell(columns.age))
  if (Number.isNaN(age)) return `${columns.age}: expected years, but received ${cell(columns.age).slice(0, 40)}`
  const patient = cell(columns.patient)
  if (columns.patient !== undefined && isMissing(patient))
    return `${columns.patient}: expected a patient, but the cell is empty`
  const positive = columns.findings?.filter((_, index) => values![index] === POSITIVE) ?? []
  const named = label === '' ? positive.join(' ') : label
  const caption =
    columns.text !== undefined
      ? text
      : captions === null
        ? null
        : fillTemplate(captions.template, named || 'no finding')
  const attributes = { sex: sexOf(cell(columns.sex)), age, view: textOf(cell(columns.view)), side: null }
  return {
    label,
    sample: {
      row,
      path,
      patient: columns.patient === undefined ? patientOfPath(path) : patient,
      caption,
      promptPrefix: null,
      label: positive.length === 1 ? columns.findings!.indexOf(positive[0]!) : null,
      findings: values === undefined ? null : Int8Array.from(values as number[]),
      attributes,
    },
  }
}

export async function openTableDataset(spec: TableSpec): Promise<LoadedDataset> {
  const { root, columns } = spec
  if (columns.label !== undefined && columns.findings !== undefined) {
    throw new Error('expected columns.label or columns.findings of a table, but received both')
  }
  const problems = new Problems()
  const { path, text, label, patient, view, sex, age } = columns
  const named = [path, text, label, patient, view, sex, age].filter((name) => name !== undefined)
  const wanted = [...new Set([...named, ...(columns.findings ?? [])])]
  const place = new Map(wanted.map((name, index) => [name, index]))
  const read: Read[] = []
  const table = await openTable(findTable(root, [spec.table]))
  for await (const rows of table.rows(wanted, problems)) {
    for (const { row, cells } of rows) {
      const cell = (name: string | undefined) => (name === undefined ? '' : cells[place.get(name)!]!)
      if (spec.views !== null && !spec.views.includes(cell(view))) continue
      const found = readRow(row, cell, spec)
      if (typeof found === 'string') problems.add(found, { row })
      else read.push(found)
    }
  }
  problems.check(read.length + problems.count, spec.maxProblems)
  const names = columns.findings ?? [...new Set(read.flatMap(({ label }) => (label === '' ? [] : label)))].sort(byValue)
  const labels = new Map(names.map((name, index) => [name, index]))
  const all = read.map(({ sample, label }) => (label === '' ? sample : { ...sample, label: labels.get(label)! }))
  const classes = withPrompts(templatePrompts(names, spec.captions?.template), spec.prompts)
  const selection = await select('table', all, classes, spec)
  return new LoadedDataset({ kind: 'table', root, findings: columns.findings ?? [], classes, problems, ...selection })
}
