import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { crc32, createGunzip } from 'node:zlib'
import { type Entry, openPromise, type ZipFile } from 'yauzl'
import { codeOf, messageOf } from '../../setup/errors.js'

/*
 * A table's bytes as a stream, whatever it is packed in. What a file is, its first bytes say; its name says nothing.
 */

export type Packing = 'plain' | 'gzip' | 'zip'

const CHUNK = 1 << 18

/** An error about a table: which one, what was expected, what came. */
export class TableError extends Error {
  override name = 'TableError'
}

/** The first bytes of a file, as it lies on disk. */
export async function firstBytes(path: string, count: number): Promise<Buffer> {
  try {
    if ((await stat(path)).isDirectory()) throw new TableError(`${path}: expected a table, but it is a folder`)
    const file = await open(path)
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(count), 0, count, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw new TableError(`${path}: expected a table, but there is no such file`)
    throw error
  }
}

export function packingOf(first: Buffer): Packing {
  if (first[0] === 0x1f && first[1] === 0x8b) return 'gzip'
  if (first.subarray(0, 4).toString('latin1') === 'PK\u0003\u0004') return 'zip'
  return 'plain'
}

/** The one file in an archive that is not a folder or an editor's own. */
async function onlyEntry(archive: ZipFile, path: string): Promise<Entry> {
  const entries: Entry[] = []
  for await (const entry of archive.eachEntry()) {
    const name = entry.fileName
    if (name.endsWith('/') || name.startsWith('__MACOSX/') || name.endsWith('.DS_Store')) continue
    entries.push(entry)
  }
  if (entries.length !== 1) {
    const names = entries.slice(0, 5).map(({ fileName }) => fileName)
    throw new TableError(
      `${path}: expected an archive of one table, but it holds ${entries.length} files${entries.length > 0 ? ` (${names.join(', ')})` : ''}; unpack it and name the table`,
    )
  }
  return entries[0]!
}

async function* zipped(path: string): AsyncGenerator<Buffer> {
  const archive = await openPromise(path, { autoClose: false })
  try {
    const entry = await onlyEntry(archive, path)
    let sum = 0
    for await (const chunk of (await archive.openReadStreamPromise(entry)) as AsyncIterable<Buffer>) {
      sum = crc32(chunk, sum)
      yield chunk
    }
    // yauzl compares sizes alone
    if (sum !== entry.crc32) throw new Error('its checksum is another')
  } finally {
    archive.close()
  }
}

/**
 * The bytes of a table, unpacked.
 *
 * @throws TableError where the archive is damaged or ends early
 */
export async function* bytesOf(path: string): AsyncGenerator<Buffer> {
  const packing = packingOf(await firstBytes(path, 4))
  try {
    if (packing === 'zip') {
      yield* zipped(path)
      return
    }
    const file: Readable = createReadStream(path, { highWaterMark: CHUNK })
    if (packing === 'plain') {
      yield* file as AsyncIterable<Buffer>
      return
    }
    const unpacked = createGunzip({ chunkSize: CHUNK })
    file.on('error', (error) => unpacked.destroy(error))
    try {
      yield* file.pipe(unpacked) as AsyncIterable<Buffer>
    } finally {
      file.destroy()
    }
  } catch (error) {
    if (error instanceof TableError || packing === 'plain') throw error
    throw new TableError(`${path}: expected a whole ${packing} archive, but it is damaged (${messageOf(error)})`)
  }
}
