import { type FileHandle, open } from 'node:fs/promises'
import { Header, Pax } from 'tar'
import { messageOf } from '../../setup/errors.js'

/*
 * Where the files of a tar archive lie, from its headers alone: a shard of gigabytes is indexed by reading 512 bytes a file.
 */

export interface TarEntry {
  readonly name: string
  /** Of the content, in bytes from the archive's start. */
  readonly offset: number
  readonly size: number
}

const BLOCK = 512
/** Of a header's own content: long names. */
const MAX_HEADER = 1 << 20

const padded = (size: number): number => Math.ceil(size / BLOCK) * BLOCK

async function readAt(file: FileHandle, offset: number, size: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(size), 0, size, offset)
  if (bytesRead < size) throw new Error(`expected ${size} bytes at ${offset}, but the file ends after ${bytesRead}`)
  return buffer
}

/**
 * The plain files of an archive in its order.
 *
 * @throws Error where it is compressed, damaged or ends early
 */
export async function tarIndex(path: string): Promise<TarEntry[]> {
  const file = await open(path)
  try {
    return await indexOf(file, (await file.stat()).size)
  } catch (error) {
    throw new Error(`${path}: expected a tar archive, not compressed, but ${messageOf(error)}`)
  } finally {
    await file.close()
  }
}

async function indexOf(file: FileHandle, length: number): Promise<TarEntry[]> {
  const entries: TarEntry[] = []
  let extended: Pax | undefined
  let longName: string | undefined
  for (let offset = 0; offset + BLOCK <= length; ) {
    const header = new Header(await readAt(file, offset, BLOCK), 0, extended)
    if (header.nullBlock) return entries
    if (!header.cksumValid) throw new Error(`the header at byte ${offset} is damaged`)
    const size = header.size ?? 0
    const content = offset + BLOCK
    if (content + size > length) throw new Error(`the file ends within ${header.path}`)
    if (header.type === 'ExtendedHeader' || header.type === 'NextFileHasLongPath') {
      if (size > MAX_HEADER) throw new Error(`a name at byte ${offset} is ${size} bytes long`)
      const text = (await readAt(file, content, size)).toString('utf8')
      if (header.type === 'ExtendedHeader') extended = Pax.parse(text, extended)
      else longName = text.replace(/\0.*$/s, '')
    } else if (header.type !== 'GlobalExtendedHeader') {
      if (header.type === 'File' || header.type === 'OldFile') {
        entries.push({ name: longName ?? header.path ?? '', offset: content, size })
      }
      extended = undefined
      longName = undefined
    }
    offset = content + padded(size)
  }
  throw new Error('the file ends without the mark of an end: it was cut off')
}

/** The bytes of an entry. */
export async function readEntry(path: string, { offset, size }: TarEntry): Promise<Buffer> {
  const file = await open(path)
  try {
    return await readAt(file, offset, size)
  } finally {
    await file.close()
  }
}
