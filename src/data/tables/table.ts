import { messageOf } from '../../setup/errors.js'
import type { Problems } from '../problems.js'
import { bytesOf, firstBytes, TableError } from './bytes.js'
import { cellOf } from './cells.js'
import { csvRecords, delimiterOf } from './csv.js'
import { type JsonLine, jsonLines } from './jsonl.js'
import { parquetCells, parquetColumns } from './parquet.js'

/*
 * Tables as streams of rows, cells by column name: CSV (also ; and tabs between cells), JSONL, Parquet; the first two plain, in gzip or zip.
 */

export interface TableRow {
  /** Counted from 0. */
  readonly row: number
  /** In the order in which the columns were asked for; '' for nothing. */
  readonly cells: readonly string[]
}

export interface Table {
  readonly path: string
  readonly columns: readonly string[]
  /**
   * Rows in batches, in the table's order. A row that cannot be used goes to `problems` and is left out.
   *
   * @throws TableError where a column is not there, or the file is damaged: nothing after the damage is known
   */
  rows(columns: readonly string[], problems: Problems): AsyncGenerator<readonly TableRow[]>
}

const PEEK = 1 << 16

/** Enough of the unpacked bytes to see what they are. */
async function peek(path: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of bytesOf(path)) {
    chunks.push(chunk)
    length += chunk.length
    if (length >= PEEK) break
  }
  return Buffer.concat(chunks).subarray(0, PEEK)
}

const isUtf16 = (bytes: Buffer): boolean => bytes[0] === 0xff && bytes[1] === 0xfe

/**
 * Reads what a table is and its columns.
 *
 * @throws TableError where there is no such file, or it is empty, damaged or no table
 */
export async function openTable(path: string): Promise<Table> {
  if ((await firstBytes(path, 4)).toString('latin1') === 'PAR1') return parquetTable(path, await parquetColumns(path))
  const start = await peek(path)
  if (start.subarray(0, 4).toString('latin1') === 'PAR1') {
    throw new TableError(`${path}: expected a Parquet file as it is, but it is in an archive; unpack it`)
  }
  if (start.includes(0) && !isUtf16(start)) {
    throw new TableError(`${path}: expected a table (CSV, JSONL or Parquet), but it is binary`)
  }
  const text = start.toString(isUtf16(start) ? 'utf16le' : 'utf8').replace(/^\ufeff/, '')
  if (text.trim() === '') throw new TableError(`${path}: expected a table with a header, but it is empty`)
  return text.trimStart().startsWith('{') ? jsonTable(path) : csvTable(path, delimiterOf(text.split(/[\r\n]/, 1)[0]!))
}

/** Where the asked columns stand in the table. */
function placesOf(path: string, columns: readonly string[], wanted: readonly string[]): number[] {
  requireColumns({ path, columns }, wanted)
  return wanted.map((column) => columns.indexOf(column))
}

/** @throws TableError that names the columns that are missing, or there twice, and those that are there */
export function requireColumns({ path, columns }: Pick<Table, 'path' | 'columns'>, wanted: readonly string[]): void {
  const missing = wanted.filter((column) => !columns.includes(column))
  if (missing.length > 0) {
    const there = columns.length > 30 ? [...columns.slice(0, 30), '...'] : columns
    throw new TableError(
      `${path}: expected the column${missing.length > 1 ? 's' : ''} ${missing.join(', ')}, but the table has ${there.join(', ')}`,
    )
  }
  const twice = wanted.filter((column) => columns.indexOf(column) !== columns.lastIndexOf(column))
  if (twice.length > 0) throw new TableError(`${path}: expected one column ${twice[0]}, but the table has several`)
}

/** An error of the stream, with the last row that was read. */
function after(error: unknown, path: string, rows: number): TableError {
  const message = error instanceof TableError ? error.message : `${path}: ${messageOf(error)}`
  return new TableError(
    `${message}; ${rows === 0 ? 'no row was read' : `row ${rows - 1} was the last that could be read`}`,
  )
}

async function csvTable(path: string, delimiter: string): Promise<Table> {
  let columns: string[] | undefined
  for await (const records of csvRecords(bytesOf(path), delimiter, path)) {
    if (records.length === 0) continue
    columns = records[0]!.map((name) => name.trim())
    break
  }
  if (columns === undefined) throw new TableError(`${path}: expected a table with a header, but it is empty`)
  const names = columns
  return {
    path,
    columns: names,
    async *rows(wanted, problems) {
      const places = placesOf(path, names, wanted)
      let row = -1
      try {
        for await (const records of csvRecords(bytesOf(path), delimiter, path)) {
          const batch: TableRow[] = []
          for (const record of records) {
            if (row >= 0) {
              if (record.length === names.length) batch.push({ row, cells: places.map((place) => record[place]!) })
              else problems.add(`expected ${names.length} cells, but there are ${record.length}`, { row })
            }
            row += 1
          }
          if (batch.length > 0) yield batch
        }
      } catch (error) {
        throw after(error, path, Math.max(0, row))
      }
    },
  }
}

/** JSONL has no header: its columns are the keys of the first lines. */
const HEADER_LINES = 1000

async function jsonTable(path: string): Promise<Table> {
  const keys = new Set<string>()
  const collect = (line: JsonLine) => {
    if ('record' in line) for (const key of Object.keys(line.record)) keys.add(key)
  }
  let seen = 0
  for await (const lines of jsonLines(bytesOf(path), path)) {
    for (const line of lines) collect(line)
    seen += lines.length
    if (seen >= HEADER_LINES) break
  }
  const names = [...keys]
  return {
    path,
    columns: names,
    async *rows(wanted, problems) {
      requireColumns({ path, columns: names }, wanted)
      let row = 0
      try {
        for await (const lines of jsonLines(bytesOf(path), path)) {
          const batch: TableRow[] = []
          for (const line of lines) {
            if ('problem' in line) problems.add(line.problem, { row })
            else batch.push({ row, cells: wanted.map((column) => cellOf(line.record[column])) })
            row += 1
          }
          if (batch.length > 0) yield batch
        }
      } catch (error) {
        throw after(error, path, row)
      }
    },
  }
}

function parquetTable(path: string, columns: readonly string[]): Table {
  return {
    path,
    columns,
    async *rows(wanted) {
      requireColumns({ path, columns }, wanted)
      let row = 0
      for await (const rows of parquetCells(path, wanted)) {
        const first = row
        row += rows.length
        yield rows.map((cells, index) => ({ row: first + index, cells }))
      }
    },
  }
}
