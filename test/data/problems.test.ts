import { describe, expect, it } from 'vitest'
import { Problems } from '../../src/data/problems.js'

describe('problems', () => {
  it('are no error up to the limit, and one error above it, with the first few', () => {
    const problems = new Problems()
    for (let row = 0; row < 7; row += 1) problems.add('expected a path', { row, path: row === 1 ? 'a.png' : null })
    expect(() => problems.check(700)).not.toThrow()
    expect(() => problems.check(699)).toThrow(
      /^expected at most 1 % of 699 to be unusable, but 7 are: row 0: expected a path; row 1, a.png: expected a path; .*; and 2 more; mend/,
    )
    expect(() => problems.check(10, 0.7)).not.toThrow()
  })

  it('are all counted, and kept up to a number', () => {
    const problems = new Problems()
    for (let row = 0; row < 150_000; row += 1) problems.add('wrong', { row })
    expect([problems.count, problems.list.length]).toEqual([150_000, 100_000])
    expect(() => problems.check(150_000, 0.9)).toThrow(/but 150000 are.*and 149995 more/)
  })
})
