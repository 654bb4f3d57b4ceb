import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { create } from 'tar'
import { describe, expect, it } from 'vitest'
import { type DatasetSpec, openDataset } from '../../../src/data/datasets/index.js'
import type { Dataset } from '../../../src/data/sample.js'
import { folderOf } from '../tables/files.js'

const official = new URL('../../reference/official/', import.meta.url).pathname
const reference = (name: string) => readFileSync(`${official}${name}`)
const paths = ({ samples }: Dataset) => samples.map(({ path }) => path)
const countOf = ({ samples, classes }: Dataset) =>
  classes.map((_, label) => samples.filter((sample) => sample.label === label).length)

/** Every kind's parts, over seeds: together everything, and no patient twice. */
async function expectDisjoint(spec: DatasetSpec & { split?: string }, seeds: number): Promise<void> {
  const all = await openDataset({ ...spec, split: 'all' } as DatasetSpec)
  for (let seed = 0; seed < seeds; seed += 1) {
    const seen = new Map<string, string>()
    let images = 0
    for (const split of ['train', 'valid', 'test'] as const) {
      const splits = { fractions: { train: 0.5, valid: 0.25, test: 0.25 }, seed }
      const { samples } = await openDataset({ ...spec, split, splits } as DatasetSpec)
      images += samples.length
      for (const { patient } of samples) expect(seen.get(patient) ?? split).toBe(split)
      for (const { patient } of samples) seen.set(patient, split)
    }
    expect(images).toBe(all.samples.length)
  }
}

describe('EMBED', () => {
  const root = () =>
    folderOf({
      'tables/EMBED_OpenData_metadata.csv': reference('embed.metadata.csv'),
      'tables/EMBED_OpenData_clinical.csv': reference('embed.clinical.csv'),
      'tables/EMBED_OpenData_clinical_reduced.csv': reference('embed.clinical_reduced.csv'),
      'tables/AWS_Open_Data_Clinical_Legend.csv': reference('embed.legend.csv'),
    })

  it('has a class for every image, also with the default captions, of which the published code finds none', async () => {
    const birads = await openDataset({ kind: 'embed', root: root(), split: 'all' })
    expect(birads.samples.length).toBe(30)
    expect(birads.samples.every(({ caption, label }) => caption!.includes(`birads score ${label} `))).toBe(true)
    expect(birads.samples[0]).toMatchObject({
      row: 1,
      path: 'images/cohort_1/50000000/1000000001/img1.dcm',
      patient: '50000000',
      promptPrefix: 'this is a breast 2d full-field digital mammogram of a patient on side left with view cc ',
      label: 2,
      attributes: { side: 'L', view: 'CC', age: 41 },
    })
    expect(birads.notes[0]).toMatch(/^\d+ 2D images without density or BI-RADS are left out/)
  })

  it('drops the density of men as a class', async () => {
    const density = await openDataset({ kind: 'embed', root: root(), split: 'all', labels: 'density' })
    expect(density.classes.length).toBe(4)
    expect(density.samples.length).toBeLessThan(30)
    expect(density.samples.every(({ caption, label }) => caption!.includes(`density ${label! + 1} `))).toBe(true)
  })

  it('is split by patient', () => expectDisjoint({ kind: 'embed', root: root() }, 8))

  it('reads the same from tables named in another order', async () => {
    const names = ['metadata', 'clinical_reduced', 'clinical'].map((name) => `tables/EMBED_OpenData_${name}.csv`)
    const tables = [...names, 'tables/AWS_Open_Data_Clinical_Legend.csv']
    const [one, other] = [
      await openDataset({ kind: 'embed', root: root(), captions: { style: 'structural' } }),
      await openDataset({ kind: 'embed', root: root(), captions: { style: 'structural' }, tables }),
    ]
    expect(other.hash).toBe(one.hash)
  })
})

describe('RSNA', () => {
  const rows = Array.from({ length: 200 }, (_, index) =>
    index % 4 === 0 ? `p${index},1,2,3,4,1\np${index},5,6,7,8,1` : `p${index},,,,,0`,
  )
  const headers = 'PatientID,PatientSex,PatientAge,ViewPosition\np0,F,43,PA\n'
  const root = () =>
    folderOf({
      'stage_2_train_labels.csv': ['patientId,x,y,width,height,Target', ...rows].join('\n'),
      'dicom_headers.csv': headers,
    })

  it('has an image a patient, 70/15/15, and as many of each class in the test part', async () => {
    const [train, valid, test] = await Promise.all(
      (['train', 'valid', 'test'] as const).map((split) => openDataset({ kind: 'rsna', root: root(), split })),
    )
    expect([train!.samples.length, valid!.samples.length]).toEqual([140, 30])
    const [none, some] = countOf(test!)
    expect(none).toBe(some)
    const whole = await openDataset({ kind: 'rsna', root: root(), split: 'test', balanceTest: false })
    expect(whole.samples.length).toBe(30)
    expect(paths(test!).every((path) => paths(whole).includes(path))).toBe(true)
    expect(new Set([train, valid, test].flatMap((part) => paths(part!))).size).toBe(170 + test!.samples.length)
  })

  it('knows sex, age and view where the headers are there', async () => {
    const { samples } = await openDataset({ kind: 'rsna', root: root(), split: 'all' })
    expect(samples[0]).toMatchObject({
      path: 'stage_2_train_images/p0.dcm',
      label: 1,
      caption: null,
      attributes: { sex: 'F', age: 43, view: 'PA' },
    })
    expect(samples[1]!.attributes).toEqual({ sex: null, age: null, view: null, side: null })
  })

  it('has the published prompts by name', async () => {
    const { classes } = await openDataset({ kind: 'rsna', root: root(), captions: { style: 'published' } })
    expect(classes[1]!.prompts).toEqual(['this is a chest x ray of a patient with pneumothorax'])
  })
})

describe('ChestX-ray14', () => {
  const name = (patient: number, image: number) => `${String(patient).padStart(8, '0')}_00${image}.png`
  const rows = Array.from({ length: 60 }, (_, index) => {
    const patient = 1 + Math.floor(index / 3)
    return `${name(patient, index % 3)},${['No Finding', 'Hernia', 'Mass|Nodule'][index % 3]},${index % 3},${patient},50,M,PA`
  })
  const csv = [
    'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position',
    ...rows,
  ].join('\n')
  const list = (first: number, last: number) =>
    Array.from({ length: 3 * (last - first + 1) }, (_, index) => name(first + Math.floor(index / 3), index % 3)).join(
      '\n',
    )
  const lists = { 'train_val_list.txt': list(1, 15), 'test_list.txt': list(16, 20) }

  it('finds images in their folders, and follows the official lists by patient', async () => {
    const root = folderOf({
      'Data_Entry_2017.csv': csv,
      ...lists,
      [`images_002/images/${name(20, 0)}`]: 'x',
      [`images/${name(1, 0)}`]: 'x',
    })
    const test = await openDataset({ kind: 'nih', root, split: 'test' })
    expect(new Set(test.samples.map(({ patient }) => patient))).toEqual(new Set(['16', '17', '18', '19', '20']))
    expect(paths(test)).toContain(`images_002/images/${name(20, 0)}`)
    const [train, valid] = [
      await openDataset({ kind: 'nih', root }),
      await openDataset({ kind: 'nih', root, split: 'valid' }),
    ]
    expect(train.samples.length + valid.samples.length).toBe(45)
    expect(paths(train).includes(`images/${name(1, 0)}`) || paths(valid).includes(`images/${name(1, 0)}`)).toBe(true)
    expect(train.samples.some(({ patient }) => valid.samples.some((each) => each.patient === patient))).toBe(false)
    expect(countOf(test)[test.classes.findIndex((each) => each.name === 'Hernia')]).toBe(5)
  })

  it('without the lists says so, and splits otherwise where that is asked for', async () => {
    const root = folderOf({ 'Data_Entry_2017_v2020.csv': csv })
    await expect(openDataset({ kind: 'nih', root })).rejects.toThrow(/train_val_list.txt for the official split/)
    await expectDisjoint({ kind: 'nih', root }, 8)
  })
})

describe('a folder per class', () => {
  const files = Object.fromEntries(
    Array.from({ length: 60 }, (_, index) => [
      `${index % 2 === 0 ? 'No_findings' : 'Covid-19'}/${String(index % 15).padStart(8, '0')}_${String(index).padStart(3, '0')}.png`,
      'x',
    ]),
  )

  it('has the folders’ classes, and captions by a template', async () => {
    const root = folderOf({ ...files, 'README.md': 'x', 'No_findings/Thumbs.db': 'x', 'empty/readme.txt': 'x' })
    const dataset = await openDataset({ kind: 'folder', root, split: 'all' })
    expect(dataset.classes.map(({ name }) => name)).toEqual(['Covid-19', 'No_findings'])
    expect(countOf(dataset)).toEqual([30, 30])
    expect(dataset.samples[0]!.caption).toBe('this is a chest x ray of a patient with covid-19')
    const own = await openDataset({
      kind: 'folder',
      root,
      split: 'all',
      captions: { template: 'x-ray: {class}.' },
      prompts: { 'Covid-19': ['a', 'b'] },
    })
    expect(own.classes).toEqual([
      { name: 'Covid-19', prompts: ['a', 'b'] },
      { name: 'No_findings', prompts: ['x-ray: no findings.'] },
    ])
  })

  it('is split by the patient in the file’s name, or by a pattern', async () => {
    const root = folderOf(files)
    await expectDisjoint({ kind: 'folder', root }, 8)
    const byPattern = await openDataset({ kind: 'folder', root, split: 'all', patientPattern: '_(\\d{2})\\d' })
    expect(new Set(byPattern.samples.map(({ patient }) => patient)).size).toBe(6)
    await expect(openDataset({ kind: 'folder', root, patientPattern: '(' })).rejects.toThrow(
      /to be a regular expression/,
    )
    await expect(openDataset({ kind: 'folder', root, patientPattern: '_' })).rejects.toThrow(/to have a group/)
  })

  it('follows links to files, and no links to folders', async () => {
    const root = folderOf({ 'a/1.png': 'x', 'b/1.png': 'x' })
    symlinkSync(join(root, 'a/1.png'), join(root, 'b/2.png'))
    symlinkSync(root, join(root, 'b/circle'))
    expect(paths(await openDataset({ kind: 'folder', root, split: 'all' }))).toEqual(['a/1.png', 'b/1.png', 'b/2.png'])
  })

  it('that has no images is an error', async () => {
    await expect(openDataset({ kind: 'folder', root: folderOf({ 'a/b.txt': '' }) })).rejects.toThrow(
      /a folder of images per class/,
    )
  })
})

describe('a table', () => {
  const csv =
    'file,report,who,edema,effusion\na.png,Some text,1,1,0\nb.png,"Other, text",1,1,1\nc.png,,2,-1,\n../d.png,x,2,0,0\ne.png,y,3,0,maybe\n'
  const spec = (columns: object, more: object = {}) =>
    ({
      kind: 'table',
      root: folderOf({ 't.csv': csv }),
      table: 't.csv',
      columns: { path: 'file', ...columns },
      split: 'all',
      maxProblems: 1,
      ...more,
    }) as DatasetSpec

  it('has captions from a column', async () => {
    const { samples, problems } = await openDataset(spec({ text: 'report', patient: 'who' }, { prefix: 'images/' }))
    expect(samples.map(({ path, caption, patient }) => [path, caption, patient])).toEqual([
      ['images/a.png', 'Some text', '1'],
      ['images/b.png', 'Other, text', '1'],
      ['d.png', 'x', '2'],
      ['images/e.png', 'y', '3'],
    ])
    expect(problems.list).toEqual([{ row: 2, path: null, problem: 'report: expected a text, but the cell is empty' }])
  })

  it('has findings from columns, and captions of them by a template', async () => {
    const { samples, problems, findings } = await openDataset(
      spec({ findings: ['edema', 'effusion'] }, { captions: { template: 'x ray with {class}' } }),
    )
    expect(findings).toEqual(['edema', 'effusion'])
    expect(samples.map(({ caption, label, findings: values }) => [caption, label, [...values!]])).toEqual([
      ['x ray with edema', 0, [1, 0]],
      ['x ray with edema effusion', null, [1, 1]],
      ['x ray with no finding', null, [-1, -2]],
    ])
    expect(problems.list.map(({ row, problem }) => [row, problem])).toEqual([
      [3, 'expected a path below the data folder, but received "../d.png"'],
      [4, 'effusion: expected 1, 0, -1 or nothing, but received maybe'],
    ])
  })

  it('has classes from a column, in the order of numbers or words', async () => {
    const root = folderOf({
      't.jsonl': ['10', '9', null, '10'].map((grade, index) => JSON.stringify({ p: `${index}.png`, grade })).join('\n'),
    })
    const dataset = await openDataset({
      kind: 'table',
      root,
      table: 't.jsonl',
      columns: { path: 'p', label: 'grade' },
      split: 'all',
    })
    expect(dataset.classes.map(({ name }) => name)).toEqual(['9', '10'])
    expect(dataset.samples.map(({ label }) => label)).toEqual([1, 0, null, 1])
  })

  it('needs its columns, and takes one kind of label', async () => {
    await expect(openDataset(spec({ text: 'nothing' }))).rejects.toThrow(
      /expected the column nothing, but the table has file, report/,
    )
    await expect(openDataset(spec({ label: 'who', findings: ['edema'] }))).rejects.toThrow(
      /columns.label or columns.findings/,
    )
    await expect(openDataset(spec({ text: 'report' }, { maxProblems: 0.01 }))).rejects.toThrow(
      /expected at most 1 % of 5 to be unusable/,
    )
  })
})

describe('a web data set', () => {
  async function shards(): Promise<string> {
    const long = `${'long/'.repeat(40)}name`
    const files: Record<string, string> = {}
    for (let index = 0; index < 40; index += 1) {
      const key = index === 7 ? long : `s${String(index).padStart(3, '0')}`
      files[`${key}.jpg`] = `image ${index}`
      files[`${key}.json`] = JSON.stringify({ caption: `text ${index}`, label: index % 2, patient: `p${index % 10}` })
    }
    const source = folderOf({ ...files, 'x.txt': 'a text without an image' })
    const root = folderOf({})
    const names = Object.keys(files)
    await create({ cwd: source, file: join(root, '0.tar') }, names.slice(0, 40))
    await create({ cwd: source, file: join(root, '1.tar') }, [...names.slice(40), 'x.txt'])
    return root
  }

  it('is read by offset, and gives the bytes of every image', async () => {
    const dataset = await openDataset({ kind: 'webdataset', root: await shards(), split: 'all', maxProblems: 0.1 })
    expect(dataset.samples.length).toBe(40)
    for (const sample of dataset.samples) {
      expect(String(await dataset.open!(sample))).toBe(sample.caption!.replace('text', 'image'))
    }
    expect(dataset.samples[1]).toMatchObject({ path: '0.tar/s001.jpg', patient: 'p1', label: 1 })
    expect(dataset.problems.list).toMatchObject([{ row: 40, problem: expect.stringContaining('expected an image') }])
    await expect(dataset.open!({ ...dataset.samples[0]!, path: '../x' })).rejects.toThrow(/expected a sample of/)
  })

  it('is split by patient', async () =>
    expectDisjoint({ kind: 'webdataset', root: await shards(), maxProblems: 0.1 }, 5))

  it('whose shard is damaged, cut off or compressed is an error', async () => {
    const root = await shards()
    const whole = readFileSync(join(root, '0.tar'))
    const damaged = Buffer.from(whole)
    damaged[3]! ^= 1
    for (const [bytes, message] of [
      [whole.subarray(0, 515), /0.tar: expected a tar archive, not compressed, but the file ends within/],
      [whole.subarray(0, 700), /it was cut off/],
      [whole.subarray(0, 1024), /it was cut off/],
      [Buffer.alloc(0), /it was cut off/],
      [damaged, /the header at byte 0 is damaged/],
      [Buffer.alloc(4096, 'compressed'), /is damaged/],
    ] as const) {
      writeFileSync(join(root, '0.tar'), bytes)
      await expect(openDataset({ kind: 'webdataset', root })).rejects.toThrow(message)
    }
    await expect(openDataset({ kind: 'webdataset', root, shards: ['../0.tar'] })).rejects.toThrow(
      /below the data folder/,
    )
  })
})
