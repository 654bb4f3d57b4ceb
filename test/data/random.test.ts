import { describe, expect, it } from 'vitest'
import { Random } from '../../src/data/random.js'

const draw = (count: number, next: () => number) => Array.from({ length: count }, next)
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

describe('Random', () => {
  it('depends on its keys alone', () => {
    const numbers = (...keys: (number | string)[]) => {
      const random = new Random(...keys)
      return draw(5, () => random.uniform())
    }
    expect(numbers(1, 'a', 2)).toEqual(numbers(1, 'a', 2))
    expect(numbers(1, 'a', 2)).not.toEqual(numbers(1, 'a', 3))
    expect(numbers(1, 12)).not.toEqual(numbers(11, 2))
  })

  it('draws from the distributions that it names', () => {
    const random = new Random(7)
    const normal = draw(20_000, () => random.normal(3, 2))
    expect(mean(normal)).toBeCloseTo(3, 1)
    expect(Math.sqrt(mean(normal.map((value) => (value - 3) ** 2)))).toBeCloseTo(2, 1)
    expect(mean(draw(20_000, () => random.uniform(-1, 3)))).toBeCloseTo(1, 1)
    expect(mean(draw(20_000, () => (random.chance(0.3) ? 1 : 0)))).toBeCloseTo(0.3, 1)
    const counts = [0, 0, 0]
    for (const value of draw(30_000, () => random.integer(3))) counts[value]! += 1
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(400)
    expect(() => random.integer(0)).toThrow(/expected a count above 0, but received 0/)
  })

  it('shuffles without loss, and leaves the array', () => {
    const items = draw(100, () => 0).map((_, index) => index)
    const shuffled = new Random(3).shuffle(items)
    expect(items[5]).toBe(5)
    expect(shuffled).not.toEqual(items)
    expect(shuffled.toSorted((a, b) => a - b)).toEqual(items)
  })
})
