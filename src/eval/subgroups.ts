import type { Attributes } from '../data/sample.js'
import type { Predictions } from './predictions.js'

/*
 * The test set by sex, age and view, where the data has them.
 */

/** With fewer patients a group is counted, and nothing is said of it: the intervals would be wide and too short at once. */
export const MINIMUM_PATIENTS = 20

const ageBands = [
  { name: 'under 18', below: 18 },
  { name: '18 to 39', below: 40 },
  { name: '40 to 59', below: 60 },
  { name: '60 to 79', below: 80 },
  { name: '80 and over', below: Number.POSITIVE_INFINITY },
] as const

export const UNKNOWN = 'not known'

export type Attribute = 'sex' | 'age' | 'view'

const groupings: readonly { attribute: Attribute; groupOf: (attributes: Attributes) => string | null }[] = [
  { attribute: 'sex', groupOf: ({ sex }) => (sex === null ? null : sex === 'F' ? 'female' : 'male') },
  { attribute: 'age', groupOf: ({ age }) => (age === null ? null : ageBandOf(age)) },
  { attribute: 'view', groupOf: ({ view }) => view },
]

/** @param age in years */
export function ageBandOf(age: number): string {
  return ageBands.find(({ below }) => age < below)?.name ?? UNKNOWN
}

export interface Grouping {
  readonly attribute: Attribute
  /** Rows of each group, the groups in a fixed order; those of which it is not known come last. */
  readonly groups: readonly { readonly name: string; readonly rows: readonly number[] }[]
}

/** Attributes that no sample has are left out. */
export function groupingsOf({ attributes }: Predictions): Grouping[] {
  return groupings.flatMap(({ attribute, groupOf }) => {
    const rows = new Map<string, number[]>()
    for (const [row, each] of attributes.entries()) {
      const name = groupOf(each) ?? UNKNOWN
      const known = rows.get(name)
      if (known) known.push(row)
      else rows.set(name, [row])
    }
    if ([...rows.keys()].every((name) => name === UNKNOWN)) return []
    const bands: string[] = ageBands.map(({ name }) => name)
    const place = (name: string) => (name === UNKNOWN ? Number.POSITIVE_INFINITY : bands.indexOf(name))
    const names = [...rows.keys()].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1))
    return [{ attribute, groups: names.map((name) => ({ name, rows: rows.get(name)! })) }]
  })
}
