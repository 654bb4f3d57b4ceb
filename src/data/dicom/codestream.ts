import { ImageError } from '../images/error.js'
import { readJpegHeader } from '../images/jpeg-header.js'
import type { DicomHeader } from './header.js'

/** What an encoded frame says of itself. */
export interface FrameHeader {
  readonly width: number
  readonly height: number
  readonly components: number
  /** Bits of a sample. */
  readonly precision: number
  /** Its marker, where it is JPEG or JPEG-LS. */
  readonly frame?: number
}

/** Tiles of a JPEG 2000 image: more are an attack, not an image. */
const MAX_TILES = 65535

/**
 * The SIZ segment of a JPEG 2000 codestream (ITU-T T.800, A.5.1), also inside the boxes of a JP2 file.
 * @throws ImageError
 */
export function readJpeg2000Header(bytes: Uint8Array): FrameHeader {
  const frame = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const start = frame.subarray(0, 65536).indexOf(Buffer.of(0xff, 0x4f, 0xff, 0x51))
  if (start < 0 || start + 45 > frame.length) {
    throw new ImageError('expected a JPEG 2000 codestream, but it has no header')
  }
  const size = (index: number) => frame.readUInt32BE(start + 8 + 4 * index)
  const [width, height] = [size(0) - size(2), size(1) - size(3)]
  const tiles = Math.ceil(width / size(4)) * Math.ceil(height / size(5))
  if (!(width > 0 && height > 0 && tiles <= MAX_TILES)) {
    throw new ImageError('expected a JPEG 2000 codestream, but its header is damaged')
  }
  const components = frame.readUInt16BE(start + 40)
  return { width, height, components, precision: (frame[start + 42]! & 0x7f) + 1 }
}

/**
 * A frame must be what the file says, or a codec would take memory for, and return, something else.
 * @throws ImageError where it is not
 */
export function checkFrame(header: DicomHeader, frame: Uint8Array): FrameHeader {
  const { encoding, name } = header.syntax
  const isJpeg2000 = encoding === 'jpeg-2000' || encoding === 'htj2k'
  if (!isJpeg2000 && !(frame[0] === 0xff && frame[1] === 0xd8)) {
    throw new ImageError(`expected a frame of ${name}, but it does not begin like one`)
  }
  const found = isJpeg2000 ? readJpeg2000Header(frame) : readJpegHeader(frame)
  const { rows, columns, samplesPerPixel, bitsAllocated } = header
  if (found.width !== columns || found.height !== rows || found.components !== samplesPerPixel) {
    throw new ImageError(
      `expected a frame of ${columns} x ${rows} x ${samplesPerPixel}, as the header says, but it has ${found.width} x ${found.height} x ${found.components}`,
    )
  }
  if (!(found.precision >= 1 && found.precision <= bitsAllocated && bitsAllocated <= 16)) {
    throw new ImageError(
      `expected samples within the ${bitsAllocated} bits that the header says (16 at most), but they have ${found.precision}`,
    )
  }
  return found
}
