import { ImageError } from '../images/error.js'
import type { DicomHeader } from './header.js'

const ITEM = 0xe000fffe
const SEQUENCE_END = 0xe0ddfffe
const UNDEFINED_LENGTH = 0xffffffff

/**
 * The bytes of the first frame of encapsulated pixel data (DICOM PS3.5, A.4): its fragments, joined.
 * @throws ImageError where items are damaged or reach beyond the file
 */
export function firstFrame(header: DicomHeader): Uint8Array {
  const { bytes, pixelData, frames, syntax } = header
  if (pixelData.length !== UNDEFINED_LENGTH) {
    throw new ImageError(`expected encapsulated pixels, as ${syntax.name} has them, but they have a fixed length`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const [table, ...fragments] = readItems(view, pixelData.dataOffset)
  if (table === undefined || fragments.length === 0) {
    throw new ImageError('expected encapsulated pixels, but there is no fragment of them')
  }
  const count = frames === 1 ? fragments.length : fragmentsOfFirst(header, view, table, fragments)
  const parts = fragments.slice(0, count).map(({ start, length }) => bytes.subarray(start, start + length))
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
}

interface Item {
  readonly start: number
  readonly length: number
}

function readItems(view: DataView, start: number): Item[] {
  const items: Item[] = []
  let at = start
  // the last item of a file that lacks the delimiter ends with it
  while (at < view.byteLength) {
    if (at + 8 > view.byteLength) throw new ImageError('expected whole fragments of pixels, but the file is truncated')
    const tag = view.getUint32(at, true)
    const length = view.getUint32(at + 4, true)
    if (tag === SEQUENCE_END) break
    if (tag !== ITEM) throw new ImageError('expected fragments of pixels, but something else is between them')
    if (at + 8 + length > view.byteLength) {
      throw new ImageError(
        `expected a fragment of ${length} bytes, but the file ends ${at + 8 + length - view.byteLength} bytes before`,
      )
    }
    items.push({ start: at + 8, length })
    at += 8 + length
  }
  return items
}

/** How many fragments the first of several frames has. */
function fragmentsOfFirst(header: DicomHeader, view: DataView, table: Item, fragments: readonly Item[]): number {
  const { bytes, frames, firstFrameLength, syntax } = header
  if (fragments.length === frames || syntax.encoding === 'rle') return 1
  const second = firstFrameLength ?? (table.length >= 8 ? view.getUint32(table.start + 4, true) : null)
  const origin = table.start + table.length
  const isSecond = ({ start, length }: Item) =>
    second === null
      ? // each frame of JPEG and JPEG 2000 begins with a marker of its own
        length > 1 && bytes[start] === 0xff && (bytes[start + 1] === 0xd8 || bytes[start + 1] === 0x4f)
      : start - 8 >= origin + second
  const next = fragments.findIndex((fragment, index) => index > 0 && isSecond(fragment))
  return next < 0 ? fragments.length : next
}
