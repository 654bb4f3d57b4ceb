import sharp from 'sharp'
import { checkSize, firstLine, ImageError } from './error.js'
import type { StoredImage } from './gray.js'
import { readJpegHeader } from './jpeg-header.js'

export type RasterFormat = 'png' | 'jpeg' | 'tiff' | 'webp'

/** What sharp is to make of a file: raw samples, as they are stored. */
interface Layout {
  readonly width: number
  readonly height: number
  readonly isGray: boolean
  readonly bits: 8 | 16
  readonly orientation: number
  readonly warnings: readonly string[]
}

/**
 * PNG, JPEG, TIFF and WebP by sharp. Colour becomes gray by ITU-R BT.601's luma, as OpenCV's imread does; opacity is left
 * out; EXIF's orientation is applied; colour profiles are not.
 *
 * @throws ImageError for files that are truncated or damaged, have more pixels than allowed, or samples that are neither
 * 8 nor 16 bits
 */
export async function readRaster(bytes: Uint8Array, format: RasterFormat, maxPixels: number): Promise<StoredImage> {
  const { width, height, isGray, bits, orientation, warnings } = await layoutOf(bytes, format)
  checkSize(width, height, maxPixels)
  const input = sharp(bytes, { limitInputPixels: maxPixels, failOn: 'warning', ignoreIcc: true, sequentialRead: true })
  if (orientation > 1) input.autoOrient()
  const space = bits === 16 ? (isGray ? 'grey16' : 'rgb16') : isGray ? 'b-w' : 'srgb'
  try {
    const { data, info } = await input
      .toColourspace(space)
      .raw({ depth: bits === 16 ? 'ushort' : 'uchar' })
      .toBuffer({ resolveWithObject: true })
    const samples = bits === 16 ? shorts(data) : new Uint8Array(data.buffer, data.byteOffset, data.length)
    return {
      format,
      width: info.width,
      height: info.height,
      pixels: grayOf(samples, info.width * info.height, info.channels),
      bits,
      inverted: false,
      window: null,
      lookup: null,
      rescale: { slope: 1, intercept: 0 },
      warnings,
    }
  } catch (thrown) {
    throw new ImageError(`expected a whole ${format.toUpperCase()}, but it cannot be decoded: ${firstLine(thrown)}`, {
      cause: thrown,
    })
  }
}

async function layoutOf(bytes: Uint8Array, format: RasterFormat): Promise<Layout> {
  if (format === 'jpeg') {
    const { width, height, components, precision, orientation } = readJpegHeader(bytes)
    if (precision !== 8) throw new ImageError(`expected a JPEG of 8 bits, but it has ${precision}; convert it to PNG`)
    if (components !== 1 && components !== 3) {
      throw new ImageError(`expected a JPEG in gray or of three colours, but it has ${components}; convert it to PNG`)
    }
    return { width, height, isGray: components === 1, bits: 8, orientation, warnings: [] }
  }
  const metadata = await sharp(bytes, { ignoreIcc: true })
    .metadata()
    .catch((thrown: unknown) => {
      throw new ImageError(
        `expected a whole ${format.toUpperCase()}, but its header cannot be read: ${firstLine(thrown)}`,
      )
    })
  const { width, height, channels, depth, orientation = 1, pages = 1 } = metadata
  if (depth !== undefined && depth !== 'uchar' && depth !== 'ushort') {
    throw new ImageError(`expected samples of 8 or 16 bits without sign, but they are ${depth}; convert the file`)
  }
  return {
    width,
    height,
    isGray: channels <= 2,
    bits: depth === 'ushort' ? 16 : 8,
    orientation,
    warnings: pages > 1 ? [`page 1 of ${pages} was used`] : [],
  }
}

/** The bytes as 16-bit samples, copied only where they do not lie on an even address. */
function shorts(bytes: Uint8Array): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes)
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.length >> 1)
}

/** The first of one or two channels, else the luma of the first three. */
export function grayOf<Samples extends Uint8Array | Uint16Array>(
  samples: Samples,
  count: number,
  channels: number,
): Samples {
  if (channels === 1) return samples
  const gray = (samples instanceof Uint16Array ? new Uint16Array(count) : new Uint8Array(count)) as Samples
  if (channels === 2) {
    for (let pixel = 0; pixel < count; pixel += 1) gray[pixel] = samples[2 * pixel]!
    return gray
  }
  // 0.299, 0.587 and 0.114 in 1/16384; 16-bit samples need all 32 bits
  for (let pixel = 0, at = 0; pixel < count; pixel += 1, at += channels) {
    gray[pixel] = (samples[at]! * 4899 + samples[at + 1]! * 9617 + samples[at + 2]! * 1868 + 8192) >>> 14
  }
  return gray
}
