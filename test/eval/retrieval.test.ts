import { describe, expect, it } from 'vitest'
import { Random } from '../../src/data/random.js'
import { evaluateOnce } from '../../src/eval/bootstrap.js'
import { measureRetrieval, type RetrievalResult, retrievalRanks, topRetrieved } from '../../src/eval/retrieval.js'
import * as torch from '../../src/torch/index.js'

function features(rows: readonly (readonly number[])[]): torch.Tensor {
  return torch.fromTypedArray(Float32Array.from(rows.flat()), [rows.length, rows[0]!.length])
}

function ranksOf(image: number[][], text: number[][], captions: string[]): RetrievalResult {
  const patients = captions.map((_, k) => `p${k}`)
  return torch.scope(() => retrievalRanks(features(image), features(text), { captions, patients }))
}

const unit = (row: number[]) => row.map((value) => value / Math.hypot(...row))

/** Everything compared with everything in float64; a rank with room for float32's rounding. */
function slowRanks(queries: number[][], items: number[][], captions: string[]): { least: number; most: number }[] {
  const units = items.map(unit)
  return queries.map(unit).map((query, q) => {
    const scores = units.map((item) => item.reduce((total, value, k) => total + value * query[k]!, 0))
    const best = Math.max(...scores.filter((_, k) => captions[k] === captions[q]))
    const before = (margin: number) =>
      scores.filter((score, k) => captions[k] !== captions[q] && score >= best + margin)
    return { least: 1 + before(1e-6).length, most: 1 + before(-1e-6).length }
  })
}

describe('retrieval', () => {
  it.each([1, 37, 2100])('of %i ranks as comparing one by one does', (samples) => {
    const random = new Random(3)
    const captions = Array.from({ length: samples }, () => `caption ${random.integer(Math.ceil(samples / 2))}`)
    const image = captions.map(() => Array.from({ length: 4 }, () => random.normal()))
    const text = image.map((row) => row.map((value) => value + 0.5 * random.normal()))
    const found = ranksOf(image, text, captions)
    for (const [ranks, slow] of [
      [found.imageToText, slowRanks(image, text, captions)],
      [found.textToImage, slowRanks(text, image, captions)],
    ] as const) {
      for (const [k, { least, most }] of slow.entries()) {
        expect(ranks[k]).toBeGreaterThanOrEqual(least)
        expect(ranks[k]).toBeLessThanOrEqual(most)
      }
    }
  })

  it('counts equal captions as hits', () => {
    const image = [
      [1, 0],
      [0, 1],
      [1, 1],
    ]
    // the first image's own caption is far off, the third's is near, and the same
    const text = [
      [-1, 0],
      [0, 1],
      [1, 0],
    ]
    expect(Array.from(ranksOf(image, text, ['edema', 'fracture', 'edema']).imageToText)).toEqual([1, 1, 2])
    expect(Array.from(ranksOf(image, text, ['edema', 'fracture', 'effusion']).imageToText)).toEqual([3, 1, 2])
  })

  it('gives nothing for saying the same of everything', () => {
    const same = Array.from({ length: 12 }, () => [1, 2])
    const captions = same.map((_, k) => `caption ${k}`)
    const found = ranksOf(same, same, captions)
    expect(Array.from(found.imageToText)).toEqual(captions.map(() => 12))
    expect(found.chance).toBeCloseTo(1 / 12, 12)
    expect(Array.from(evaluateOnce(measureRetrieval(found), 12))).toEqual(Array(9).fill(0))
  })

  it('measures recall at 1, 5 and 10, both ways and their mean', () => {
    const found: RetrievalResult = {
      captions: [],
      patients: [],
      imageToText: Int32Array.of(1, 3, 6, 11),
      textToImage: Int32Array.of(1, 1, 5, 10),
      chance: 0.25,
    }
    const values = Array.from(evaluateOnce(measureRetrieval(found), 4))
    expect(values).toEqual([0.25, 0.5, 0.75, 0.5, 0.75, 1, 0.375, 0.625, 0.875])
  })

  it('shows what was found first', () => {
    const captions = ['edema', 'fracture', 'edema']
    torch.scope(() => {
      const items = features([
        [1, 0],
        [0, 1],
        [1, 1],
      ])
      const queries = features([
        [2, 0.1],
        [1, 0],
        [1, 0],
      ])
      const found = topRetrieved(0, { queries, items, captions, count: 2 })
      expect(found.map(({ index, hit }) => [index, hit])).toEqual([
        [0, true],
        [2, true],
      ])
      expect(found[0]!.score).toBeCloseTo(2 / Math.hypot(2, 0.1), 6)
    })
  })

  it('leaves no tensor behind, and refuses what does not fit', () => {
    const before = torch.memory.counters().live
    ranksOf([[1, 0]], [[1, 0]], ['edema'])
    expect(torch.memory.counters().live).toBe(before)
    expect(() => ranksOf([[1, 0]], [[1, 0]], ['edema', 'fracture'])).toThrow(/features \[2, D\].*but received \[1,2\]/)
    expect(() => ranksOf([[Number.NaN, 0]], [[1, 0]], ['edema'])).toThrow(/finite features/)
  })
})
