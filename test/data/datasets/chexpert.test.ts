import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { CHEXPERT_FINDINGS } from '../../../src/data/captions/index.js'
import { isFiveWay } from '../../../src/data/datasets/chexpert.js'
import { type DatasetSpec, openDataset } from '../../../src/data/datasets/index.js'
import { Random } from '../../../src/data/random.js'
import type { Dataset } from '../../../src/data/sample.js'
import { folderOf } from '../tables/files.js'
import { chexpertCsv } from './tables.js'

const CSV = chexpertCsv(150)
const FOLDER = 'CheXpert-v1.0-small'
const rootOf = (csv = CSV): string =>
  folderOf({ [`${FOLDER}/train.csv`]: csv, [`${FOLDER}/valid.csv`]: chexpertCsv(9, 7) })

const chexpert = (root: string, more: Partial<Extract<DatasetSpec, { kind: 'chexpert' }>> = {}) =>
  openDataset({ kind: 'chexpert', root, holdout: null, ...more })

const patientsOf = ({ samples }: Dataset) => new Set(samples.map(({ patient }) => patient))
const paths = ({ samples }: Dataset) => samples.map(({ path }) => path)

describe('CheXpert', () => {
  it('is read from its folder or the one above, plain or in gzip', async () => {
    const root = rootOf()
    const whole = await chexpert(root)
    expect(whole.root).toBe(join(root, FOLDER))
    expect(paths(await chexpert(join(root, FOLDER)))).toEqual(paths(whole))
    expect((await chexpert(folderOf({ 'train.csv.gz': gzipSync(CSV) }))).hash).toBe(whole.hash)
    expect(whole.samples[0]!.path).toMatch(/^train\/patient\d{5}\/study1\/view1_frontal.jpg$/)
    expect(whole.samples[0]!.patient).toMatch(/^patient\d{5}$/)
    expect(whole.samples.every(({ attributes }) => ['AP', 'PA'].includes(attributes.view!))).toBe(true)
    expect((await chexpert(root, { split: 'valid' })).samples.length).toBeLessThan(30)
  })

  it('gives a class to images with exactly one of the five findings', async () => {
    const { samples, classes, findings } = await chexpert(rootOf())
    expect(classes.map(({ name }) => name)).toEqual([
      'Atelectasis',
      'Edema',
      'Cardiomegaly',
      'Pleural Effusion',
      'Consolidation',
    ])
    for (const { label, findings: values } of samples) {
      const positive = classes.filter(({ name }) => values![findings.indexOf(name)] === 1)
      expect(label).toBe(positive.length === 1 ? classes.indexOf(positive[0]!) : null)
    }
  })

  it('has another hash for other captions, labels and rows, and the same for the same', async () => {
    const root = rootOf()
    const specs = [
      {},
      { captions: { style: 'negative' } },
      { labels: 'all' },
      { fraction: 0.5 },
      { views: ['AP'] },
    ] as const
    const hashes: string[] = []
    for (const spec of specs) {
      const { hash } = await chexpert(root, { ...spec, views: 'views' in spec ? [...spec.views] : undefined })
      expect((await chexpert(rootOf(), { ...spec, views: 'views' in spec ? [...spec.views] : undefined })).hash).toBe(
        hash,
      )
      hashes.push(hash)
    }
    expect(new Set(hashes).size).toBe(specs.length)
  })

  it('splits by patient: no patient on two sides, over many seeds', async () => {
    const root = rootOf()
    const every = paths(await chexpert(root, { split: 'all' })).sort()
    for (let seed = 0; seed < 12; seed += 1) {
      const splits = { fractions: { train: 0.6, valid: 0.2, test: 0.2 }, seed }
      const parts: Dataset[] = []
      for (const split of ['train', 'valid', 'test'] as const) parts.push(await chexpert(root, { split, splits }))
      expect(parts.flatMap(paths).sort()).toEqual(every)
      const sets = parts.map(patientsOf)
      expect(sets[0]!.size + sets[1]!.size + sets[2]!.size).toBe(new Set(sets.flatMap((set) => [...set])).size)
      expect(new Set(parts.map(({ split }) => split!.hash)).size).toBe(1)
    }
  })

  it('splits alike whatever the order of rows', async () => {
    const [header, ...rows] = CSV.trim().split('\n')
    const shuffled = [header, ...new Random(1).shuffle(rows)].join('\n')
    const spec = { splits: { fractions: { train: 0.5, test: 0.5 } }, fraction: 0.3 }
    const [one, other] = [await chexpert(rootOf(), spec), await chexpert(rootOf(shuffled), spec)]
    expect(paths(other).sort()).toEqual(paths(one).sort())
    expect(other.split).toEqual(one.split)
  })

  it('keeps a split in a manifest, and refuses one of other settings', async () => {
    const root = rootOf()
    const manifest = join(root, 'split.json')
    const splits = { fractions: { train: 0.5, test: 0.5 }, seed: 3, manifest }
    const train = await chexpert(root, { splits })
    expect(existsSync(manifest)).toBe(true)
    expect((await chexpert(root, { splits })).hash).toBe(train.hash)
    const test = await chexpert(root, { split: 'test', splits: { manifest } })
    expect([...patientsOf(test)].some((patient) => patientsOf(train).has(patient))).toBe(false)
    await expect(chexpert(root, { splits: { ...splits, seed: 4 } })).rejects.toThrow(
      /expected a split of chexpert with seed 4/,
    )
  })

  it('follows a user’s own lists, of patients or of files, and never splits a patient', async () => {
    const root = rootOf()
    const all = await chexpert(root, { split: 'all' })
    const [first, second] = [...patientsOf(all)] as [string, string]
    const ofSecond = all.samples.filter(({ patient }) => patient === second)
    const lists = folderOf({ 'train.txt': `${first}\r\n`, 'test.txt': `${ofSecond[0]!.path}\n` })
    const splits = { lists: { train: join(lists, 'train.txt'), test: join(lists, 'test.txt') } }
    expect([...patientsOf(await chexpert(root, { splits }))]).toEqual([first])
    expect((await chexpert(root, { split: 'test', splits })).samples.length).toBe(ofSecond.length)
  })

  it('refuses lists that split a patient', async () => {
    const root = rootOf()
    const { samples } = await chexpert(root, { split: 'all' })
    const two = samples.find(({ patient, path }) =>
      samples.some((each) => each.patient === patient && each.path > path),
    )!
    const lists = folderOf({ 'train.txt': `${two.patient}\n`, 'test.txt': `${two.path}\n` })
    const splits = { lists: { train: join(lists, 'train.txt'), test: join(lists, 'test.txt') } }
    await expect(chexpert(root, { splits })).rejects.toThrow(`${two.patient} is in train and test`)
  })

  it('takes nested fractions, by the seed', async () => {
    const root = rootOf()
    const whole = await chexpert(root)
    const [ten, half, again, other] = [
      await chexpert(root, { fraction: 0.1 }),
      await chexpert(root, { fraction: 0.5 }),
      await chexpert(root, { fraction: 0.1 }),
      await chexpert(root, { fraction: 0.1, seed: 1 }),
    ]
    expect(ten!.samples.length).toBe(Math.round(0.1 * whole.samples.length))
    expect(paths(ten!).every((path) => paths(half!).includes(path))).toBe(true)
    expect(paths(again!)).toEqual(paths(ten!))
    expect(paths(other!)).not.toEqual(paths(ten!))
    const repeated = await chexpert(root, { fraction: 0.1, keepSize: true })
    expect(repeated.samples.length).toBe(10 * ten!.samples.length)
  })

  it('weighs images inversely to their class’s frequency, and needs a class for each', async () => {
    const root = rootOf()
    const { samples, weights, classes } = await chexpert(root, { perClass: 5, balance: true })
    expect(samples.length).toBe(5 * classes.length)
    expect([...weights!]).toEqual(samples.map(() => 1 / 5))
    await expect(chexpert(root, { balance: true })).rejects.toThrow(/expected a class for every image/)
    await expect(chexpert(root, { perClass: 5000 })).rejects.toThrow(
      /expected 5000 images of the class Atelectasis, but there are/,
    )
  })

  it('goes on without unusable rows up to the limit', async () => {
    const bad = CSV.replace(/,AP,/, ',AP,x')
    const { problems } = await chexpert(rootOf(bad), { split: 'all' })
    expect(problems.list.length).toBe(1)
    await expect(chexpert(rootOf(bad), { maxProblems: 0 })).rejects.toThrow(
      /expected at most 0 % of .* No Finding: expected 1, 0, -1/,
    )
  })

  it('says what is wrong with a spec, a folder or a table', async () => {
    await expect(openDataset({ kind: 'chexpert', root: '/nowhere' })).rejects.toThrow(/\/nowhere is not there/)
    await expect(chexpert(folderOf({ 'a.txt': '' }))).rejects.toThrow(
      /expected train.csv in .*, but there is no such file/,
    )
    const wrong = { kind: 'chexpert', root: '.', fraction: 2, colour: 'red' } as DatasetSpec
    await expect(openDataset(wrong)).rejects.toThrow(/expected the description of a data set, but .*fraction.*/)
    await expect(chexpert(rootOf(), { prompts: { Sunburn: ['x'] } })).rejects.toThrow(/but received some of Sunburn/)
  })
})

describe('CheXpert-5x200', () => {
  const five = (root: string, more = {}) => openDataset({ kind: 'chexpert-5x200', root, perClass: 10, ...more })

  it('is of frontal images with one of the five findings, and no other in doubt', () => {
    const values = (of: Record<string, number>) => Int8Array.from(CHEXPERT_FINDINGS, (name) => of[name] ?? -2)
    const cases: [Record<string, number>, boolean][] = [
      [{ Edema: 1 }, true],
      [{ Edema: 1, Fracture: 0, 'No Finding': 1 }, true],
      [{ Edema: 1, Atelectasis: 1 }, false],
      [{ Edema: 1, Atelectasis: -1 }, false],
      [{ Edema: 1, Fracture: 1 }, false],
      [{ Edema: 1, Fracture: -1 }, false],
      [{ Fracture: 1 }, false],
    ]
    for (const [of, expected] of cases) expect(isFiveWay({ frontal: true, findings: values(of) })).toBe(expected)
    expect(isFiveWay({ frontal: false, findings: values({ Edema: 1 }) })).toBe(false)
  })

  it('has as many of each class, seeded, the fewer among the more', async () => {
    const root = rootOf()
    const ten = await five(root)
    expect(ten.classes.map((_, label) => ten.samples.filter((sample) => sample.label === label).length)).toEqual([
      10, 10, 10, 10, 10,
    ])
    expect((await five(root)).hash).toBe(ten.hash)
    expect((await five(root, { seed: 1 })).hash).not.toBe(ten.hash)
    const fewer = await five(root, { perClass: 4 })
    expect(paths(fewer).every((path) => paths(ten).includes(path))).toBe(true)
    await expect(five(root, { perClass: 200 })).rejects.toThrow(/expected 200 images of the class/)
  })

  it('shares no patient with training, whatever the seed and the labels trained on', async () => {
    const root = folderOf({ 'train.csv': CSV, 'chexbert.csv': CSV.replaceAll('-1.0', '1.0') })
    for (let seed = 0; seed < 5; seed += 1) {
      const test = patientsOf(await five(root, { seed }))
      for (const table of [undefined, 'chexbert.csv']) {
        const holdout = { perClass: 10, seed }
        const train = await openDataset({ kind: 'chexpert', root, table, holdout })
        expect(train.samples.length).toBeGreaterThan(50)
        expect([...patientsOf(train)].filter((patient) => test.has(patient))).toEqual([])
        const splits = { fractions: { train: 0.8, valid: 0.2 }, seed }
        const valid = await openDataset({ kind: 'chexpert', root, table, holdout, split: 'valid', splits })
        expect([...patientsOf(valid)].filter((patient) => test.has(patient))).toEqual([])
      }
    }
  })
})
