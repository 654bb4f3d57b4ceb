import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { Random } from '../../src/data/random.js'
import {
  checkPredictions,
  type Predictions,
  probabilitiesOf,
  rankingScores,
  reorderClasses,
  selectRows,
  truthOf,
} from '../../src/eval/predictions.js'
import { Identifiers, readPredictions, writePredictions } from '../../src/eval/predictions-file.js'
import { classPredictions, findingPredictions } from './examples.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-predictions-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'predictions.csv')

/** What a file keeps: hashed names, and ages up to 90. */
function asWritten(predictions: Predictions, plainPaths: boolean): Predictions {
  const { paths, patients, attributes } = predictions
  const names = new Identifiers(paths, patients)
  return {
    ...predictions,
    paths: plainPaths ? paths : paths.map((path) => names.image(path)),
    patients: patients.map((patient) => names.patient(patient)),
    attributes: attributes.map((each) => ({ ...each, age: each.age === null ? null : Math.min(90, each.age) })),
  }
}

describe('predictions.csv', () => {
  const hostile = [
    'a,b',
    '"quoted"',
    '=1+1',
    'line\nbreak',
    "'",
    '<script>alert(1)</script>',
    '-2',
    'Ödem 肺',
    'label:x',
  ]
  it.each([
    ['multi-class', classPredictions()],
    ['binary', classPredictions({ classes: ['no findings', 'pneumonia'] })],
    ['multi-label', findingPredictions()],
    ['hostile names', classPredictions({ classes: hostile, samples: 50 })],
    ['hostile findings', findingPredictions({ classes: hostile, samples: 50 })],
  ])('comes back as it was: %s', async (_, predictions) => {
    for (const plainPaths of [false, true]) {
      await writePredictions(file, predictions, { plainPaths })
      const { task, scale } = predictions
      expect(await readPredictions(file, { task, scale })).toEqual(asWritten(predictions, plainPaths))
    }
  })

  it('keeps every float32', async () => {
    const random = new Random(1, 'bits')
    const bits = Uint32Array.from({ length: 2000 }, () => random.integer(2 ** 32))
    const scores = new Float32Array(bits.buffer).map((value) => (Number.isFinite(value) ? value : 0))
    const predictions = { ...classPredictions({ samples: 1000, classes: ['a', 'b'] }), scores }
    await writePredictions(file, predictions)
    const found = await readPredictions(file, predictions)
    // -0 is 0 in the table
    expect(found.scores).toEqual(scores.map((value) => value + 0))
  })

  it('names neither patients nor images, and no age above 90', async () => {
    const predictions = classPredictions()
    await writePredictions(file, predictions)
    const text = readFileSync(file, 'utf8')
    expect(text).not.toMatch(/patient0|view\d|CheXpert/)
    expect(Math.max(...predictions.attributes.map(({ age }) => age!))).toBeGreaterThan(90)
    const ages = text
      .split('\n')
      .slice(1, -1)
      .map((line) => Number(line.split(',')[3]))
    expect(Math.max(...ages)).toBe(90)
  })

  it('names are the same for the same test set in any order, and others for another', () => {
    const { paths, patients } = classPredictions()
    const names = new Identifiers(paths, patients)
    const backwards = new Identifiers([...paths].reverse(), [...patients].reverse())
    expect(names.image(paths[3]!)).toBe(backwards.image(paths[3]!))
    expect(names.image(paths[3]!)).toMatch(/^[0-9a-f]{16}$/)
    expect(names.image(paths[3]!)).not.toBe(names.patient(paths[3]!))
    expect(new Identifiers(paths.slice(1), patients.slice(1)).image(paths[3]!)).not.toBe(names.image(paths[3]!))
    expect(new Set(paths.map((path) => names.image(path))).size).toBe(paths.length)
  })

  it('starts no formula in a spreadsheet', async () => {
    const predictions = classPredictions({ classes: ['=HYPERLINK("x")', '@a', '+b'], samples: 30 })
    await writePredictions(file, predictions)
    for (const line of readFileSync(file, 'utf8').split('\n')) expect(line).not.toMatch(/(^|,)"?[=@+]/)
  })

  it.each([
    ['', /expected the columns|is empty|expected one sample/],
    ['a,b\n1,2\n', /expected the columns image, patient/],
    ['image,patient,sex,age,view,side,label,predicted,score:a,score:b\n', /expected one sample at least/],
    [
      'image,patient,sex,age,view,side,label,predicted,score:a,score:b\ni,p,,,,,c,a,1,0\n',
      /row 1: expected one of the classes.*"c"/,
    ],
    [
      'image,patient,sex,age,view,side,label,predicted,score:a,score:b\ni,p,,,,,a,a,x,0\n',
      /row 1: expected a score.*"x"/,
    ],
    ['image,patient,sex,age,view,side,label,predicted,score:a,score:b\ni,p,,old,,,a,a,1,0\n', /row 1: expected an age/],
    ['image,patient,sex,age,view,side,label,predicted,score:a,score:b\ni,p\n', /Invalid Record Length/],
    ['image,patient,"sex', /Quote/],
    ['image,patient,sex,age,view,side,label,predicted,score:a,score:a\ni,p,,,,,a,a,1,0\n', /"a" twice/],
  ])('a wrong one is refused: %j', async (text, message) => {
    writeFileSync(file, text)
    await expect(readPredictions(file, { task: 'multi-class', scale: 'score' })).rejects.toThrow(message)
  })

  it('is not there', async () => {
    const missing = join(folder, 'nothing.csv')
    await expect(readPredictions(missing, { task: 'binary', scale: 'score' })).rejects.toThrow(/there is no such file/)
  })

  it('leaves nothing half written', async () => {
    await expect(writePredictions(join(folder, 'no', 'such', 'folder.csv'), classPredictions())).rejects.toThrow(
      /ENOENT/,
    )
    const wrong = { ...classPredictions(), labels: Int32Array.of(1) }
    await expect(writePredictions(file, wrong)).rejects.toThrow(/expected 400 labels, but received 1/)
    expect(readdirSync(folder)).toEqual(['predictions.csv'])
  })
})

describe('predictions', () => {
  const good = classPredictions({ samples: 10 })
  it.each<[string, Partial<Predictions>, RegExp]>([
    ['scores', { scores: new Float32Array(3) }, /10 x 5 scores, but received 3/],
    [
      'a NaN',
      { scores: good.scores.map((value, k) => (k === 7 ? Number.NaN : value)) },
      /NaN for "Cardiomegaly" of CheXpert/,
    ],
    ['labels', { labels: good.labels.map(() => 5) }, /labels from 0 to 4, but received 5/],
    ['classes', { classes: ['a', 'b', 'a', 'c', 'd'] }, /"a" twice/],
    ['task', { task: 'binary' }, /two classes, since the task is binary/],
    ['probabilities', { scale: 'probability' }, /probabilities from 0 to 1/],
    ['sums', { scale: 'probability', scores: good.scores.map(() => 0.5) }, /add up to 1, but received 2.5 in row 0/],
    ['paths', { paths: [] }, /a path of each of 10/],
    ['patients', { patients: [] }, /one sample at least/],
  ])('that do not fit are refused: %s', (_, change, message) => {
    expect(() => checkPredictions({ ...good, ...change } as Predictions)).toThrow(message)
  })

  it('of logits are probabilities by softmax, ranked by the log of their odds', () => {
    const probabilities = probabilitiesOf(good)!
    const ranked = rankingScores(good)
    for (const [k, p] of probabilities.entries()) expect(ranked[k]).toBeCloseTo(Math.log(p / (1 - p)), 6)
    for (let row = 0; row < 50; row += 5) {
      expect(probabilities.subarray(row, row + 5).reduce((a, b) => a + b)).toBeCloseTo(1, 12)
    }
  })

  it('of cosines: the margin decides in two classes', () => {
    const binary = classPredictions({ classes: ['no', 'yes'], samples: 6 })
    const ranked = rankingScores({ ...binary, scale: 'score' })
    for (let row = 0; row < 6; row += 1) {
      expect(ranked[2 * row + 1]).toBeCloseTo(binary.scores[2 * row + 1]! - binary.scores[2 * row]!, 6)
    }
    expect(probabilitiesOf({ ...binary, scale: 'score' })).toBeNull()
  })

  it('count uncertain and blank findings as asked', () => {
    const findings = { ...findingPredictions({ samples: 4, classes: ['edema'] }), labels: Int8Array.of(1, 0, -1, -2) }
    expect(Array.from(truthOf(findings, 0))).toEqual([1, 0, -1, 0])
    expect(Array.from(truthOf(findings, 0, { uncertain: 'positive', blank: 'exclude' }))).toEqual([1, 0, 1, -1])
    expect(Array.from(truthOf(findings, 0, { uncertain: 'negative' }))).toEqual([1, 0, 0, 0])
  })

  it('keep together under selection and another order of classes', () => {
    for (const predictions of [good, findingPredictions({ samples: 10 })]) {
      const rows = [3, 3, 9]
      const some = selectRows<Predictions>(predictions, rows)
      checkPredictions(some)
      expect(some.paths).toEqual(rows.map((row) => predictions.paths[row]))
      expect(Array.from(some.scores.subarray(5, 10))).toEqual(Array.from(predictions.scores.subarray(15, 20)))
      const order = [4, 2, 0, 1, 3]
      const moved = reorderClasses(predictions, order)
      const back = reorderClasses(
        moved,
        order.map((_, k) => order.indexOf(k)),
      )
      expect(back).toEqual(predictions)
      expect(moved.classes[0]).toBe(predictions.classes[4])
    }
  })
})
