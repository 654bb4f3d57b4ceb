/** What pandas reads as missing, so that a cell means here what it means to the published code. */
const MISSING = new Set(
  '#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null'.split(','),
)

/** Whether a cell says nothing: empty, or 'NaN', 'NA', 'null' and their like. */
export function isMissing(cell: string): boolean {
  return cell === '' || MISSING.has(cell)
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/

/** A decimal number; NaN for everything else. */
export function numberOf(cell: string): number {
  const trimmed = cell.trim()
  return NUMBER.test(trimmed) ? Number(trimmed) : Number.NaN
}

/** An identifier that a program may have written as a number: '1000.0' is '1000'. */
export function identifierOf(cell: string): string {
  return cell.endsWith('.0') ? cell.slice(0, -2) : cell
}

/** A value of JSON or Parquet as the cell of a CSV file; '' for nothing. */
export function cellOf(value: unknown): string {
  if (value === null || value === undefined) return ''
  if (typeof value === 'string') return value
  if (typeof value === 'number') return Number.isNaN(value) ? '' : String(value)
  if (typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  if (value instanceof Date) return value.toISOString()
  return JSON.stringify(value, (_, each: unknown) => (typeof each === 'bigint' ? String(each) : each))
}
