import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { Problems } from '../../../src/data/problems.js'
import { identifierOf, isMissing, numberOf, openTable } from '../../../src/data/tables/index.js'
import { fileOf, folderOf, zipOf } from './files.js'

async function read(path: string, columns: readonly string[]) {
  const problems = new Problems()
  const table = await openTable(path)
  const rows: [number, ...string[]][] = []
  for await (const batch of table.rows(columns, problems))
    for (const { row, cells } of batch) rows.push([row, ...cells])
  return { columns: table.columns, rows, problems: problems.list }
}

const failure = async (path: string, columns: readonly string[] = ['a']): Promise<string> =>
  await read(path, columns).then(
    () => 'nothing was wrong',
    (error: unknown) => (error as Error).message,
  )

const CSV = 'a,b,c\n1,x,\n2,"y, z",3\n'
const ROWS = [
  [0, '', '1'],
  [1, '3', '2'],
]

describe('a CSV table', () => {
  it.each([
    ['plain', CSV],
    ['with a byte order mark', `\ufeff${CSV}`],
    ['with CRLF', CSV.replaceAll('\n', '\r\n')],
    ['with CR', CSV.replaceAll('\n', '\r')],
    ['with mixed line ends', 'a,b,c\n1,x,\r\n2,"y, z",3\r\n'],
    ['without a last line end', CSV.trimEnd()],
    ['with empty lines, which are no rows', CSV.replaceAll('\n', '\n\n')],
    ['with quotes around everything', '"a","b","c"\n"1","x",""\n"2","y, z","3"\n'],
    ['in UTF-16', Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(CSV, 'utf16le')])],
    ['with tabs', 'a\tb\tc\n1\tx\t\n2\ty, z\t3\n'],
    ['with semicolons', 'a;b;c\n1;x;\n2;y, z;3\n'],
    ['in gzip', gzipSync(CSV)],
    ['in gzip of two members', Buffer.concat([gzipSync(CSV.slice(0, 9)), gzipSync(CSV.slice(9))])],
    ['in zip', zipOf({ '__MACOSX/._table.csv': 'x', 'table.csv': CSV })],
  ])('is read by column name: %s', async (_, content) => {
    expect((await read(fileOf(content), ['c', 'a'])).rows).toEqual(ROWS)
  })

  it('keeps quotes, commas and line ends within quotes', async () => {
    const { rows } = await read(fileOf('a,b\n"x ""y""","1\n2"\n3"4,5\n'), ['a', 'b'])
    expect(rows).toEqual([
      [0, 'x "y"', '1\n2'],
      [1, '3"4', '5'],
    ])
  })

  it('longer than a chunk is read whole, whatever is cut where', async () => {
    const count = 40_000
    const lines = Array.from({ length: count }, (_, row) => `${row},"é ${'x'.repeat(row % 50)}",end`)
    const { rows, problems } = await read(fileOf(['a,b,c', ...lines, ''].join('\r\n')), ['a', 'b', 'c'])
    expect(problems).toEqual([])
    expect(rows.length).toBe(count)
    expect(rows.every(([row, a, b, c]) => a === String(row) && b === `é ${'x'.repeat(row % 50)}` && c === 'end')).toBe(
      true,
    )
  })

  it('names rows with too few or too many cells, and goes on', async () => {
    const { rows, problems } = await read(fileOf('a,b\n1,2\n3\n4,5,6\n7,8\n'), ['b'])
    expect(rows).toEqual([
      [0, '2'],
      [3, '8'],
    ])
    expect(problems.map(({ row, problem }) => [row, problem])).toEqual([
      [1, 'expected 2 cells, but there are 1'],
      [2, 'expected 2 cells, but there are 3'],
    ])
  })

  it('lacks a column: the error names it and those that are there', async () => {
    expect(await failure(fileOf(CSV), ['a', 'Path', 'd'])).toMatch(
      /expected the columns Path, d, but the table has a, b, c/,
    )
  })

  it('has a column twice: an error where it is asked for', async () => {
    expect(await failure(fileOf('a,a,b\n1,2,3\n'))).toMatch(/expected one column a, but the table has several/)
    expect((await read(fileOf('a,a,b\n1,2,3\n'), ['b'])).rows).toEqual([[0, '3']])
  })

  it.each([
    ['empty', '', /expected a table with a header, but it is empty/],
    ['only line ends', '\n\n\n', /but it is empty/],
    ['empty in gzip', gzipSync(''), /but it is empty/],
    ['binary', Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 1, 2, 3]), /but it is binary/],
    [
      'a quote that nobody closes',
      `a,b\n1,2\n3,"4\n${'5,6\n'.repeat(10)}`,
      /expected a quote to be closed.*row 0 was the last/,
    ],
    [
      'a line without end',
      `a,b\n1,2\n3,"${'x'.repeat(3 << 20)}`,
      /expected rows of less than 1048576 bytes.*row 0 was/,
    ],
    [
      'a line of separators without end',
      `a,b\n1,"2"\n3${','.repeat(3 << 20)}`,
      /expected rows of less than 1048576 bytes/,
    ],
    ['nothing but separators', ','.repeat(3 << 20), /expected rows of less than 1048576 bytes/],
    [
      'gzip that ends early',
      gzipSync(CSV.repeat(1000)).subarray(0, 60),
      /expected a whole gzip archive, but it is damaged/,
    ],
    [
      'gzip with a flipped bit',
      flipped(gzipSync(CSV.repeat(1000))),
      /expected a whole gzip archive, but it is damaged/,
    ],
    [
      'zip that ends early',
      zipOf({ 'table.csv': CSV }).subarray(0, 60),
      /expected a whole zip archive, but it is damaged/,
    ],
    [
      'zip with a flipped bit',
      flipped(zipOf({ 'table.csv': CSV.repeat(100) })),
      /expected a whole zip archive, but it is damaged \(its checksum is another\)/,
    ],
    [
      'zip of two tables',
      zipOf({ 'a.csv': CSV, 'b.csv': CSV }),
      /an archive of one table, but it holds 2 files \(a.csv, b.csv\)/,
    ],
    ['zip of nothing', zipOf({}), /expected/],
  ])('that is damaged is an error: %s', async (_, content, message) => {
    expect(await failure(fileOf(content))).toMatch(message)
  })

  it('that is not there, or a folder, is an error', async () => {
    const folder = folderOf({ 'a/b.csv': CSV })
    expect(await failure(`${folder}/no.csv`)).toMatch(/expected a table, but there is no such file/)
    expect(await failure(`${folder}/a`)).toMatch(/expected a table, but it is a folder/)
  })

  it('cut after the middle of a row: the row is named', async () => {
    const { rows, problems } = await read(fileOf('a,b,c\n1,2,3\n4,5'), ['a'])
    expect(rows).toEqual([[0, '1']])
    expect(problems).toEqual([{ row: 1, path: null, problem: 'expected 3 cells, but there are 2' }])
  })
})

/** One bit in the middle. */
function flipped(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes)
  copy[copy.length >> 1]! ^= 0x10
  return copy
}

describe('a JSONL table', () => {
  const jsonl = '{"a": 1, "b": "x"}\n\n{"b": null, "c": [1, 2]}\r\n{"a": true}'
  it.each([
    ['plain', jsonl],
    ['with a byte order mark', `\ufeff${jsonl}`],
    ['in gzip', gzipSync(jsonl)],
  ])('is read by key: %s', async (_, content) => {
    const { columns, rows } = await read(fileOf(content, 'table.jsonl'), ['c', 'a', 'b'])
    expect(columns).toEqual(['a', 'b', 'c'])
    expect(rows).toEqual([
      [0, '', '1', 'x'],
      [1, '[1,2]', '', ''],
      [2, '', 'true', ''],
    ])
  })

  it('names lines that are no objects, and goes on', async () => {
    const { rows, problems } = await read(fileOf('{"a": 1}\n[2]\n{"a": 3\n{"a": 4}\n'), ['a'])
    expect(rows).toEqual([
      [0, '1'],
      [3, '4'],
    ])
    expect(problems.map(({ row }) => row)).toEqual([1, 2])
  })
})

describe('a Parquet table', () => {
  const file = new URL('../../reference/tables/chexpert.zstd.parquet', import.meta.url).pathname
  const csv = new URL('../../reference/official/chexpert.csv', import.meta.url).pathname

  it('says what the same table says as CSV', async () => {
    const columns = ['Path', 'AP/PA', 'Age']
    const parquet = await read(file, columns)
    expect(parquet.rows.length).toBe(60)
    expect(parquet.rows).toEqual((await read(csv, columns)).rows)
  })

  it('has cells of numbers, and nothing where there is nothing', async () => {
    const numbers = (rows: [number, ...string[]][]) => rows.map(([, cell]) => (cell === '' ? null : Number(cell)))
    const [parquet, text] = [await read(file, ['Edema']), await read(csv, ['Edema'])]
    expect(numbers(parquet.rows)).toEqual(numbers(text.rows))
  })

  it('that is cut off, or lacks a column, is an error', async () => {
    expect(await failure(fileOf('PAR1 and no more', 'table.parquet'))).toMatch(
      /expected a Parquet file, but it is damaged/,
    )
    expect(await failure(file, ['Nothing'])).toMatch(/expected the column Nothing, but the table has Path, /)
  })
})

describe('cells', () => {
  it('are missing where pandas reads them so', () => {
    expect(['', 'NA', 'NaN', 'nan', 'None', 'null', '<NA>', '#N/A'].every(isMissing)).toBe(true)
    expect(['0', 'N', 'none', ' ', 'Na', '-'].some(isMissing)).toBe(false)
  })

  it('are numbers only where the whole cell is one', () => {
    expect(['1', '-1.0', ' 2.50 ', '1e3', '.5'].map(numberOf)).toEqual([1, -1, 2.5, 1000, 0.5])
    for (const cell of ['', '1,5', '0x10', 'Infinity', '1 2', '--1', 'NaN']) expect(numberOf(cell)).toBeNaN()
  })

  it('are the same identifier with and without a decimal', () => {
    expect(['1000.0', '1000', 'a.0b'].map(identifierOf)).toEqual(['1000', '1000', 'a.0b'])
  })
})
