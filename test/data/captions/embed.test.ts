import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  EMBED_STYLES,
  type EmbedFacts,
  type EmbedStyle,
  embedCaption,
  embedPromptPrefix,
  embedPrompts,
  words,
} from '../../../src/data/captions/index.js'
import { type CaptionLine, captionsOf } from '../../../src/data/datasets/caption-lines.js'
import { Problems } from '../../../src/data/problems.js'
import { Random } from '../../../src/data/random.js'
import { fileOf } from '../tables/files.js'

const official = new URL('../../reference/official/', import.meta.url).pathname
const published = JSON.parse(readFileSync(`${official}embed.captions.json`, 'utf8')) as Record<
  EmbedStyle,
  Record<string, string>
> & { zero_shot_birads: string[]; zero_shot_density: string[] }
const TABLES = ['metadata', 'clinical', 'clinical_reduced', 'legend'].map((name) => `${official}embed.${name}.csv`)

async function linesOf(paths: readonly string[], style?: EmbedStyle) {
  const problems = new Problems()
  const captions = await captionsOf('embed', paths, style, problems)
  const lines: CaptionLine[] = []
  for await (const batch of captions.lines()) lines.push(...batch)
  return { lines, notes: captions.notes, problems: problems.list }
}

const byPath = (lines: readonly CaptionLine[]) => Object.fromEntries(lines.map(({ path, caption }) => [path, caption]))

describe.each(EMBED_STYLES)('EMBED captions, %s', (style) => {
  it('are the published ones, in the table’s order, whatever the order of the tables', async () => {
    for (const seed of [0, 1, 2]) {
      const { lines, problems } = await linesOf(new Random(seed, 'tables').shuffle(TABLES), style)
      expect(byPath(lines)).toEqual(published[style])
      expect(lines.map(({ path }) => path)).toEqual(Object.keys(published[style]))
      expect(lines.map(({ row }) => row)).toEqual(lines.map(({ row }) => row).sort((a, b) => a - b))
      expect(problems).toEqual([])
    }
  })

  it('need no reduced clinical table where there is the full one', async () => {
    const { lines } = await linesOf(
      TABLES.filter((path) => !path.includes('reduced')),
      style,
    )
    expect(byPath(lines)).toEqual(published[style])
  })

  it('say nothing of mass and calcification with the reduced clinical table alone, and that is noted', async () => {
    const { lines, notes } = await linesOf(
      TABLES.filter((path) => !path.endsWith('clinical.csv')),
      style,
    )
    const lesions =
      / the mass is (round|oval|irregular) and (high density|isodense)| a (grouped|segmental) (amorphous|fine pleomorphic) calcification is present/g
    const without = Object.entries(published[style]).map(([path, text]) => [path, text.replaceAll(lesions, '')])
    expect(byPath(lines)).toEqual(Object.fromEntries(without))
    expect(notes.some((note) => note.includes('mass'))).toBe(style === 'natural' || style === 'structural')
  })
})

describe('EMBED', () => {
  it('has the published class prompts', () => {
    const texts = (labels: 'birads' | 'density') => embedPrompts(labels).flatMap(({ prompts }) => prompts)
    expect(texts('birads')).toEqual(published.zero_shot_birads)
    expect(texts('density')).toEqual(published.zero_shot_density)
  })

  it('tells its tables apart, or says what is missing', async () => {
    const [metadata, clinical, , legend] = TABLES as [string, string, string, string]
    await expect(linesOf([clinical, legend])).rejects.toThrow(/expected one metadata table .*, but received none/)
    await expect(linesOf([metadata, metadata, clinical])).rejects.toThrow(
      /expected one metadata table .*, but received .*metadata/,
    )
    await expect(linesOf([metadata, legend])).rejects.toThrow(
      /expected one or two clinical tables .*, but received none/,
    )
    await expect(linesOf([metadata, clinical], 'natural')).rejects.toThrow(/legend table .* for natural captions/)
    await expect(linesOf([metadata, clinical, `${official}chexpert.csv`])).rejects.toThrow(
      /expected EMBED's .* its columns are Path/,
    )
  })

  const header = 'empi_anon,acc_anon,anon_dicom_path,FinalImageType,ImageLateralityFinal,ViewPosition,StudyDescription'
  const clinicalHeader = 'empi_anon,acc_anon,side,tissueden,asses,age_at_study,RACE_DESC,ETHNIC_GROUP_DESC'
  const image = (accession: string, path = '/mnt/NAS2/mammo/anon_dicom/cohort_1/a.dcm') =>
    `1,${accession},${path},2D,L,CC,MG`

  it('takes the row of the image’s side, else the study’s first, and counts rows before any filter', async () => {
    const clinical = ['5,R,1,N,,,', '5,L,2,B,,,', '6,R,3.0,P,,,', '6,B,4,S,,,'].map(
      (row) => `1,${row.replace(',,,', ',,,')}`,
    )
    const metadata = [header, '1,5,x,cview,L,CC,MG', image('5'), image('6.0'), '1,6,cohort_1/b.dcm,2D,,CC,MG']
    const { lines } = await linesOf(
      [fileOf(metadata.join('\n')), fileOf([clinicalHeader, ...clinical].join('\n'))],
      'simple',
    )
    expect(lines.map(({ row, caption }) => [row, caption?.match(/density (\d)/)?.[1]])).toEqual([
      [1, '2'],
      [2, '3'],
      [3, '3'],
    ])
  })

  it('names rows that are wrong', async () => {
    const metadata = [
      header,
      image('7'),
      image('5'),
      image('6'),
      image('8', '/mnt/NAS2/mammo/anon_dicom/cohort_1/../../../etc/passwd'),
      image('8'),
    ]
    const clinical = [clinicalHeader, '1,5,L,9,N,,,', '1,6,L,1,N,old,,', '1,8,L,1,N,50.9,,']
    const { lines, problems } = await linesOf([fileOf(metadata.join('\n')), fileOf(clinical.join('\n'))])
    expect(lines.map(({ row }) => row)).toEqual([4])
    expect(problems.map(({ row, problem }) => [row, problem])).toEqual([
      [0, 'expected a clinical row of accession 7, but there is none'],
      [1, 'tissueden: expected 1 to 5, but received 9'],
      [2, 'age_at_study: expected years, but received old'],
      [3, expect.stringMatching(/^expected a path below the data folder/)],
    ])
  })

  const facts: EmbedFacts = {
    procedure: 'MG Screening  Bilateral',
    imageType: '2D',
    side: 'L',
    view: 'MLO',
    age: 73,
    race: 'African American  or Black',
    ethnicity: 'Unreported',
    density: 3,
    birads: 2,
    massShape: null,
    massDensity: null,
    calcification: null,
    calcificationDistribution: null,
  }

  it('has the part about image and patient, punctuation and all, before the prompts of an image', () => {
    expect(EMBED_STYLES.map((style) => embedPromptPrefix(facts, style))).toEqual([
      'this is a breast 2d full-field digital mammogram of a patient on side left with view mlo ',
      'this is a breast 2d full-field digital mammogram of a patient ',
      'this is a breast 2d full-field digital screening mammogram of a patient. this patient is african american  or black, non-hispanic or latino, and 73 years old.  this mammogram is for left breast with mlo view.  ',
      'procedure reported: mg screening  bilateral; reason for procedure: screening; patient info: this patient is african american  or black, non-hispanic or latino, and 73 years old.  image info: this is a 2d full-field digital mammogram of the left breast with mlo view.  ',
    ])
  })

  it('has no caption without density or BI-RADS; structural: also without procedure or reason', () => {
    for (const style of EMBED_STYLES) {
      expect(embedCaption({ ...facts, density: null }, style)).toBeNull()
      expect(embedCaption({ ...facts, birads: null }, style)).toBeNull()
      for (const procedure of [null, 'MG']) {
        expect(embedCaption({ ...facts, procedure }, style) === null).toBe(style === 'structural')
      }
    }
  })
})

describe('words', () => {
  it.each([
    ['BI-RADS Category 2: benign.', 'bi rads category 2 benign'],
    ['1. First 23.4 and 5.', 'first 4 and'],
    ['Ärzte\n café_ ×2 ﬁ', 'rzte caf_ 2'],
    ['\ufffd\ufffd  ', ''],
  ])('of %j', (text, expected) => {
    expect(words(text)).toBe(expected)
  })
})
