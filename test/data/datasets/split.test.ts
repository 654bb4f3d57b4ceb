import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Random } from '../../../src/data/random.js'
import { makeManifest, readManifest, SPLIT_NAMES, splitPatients, writeManifest } from '../../../src/data/split.js'
import { folderOf } from '../tables/files.js'

const patients = (count: number) => Array.from({ length: count }, (_, index) => `patient${index}`)

describe('a split by patient', () => {
  it('has every patient in one part, whatever the seed and the fractions', () => {
    for (let seed = 0; seed < 40; seed += 1) {
      const random = new Random(seed, 'split.test')
      const count = 1 + random.integer(300)
      const train = random.uniform(0.1, 0.8)
      const valid = random.uniform(0.05, 0.9 - train)
      const test = 1 - train - valid
      const all = patients(count)
      const splits = splitPatients(all, { train, valid, test }, seed)
      const parts = SPLIT_NAMES.map((name) => splits[name]!)
      expect(parts.flat().sort()).toEqual([...all].sort())
      for (const [index, fraction] of [train, valid, test].entries()) {
        expect(Math.abs(parts[index]!.length - fraction * count)).toBeLessThanOrEqual(1)
      }
    }
  })

  it('does not depend on the order of patients, or how often each comes', () => {
    const all = patients(200)
    const fractions = { train: 0.7, test: 0.3 }
    const expected = splitPatients(all, fractions, 5)
    expect(splitPatients(new Random(1).shuffle([...all, ...all]), fractions, 5)).toEqual(expected)
    expect(splitPatients(all, fractions, 6)).not.toEqual(expected)
  })

  it('leaves nobody out that a smaller part had, when the training part grows', () => {
    const all = patients(200)
    const small = splitPatients(all, { train: 0.1 }, 5).train!
    const large = new Set(splitPatients(all, { train: 0.6 }, 5).train)
    expect(small.every((patient) => large.has(patient))).toBe(true)
  })

  it.each([[{}], [{ train: 0 }], [{ train: 0.9, test: 0.2 }], [{ train: -0.1, test: 1 }], [{ train: Number.NaN }]])(
    'refuses fractions that are none: %j',
    (fractions) => {
      expect(() => splitPatients(['a'], fractions, 0)).toThrow(/expected fractions above 0 that are 1 together at most/)
    },
  )
})

describe('the manifest of a split', () => {
  const splits = { train: ['a', 'b'], test: ['c'] }

  it('comes back from its file', async () => {
    const file = join(folderOf({}), 'split.json')
    const manifest = makeManifest('chexpert', splits, { seed: 3, fractions: { train: 0.5, test: 0.5 } })
    writeManifest(file, manifest)
    expect(await readManifest(file)).toEqual(manifest)
  })

  it('has a hash of who is where, in whatever order', () => {
    const { hash } = makeManifest('x', splits)
    expect(makeManifest('y', { test: ['c'], train: ['b', 'a'] }, { seed: 1, fractions: { train: 1 } }).hash).toBe(hash)
    expect(makeManifest('x', { train: ['a'], test: ['b', 'c'] }).hash).not.toBe(hash)
    expect(makeManifest('x', { train: ['a', 'b'], valid: ['c'] }).hash).not.toBe(hash)
  })

  it('refuses a patient in two parts', () => {
    expect(() => makeManifest('x', { train: ['a', 'b'], test: ['b'] })).toThrow(/but b is in train and test/)
  })

  it('that was changed, cut off, or is another file is refused', async () => {
    const file = join(folderOf({}), 'split.json')
    writeManifest(file, makeManifest('x', splits))
    const text = readFileSync(file, 'utf8')
    for (const [wrong, message] of [
      [text.replace('"c"', '"d"'), /they were changed/],
      [text.slice(0, 40), /cannot be read as one/],
      ['{"version": 2}', /cannot be read as one/],
    ] as const) {
      writeFileSync(file, wrong)
      await expect(readManifest(file)).rejects.toThrow(message)
    }
    await expect(readManifest(`${file}.not`)).rejects.toThrow(/expected the manifest of a split/)
  })
})
