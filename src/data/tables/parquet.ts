import {
  asyncBufferFromFile,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
} from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { messageOf } from '../../setup/errors.js'
import { TableError } from './bytes.js'
import { cellOf } from './cells.js'

/** Rows decoded at a time: what a row group's pages need in memory is hyparquet's, the objects are ours. */
const ROWS = 4096

async function metadataOf(path: string): Promise<FileMetaData> {
  try {
    return await parquetMetadataAsync(await asyncBufferFromFile(path))
  } catch (error) {
    throw new TableError(`${path}: expected a Parquet file, but it is damaged (${messageOf(error)})`)
  }
}

/** @throws TableError where the file is no Parquet file, or damaged */
export async function parquetColumns(path: string): Promise<string[]> {
  return parquetSchema(await metadataOf(path)).children.map(({ element }) => element.name)
}

/**
 * The cells of the named columns, as batches.
 *
 * @throws TableError where the file is damaged
 */
export async function* parquetCells(path: string, columns: readonly string[]): AsyncGenerator<string[][]> {
  const metadata = await metadataOf(path)
  const file = await asyncBufferFromFile(path)
  const total = Number(metadata.num_rows)
  for (let rowStart = 0; rowStart < total; rowStart += ROWS) {
    const rowEnd = Math.min(total, rowStart + ROWS)
    let rows: Record<string, unknown>[]
    try {
      rows = await parquetReadObjects({ file, metadata, columns: [...columns], rowStart, rowEnd, compressors })
    } catch (error) {
      throw new TableError(
        `${path}: expected rows ${rowStart} to ${rowEnd - 1}, but they are damaged (${messageOf(error)})`,
      )
    }
    yield rows.map((row) => columns.map((column) => cellOf(row[column])))
  }
}
