import { crc32, inflateRawSync } from 'node:zlib'
import yauzl from 'yauzl'
import { quote, reasonOf, WeightsFileError } from './error.js'
import type { InputFile, OutputFile } from './file.js'

/** An entry of an archive, its place in the file checked. */
export interface ZipEntry {
  readonly name: string
  /** Deflated, or as it is. */
  readonly deflated: boolean
  /** Bytes in the archive. */
  readonly storedSize: number
  /** Bytes of its content. */
  readonly size: number
  /** Where its bytes begin in the file. */
  readonly start: number
}

/** Real checkpoints have one entry a storage. Each costs memory. */
const MAX_ENTRIES = 500_000
/** The most that deflate can make of a byte (RFC 1951: 258 bytes in 2 bits), rounded up. */
const MAX_INFLATION = 1040

/** yauzl reads through this. Its own reader lets positions beyond 2^53 throw where nobody can catch them. */
class EntryReader extends yauzl.RandomAccessReader {
  constructor(private readonly file: InputFile) {
    super()
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null, bytesRead?: number) => void,
  ): void {
    let whole = false
    try {
      whole = this.file.readInto(buffer, offset, length, position)
    } catch (thrown) {
      callback(thrown instanceof Error ? thrown : new Error(String(thrown)))
      return
    }
    callback(whole ? null : new Error(`it points to byte ${position} + ${length} of ${this.file.size}`), length)
  }
}

/**
 * Reads the central directory of a zip archive (zip64 too) and the local header of each file in it.
 *
 * Checked: every entry lies inside the file and over no other, local headers say what the directory says, names are there
 * once and lead nowhere else, nothing is encrypted or compressed other than by deflate.
 * @throws WeightsFileError
 */
export async function readZip(file: InputFile): Promise<Map<string, ZipEntry>> {
  const refuse = (problem: string) =>
    new WeightsFileError(
      file.path,
      `expected a zip archive that is whole, but ${problem} ('${file.path}'); the file is truncated or damaged, get it again`,
    )
  const entries = new Map<string, ZipEntry>()
  try {
    const zip = await yauzl.fromRandomAccessReaderPromise(new EntryReader(file), file.size, {
      autoClose: false,
      strictFileNames: true,
    })
    if (zip.entryCount > MAX_ENTRIES) throw refuse(`it says that it has ${zip.entryCount} entries`)
    const extents: { start: number; end: number; name: string }[] = []
    for await (const entry of zip.eachEntry()) {
      const name = entry.fileName
      if (name.endsWith('/') && entry.uncompressedSize === 0) continue
      if (entries.has(name)) throw refuse(`${quote(name)} is there twice`)
      if (entry.isEncrypted()) throw refuse(`${quote(name)} is encrypted`)
      const method = entry.compressionMethod
      if (method !== 0 && method !== 8) throw refuse(`${quote(name)} is compressed by the unknown method ${method}`)
      const header = await zip.readLocalFileHeaderPromise(entry)
      if (!header.fileName.equals(entry.fileNameRaw) || header.compressionMethod !== method) {
        throw refuse(`the header of ${quote(name)} is not what the directory says`)
      }
      // a local header may leave sizes to what follows the data (0), or to zip64 (all ones)
      for (const [local, central] of [
        [header.compressedSize, entry.compressedSize],
        [header.uncompressedSize, entry.uncompressedSize],
      ] as const) {
        if (local !== 0 && local !== 0xffffffff && local !== central) {
          throw refuse(`the header of ${quote(name)} says ${local} bytes and the directory ${central}`)
        }
      }
      if (method === 8 && entry.uncompressedSize > entry.compressedSize * MAX_INFLATION) {
        throw refuse(`${quote(name)} says that ${entry.compressedSize} bytes become ${entry.uncompressedSize}`)
      }
      const start = header.fileDataStart
      extents.push({ start: entry.relativeOffsetOfLocalHeader, end: start + entry.compressedSize, name })
      entries.set(name, {
        name,
        deflated: method === 8,
        storedSize: entry.compressedSize,
        size: entry.uncompressedSize,
        start,
      })
    }
    let end = 0
    for (const extent of extents.sort((a, b) => a.start - b.start)) {
      if (extent.start < end) throw refuse(`${quote(extent.name)} overlaps the entry before it`)
      end = extent.end
    }
  } catch (thrown) {
    if (thrown instanceof WeightsFileError) throw thrown
    throw new WeightsFileError(file.path, refuse(reasonOf(thrown)).message, { cause: thrown })
  }
  return entries
}

/**
 * The content of an entry, in memory.
 * @throws WeightsFileError where it is not as long as it says
 */
export function readEntry(file: InputFile, entry: ZipEntry): Buffer {
  const stored = file.read(entry.start, entry.storedSize, quote(entry.name))
  if (!entry.deflated) return stored
  let bytes: Buffer | null
  try {
    // the bound stops a bomb as soon as it is longer than it says (it may be 0, which zlib does not take for a bound)
    bytes = inflateRawSync(stored, { maxOutputLength: Math.max(entry.size, 1) })
  } catch {
    bytes = null
  }
  if (bytes === null || bytes.length !== entry.size) {
    throw new WeightsFileError(
      file.path,
      `expected entry ${quote(entry.name)} of '${file.path}' to inflate to its ${entry.size} bytes, but it does not; ` +
        'the file is damaged, get it again',
    )
  }
  return bytes
}

const UINT32 = 0xffffffff
/** What torch.save aligns tensors to, so that they can be used where they lie. */
const ALIGNMENT = 64
/** 1980-01-01, the first day there is: equal content gives equal files. */
const DOS_DATE = 0x21

interface Written {
  name: Buffer
  crc: number
  size: number
  offset: number
}

/**
 * Writes a zip archive of entries as they are (not compressed), each one's bytes at a multiple of 64, as torch.save does:
 * only aligned tensors can be used without a copy, in Python and here. The libraries for zip files do not align.
 * Sizes and places beyond 4 GiB go to zip64 fields. Format: PKWARE's APPNOTE 6.3.9.
 */
export class ZipWriter {
  private readonly written: Written[] = []

  constructor(private readonly file: OutputFile) {}

  /** Appends an entry of `size` bytes, which `copy` gives piece by piece. */
  add(entryName: string, size: number, copy: (offset: number, length: number) => Uint8Array): void {
    const { file } = this
    const name = Buffer.from(entryName)
    const offset = file.position
    const large = size >= UINT32
    const fields = 30 + name.length + (large ? 20 : 0) + 4
    const padding = (ALIGNMENT - ((offset + fields) % ALIGNMENT)) % ALIGNMENT
    const header = Buffer.alloc(fields + padding)
    header.writeUInt32LE(0x04034b50, 0)
    header.writeUInt16LE(large ? 45 : 20, 4)
    header.writeUInt16LE(0x0800, 6) // the name is UTF-8
    header.writeUInt16LE(DOS_DATE, 12)
    header.writeUInt32LE(large ? UINT32 : size, 18)
    header.writeUInt32LE(large ? UINT32 : size, 22)
    header.writeUInt16LE(name.length, 26)
    header.writeUInt16LE(header.length - 30 - name.length, 28)
    name.copy(header, 30)
    let at = 30 + name.length
    if (large) {
      header.writeUInt16LE(0x0001, at)
      header.writeUInt16LE(16, at + 2)
      header.writeBigUInt64LE(BigInt(size), at + 4)
      header.writeBigUInt64LE(BigInt(size), at + 12)
      at += 20
    }
    // PyTorch's own field for padding ('FB')
    header.writeUInt16LE(0x4246, at)
    header.writeUInt16LE(padding, at + 2)
    header.fill('Z', at + 4)
    file.write(header)
    let crc = 0
    file.writeChunks(size, copy, (bytes) => {
      crc = crc32(bytes, crc)
    })
    const crcBytes = Buffer.alloc(4)
    crcBytes.writeUInt32LE(crc)
    file.write(crcBytes, offset + 14)
    this.written.push({ name, crc, size, offset })
  }

  addBytes(name: string, bytes: Uint8Array): void {
    this.add(name, bytes.length, (offset, length) => bytes.subarray(offset, offset + length))
  }

  /** Writes the directory: the archive is complete. */
  end(): void {
    const { file } = this
    const start = file.position
    for (const { name, crc, size, offset } of this.written) {
      const wide: bigint[] = []
      if (size >= UINT32) wide.push(BigInt(size), BigInt(size))
      if (offset >= UINT32) wide.push(BigInt(offset))
      const extra = wide.length > 0 ? 4 + 8 * wide.length : 0
      const record = Buffer.alloc(46 + name.length + extra)
      record.writeUInt32LE(0x02014b50, 0)
      record.writeUInt16LE(wide.length > 0 ? 45 : 20, 4)
      record.writeUInt16LE(wide.length > 0 ? 45 : 20, 6)
      record.writeUInt16LE(0x0800, 8)
      record.writeUInt16LE(DOS_DATE, 14)
      record.writeUInt32LE(crc, 16)
      record.writeUInt32LE(Math.min(size, UINT32), 20)
      record.writeUInt32LE(Math.min(size, UINT32), 24)
      record.writeUInt16LE(name.length, 28)
      record.writeUInt16LE(extra, 30)
      record.writeUInt32LE(Math.min(offset, UINT32), 42)
      name.copy(record, 46)
      if (extra > 0) {
        record.writeUInt16LE(0x0001, 46 + name.length)
        record.writeUInt16LE(extra - 4, 48 + name.length)
        for (const [i, value] of wide.entries()) record.writeBigUInt64LE(value, 50 + name.length + 8 * i)
      }
      file.write(record)
    }
    const size = file.position - start
    const count = this.written.length
    const end = Buffer.alloc(22)
    if (count >= 0xffff || size >= UINT32 || start >= UINT32) {
      const wide = Buffer.alloc(56 + 20)
      wide.writeUInt32LE(0x06064b50, 0)
      wide.writeBigUInt64LE(44n, 4)
      wide.writeUInt16LE(45, 12)
      wide.writeUInt16LE(45, 14)
      wide.writeBigUInt64LE(BigInt(count), 24)
      wide.writeBigUInt64LE(BigInt(count), 32)
      wide.writeBigUInt64LE(BigInt(size), 40)
      wide.writeBigUInt64LE(BigInt(start), 48)
      wide.writeUInt32LE(0x07064b50, 56)
      wide.writeBigUInt64LE(BigInt(file.position), 64)
      wide.writeUInt32LE(1, 72)
      file.write(wide)
    }
    end.writeUInt32LE(0x06054b50, 0)
    end.writeUInt16LE(Math.min(count, 0xffff), 8)
    end.writeUInt16LE(Math.min(count, 0xffff), 10)
    end.writeUInt32LE(Math.min(size, UINT32), 12)
    end.writeUInt32LE(Math.min(start, UINT32), 16)
    file.write(end)
  }
}
