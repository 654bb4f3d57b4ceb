import { ImageError } from '../images/error.js'
import type { StoredImage } from '../images/gray.js'
import { grayOf } from '../images/raster.js'
import { type DicomHeader, readHeader } from './header.js'
import { readSamples, type Samples } from './samples.js'

type Pixels = StoredImage['pixels']

/**
 * Reads the first frame of a DICOM file: uncompressed (little and big-endian, deflated), RLE, JPEG baseline, extended and
 * lossless, JPEG-LS, JPEG 2000 and HTJ2K; 8, 16 and (uncompressed and RLE) 32 bits allocated. Values are as stored, without
 * the bits that are not the pixel's. RGB becomes gray by BT.601's luma, YBR by its Y.
 *
 * @param maxPixels of a frame
 * @throws ImageError
 */
export async function readDicom(file: Uint8Array, maxPixels: number): Promise<StoredImage> {
  const header = readHeader(file, maxPixels)
  const isColour = header.samplesPerPixel === 3
  if (isColour && (header.isSigned || header.bitsAllocated === 32)) {
    throw new ImageError('expected colour of 8 or 16 bits without sign, but it has more bits or a sign')
  }
  const samples = await readSamples(header)
  const stored = onlyStoredBits(samples.pixels, header)
  return {
    format: 'dicom',
    width: header.columns,
    height: header.rows,
    pixels: isColour ? grayPixels(stored as Uint8Array | Uint16Array, header, samples) : stored,
    bits: header.bitsStored,
    inverted: header.photometric === 'MONOCHROME1',
    window: header.window,
    lookup: header.lookup,
    rescale: header.rescale,
    warnings: isColour ? [...header.warnings, 'its colour became gray'] : header.warnings,
  }
}

/** Moves, masks and extends the sign where that changes anything; the samples themselves are left as they are. */
function onlyStoredBits(pixels: Pixels, { bitsAllocated, bitsStored, shift, isSigned }: DicomHeader): Pixels {
  if (bitsStored === bitsAllocated || (shift === 0 && areWithin(pixels, bitsStored, isSigned))) return pixels
  const masked = pixels.slice()
  const above = 32 - bitsStored
  for (let at = 0; at < masked.length; at += 1) {
    const raised = (masked[at]! >> shift) << above
    masked[at] = isSigned ? raised >> above : raised >>> above
  }
  return masked
}

function areWithin(pixels: Pixels, bits: number, isSigned: boolean): boolean {
  // a value fits where all bits from its sign on are equal: no branch for each
  const above = isSigned ? bits - 1 : bits
  let outside = 0
  if (isSigned) for (let at = 0; at < pixels.length; at += 1) outside |= (pixels[at]! >> above) ^ (pixels[at]! >> 31)
  else for (let at = 0; at < pixels.length; at += 1) outside |= pixels[at]! >>> above
  return outside === 0
}

function grayPixels(
  pixels: Uint8Array | Uint16Array,
  { rows, columns, photometric }: DicomHeader,
  { isPlanar }: Samples,
): Uint8Array | Uint16Array {
  const count = rows * columns
  // JPEG 2000 decoders give RGB for its own two transforms (PS3.3, C.7.6.3.1.2)
  const isLumaFirst = photometric.startsWith('YBR') && photometric !== 'YBR_RCT' && photometric !== 'YBR_ICT'
  if (isLumaFirst) return isPlanar ? pixels.subarray(0, count) : pixels.filter((_, at) => at % 3 === 0)
  return grayOf(isPlanar ? interleaved(pixels, count) : pixels, count, 3)
}

function interleaved<Planes extends Uint8Array | Uint16Array>(planes: Planes, count: number): Planes {
  const pixels = planes.slice() as Planes
  for (let plane = 0; plane < 3; plane += 1) {
    for (let at = 0; at < count; at += 1) pixels[3 * at + plane] = planes[plane * count + at]!
  }
  return pixels
}
