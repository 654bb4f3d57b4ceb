import { biradsOf, type EmbedFacts, type EmbedStyle, embedCaption, embedPromptPrefix } from '../captions/index.js'
import type { Problems } from '../problems.js'
import { identifierOf, isMissing, numberOf, requireColumns, type Table, TableError } from '../tables/index.js'
import { leavesFolder, pathBelow } from './paths.js'
import { ageOf, Interned, textOf } from './rows.js'

const METADATA = [
  'anon_dicom_path',
  'acc_anon',
  'empi_anon',
  'FinalImageType',
  'ImageLateralityFinal',
  'ViewPosition',
  'StudyDescription',
] as const
const CLINICAL = ['acc_anon', 'side', 'tissueden', 'asses', 'age_at_study', 'RACE_DESC', 'ETHNIC_GROUP_DESC'] as const
const LESIONS = ['massshape', 'massdens', 'calcfind', 'calcdistri'] as const
const LEGEND = ['Header in export', 'Code', 'Meaning'] as const

export interface EmbedTables {
  readonly metadata: Table
  /** Density, assessment, age, race and ethnicity are read from it: the reduced one where there are both. */
  readonly clinical: Table
  /** The full clinical table, of which mass and calcification are read; null where there is none. */
  readonly full: Table | null
  readonly legend: Table | null
}

const has = ({ columns }: Table, wanted: readonly string[]) => wanted.every((column) => columns.includes(column))

/**
 * Tells EMBED's tables apart by their columns, in any order.
 *
 * @throws TableError where one is missing, there twice, or none of them
 */
export function sortEmbedTables(tables: readonly Table[]): EmbedTables {
  const names = (found: readonly Table[]) => found.map(({ path }) => path).join(', ')
  const one = (what: string, found: readonly Table[]): Table => {
    if (found.length === 1) return found[0]!
    throw new TableError(`expected one ${what}, but received ${found.length === 0 ? 'none' : names(found)}`)
  }
  const metadata = tables.filter((table) => has(table, ['anon_dicom_path', 'FinalImageType']))
  const legends = tables.filter((table) => has(table, LEGEND))
  const rest = tables.filter((table) => !metadata.includes(table) && !legends.includes(table))
  const clinical = rest.filter((table) => has(table, ['acc_anon', 'asses']))
  const unknown = rest.filter((table) => !clinical.includes(table))
  if (unknown.length > 0) {
    throw new TableError(
      `${unknown[0]!.path}: expected EMBED's metadata, clinical or legend table, but its columns are ${unknown[0]!.columns.slice(0, 30).join(', ')}`,
    )
  }
  if (clinical.length === 0 || clinical.length > 2) one('or two clinical tables (acc_anon, asses, ...)', clinical)
  // the full table has all of the reduced one's columns and more
  const [first, second] = [...clinical].sort((left, right) => left.columns.length - right.columns.length)
  const full = second ?? first!
  return {
    metadata: one('metadata table (anon_dicom_path, FinalImageType, ...)', metadata),
    clinical: first!,
    full: has(full, LESIONS) ? full : null,
    legend: legends.length === 0 ? null : one('legend table', legends),
  }
}

type ClinicalRow = readonly string[]

/** Rows by accession, in the table's order. The columns are `side` and then the named ones. */
async function byAccession(
  table: Table,
  columns: readonly string[],
  problems: Problems,
): Promise<Map<string, ClinicalRow[]>> {
  const found = new Map<string, ClinicalRow[]>()
  // there are few different rows once ages are whole
  const distinct = new Interned<ClinicalRow>()
  const age = columns.indexOf('age_at_study') + 1
  for await (const rows of table.rows(['acc_anon', 'side', ...columns], problems)) {
    for (const { cells } of rows) {
      const own = cells.slice(1)
      if (age > 0) own[age] = wholeYears(own[age]!)
      const kept = distinct.get(own.join('\0'), () => own)
      const key = identifierOf(cells[0]!)
      const there = found.get(key)
      if (there === undefined) found.set(key, [kept])
      else there.push(kept)
    }
  }
  return found
}

/** '73.2' is '73'; what is no age stays as it is. */
function wholeYears(cell: string): string {
  const years = ageOf(cell)
  return years === null || Number.isNaN(years) ? cell : String(Math.trunc(years))
}

/** The first row of the image's side, else the first of the study. */
const rowFor = (rows: readonly ClinicalRow[] | undefined, side: string): ClinicalRow | undefined =>
  rows?.find(([own]) => own === side && side !== '') ?? rows?.[0]

type Legend = Readonly<Record<(typeof LESIONS)[number], Map<string, string>>>

async function legendOf(table: Table | null, problems: Problems): Promise<Legend> {
  const legend: Legend = { massshape: new Map(), massdens: new Map(), calcfind: new Map(), calcdistri: new Map() }
  if (table === null) return legend
  for await (const rows of table.rows(LEGEND, problems)) {
    for (const { cells } of rows) {
      const [header, code, meaning] = cells as [string, string, string]
      if (header in legend && !isMissing(code)) legend[header as keyof Legend].set(identifierOf(code), meaning)
    }
  }
  return legend
}

export interface EmbedRow {
  readonly row: number
  /** As the table has it. */
  readonly path: string
  /** Below the folder of the data set. */
  readonly file: string
  readonly patient: string
  readonly facts: EmbedFacts
  /** null where density or BI-RADS are missing: such an image is not used. */
  readonly caption: string | null
  readonly promptPrefix: string
}

const IMAGE_TYPE = '2D'

/**
 * The rows of EMBED's 2D images with what the clinical tables say of them.
 *
 * @throws TableError where columns are missing; natural and structural captions: also where there is no legend
 */
export async function* embedRows(
  { metadata, clinical, full, legend }: EmbedTables,
  { style = 'default', prefixes = true }: { style?: EmbedStyle; prefixes?: boolean },
  problems: Problems,
): AsyncGenerator<EmbedRow[]> {
  const lesions = style === 'natural' || style === 'structural'
  if (lesions && full !== null && legend === null) {
    throw new TableError(
      `expected EMBED's legend table (${LEGEND.join(', ')}) for ${style} captions, but received none`,
    )
  }
  requireColumns(metadata, METADATA)
  requireColumns(clinical, CLINICAL)
  const meanings = await legendOf(legend, problems)
  const studies = await byAccession(clinical, CLINICAL.slice(2), problems)
  const details =
    lesions && full !== null ? await byAccession(full, LESIONS, problems) : new Map<string, ClinicalRow[]>()
  // fewer than captions, and as long
  const distinct = new Interned<string>()
  const texts = new Interned<{ facts: EmbedFacts; caption: string | null; promptPrefix: string }>()
  for await (const rows of metadata.rows(METADATA, problems)) {
    const used: EmbedRow[] = []
    for (const { row, cells } of rows) {
      const [path, accession, patient, imageType, side, view, procedure] = cells as unknown as Cells
      if (imageType !== IMAGE_TYPE) continue
      const key = identifierOf(accession)
      const study = rowFor(studies.get(key), side)
      const lesion = rowFor(details.get(key), side)
      const wrong =
        study === undefined ? `expected a clinical row of accession ${key}, but there is none` : wrongIn(study)
      const file = fileOf(path)
      if (file === null) problems.add(leavesFolder(path), { row })
      else if (isMissing(patient)) problems.add('expected a patient (empi_anon), but the cell is empty', { row, path })
      else if (wrong !== null) problems.add(wrong, { row, path })
      else {
        const make = () => {
          const facts = factsOf({ imageType, side, view, procedure }, study!, lesion, meanings)
          const prefix = prefixes ? embedPromptPrefix(facts, style) : ''
          const caption = embedCaption(facts, style)
          return { facts, caption, promptPrefix: distinct.get(prefix, () => prefix) }
        }
        const same = [side, view, procedure, ...study!.slice(1), ...(lesion?.slice(1) ?? [])].join('\0')
        used.push({ row, path, file, patient: identifierOf(patient), ...texts.get(same, make) })
      }
    }
    if (used.length > 0) yield used
  }
}

type Cells = readonly [string, string, string, string, string, string, string]

/** Where the published archive has an image: the table's path is one of the machine that made it. */
function fileOf(path: string): string | null {
  const cohort = /^(?:\/|[a-z0-9]+:\/\/)(?:.*\/)?(cohort_\d+\/.*)$/.exec(path)
  return pathBelow(cohort === null ? path : `images/${cohort[1]}`)
}

/** What is wrong with a clinical row's numbers, or null. */
function wrongIn([, density, , age]: ClinicalRow): string | null {
  if (!isMissing(density!) && ![1, 2, 3, 4, 5].includes(numberOf(density!))) {
    return `tissueden: expected 1 to 5, but received ${density!.slice(0, 40)}`
  }
  return Number.isNaN(ageOf(age!)) ? `age_at_study: expected years, but received ${age!.slice(0, 40)}` : null
}

function factsOf(
  image: { imageType: string; side: string; view: string; procedure: string },
  study: ClinicalRow,
  lesion: ClinicalRow | undefined,
  meanings: Legend,
): EmbedFacts {
  const [, density, assessment, age, race, ethnicity] = study
  const meaning = (name: keyof Legend, index: number): string | null =>
    meanings[name].get(identifierOf(lesion?.[index] ?? '')) ?? null
  return {
    procedure: textOf(image.procedure),
    imageType: textOf(image.imageType),
    side: textOf(image.side),
    view: textOf(image.view),
    age: ageOf(age!),
    race: textOf(race),
    ethnicity: textOf(ethnicity),
    density: isMissing(density!) ? null : numberOf(density!),
    birads: biradsOf(assessment!),
    massShape: meaning('massshape', 1),
    massDensity: meaning('massdens', 2),
    calcification: meaning('calcfind', 3),
    calcificationDistribution: meaning('calcdistri', 4),
  }
}
