import { Random } from '../../random.js'
import { type DicomElement, dicomFile, EXPLICIT_LITTLE_ENDIAN } from '../dicom-writer.js'
import { uidOf } from '../identity.js'
import type { PhantomImage, PhantomKind, PhantomSettings } from '../kind.js'
import { type Breast, type BreastView, drawMammogram, sampleBreast } from './breast.js'
import { type Assessment, LEGEND, type Lesion, sampleLesions } from './lesions.js'

/** Where the real tables say that the images are; what stands before `cohort_` is replaced by `images`. */
const PUBLISHED_ROOT = '/mnt/NAS2/mammo/anon_dicom'

const FIRST_PATIENT = 50_000_000
const SIDES = ['L', 'R'] as const
const VIEWS: readonly BreastView[] = ['CC', 'MLO']
const SIZES: readonly (readonly [number, number])[] = [
  [512, 640],
  [480, 640],
  [512, 624],
]
const DESCRIPTIONS = [
  'MG Screen Bilat w/Tomo/CAD Stnd Protocol',
  'MG Screening Bilateral',
  'MG Diagnostic Bilateral w/ CAD',
]
const RACES = ['African American  or Black', 'Caucasian or White', 'Asian', 'Unknown, Unavailable or Unreported']
const ETHNICITIES = ['Non-Hispanic or Latino', 'Hispanic or Latino', 'Unreported, Unknown, Unavailable']

/** Flatter than in the real tables, where nine in ten are N or B: so that small sets have every class. */
const ASSESSMENTS: readonly (readonly [Assessment, number])[] = [
  ['N', 0.3],
  ['B', 0.2],
  ['A', 0.16],
  ['P', 0.1],
  ['S', 0.11],
  ['M', 0.07],
  ['K', 0.06],
]
/** Of the four classes of breast density. */
const DENSITIES = [0.13, 0.4, 0.38, 0.09] as const

interface Study {
  readonly accession: number
  readonly date: string
  readonly description: string
  readonly age: number
  readonly density: number
  readonly breasts: readonly {
    readonly side: 'L' | 'R'
    readonly breast: Breast
    readonly assessment: Assessment
    readonly lesions: readonly Lesion[]
  }[]
}

interface Patient {
  readonly id: number
  readonly cohort: number
  readonly race: string
  readonly ethnicity: string
  readonly size: readonly [number, number]
  readonly studies: readonly Study[]
}

function weighted<Item>(random: Random, items: readonly (readonly [Item, number])[]): Item {
  let rest = random.uniform(
    0,
    items.reduce((sum, [, weight]) => sum + weight, 0),
  )
  for (const [item, weight] of items) {
    rest -= weight
    if (rest < 0) return item
  }
  return items.at(-1)![0]
}

function patientOf(seed: number, number: number): Patient {
  const random = new Random(seed, 'embed', number)
  const breasts = SIDES.map(() => sampleBreast(random))
  const density = weighted(
    random,
    DENSITIES.map((weight, index) => [index + 1, weight] as const),
  )
  const age = Math.min(89, Math.max(30, Math.round(random.normal(59, 11))))
  const studies = Array.from({ length: random.chance(0.3) ? 2 : 1 }, (_, index) => {
    const own = new Random(seed, 'embed', number, 'study', index)
    const affected = own.pick(SIDES)
    const assessment = weighted(own, ASSESSMENTS)
    const other: Assessment = own.chance(0.25) ? 'B' : 'N'
    return {
      // The real numbers have sixteen digits.
      accession: 1_000_000_000_000_000 + number * 10 + index,
      date: `${2013 + own.integer(4) + 4 * index}-${String(1 + own.integer(12)).padStart(2, '0')}-${String(1 + own.integer(28)).padStart(2, '0')}`,
      description: own.pick(DESCRIPTIONS),
      age: age + 4 * index,
      density,
      breasts: SIDES.map((side, which) => {
        const value = side === affected ? assessment : other
        return { side, breast: breasts[which]!, assessment: value, lesions: sampleLesions(own, value) }
      }),
    }
  })
  return {
    id: FIRST_PATIENT + number,
    cohort: 1 + random.integer(2),
    race: random.pick(RACES),
    ethnicity: random.pick(ETHNICITIES),
    size: random.pick(SIZES),
    studies,
  }
}

interface View {
  readonly side: 'L' | 'R'
  readonly view: BreastView
}
const ALL_VIEWS: readonly View[] = SIDES.flatMap((side) => VIEWS.map((view) => ({ side, view })))

/** Below `images` and below the published root. */
const fileOf = (seed: number, patient: Patient, study: Study, { side, view }: View): string =>
  `cohort_${patient.cohort}/${patient.id}/${uidOf(seed, 'embed', study.accession)}/${uidOf(seed, 'embed', study.accession, side, view)}.dcm`

function header(seed: number, patient: Patient, study: Study, { side, view }: View): DicomElement[] {
  const [width, height] = patient.size
  const date = study.date.replaceAll('-', '')
  return [
    [0x00080005, 'CS', 'ISO_IR 100'],
    [0x00080008, 'CS', 'DERIVED\\PRIMARY'],
    [0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.1.2'],
    [0x00080018, 'UI', uidOf(seed, 'embed', study.accession, side, view)],
    [0x00080020, 'DA', date],
    [0x00080050, 'SH', String(study.accession)],
    [0x00080060, 'CS', 'MG'],
    [0x00080068, 'CS', 'FOR PRESENTATION'],
    [0x00081030, 'LO', study.description],
    [0x0008103e, 'LO', `${side} ${view}`],
    [0x00100010, 'PN', String(patient.id)],
    [0x00100020, 'LO', String(patient.id)],
    [0x00180015, 'CS', 'BREAST'],
    [0x00185101, 'CS', view],
    [0x0020000d, 'UI', uidOf(seed, 'embed', study.accession)],
    [0x0020000e, 'UI', uidOf(seed, 'embed', study.accession, 'series', side, view)],
    [0x00200013, 'IS', '1'],
    [0x00200062, 'CS', side],
    [0x00280002, 'US', 1],
    [0x00280004, 'CS', 'MONOCHROME2'],
    [0x00280010, 'US', height],
    [0x00280011, 'US', width],
    [0x00280100, 'US', 16],
    [0x00280101, 'US', 12],
    [0x00280102, 'US', 11],
    [0x00280103, 'US', 0],
    [0x00281050, 'DS', '2047'],
    [0x00281051, 'DS', '4096'],
  ]
}

function imageOf(seed: number, patient: Patient, study: Study, where: View): PhantomImage {
  const { side, view } = where
  const { breast, assessment, lesions } = study.breasts.find((each) => each.side === side)!
  const [width, height] = patient.size
  return {
    path: `images/${fileOf(seed, patient, study, where)}`,
    caption: `${side} ${view}: BI-RADS ${assessment}, density ${study.density}`,
    draw: () =>
      drawMammogram({
        keys: [seed, 'embed', study.accession, side, view],
        breast,
        side,
        view,
        density: study.density,
        lesions,
        width,
        height,
      }),
    encode: async ({ pixels }) =>
      dicomFile(header(seed, patient, study, where), {
        syntax: EXPLICIT_LITTLE_ENDIAN,
        words: Uint16Array.from(pixels),
      }),
  }
}

/** A cell of text that may hold a comma. */
const quoted = (text: string): string => (text.includes(',') ? `"${text}"` : text)

function* metadata(settings: PhantomSettings): Iterable<string> {
  yield 'empi_anon,acc_anon,study_date_anon,cohort_num,StudyDescription,SeriesDescription,FinalImageType,ImageLateralityFinal,ViewPosition,spot_mag,anon_dicom_path'
  for (const number of embed.patients(settings)) {
    const patient = patientOf(settings.seed, number)
    for (const study of patient.studies) {
      for (const where of ALL_VIEWS) {
        yield [
          patient.id,
          study.accession,
          study.date,
          patient.cohort,
          study.description,
          `${where.side} ${where.view}`,
          '2D',
          where.side,
          where.view,
          '',
          `${PUBLISHED_ROOT}/${fileOf(settings.seed, patient, study, where)}`,
        ].join(',')
      }
    }
  }
}

/** One row a breast with its assessment. */
function* clinical(settings: PhantomSettings, full: boolean): Iterable<string> {
  const common =
    'empi_anon,acc_anon,study_date_anon,cohort_num,side,numfind,tissueden,asses,age_at_study,GENDER_DESC,RACE_DESC,ETHNIC_GROUP_DESC'
  yield full ? `${common},massshape,massmargin,massdens,calcfind,calcdistri,calcnumber` : common
  for (const number of embed.patients(settings)) {
    const patient = patientOf(settings.seed, number)
    for (const study of patient.studies) {
      for (const [index, { side, assessment, lesions }] of study.breasts.entries()) {
        const [lesion] = lesions
        const cells = [
          patient.id,
          study.accession,
          study.date,
          patient.cohort,
          side,
          index + 1,
          study.density.toFixed(1),
          assessment,
          study.age.toFixed(1),
          'Female',
          quoted(patient.race),
          quoted(patient.ethnicity),
        ]
        const mass = lesion?.mass
        const calcifications = lesion?.calcifications
        const details = [
          mass?.shape ?? '',
          mass?.margin ?? '',
          mass?.density ?? '',
          calcifications?.find ?? '',
          calcifications?.distribution ?? '',
          '',
        ]
        yield [...cells, ...(full ? details : [])].join(',')
      }
    }
  }
}

const legend = (): string[] => [
  'Header in export,Code,Meaning',
  ...LEGEND.map(([column, code, meaning]) => `${column},${code},${meaning}`),
]

/**
 * EMBED's open data: two breasts in two views each, 12 bits in 16, uncompressed, smaller than real (640 rows of about 3,300).
 * Assessment and density are a breast's and a study's; every breast has a row in the clinical tables.
 */
export const embed: PhantomKind = {
  most: 100_000,
  patients: ({ patients }) => Array.from({ length: patients }, (_, index) => index + 1),
  images({ seed }, number) {
    const patient = patientOf(seed, number)
    return patient.studies.flatMap((study) => ALL_VIEWS.map((where) => imageOf(seed, patient, study, where)))
  },
  tables: (settings) => [
    { path: 'tables/EMBED_OpenData_metadata.csv', lines: metadata(settings) },
    { path: 'tables/EMBED_OpenData_clinical.csv', lines: clinical(settings, true) },
    { path: 'tables/EMBED_OpenData_clinical_reduced.csv', lines: clinical(settings, false) },
    { path: 'tables/AWS_Open_Data_Clinical_Legend.csv', lines: legend() },
  ],
}
