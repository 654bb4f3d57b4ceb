import { BLANK } from '../sample.js'
import { isMissing, numberOf } from '../tables/index.js'

/** A finding's cell: 1, 0, -1 or BLANK; null for anything else. */
export function findingOf(cell: string): number | null {
  switch (cell) {
    case '':
      return BLANK
    case '1.0':
    case '1':
      return 1
    case '0.0':
    case '0':
      return 0
    case '-1.0':
    case '-1':
      return -1
    default: {
      if (isMissing(cell)) return BLANK
      const value = numberOf(cell)
      return value === 1 || value === 0 || value === -1 ? value + 0 : null
    }
  }
}

/** 'F', 'M', 'Female', 'Male'; null for anything else: 'Unknown' is one of CheXpert's values. */
export function sexOf(cell: string): 'F' | 'M' | null {
  const first = cell.trim().toUpperCase()[0]
  return first === 'F' || first === 'M' ? first : null
}

/** Years; DICOM's '058Y', '011M', '013D' too; null for nothing; NaN for what is no age. */
export function ageOf(cell: string): number | null {
  if (isMissing(cell)) return null
  const dicom = /^(\d{1,3})([YMWD])$/.exec(cell)
  if (dicom === null) {
    const years = numberOf(cell)
    return years >= 0 ? years : Number.NaN
  }
  const perYear = { Y: 1, M: 12, W: 52, D: 365 }[dicom[2] as 'Y' | 'M' | 'W' | 'D']
  return Number(dicom[1]) / perYear
}

export const sideOf = (cell: string): 'L' | 'R' | null => (cell === 'L' || cell === 'R' ? cell : null)

/** A cell's text, or null where it says nothing. */
export const textOf = (cell: string | undefined): string | null => (cell === undefined || isMissing(cell) ? null : cell)

/** More are not worth their memory. */
const INTERNED = 50_000

/** Equal values once in memory: a few thousand patterns of findings stand for hundreds of thousands of rows. */
export class Interned<Value> {
  readonly #values = new Map<string, Value>()

  get(key: string, make: () => Value): Value {
    let value = this.#values.get(key)
    if (value === undefined) {
      value = make()
      if (this.#values.size >= INTERNED) this.#values.clear()
      this.#values.set(key, value)
    }
    return value
  }
}

/** Numbers by their value, words by the alphabet. */
export const byValue = (left: string, right: string): number =>
  Number(left) - Number(right) || (left < right ? -1 : left > right ? 1 : 0)
