import type { GrayImage } from '../../src/data/images/gray.js'
import { Random } from '../../src/data/random.js'
import type { Attributes } from '../../src/data/sample.js'
import type { ClassPredictions, FindingPredictions } from '../../src/eval/predictions.js'
import type { Embedding, Heat, MapExample, RetrievalExample } from '../../src/eval/report/index.js'
import type { RetrievalResult } from '../../src/eval/retrieval.js'
import type { Provenance } from '../../src/eval/summary.js'

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

export function provenance(name = 'CLEFT'): Provenance {
  return {
    evaluation: 'zero-shot',
    name,
    checkpoint: { name: 'runs/a/checkpoint-40000', sha256: 'ab'.repeat(32) },
    data: { kind: 'chexpert-5x200', split: 'test', hash: 'cd'.repeat(32) },
    prompts: chestClasses.map((each) => ({
      name: each,
      prompts: [`this is a chest x ray of a patient with ${each.toLowerCase()}`],
    })),
    ensemble: 'mean-embedding',
    preprocessing: { resize: 'published', size: 224, mean: 0.5, deviation: 0.5 },
    settings: { precision: 'float32', device: 'cpu' },
  }
}

/** A bright blob on a dark ground. */
export function blobImage(seed: number, size = 96): GrayImage {
  const random = new Random(seed, 'blob')
  const [u, v] = [random.uniform(0.3, 0.7) * size, random.uniform(0.3, 0.7) * size]
  const pixels = Uint8Array.from({ length: size * size }, (_, at) => {
    const [x, y] = [at % size, Math.floor(at / size)]
    return 40 + 180 * Math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * (size / 6) ** 2)) + random.uniform(0, 20)
  })
  return { width: size, height: size, pixels }
}

export function gridHeat(seed: number, side = 16): Heat {
  const random = new Random(seed, 'heat')
  const [u, v] = [random.uniform(3, 12), random.uniform(3, 12)]
  const values = Float32Array.from({ length: side * side }, (_, at) => {
    return Math.exp(-(((at % side) - u) ** 2 + (Math.floor(at / side) - v) ** 2) / 8) + random.uniform(0, 0.1)
  })
  return { width: side, height: side, values }
}

export const retrievalExamples: readonly RetrievalExample[] = [
  {
    direction: 'image-to-text',
    image: blobImage(1),
    caption: 'this is a chest x ray of a patient with edema pleural effusion',
    rank: 2,
    found: [
      { caption: 'this is a chest x ray of a patient with edema', score: 0.61, hit: false },
      { caption: 'this is a chest x ray of a patient with edema pleural effusion', score: 0.58, hit: true },
      { caption: 'this is a chest x ray of a patient with cardiomegaly edema', score: 0.41, hit: false },
    ],
  },
  {
    direction: 'text-to-image',
    caption: 'this is a chest x ray of a patient with no finding',
    rank: 1,
    found: [2, 3, 4, 5].map((seed) => ({
      image: blobImage(seed),
      caption: `this is a chest x ray of a patient with ${seed < 4 ? 'no finding' : 'fracture'}`,
      score: 0.7 - 0.05 * seed,
      hit: seed < 4,
    })),
  },
]

export function mapExamples(paths: readonly string[]): MapExample[] {
  return paths.map((path, k) => ({
    image: blobImage(10 + k),
    path,
    truth: [chestClasses[k % 5]!],
    maps: chestClasses.map((name, j) => ({
      prompt: `this is a chest x ray of a patient with ${name.toLowerCase()}`,
      kind: j % 2 === 0 ? 'attention' : 'gradient',
      score: 0.2 * j - 0.3,
      heat: gridHeat(100 * k + j),
    })),
  }))
}

/** Clouds, one a class. */
export function clouds(labels: Int32Array, classes: readonly string[], dimensions = 16): Embedding {
  const random = new Random(5, 'clouds')
  const centres = classes.map(() => Array.from({ length: dimensions }, () => random.normal()))
  const features = Float32Array.from({ length: labels.length * dimensions }, (_, at) => {
    return centres[labels[Math.floor(at / dimensions)]!]![at % dimensions]! + 0.9 * random.normal()
  })
  return { features, dimensions, groups: Array.from(labels, (label) => classes[label]!) }
}

export function madeUpRetrieval(patients: readonly string[]): RetrievalResult {
  const random = new Random(6, 'retrieval')
  const ranks = () => Int32Array.from(patients, () => 1 + Math.floor(-Math.log(1 - random.uniform()) * 8))
  const captions = patients.map(() => `caption ${random.integer(60)}`)
  return { captions, patients, imageToText: ranks(), textToImage: ranks(), chance: 1 / 60 }
}
