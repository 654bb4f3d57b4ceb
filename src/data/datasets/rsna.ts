import { join } from 'node:path'
import { rsnaPrompts } from '../captions/index.js'
import { Problems } from '../problems.js'
import type { Sample } from '../sample.js'
import { openTable } from '../tables/index.js'
import { LoadedDataset, withPrompts } from './dataset.js'
import { existingFolder, findTable, tablesIn } from './paths.js'
import { type RsnaHeader, rsnaHeaders, rsnaImages } from './rsna-table.js'
import { balanceClasses, select } from './select.js'
import type { SpecOf } from './spec.js'

/** Sex, age and view where the folder holds a table of the DICOM files' headers. */
async function headersIn(root: string, problems: Problems): Promise<Map<string, RsnaHeader>> {
  const file = tablesIn(root).find((name) => /headers/i.test(name))
  return file === undefined ? new Map() : await rsnaHeaders(await openTable(join(root, file)), problems)
}

export async function openRsna(spec: SpecOf<'rsna'>): Promise<LoadedDataset> {
  const { root } = spec
  existingFolder(root)
  const problems = new Problems()
  const images = await rsnaImages(
    await openTable(findTable(root, [spec.table ?? 'stage_2_train_labels.csv'])),
    problems,
  )
  const headers = await headersIn(root, problems)
  problems.check(images.length + problems.count, spec.maxProblems)
  const all = images.map(({ row, path, patient, label }): Sample => {
    const { sex, age, view } = headers.get(patient) ?? { sex: null, age: null, view: null }
    const attributes = { sex, age, view, side: null }
    return { row, path, patient, caption: null, promptPrefix: null, label, findings: null, attributes }
  })
  const classes = withPrompts(rsnaPrompts(spec.captions.style), spec.prompts)
  const balanced = spec.split === 'test' && spec.balanceTest
  const selection = await select('rsna', all, classes, spec, null, (samples) =>
    balanced ? balanceClasses(samples, classes, spec.seed) : samples,
  )
  return new LoadedDataset({ kind: 'rsna', root, findings: [], classes, problems, ...selection })
}
