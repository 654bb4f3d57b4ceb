import { inflateRawSync } from 'node:zlib'
import dicomParser, { type ByteArrayParser, type DataSet, type Element } from 'dicom-parser'
import { firstLine, ImageError, printable } from '../images/error.js'
import {
  EXPLICIT_BIG_ENDIAN,
  EXPLICIT_LITTLE_ENDIAN,
  IMPLICIT_LITTLE_ENDIAN,
  type TransferSyntax,
  transferSyntaxes,
} from './syntaxes.js'

/** What a deflated file may inflate to. */
const MAX_INFLATED_BYTES = 256 << 20
/** Elements and items before the pixels, some 250 bytes each: headers have hundreds, with all their sequences thousands. */
const MAX_ELEMENTS = 500_000
/** The parser reads this many numbers for the smallest of them: an item's tag and its length. */
const NUMBERS_PER_ELEMENT = 3

export interface ParsedDicom {
  /** Everything up to the pixels; its bytes are the file's, or what it inflates to. */
  readonly data: DataSet
  readonly syntax: TransferSyntax
}

/**
 * Parses everything up to the pixel data.
 * @throws ImageError
 */
export function parseDicom(file: Uint8Array): ParsedDicom {
  try {
    return parse(Buffer.from(file.buffer, file.byteOffset, file.length))
  } catch (thrown) {
    if (thrown instanceof ImageError) throw thrown
    // the parser throws strings where something reaches beyond the file
    const problem = thrown instanceof RangeError ? 'its sequences are nested too deep' : firstLine(thrown)
    throw new ImageError(`expected a whole DICOM file, but it is truncated or damaged: ${problem}`)
  }
}

/** The parser's own class, which its types leave out. */
const ParserDataSet = (dicomParser as unknown as { DataSet: ParserDataSetClass }).DataSet
type ParserDataSetClass = new (parser: ByteArrayParser, bytes: Uint8Array, elements: DataSet['elements']) => DataSet

/** The library's own parseDicom reads on for as long as there are elements; this one gives up. */
function parse(file: Buffer): ParsedDicom {
  const meta = readMeta(file)
  const uid = meta.uid ?? guessSyntax(file, meta.end)
  const syntax = transferSyntaxes.get(uid)
  if (syntax === undefined) {
    throw new ImageError(
      `expected a transfer syntax that can be decoded, but it is ${printable(uid) || 'empty'}; convert it, as by: dcmconv or gdcmconv --raw`,
    )
  }
  const bytes = syntax.isDeflated ? inflate(file, meta.end) : file
  const parser = syntax.isBigEndian ? dicomParser.bigEndianByteArrayParser : dicomParser.littleEndianByteArrayParser
  const data = new ParserDataSet(parser, bytes, {})
  const stream = new dicomParser.ByteStream(patient(parser), bytes, meta.end)
  const read =
    uid === IMPLICIT_LITTLE_ENDIAN ? dicomParser.parseDicomDataSetImplicit : dicomParser.parseDicomDataSetExplicit
  read(data, stream, bytes.length, { untilTag: 'x7fe00010' })
  return { data, syntax }
}

/** A parser that loses its patience. */
function patient(parser: ByteArrayParser): ByteArrayParser {
  let left = MAX_ELEMENTS * NUMBERS_PER_ELEMENT
  const count = () => {
    left -= 1
    if (left < 0) {
      throw new ImageError(`expected at most ${MAX_ELEMENTS} elements before the pixels, but there are more`)
    }
  }
  return {
    ...parser,
    readUint16: (bytes, position) => {
      count()
      return parser.readUint16(bytes, position)
    },
    readUint32: (bytes, position) => {
      count()
      return parser.readUint32(bytes, position)
    },
  }
}

/** The meta information (group 2, always explicit and little-endian), with or without the preamble before it. */
function readMeta(file: Buffer): { uid: string | null; end: number } {
  const start = file.toString('latin1', 128, 132) === 'DICM' ? 132 : 0
  if (start >= file.length) throw new ImageError('expected a DICOM file, but there is nothing in it')
  const stream = new dicomParser.ByteStream(patient(dicomParser.littleEndianByteArrayParser), file, start)
  let uid: string | null = null
  while (stream.position + 8 <= file.length && file.readUInt16LE(stream.position) === 0x0002) {
    const element: Element = dicomParser.readDicomElementExplicit(stream)
    const value = () => file.toString('latin1', element.dataOffset, element.dataOffset + element.length)
    if (element.tag === 'x00020010') uid = value().replace(/[\0 ]+$/, '')
  }
  return { uid, end: stream.position }
}

/** Of a file that does not say it: by how its first element is written. */
function guessSyntax(file: Buffer, start: number): string {
  if (start + 8 > file.length) throw new ImageError('expected a DICOM file, but there is nothing in it')
  if (file[start] === 0) return EXPLICIT_BIG_ENDIAN
  return /^[A-Z]{2}$/.test(file.toString('latin1', start + 4, start + 6))
    ? EXPLICIT_LITTLE_ENDIAN
    : IMPLICIT_LITTLE_ENDIAN
}

/** The bytes up to `position` as they are, and the rest inflated. */
function inflate(bytes: Buffer, position: number): Buffer {
  try {
    const rest = inflateRawSync(bytes.subarray(position), { maxOutputLength: MAX_INFLATED_BYTES })
    return Buffer.concat([bytes.subarray(0, position), rest])
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new ImageError(
        `expected a file that inflates to ${MAX_INFLATED_BYTES >> 20} MiB at most, but it takes more`,
      )
    }
    throw new ImageError(`expected a deflated file that can be inflated, but it cannot: ${firstLine(thrown)}`)
  }
}
