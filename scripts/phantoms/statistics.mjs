// Counts in CheXpert's real train.csv what src/data/phantoms/chexpert/statistics.ts holds, and prints that file:
//   node scripts/phantoms/statistics.mjs chexpert_train.csv.gz > src/data/phantoms/chexpert/statistics.ts
// Numbers only: no row of the table is kept.
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'

const [path] = process.argv.slice(2)
if (path === undefined) throw new Error("expected the path of CheXpert's train.csv, plain or .gz")
const bytes = readFileSync(path)
const [header, ...rows] = (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8').trim().split('\n')
const names = header.trim().split(',')
const findings = names.slice(names.indexOf('No Finding') + 1)
const columns = findings.map((name) => names.indexOf(name))
const pathology = findings.map((name) => name !== 'Support Devices')

const count = () => findings.map(() => 0)
const positive = count()
const uncertain = count()
const negative = count()
const negativeWithoutPathology = count()
const statedWithoutPathology = count()
const positiveWithoutPathology = count()
const pairs = findings.map(count)
let withoutPathology = 0
let noFinding = 0
const devices = findings.indexOf('Support Devices')
for (const row of rows) {
  const cells = row.trim().split(',')
  const values = columns.map((column) => (cells[column] === '' ? null : Number(cells[column])))
  const clear = values.every((value, index) => !pathology[index] || (value !== 1 && value !== -1))
  if (clear) withoutPathology += 1
  if (cells[names.indexOf('No Finding')] !== '') noFinding += 1
  for (const [first, value] of values.entries()) {
    if (value === -1) uncertain[first] += 1
    if (value === 0) negative[first] += 1
    if (value === 0 && clear) negativeWithoutPathology[first] += 1
    if (clear && (value === 1 || value === -1)) statedWithoutPathology[first] += 1
    if (clear && value === 1) positiveWithoutPathology[first] += 1
    if (value !== 1) continue
    positive[first] += 1
    for (let second = 0; second < first; second += 1) if (values[second] === 1) pairs[first][second] += 1
  }
}

const lines = findings.map(
  (name, index) =>
    `  { name: '${name}', positive: ${positive[index]}, uncertain: ${uncertain[index]}, negative: ${negative[index]}, negativeWithoutPathology: ${negativeWithoutPathology[index]} },`,
)
process.stdout.write(`/*
 * What CheXpert's train.csv (v1.0, the labeler's own labels) says of its findings, in numbers: how often each is positive,
 * uncertain and negative, and how often each two are positive together. Counted by scripts/phantoms/statistics.mjs.
 */

/** Rows of the table. */
export const ROWS = ${rows.length}

/** Rows in which no finding but Support Devices is positive or uncertain. */
export const WITHOUT_PATHOLOGY = ${withoutPathology}

/** Rows with No Finding, all of them among those without pathology. */
export const NO_FINDING = ${noFinding}

/** Rows without pathology in which Support Devices is positive, and those in which it is positive or uncertain. */
export const DEVICES_WITHOUT_PATHOLOGY = { positive: ${positiveWithoutPathology[devices]}, stated: ${statedWithoutPathology[devices]} }

export interface FindingCounts {
  readonly name: string
  readonly positive: number
  readonly uncertain: number
  readonly negative: number
  /** Negative in rows without pathology, whose reports deny more. */
  readonly negativeWithoutPathology: number
}

/** In the table's order, after No Finding. */
export const FINDINGS: readonly FindingCounts[] = [
${lines.join('\n')}
]

/** Rows in which both are positive: row i has those with the findings before it. */
export const BOTH_POSITIVE: readonly (readonly number[])[] = [
${pairs.map((row, index) => `  [${row.slice(0, index).join(', ')}],`).join('\n')}
]
`)
