import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { packageRoot } from '../../src/setup/paths.js'
import { fileOf, folderOf } from './tables/files.js'

const official = new URL('../reference/official/', import.meta.url).pathname
const main = join(packageRoot(), 'dist', 'cli', 'main.js')

interface Outcome {
  readonly code: number
  readonly out: string
  readonly error: string
}

const cleft = (...parameters: readonly string[]): Promise<Outcome> =>
  new Promise((resolve) => {
    execFile(process.execPath, [main, ...parameters], { maxBuffer: 1 << 26 }, (error, out, text) => {
      resolve({ code: error === null ? 0 : Number(error.code), out, error: text })
    })
  })

const objectsIn = (out: string): Record<string, unknown>[] =>
  out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)

describe('cleft caption', () => {
  it('prints an object a line: row, path and caption', async () => {
    const { code, out, error } = await cleft('caption', 'chexpert', `${official}chexpert.csv`, '--json')
    expect([code, error]).toEqual([0, ''])
    const objects = objectsIn(out)
    expect(objects.length).toBe(41)
    expect(objects[0]).toEqual({
      row: 0,
      path: 'CheXpert-v1.0/train/patient00040/study2/view1_frontal.jpg',
      caption: 'this is a chest x ray of a patient with enlarged cardiomediastinum pleural effusion fracture',
    })
  })

  it('prints class prompts first where they are asked for', async () => {
    const tables = ['legend', 'clinical', 'metadata'].map((name) => `${official}embed.${name}.csv`)
    const { out, error } = await cleft('caption', 'embed', ...tables, '--style', 'simple', '--prompts', '--json')
    const objects = objectsIn(out)
    expect(
      objects.slice(0, 11).every(({ task, prompt }) => typeof task === 'string' && typeof prompt === 'string'),
    ).toBe(true)
    expect(objects.slice(11).map((each) => Object.keys(each).join())).toEqual(Array(30).fill('row,path,caption'))
    expect(error).toMatch(/^19 2D images without density, BI-RADS are left out, as published\n$/)
  })

  it('says in one line what is wrong', async () => {
    const cases = [
      [['chexpert', '/no/table.csv'], /^cleft: \/no\/table.csv: expected a table, but there is no such file\n$/],
      [['chexpert', fileOf('')], /^cleft: .*expected a table with a header, but it is empty\n$/],
      [['chexpert', fileOf(Buffer.alloc(99))], /^cleft: .*but it is binary\n$/],
      [['nih', `${official}chexpert.csv`], /^cleft: .*expected the columns Image Index, .*\n$/],
      [['chexpert', `${official}chexpert.csv`, '--style', 'x'], /^cleft: expected a style of chexpert .*\n$/],
      [['rsna', fileOf('patientId,Target\na,5\n')], /^cleft: expected at most 1 % of 1 .*Target: expected 0 or 1.*\n$/],
    ] as const
    await Promise.all(
      cases.map(async ([parameters, message]) => {
        const { code, error } = await cleft('caption', ...parameters, '--json')
        expect(error).toMatch(message)
        expect(code).toBe(1)
      }),
    )
  })

  it('goes on without wrong rows up to the limit, and names them', async () => {
    const table = fileOf('patientId,Target\na,5\nb,1\n')
    const { code, out, error } = await cleft('caption', 'rsna', table, '--json', '--max-problems', '0.5')
    expect(code).toBe(0)
    expect(objectsIn(out).slice(2)).toEqual([{ row: 1, path: 'stage_2_train_images/b.dcm', label: 1 }])
    expect(error).toMatch(/^left out: row 0, stage_2_train_images\/a.dcm: Target: expected 0 or 1, but received "5"\n$/)
  })
})

describe('cleft data', () => {
  const files = {
    'a/00000001_000.png': 'x',
    'a/00000002_000.png': '',
    'b/00000001_001.png': 'x',
    'b/00000003_000.png': 'x',
  }

  it('counts images, parts, classes and captions, and finds missing files', async () => {
    const { code, out } = await cleft('data', folderOf(files), '--json')
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      kind: 'folder',
      images: 4,
      patients: 3,
      classes: { a: 2, b: 2 },
      captions: { distinct: 2 },
      missing: [{ row: 1, path: 'a/00000002_000.png', problem: 'expected a file, but it is empty' }],
    })
  })

  it('counts findings and what occurs together, and says so in words', async () => {
    const { out, error } = await cleft('data', folderOf({ 'CheXpert-v1.0/train.csv': `${CHEXPERT}\n` }), '--no-files')
    expect(error).toBe('')
    expect(out).toMatch(/^chexpert, 2 images of 2 patients/)
    expect(out).toMatch(/^Edema: 2 positive, 0 negative, 0 uncertain, 0 not mentioned$/m)
    expect(out).toMatch(/^Fracture: 1 positive, 1 negative, 0 uncertain, 0 not mentioned$/m)
  })

  it('does not guess where the folder says nothing, or several things', async () => {
    const nothing = await cleft('data', folderOf({ 'a.txt': '' }))
    expect(nothing).toMatchObject({
      code: 1,
      error: expect.stringMatching(/^cleft: expected a data set in .* with --kind\n$/),
    })
    const several = await cleft('data', folderOf({ 'Data_Entry_2017.csv': '', 'stage_2_train_labels.csv': '' }))
    expect(several).toMatchObject({ code: 1, error: expect.stringMatching(/it could be rsna or nih/) })
  })
})

const FINDINGS = [
  'No Finding',
  'Enlarged Cardiomediastinum',
  'Cardiomegaly',
  'Lung Opacity',
  'Lung Lesion',
  'Edema',
  'Consolidation',
  'Pneumonia',
  'Atelectasis',
  'Pneumothorax',
  'Pleural Effusion',
  'Pleural Other',
  'Fracture',
  'Support Devices',
]
const CHEXPERT = [
  ['Path', 'AP/PA', ...FINDINGS],
  [
    'CheXpert-v1.0/train/patient00001/a.jpg',
    'AP',
    ...FINDINGS.map((name) => (name === 'Edema' || name === 'Fracture' ? '1.0' : '')),
  ],
  [
    'CheXpert-v1.0/train/patient00002/a.jpg',
    'PA',
    ...FINDINGS.map((name) => (name === 'Edema' ? '1.0' : name === 'Fracture' ? '0.0' : '')),
  ],
]
  .map((cells) => cells.join(','))
  .join('\n')
