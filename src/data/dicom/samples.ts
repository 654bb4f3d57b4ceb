import { ImageError } from '../images/error.js'
import type { StoredImage } from '../images/gray.js'
import { readRaster } from '../images/raster.js'
import { type CodecName, decodeFrame } from './codecs.js'
import { checkFrame } from './codestream.js'
import { firstFrame } from './fragments.js'
import type { DicomHeader } from './header.js'
import { decodeRle } from './rle.js'

/** Of one frame, little-endian, as they were stored: nothing is masked yet. */
export interface Samples {
  /** Of the bits allocated. */
  readonly pixels: StoredImage['pixels']
  /** Planes after one another, not interleaved. */
  readonly isPlanar: boolean
}

const codecs: Readonly<Record<'jpeg' | 'jpeg-ls' | 'jpeg-2000' | 'htj2k', CodecName>> = {
  jpeg: 'DecodeJpeg',
  'jpeg-ls': 'DecodeJpegLs',
  'jpeg-2000': 'DecodeJpeg2000',
  htj2k: 'DecodeHtJpeg2000',
}

/** @throws ImageError where the pixels are fewer than the header says, or cannot be decoded */
export async function readSamples(header: DicomHeader): Promise<Samples> {
  const { rows, columns, samplesPerPixel, bitsAllocated, syntax } = header
  if (syntax.encoding === 'native') return { pixels: nativePixels(header), isPlanar: header.isPlanar }
  const frame = firstFrame(header)
  if (syntax.encoding === 'rle') {
    const bytes = decodeRle(frame, rows * columns, samplesPerPixel, bitsAllocated / 8)
    return { pixels: typed(bytes, header, bitsAllocated), isPlanar: true }
  }
  const found = checkFrame(header, frame)
  // the discrete cosine transform in 8 bits, gray: sharp is faster
  if (syntax.encoding === 'jpeg' && found.precision === 8 && found.components === 1 && found.frame! <= 0xc2) {
    const { pixels } = await readRaster(frame, 'jpeg', rows * columns)
    return { pixels: widened(typed(pixels as Uint8Array, header, 8), bitsAllocated), isPlanar: false }
  }
  const decoded = decodeFrame(codecs[syntax.encoding], frame, { ...header, bitsStored: found.precision })
  const expected = (rows * columns * samplesPerPixel * decoded.bitsAllocated) / 8
  if (decoded.bytes.length < expected) {
    throw new ImageError(`expected ${expected} bytes in the decoded frame, but it has ${decoded.bytes.length}`)
  }
  const pixels = typed(decoded.bytes.subarray(0, expected), header, decoded.bitsAllocated)
  return { pixels: widened(pixels, bitsAllocated), isPlanar: decoded.isPlanar }
}

/** The first frame of pixels that are not encapsulated: the file's own bytes where they can be used as they are. */
function nativePixels(header: DicomHeader): StoredImage['pixels'] {
  const { rows, columns, samplesPerPixel, bitsAllocated, bytes, pixelData, syntax } = header
  const { dataOffset, length } = pixelData
  if (header.photometric.endsWith('_422') || header.photometric.endsWith('_420')) {
    throw new ImageError(`expected a colour for each pixel, but it is ${header.photometric}; convert it to gray`)
  }
  const needed = (rows * columns * samplesPerPixel * bitsAllocated) / 8
  const present = Math.min(length, bytes.length - dataOffset)
  if (length === 0xffffffff || length > bytes.length - dataOffset || needed > length) {
    throw new ImageError(
      `expected ${needed} bytes of pixels, but ${present} are there and the file says ${length}; it is truncated or damaged`,
    )
  }
  if (syntax.isBigEndian && (bitsAllocated > 8 || pixelData.vr === 'OW')) {
    // 8-bit samples too lie in swapped pairs there
    const swapped = Buffer.from(
      bytes.subarray(dataOffset, dataOffset + needed + (bitsAllocated === 8 ? needed % 2 : 0)),
    )
    return typed(
      (bitsAllocated === 32 ? swapped.swap32() : swapped.swap16()).subarray(0, needed),
      header,
      bitsAllocated,
    )
  }
  return typed(bytes.subarray(dataOffset, dataOffset + needed), header, bitsAllocated)
}

function typed(unaligned: Uint8Array, { isSigned }: DicomHeader, bits: number): StoredImage['pixels'] {
  const width = bits / 8
  // not slice(): a Buffer's gives the same memory
  const bytes = unaligned.byteOffset % width === 0 ? unaligned : new Uint8Array(unaligned)
  const { buffer, byteOffset } = bytes
  const length = Math.floor(bytes.length / width)
  if (bits === 8)
    return isSigned ? new Int8Array(buffer, byteOffset, length) : new Uint8Array(buffer, byteOffset, length)
  if (bits === 16) {
    return isSigned ? new Int16Array(buffer, byteOffset, length) : new Uint16Array(buffer, byteOffset, length)
  }
  return isSigned ? new Int32Array(buffer, byteOffset, length) : new Uint32Array(buffer, byteOffset, length)
}

/** 8-bit codecs give bytes also where 16 bits are allocated. */
function widened(pixels: StoredImage['pixels'], bitsAllocated: number): StoredImage['pixels'] {
  if (bitsAllocated === 8 * pixels.BYTES_PER_ELEMENT) return pixels
  return pixels instanceof Int8Array ? Int16Array.from(pixels) : Uint16Array.from(pixels)
}
