import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { chestPrompts, NIH_FINDINGS } from '../captions/index.js'
import { Problems } from '../problems.js'
import { POSITIVE, type Sample } from '../sample.js'
import { openTable } from '../tables/index.js'
import { LoadedDataset, withPrompts } from './dataset.js'
import { nihRows } from './nih-table.js'
import { existingFolder, findTable } from './paths.js'
import { officialLists, select } from './select.js'
import type { SpecOf } from './spec.js'

export const NIH_TABLES = ['Data_Entry_2017_v2020.csv', 'Data_Entry_2017.csv'] as const
const LISTS = { train: 'train_val_list.txt', test: 'test_list.txt' } as const
/** Of the patients of train_val_list.txt. */
const VALID_FRACTION = 0.1

/** The folder of each image: images_001/images/ to images_012/images/, images/, or the data set's own. */
function foldersOf(root: string): Map<string, string> {
  const numbered = readdirSync(root).filter((name) => /^images_\d{3}$/.test(name))
  const folders = new Map<string, string>()
  for (const folder of [...numbered.map((name) => `${name}/images`), ...numbered, 'images', '.']) {
    if (!existsSync(join(root, folder))) continue
    for (const name of readdirSync(join(root, folder))) {
      if (name.endsWith('.png') && !folders.has(name)) folders.set(name, folder)
    }
  }
  return folders
}

export async function openNih(spec: SpecOf<'nih'>): Promise<LoadedDataset> {
  const { root } = spec
  existingFolder(root)
  const problems = new Problems()
  const table = await openTable(findTable(root, spec.table === undefined ? NIH_TABLES : [spec.table]))
  const folders = foldersOf(root)
  const all: Sample[] = []
  for await (const rows of nihRows(table, { style: spec.captions.style }, problems)) {
    for (const { row, path, patient, findings, caption, view, sex, age } of rows) {
      if (spec.views !== null && !spec.views.includes(view ?? '')) continue
      const positive = findings.indexOf(POSITIVE)
      const label = positive >= 0 && positive === findings.lastIndexOf(POSITIVE) ? positive : null
      const folder = folders.get(path) ?? 'images'
      const attributes = { sex, age, view, side: null }
      const file = folder === '.' ? path : `${folder}/${path}`
      all.push({ row, path: file, patient, caption, promptPrefix: null, label, findings, attributes })
    }
  }
  problems.check(all.length + problems.count, spec.maxProblems)
  const classes = withPrompts(chestPrompts(NIH_FINDINGS, spec.captions.style), spec.prompts)
  const official = () => officialLists('nih', root, all, LISTS, VALID_FRACTION)
  const selection = await select('nih', all, classes, spec, official)
  return new LoadedDataset({ kind: 'nih', root, findings: NIH_FINDINGS, classes, problems, ...selection })
}
