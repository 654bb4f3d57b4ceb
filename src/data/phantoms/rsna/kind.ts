import { Random } from '../../random.js'
import { POSITIVE } from '../../sample.js'
import { type FrontalView, sampleBody } from '../chest/anatomy.js'
import { type ChestBox, type ChestSettings, drawChest, pneumoniaBoxes } from '../chest/draw.js'
import { FINDING_NAMES, sampleLabels } from '../chexpert/labels.js'
import { type DicomElement, dicomFile, JPEG_BASELINE } from '../dicom-writer.js'
import { uidOf, uuidOf } from '../identity.js'
import { encodeJpeg } from '../jpeg.js'
import type { PhantomImage, PhantomKind, PhantomSettings } from '../kind.js'

const IMAGES = 'stage_2_train_images'
const SIZE = 1024
/** Of the drawing, a unit: finer than CheXpert's, since the image is. */
const SCALE = 150

const CLASSES = ['Lung Opacity', 'No Lung Opacity / Not Normal', 'Normal'] as const
/** Of the real 26,684 patients. */
const LUNG_OPACITY = 0.225
const NORMAL = 0.332

/** What an image that is not normal may have beside an opacity, or instead. */
const OTHERS = [
  'Cardiomegaly',
  'Edema',
  'Atelectasis',
  'Pleural Effusion',
  'Pneumothorax',
  'Lung Lesion',
  'Support Devices',
]

interface Patient {
  readonly id: string
  readonly class: (typeof CLASSES)[number]
  readonly sex: 'F' | 'M'
  readonly age: number
  readonly chest: ChestSettings
}

function patientOf(seed: number, number: number): Patient {
  const keys = [seed, 'rsna', number]
  const random = new Random(...keys)
  const sex = random.chance(0.57) ? 'M' : 'F'
  const age = Math.min(90, Math.max(16, Math.round(random.normal(47, 17))))
  const body = sampleBody(random, sex, age)
  const view: FrontalView = random.chance(0.456) ? 'AP' : 'PA'
  const draw = random.uniform()
  const kind = draw < LUNG_OPACITY ? CLASSES[0] : draw < LUNG_OPACITY + NORMAL ? CLASSES[2] : CLASSES[1]
  return {
    id: uuidOf(...keys),
    class: kind,
    sex,
    age,
    chest: { keys, body, view, severities: severities(random, kind), width: SIZE, height: SIZE, scale: SCALE },
  }
}

/** Opacities have the same other findings as images without: only the opacity tells them apart. */
function severities(random: Random, kind: Patient['class']): Map<string, number> {
  const found = new Map<string, number>()
  if (kind === 'Normal') return found
  const labels = sampleLabels(random)
  for (const [index, name] of FINDING_NAMES.entries()) {
    const severity = random.uniform(0, 0.9)
    if (labels[index] === POSITIVE && OTHERS.includes(name)) found.set(name, severity)
  }
  const hard = random.chance(0.2)
  if (kind === 'Lung Opacity') found.set('Pneumonia', hard ? random.uniform(0, 0.2) : random.uniform(0.2, 1))
  return found
}

function header({ id, sex, age, chest }: Patient, keys: readonly (number | string)[]): DicomElement[] {
  const spacing = new Random(...keys, 'spacing').pick(['0.139', '0.143', '0.168', '0.171', '0.194'])
  return [
    [0x00080005, 'CS', 'ISO_IR 100'],
    [0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.7'],
    [0x00080018, 'UI', uidOf(...keys, 'instance')],
    [0x00080020, 'DA', '19010101'],
    [0x00080030, 'TM', '000000.00'],
    [0x00080050, 'SH', ''],
    [0x00080060, 'CS', 'CR'],
    [0x00080064, 'CS', 'WSD'],
    [0x00080090, 'PN', ''],
    [0x0008103e, 'LO', `view: ${chest.view}`],
    [0x00100010, 'PN', id],
    [0x00100020, 'LO', id],
    [0x00100030, 'DA', ''],
    [0x00100040, 'CS', sex],
    [0x00101010, 'AS', String(age)],
    [0x00180015, 'CS', 'CHEST'],
    [0x00185101, 'CS', chest.view],
    [0x0020000d, 'UI', uidOf(...keys, 'study')],
    [0x0020000e, 'UI', uidOf(...keys, 'series')],
    [0x00200010, 'SH', ''],
    [0x00200011, 'IS', '1'],
    [0x00200013, 'IS', '1'],
    [0x00200020, 'CS', ''],
    [0x00280002, 'US', 1],
    [0x00280004, 'CS', 'MONOCHROME2'],
    [0x00280010, 'US', SIZE],
    [0x00280011, 'US', SIZE],
    [0x00280030, 'DS', `${spacing}\\${spacing}`],
    [0x00280100, 'US', 8],
    [0x00280101, 'US', 8],
    [0x00280102, 'US', 7],
    [0x00280103, 'US', 0],
    [0x00282110, 'CS', '01'],
    [0x00282114, 'CS', 'ISO_10918_1'],
  ]
}

function imageOf(seed: number, number: number): PhantomImage {
  const patient = patientOf(seed, number)
  const keys = [seed, 'rsna', number]
  return {
    path: `${IMAGES}/${patient.id}.dcm`,
    caption: `${patient.chest.view}: ${patient.class}`,
    draw: () => drawChest(patient.chest),
    encode: async (image) =>
      dicomFile(header(patient, keys), {
        syntax: JPEG_BASELINE,
        frame: await encodeJpeg(image, 85 + new Random(...keys, 'quality').integer(8)),
      }),
  }
}

/** Boxes without drawing the image. */
const boxesOf = (patient: Patient): ChestBox[] =>
  patient.class === 'Lung Opacity' ? pneumoniaBoxes(patient.chest) : []

function* labelRows(settings: PhantomSettings): Iterable<string> {
  yield 'patientId,x,y,width,height,Target'
  for (const patient of sorted(settings)) {
    const boxes = boxesOf(patient)
    if (boxes.length === 0) yield `${patient.id},,,,,0`
    for (const box of boxes) {
      yield [patient.id, ...[box.x, box.y, box.width, box.height].map((value) => value.toFixed(1)), 1].join(',')
    }
  }
}

function* classRows(settings: PhantomSettings): Iterable<string> {
  yield 'patientId,class'
  for (const patient of sorted(settings)) yield `${patient.id},${patient.class}`
}

/** The real table is in the order of the identifiers. */
const sorted = (settings: PhantomSettings): Patient[] =>
  rsna
    .patients(settings)
    .map((number) => patientOf(settings.seed, number))
    .sort((first, second) => (first.id < second.id ? -1 : 1))

/** RSNA Pneumonia Detection Challenge, stage 2: 1024 x 1024, 8 bits, JPEG baseline; 0, or 1 with boxes. */
export const rsna: PhantomKind = {
  most: 100_000,
  patients: ({ patients }) => Array.from({ length: patients }, (_, index) => index + 1),
  images: ({ seed }, number) => [imageOf(seed, number)],
  tables: (settings) => [
    { path: 'stage_2_train_labels.csv', lines: labelRows(settings) },
    { path: 'stage_2_detailed_class_info.csv', lines: classRows(settings) },
  ],
}
