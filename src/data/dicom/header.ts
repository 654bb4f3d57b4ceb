import type { DataSet, Element } from 'dicom-parser'
import { checkSize, firstLine, ImageError, printable } from '../images/error.js'
import type { StoredImage, ValueLookup, Window } from '../images/gray.js'
import { type ParsedDicom, parseDicom } from './parse.js'
import type { TransferSyntax } from './syntaxes.js'

/** What a file says of its pixels. Checked: sizes are above 0 and within the limits, and so are bits. */
export interface DicomHeader {
  readonly syntax: TransferSyntax
  readonly rows: number
  readonly columns: number
  readonly samplesPerPixel: 1 | 3
  readonly isPlanar: boolean
  readonly photometric: string
  readonly bitsAllocated: 8 | 16 | 32
  readonly bitsStored: number
  /** Bits below the stored ones, which are not the pixel's. */
  readonly shift: number
  readonly isSigned: boolean
  readonly frames: number
  readonly rescale: StoredImage['rescale']
  readonly window: Window | null
  readonly lookup: ValueLookup | null
  /** The bytes that pixelData lies in: the file's, or what it inflates to. */
  readonly bytes: Uint8Array
  readonly pixelData: Element
  /** From the extended offset table: bytes from one frame to the next; null where it has none. */
  readonly firstFrameLength: number | null
  readonly warnings: readonly string[]
}

/**
 * Reads everything up to the pixels.
 * @throws ImageError
 */
export function readHeader(file: Uint8Array, maxPixels: number): DicomHeader {
  const parsed = parseDicom(file)
  try {
    return headerOf(parsed, maxPixels)
  } catch (thrown) {
    if (thrown instanceof ImageError) throw thrown
    // the parser throws strings where an element reaches beyond the file
    throw new ImageError(`expected a whole DICOM file, but its header is damaged: ${firstLine(thrown)}`)
  }
}

function headerOf({ data, syntax }: ParsedDicom, maxPixels: number): DicomHeader {
  const pixelData = data.elements.x7fe00010
  if (pixelData === undefined) {
    const other = data.elements.x7fe00008 ?? data.elements.x7fe00009
    throw new ImageError(
      `expected a DICOM file with pixels of whole numbers, but it has ${other ? 'floating-point ones' : 'no pixel data'}`,
    )
  }
  const warnings: string[] = []
  const rows = required(data, 'x00280010', 'Rows')
  const columns = required(data, 'x00280011', 'Columns')
  checkSize(columns, rows, maxPixels)
  const samplesPerPixel = data.uint16('x00280002') ?? 1
  if (samplesPerPixel !== 1 && samplesPerPixel !== 3) {
    throw new ImageError(`expected 1 or 3 samples a pixel, but it has ${samplesPerPixel}`)
  }
  const bitsAllocated = required(data, 'x00280100', 'Bits Allocated')
  if (bitsAllocated !== 8 && bitsAllocated !== 16 && bitsAllocated !== 32) {
    throw new ImageError(`expected 8, 16 or 32 bits allocated to a pixel, but it has ${bitsAllocated}`)
  }
  const bitsStored = data.uint16('x00280101') ?? bitsAllocated
  const highBit = data.uint16('x00280102') ?? bitsStored - 1
  const shift = highBit + 1 - bitsStored
  if (bitsStored < 1 || bitsStored > bitsAllocated || shift < 0 || highBit >= bitsAllocated) {
    throw new ImageError(
      `expected stored bits within the ${bitsAllocated} allocated, but ${bitsStored} are stored and the highest is bit ${highBit}`,
    )
  }
  const isSigned = data.uint16('x00280103') === 1
  const frames = framesOf(data, warnings)
  return {
    syntax,
    rows,
    columns,
    samplesPerPixel,
    isPlanar: data.uint16('x00280006') === 1,
    photometric: photometricOf(data, samplesPerPixel, warnings),
    bitsAllocated,
    bitsStored,
    shift,
    isSigned,
    frames,
    rescale: rescaleOf(data, warnings),
    window: windowOf(data, warnings),
    lookup: lookupOf(data, isSigned, syntax.isBigEndian === true, warnings),
    bytes: data.byteArray,
    pixelData,
    firstFrameLength: extendedOffset(data),
    warnings,
  }
}

function required(data: DataSet, tag: string, name: string): number {
  const value = data.uint16(tag)
  if (value === undefined) throw new ImageError(`expected a DICOM image, but it does not say its ${name}`)
  return value
}

function framesOf(data: DataSet, warnings: string[]): number {
  const frames = data.intString('x00280008') ?? 1
  if (!(frames >= 1)) return 1
  if (frames > 1) warnings.push(`frame 1 of ${frames} was used`)
  return frames
}

function photometricOf(data: DataSet, samplesPerPixel: number, warnings: string[]): string {
  const found = data.string('x00280004')?.trim().toUpperCase()
  if (found) {
    const isGray = found === 'MONOCHROME1' || found === 'MONOCHROME2'
    if (isGray === (samplesPerPixel === 1) && (isGray || found === 'RGB' || found.startsWith('YBR_'))) return found
    throw new ImageError(
      `expected gray, RGB or YBR pixels, but it is ${printable(found)} with ${samplesPerPixel} samples a pixel; convert it to gray`,
    )
  }
  const assumed = samplesPerPixel === 1 ? 'MONOCHROME2' : 'RGB'
  warnings.push(`it has no Photometric Interpretation; ${assumed} was assumed`)
  return assumed
}

function rescaleOf(data: DataSet, warnings: string[]): StoredImage['rescale'] {
  if (data.elements.x00283000?.items?.length) warnings.push('its Modality LUT was not applied')
  const slope = data.floatString('x00281053') ?? 1
  const intercept = data.floatString('x00281052') ?? 0
  if (Number.isFinite(slope) && slope !== 0 && Number.isFinite(intercept)) return { slope, intercept }
  warnings.push('its Rescale Slope or Intercept is no usable number; 1 and 0 were used')
  return { slope: 1, intercept: 0 }
}

/** The first of several. */
function windowOf(data: DataSet, warnings: string[]): Window | null {
  const center = data.floatString('x00281050')
  const width = data.floatString('x00281051')
  if (center === undefined || width === undefined) return null
  const written = data.string('x00281056')?.trim().toUpperCase()
  const shape = written === 'SIGMOID' ? 'sigmoid' : written === 'LINEAR_EXACT' ? 'linear-exact' : 'linear'
  if (Number.isFinite(center) && (shape === 'linear' ? width >= 1 : width > 0) && Number.isFinite(width)) {
    return { center, width, shape }
  }
  warnings.push(`its window (center ${center}, width ${width}) cannot be used and was left out`)
  return null
}

function lookupOf(data: DataSet, isSigned: boolean, isBigEndian: boolean, warnings: string[]): ValueLookup | null {
  const item = data.elements.x00283010?.items?.[0]?.dataSet
  if (item === undefined) return null
  const count = item.uint16('x00283002', 0) || 65536
  const first = isSigned ? item.int16('x00283002', 1) : item.uint16('x00283002', 1)
  const bits = item.uint16('x00283002', 2)
  const values = item.elements.x00283006
  if (first !== undefined && bits !== undefined && bits >= 8 && bits <= 16 && values !== undefined) {
    const width = values.length >= 2 * count ? 2 : values.length >= count && bits === 8 ? 1 : 0
    const bytes = Buffer.from(item.byteArray.buffer, item.byteArray.byteOffset + values.dataOffset, width * count)
    if (width > 0) {
      const read = (entry: number) =>
        width === 1 ? bytes[entry]! : isBigEndian ? bytes.readUInt16BE(2 * entry) : bytes.readUInt16LE(2 * entry)
      return { first, bits, entries: Uint16Array.from({ length: count }, (_, entry) => read(entry)) }
    }
  }
  warnings.push('its VOI LUT is damaged and was left out')
  return null
}

/** Where the second frame begins (7FE0,0001), in bytes after the first item. */
function extendedOffset(data: DataSet): number | null {
  const element = data.elements.x7fe00001
  if (element === undefined || element.length < 16) return null
  const low = data.uint32('x7fe00001', 2) ?? 0
  const high = data.uint32('x7fe00001', 3) ?? 0
  return high * 2 ** 32 + low
}
