import { Random } from '../../src/data/random.js'
import type { Attributes } from '../../src/data/sample.js'
import type { ClassPredictions, FindingPredictions } from '../../src/eval/predictions.js'

/*
 * Predictions with made-up numbers, alike for a seed.
 */

export const noAttributes: Attributes = { sex: null, age: null, view: null, side: null }

export const chestClasses = ['Atelectasis', 'Edema', 'Cardiomegaly', 'Pleural Effusion', 'Consolidation']

interface Options {
  seed?: number
  samples?: number
  classes?: readonly string[]
  /** How far the true class's logit is above the others'. */
  margin?: number
  /** Of the images, their patients and labels. Runs with the same are on the same test set. */
  dataSeed?: number
}

function people(samples: number, dataSeed: number) {
  const random = new Random(dataSeed, 'people')
  const patients: string[] = []
  const attributes: Attributes[] = []
  while (patients.length < samples) {
    const patient = `patient${String(patients.length).padStart(5, '0')}`
    const sex = random.pick(['F', 'M'] as const)
    const age = Math.round(Math.min(94, Math.max(3, random.normal(60, 18))))
    for (let study = random.integer(3); study >= 0 && patients.length < samples; study -= 1) {
      patients.push(patient)
      attributes.push({ sex, age, view: random.pick(['AP', 'AP', 'PA']), side: null })
    }
  }
  return {
    patients,
    attributes,
    paths: patients.map((patient, k) => `CheXpert-v1.0/valid/${patient}/study1/view${k}.jpg`),
  }
}

/** Logits of a five-way task; errors go to some classes more than to others. */
export function classPredictions(options: Options = {}): ClassPredictions {
  const { seed = 1, samples = 400, classes = chestClasses, margin = 2.2, dataSeed = 7 } = options
  const C = classes.length
  const truth = new Random(dataSeed, 'labels')
  const labels = Int32Array.from({ length: samples }, () => truth.integer(C))
  const random = new Random(seed, 'logits')
  const scores = new Float32Array(samples * C)
  for (let row = 0; row < samples; row += 1) {
    for (let k = 0; k < C; k += 1) scores[row * C + k] = random.normal(k === 1 ? 0.4 : 0, 1.6)
    scores[row * C + labels[row]!]! += labels[row] === 4 ? margin / 2 : margin
  }
  return {
    task: C === 2 ? 'binary' : 'multi-class',
    scale: 'logit',
    classes,
    scores,
    labels,
    ...people(samples, dataSeed),
  }
}

/** Probabilities of findings, some uncertain or blank. */
export function findingPredictions(options: Options = {}): FindingPredictions {
  const { seed = 1, samples = 300, classes = chestClasses, margin = 1.5, dataSeed = 7 } = options
  const C = classes.length
  const truth = new Random(dataSeed, 'findings')
  const labels = Int8Array.from({ length: samples * C }, () => truth.pick([1, 0, 0, 0, -1, -2]))
  const random = new Random(seed, 'probabilities')
  const scores = Float32Array.from(
    labels,
    (label) => 1 / (1 + Math.exp(1 - random.normal() - (label === 1 ? margin : 0))),
  )
  return { task: 'multi-label', scale: 'probability', classes, scores, labels, ...people(samples, dataSeed) }
}
