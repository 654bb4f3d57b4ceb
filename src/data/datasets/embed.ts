import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { embedPrompts, MALE_DENSITY } from '../captions/index.js'
import { Problems } from '../problems.js'
import type { Sample } from '../sample.js'
import { openTable } from '../tables/index.js'
import { LoadedDataset, withPrompts } from './dataset.js'
import { type EmbedRow, embedRows, sortEmbedTables } from './embed-tables.js'
import { existingFolder, findTable, tablesIn } from './paths.js'
import { sideOf } from './rows.js'
import { select } from './select.js'
import type { SpecOf } from './spec.js'

function sampleOf(
  { row, file, patient, facts, caption, promptPrefix }: EmbedRow,
  labels: 'birads' | 'density',
): Sample {
  const { birads, density, age, view, side } = facts
  return {
    row,
    path: file,
    patient,
    caption,
    promptPrefix,
    label: labels === 'birads' ? birads : density! - 1,
    findings: null,
    // whose images these are the tables do not say in the columns that are read
    attributes: { sex: null, age, view, side: sideOf(side ?? '') },
  }
}

/** The folder's tables: those in tables/, else in the folder itself. */
export function embedTablesIn(root: string): string[] {
  existingFolder(root)
  const folder = existsSync(join(root, 'tables')) ? join(root, 'tables') : root
  const names = tablesIn(folder).filter((name) => /^EMBED_OpenData_(metadata|clinical)|legend/i.test(name))
  const metadata = names.filter((name) => /metadata/i.test(name))
  // the archive has a reduced metadata table beside the full one: the same rows
  const [kept] = [...metadata].sort((left, right) => Number(/reduced/i.test(right)) - Number(/reduced/i.test(left)))
  return names.filter((name) => !metadata.includes(name) || name === kept).map((name) => join(folder, name))
}

export async function openEmbed(spec: SpecOf<'embed'>): Promise<LoadedDataset> {
  const { root, labels } = spec
  existingFolder(root)
  const problems = new Problems()
  const files = spec.tables?.map((name) => findTable(root, [name])) ?? embedTablesIn(root)
  if (files.length === 0) throw new Error(`expected EMBED's tables in ${root} or its folder tables, but there are none`)
  const tables = sortEmbedTables(await Promise.all(files.map(openTable)))
  const all: Sample[] = []
  let unlabelled = 0
  let male = 0
  for await (const rows of embedRows(tables, { style: spec.captions.style }, problems)) {
    for (const row of rows) {
      if (spec.views !== null && !spec.views.includes(row.facts.view ?? '')) continue
      if (row.caption === null) unlabelled += 1
      else if (labels === 'density' && row.facts.density === MALE_DENSITY) male += 1
      else all.push(sampleOf(row, labels))
    }
  }
  problems.check(all.length + problems.count, spec.maxProblems)
  const notes: string[] = []
  if (unlabelled > 0) notes.push(`${unlabelled} 2D images without density or BI-RADS are left out, as published`)
  if (male > 0) notes.push(`${male} images of the density of male breasts, which is no class, are left out`)
  const classes = withPrompts(embedPrompts(labels), spec.prompts)
  const selection = await select('embed', all, classes, spec)
  return new LoadedDataset({ kind: 'embed', root, findings: [], classes, problems, notes, ...selection })
}
