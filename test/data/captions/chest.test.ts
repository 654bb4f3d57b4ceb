import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  CHEXPERT_FINDINGS,
  chestPrompts,
  chexpertCaption,
  FIVE_FINDINGS,
  nihCaption,
  rsnaPrompts,
} from '../../../src/data/captions/index.js'
import { type CaptionLine, captionsOf } from '../../../src/data/datasets/caption-lines.js'
import { Problems } from '../../../src/data/problems.js'
import { Random } from '../../../src/data/random.js'
import { fileOf } from '../tables/files.js'

const official = new URL('../../reference/official/', import.meta.url).pathname
const table = `${official}chexpert.csv`
const published = JSON.parse(readFileSync(`${official}chexpert.captions.json`, 'utf8')) as {
  plain: Record<string, string>
  negative: Record<string, string>
  prompt: Record<string, string>
  order: string[]
  zero_shot: string[]
}

async function linesOf(file: string, style?: string) {
  const problems = new Problems()
  const captions = await captionsOf('chexpert', [file], style, problems)
  const lines: CaptionLine[] = []
  for await (const batch of captions.lines()) lines.push(...batch)
  return { lines, prompts: [...captions.prompts.values()].flat(), problems: problems.list }
}

/** The findings with the given values, the others blank. */
const findings = (values: Partial<Record<(typeof CHEXPERT_FINDINGS)[number], number>>): Int8Array =>
  Int8Array.from(CHEXPERT_FINDINGS, (name) => values[name] ?? -2)

describe.each(['plain', 'negative', 'prompt'] as const)('CheXpert captions, %s', (style) => {
  it('are the published ones, of the same rows in the same order', async () => {
    const { lines } = await linesOf(table, style)
    expect(lines.map(({ path }) => path)).toEqual(published.order)
    const inOurs = Object.fromEntries(
      Object.keys(published[style]).map((index) => [index, lines[Number(index)]!.caption]),
    )
    expect(inOurs).toEqual(published[style])
  })

  it('differ for paths that the table has twice: each row has its own, where the published code gives both the last', async () => {
    const { lines } = await linesOf(table, style)
    const missing = lines.filter((_, index) => !(String(index) in published[style]))
    expect(missing.length).toBe(8)
    for (const { path } of missing) expect(published.order.filter((each) => each === path).length).toBeGreaterThan(1)
  })

  it('do not depend on the order of the columns', async () => {
    const [header, ...rows] = readFileSync(table, 'utf8')
      .trim()
      .split('\n')
      .map((line) => line.split(','))
    const order = new Random(3, 'columns').shuffle([...header!.keys()])
    const shuffled = [header!, ...rows].map((cells) => order.map((place) => cells[place]).join(',')).join('\r\n')
    expect((await linesOf(fileOf(shuffled), style)).lines).toEqual((await linesOf(table, style)).lines)
  })
})

describe('CheXpert captions', () => {
  it('of a row without positive findings say no finding, where the published ones break off after "with"', () => {
    const none = findings({ Edema: 0, Fracture: -1 })
    expect(chexpertCaption(none)).toBe('this is a chest x ray of a patient with no finding')
    expect(chexpertCaption(none, 'negative')).toBe(
      'this is a chest x ray of a patient with no finding but this image has no edema',
    )
    expect(chexpertCaption(none, 'prompt')).toBe('no finding')
  })

  it('name No Finding last, and never among the negatives', () => {
    expect(chexpertCaption(findings({ 'No Finding': 1, 'Support Devices': 1 }))).toMatch(
      /with support devices no finding$/,
    )
    expect(chexpertCaption(findings({ 'No Finding': 0, Edema: 1 }), 'negative')).toMatch(
      /with edema but this image has no$/,
    )
  })

  it('count rows before the filter', async () => {
    const { lines } = await linesOf(table)
    expect(lines.slice(0, 3).map(({ row }) => row)).toEqual([0, 2, 3])
  })

  it('have the published class prompts', async () => {
    expect((await linesOf(table)).prompts.flatMap(({ prompts }) => prompts)).toEqual(published.zero_shot)
    expect(chestPrompts(FIVE_FINDINGS, 'prompt')[3]).toEqual({
      name: 'Pleural Effusion',
      prompts: ['pleural effusion'],
    })
  })

  it('are left out where the row is wrong, by name', async () => {
    const [header, row] = readFileSync(table, 'utf8').split('\n') as [string, string]
    const wrong = [
      row.replace(',1.0', ',1.5'),
      row.replace('PA', 'AP').replace(',1.0', ',yes'),
      row.replace('77', 'old'),
    ]
    const away = [row.replace(/^[^,]*/, '../x.jpg'), row.replace(/^[^,]*/, '/etc/passwd'), row.replace(/^[^,]*/, '')]
    const unused = row.replace('PA', 'LL').replace(',1.0', ',unused')
    const { lines, problems } = await linesOf(fileOf([header, ...wrong, ...away, unused, row].join('\n')))
    expect(lines.map((line) => line.row)).toEqual([7])
    expect(problems.map((each) => [each.row, each.problem])).toEqual([
      [0, 'Enlarged Cardiomediastinum: expected 1, 0, -1 or nothing, but received 1.5'],
      [1, 'Enlarged Cardiomediastinum: expected 1, 0, -1 or nothing, but received yes'],
      [2, 'Age: expected years, but received old'],
      [3, 'expected a path below the data folder, but received "../x.jpg"'],
      [4, 'expected a path below the data folder, but received "/etc/passwd"'],
      [5, 'expected a path below the data folder, but received ""'],
    ])
  })

  it('need the columns', async () => {
    const text = readFileSync(table, 'utf8').replace('Pleural Other', 'Other')
    await expect(linesOf(fileOf(text))).rejects.toThrow(
      /expected the column Pleural Other, but the table has Path, Sex/,
    )
    await expect(captionsOf('chexpert', [table], 'natural', new Problems())).rejects.toThrow(
      /a style of chexpert \(plain, negative, prompt\)/,
    )
    await expect(captionsOf('chexpert', [table, table], 'plain', new Problems())).rejects.toThrow(
      /one table of chexpert, but received 2/,
    )
  })
})

describe('ChestX-ray14', () => {
  const nih = [
    'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]',
    '00000001_000.png,Cardiomegaly|Emphysema,0,1,57,M,PA,2682,2749,0.143,0.143',
    '00000002_000.png,No Finding,0,2,058Y,M,AP,2682,2749,0.143,0.143',
    '00000003_000.png,Pleural_Thickening|Hernia|Atelectasis,0,3,81,F,PA,2682,2749,0.143,0.143',
    '00000004_000.png,Sunburn,0,4,81,F,PA,2682,2749,0.143,0.143',
  ].join('\n')

  it('has captions with the findings in the row’s order', async () => {
    const problems = new Problems()
    const captions = await captionsOf('nih', [fileOf(nih)], undefined, problems)
    const lines: CaptionLine[] = []
    for await (const batch of captions.lines()) lines.push(...batch)
    expect(lines.map(({ caption }) => caption)).toEqual([
      'this is a chest x ray of a patient with cardiomegaly emphysema',
      'this is a chest x ray of a patient with no finding',
      'this is a chest x ray of a patient with pleural thickening hernia atelectasis',
    ])
    expect(problems.list).toMatchObject([{ row: 3, problem: expect.stringContaining('Sunburn') }])
    expect(nihCaption(['Hernia'], 'prompt')).toBe('hernia')
  })
})

describe('RSNA', () => {
  it('has prompts of its own, and the published ones by name', () => {
    const texts = (style?: 'published') => rsnaPrompts(style).flatMap(({ prompts }) => prompts)
    expect(texts()).toEqual([
      'this is a chest x ray of a patient with no findings',
      'this is a chest x ray of a patient with pneumonia',
    ])
    expect(texts('published')[1]).toBe('this is a chest x ray of a patient with pneumothorax')
  })

  it('has a label for each image, however many boxes, in the order of first rows', async () => {
    const rows = ['a,,,,,0', 'b,1,2,3,4,1', 'c,,,,,0', 'b,5,6,7,8,1', 'c,1,1,1,1,1', 'd,,,,,2', '../e,,,,,0']
    const labels = fileOf(['patientId,x,y,width,height,Target', ...rows].join('\n'))
    const classes = fileOf('patientId,class\na,Normal\n')
    const problems = new Problems()
    const captions = await captionsOf('rsna', [classes, labels], undefined, problems)
    const lines: CaptionLine[] = []
    for await (const batch of captions.lines()) lines.push(...batch)
    expect(lines).toEqual([
      { row: 0, path: 'stage_2_train_images/a.dcm', label: 0 },
      { row: 1, path: 'stage_2_train_images/b.dcm', label: 1 },
      { row: 2, path: 'stage_2_train_images/c.dcm', label: 0 },
    ])
    expect(problems.list.map(({ row }) => row)).toEqual([4, 5, 6])
  })
})
