import { Random } from '../../random.js'
import { BLANK, POSITIVE, UNCERTAIN } from '../../sample.js'
import { type Body, type FrontalView, sampleBody } from '../chest/anatomy.js'
import { drawChest } from '../chest/draw.js'
import { encodeJpeg } from '../jpeg.js'
import type { PhantomImage, PhantomKind, PhantomSettings } from '../kind.js'
import { FINDING_NAMES, FIVE_WAY, type Labels, patientTendency, sampleLabels, sampleSingle } from './labels.js'

const FOLDER = 'CheXpert-v1.0-small'
const COLUMNS = ['Path', 'Sex', 'Age', 'Frontal/Lateral', 'AP/PA', ...FINDING_NAMES]

/*
 * Patients' numbers, apart so that more of one sort leave the others as they are: training from 1, five-way from 50,001,
 * validation from 64,541 (where the real one begins).
 */
const FIRST_FIVE_WAY = 50_001
const FIRST_VALID = 64_541
/** The real valid.csv has 200 patients. */
const MOST_VALID = 200

/** Widths and heights of the small version: 320 on the shorter side. */
const SIZES: readonly (readonly [number, number])[] = [
  [390, 320],
  [390, 320],
  [390, 320],
  [389, 320],
  [366, 320],
  [320, 320],
  [320, 369],
  [320, 390],
]

/** Of the drawing, a unit: about as fine as the image. */
const SCALE = 92

interface Study {
  readonly number: number
  readonly view: FrontalView
  readonly labels: Labels
}

interface Patient {
  readonly number: number
  readonly split: 'train' | 'valid'
  readonly sex: 'F' | 'M'
  readonly age: number
  readonly body: Body
  readonly studies: readonly Study[]
}

function patientOf(seed: number, number: number): Patient {
  const random = new Random(seed, 'chexpert', number)
  const split = number >= FIRST_VALID ? 'valid' : 'train'
  const sex = random.chance(0.59) ? 'M' : 'F'
  const age = Math.min(90, Math.max(18, Math.round(random.normal(60, 18))))
  const body = sampleBody(random, sex, age)
  const single = split === 'train' && number >= FIRST_FIVE_WAY
  const tendency = patientTendency(random)
  // Half of the real patients have one study.
  let count = 1
  while (split === 'train' && !single && count < 4 && random.chance(0.4)) count += 1
  const studies = Array.from({ length: count }, (_, index) => {
    const own = new Random(seed, 'chexpert', number, 'study', index)
    const view: FrontalView = own.chance(0.846) ? 'AP' : 'PA'
    const labels = single ? sampleSingle(own, fiveWayClass(seed, number)) : sampleLabels(own, tendency)
    return { number: index + 1, view, labels: split === 'valid' ? decided(own, labels) : labels }
  })
  return { number, split, sex, age, body, studies }
}

/** Each five patients in a row have all five classes, in an order of their own. */
function fiveWayClass(seed: number, number: number): string {
  const index = number - FIRST_FIVE_WAY
  const order = new Random(seed, 'chexpert', 'five-way', Math.floor(index / FIVE_WAY.length)).shuffle(FIVE_WAY)
  return order[index % FIVE_WAY.length]!
}

/** As radiologists labelled the validation set: there or not. */
function decided(random: Random, labels: Labels): Labels {
  const there = labels.map((label) => Number(label === POSITIVE || (label === UNCERTAIN && random.chance(0.5))))
  there[0] = Number(
    there.every((value, index) => index === 0 || value === 0 || FINDING_NAMES[index] === 'Support Devices'),
  )
  return there
}

/** How much of each finding is to be seen. One in seven is hard; of what is uncertain, half is not there. */
function severities(random: Random, labels: Labels): Map<string, number> {
  const found = new Map<string, number>()
  for (const [index, name] of FINDING_NAMES.entries()) {
    const severity = random.chance(0.15) ? random.uniform(0, 0.2) : random.uniform(0.25, 1)
    const isThere = random.chance(0.5)
    if (index === 0) continue
    if (labels[index] === POSITIVE) found.set(name, severity)
    if (labels[index] === UNCERTAIN && isThere) found.set(name, 0.5 * severity)
  }
  return found
}

const pathOf = (patient: Patient, study: Study): string =>
  `${FOLDER}/${patient.split}/patient${String(patient.number).padStart(5, '0')}/study${study.number}/view1_frontal.jpg`

function imageOf(seed: number, patient: Patient, study: Study): PhantomImage {
  const keys = [seed, 'chexpert', patient.number, study.number]
  const [width, height] = new Random(...keys, 'size').pick(SIZES)
  const positive = FINDING_NAMES.filter((_, index) => study.labels[index] === POSITIVE)
  const uncertain = FINDING_NAMES.filter((_, index) => study.labels[index] === UNCERTAIN)
  return {
    path: pathOf(patient, study),
    caption: `${study.view}: ${[...positive, ...uncertain.map((name) => `${name}?`)].join(', ') || 'nothing stated'}`,
    draw: () =>
      drawChest({
        keys,
        body: patient.body,
        view: study.view,
        severities: severities(new Random(...keys, 'severity'), study.labels),
        width,
        height,
        scale: SCALE,
      }),
    encode: (image) => encodeJpeg(image, 88 + new Random(...keys, 'quality').integer(8)),
  }
}

function* rows(settings: PhantomSettings, split: Patient['split']): Iterable<string> {
  yield COLUMNS.join(',')
  const cell = (label: number) => (label === BLANK ? '' : label.toFixed(1))
  for (const number of chexpert.patients(settings)) {
    if (number >= FIRST_VALID !== (split === 'valid')) continue
    const patient = patientOf(settings.seed, number)
    const sex = patient.sex === 'F' ? 'Female' : 'Male'
    for (const study of patient.studies) {
      yield [pathOf(patient, study), sex, patient.age, 'Frontal', study.view, ...Array.from(study.labels, cell)].join(
        ',',
      )
    }
  }
}

/**
 * CheXpert-v1.0-small: frontal views only. For validation there are a tenth as many patients as for training (at least 1, at
 * most 200), one study each, with every finding decided.
 */
export const chexpert: PhantomKind = {
  most: FIRST_FIVE_WAY - 1,
  patients({ patients, fiveWay }) {
    const range = (first: number, count: number) => Array.from({ length: count }, (_, index) => first + index)
    const valid = Math.min(MOST_VALID, Math.max(1, Math.round(patients / 10)))
    return [...range(1, patients), ...range(FIRST_FIVE_WAY, FIVE_WAY.length * fiveWay), ...range(FIRST_VALID, valid)]
  },
  images({ seed }, number) {
    const patient = patientOf(seed, number)
    return patient.studies.map((study) => imageOf(seed, patient, study))
  },
  tables: (settings) => [
    { path: `${FOLDER}/train.csv`, lines: rows(settings, 'train') },
    { path: `${FOLDER}/valid.csv`, lines: rows(settings, 'valid') },
  ],
}

/** How many five-way patients a class there is room for. */
export const MOST_FIVE_WAY = Math.floor((FIRST_VALID - FIRST_FIVE_WAY) / FIVE_WAY.length)
