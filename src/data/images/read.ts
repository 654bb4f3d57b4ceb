import { readFile, stat } from 'node:fs/promises'
import { readDicom } from '../dicom/read.js'
import { ImageError, MAX_FILE_BYTES, MAX_PIXELS } from './error.js'
import type { StoredImage } from './gray.js'
import { type RasterFormat, readRaster } from './raster.js'

export interface ReadOptions {
  /** Images with more are refused before they are decoded. Default: 67 million (2^26). */
  maxPixels?: number
}

/**
 * Reads an image: DICOM, PNG (8 and 16 bits), JPEG, TIFF or WebP, told apart by what they hold, not by their names. Colour
 * becomes gray; the values are as they are stored.
 *
 * @param source the path of a file, or its bytes
 * @throws ImageError with the path: missing, no image, damaged, too large
 */
export async function readImage(source: string | Uint8Array, options: ReadOptions = {}): Promise<StoredImage> {
  const { maxPixels = MAX_PIXELS } = options
  try {
    const bytes = typeof source === 'string' ? await readBytes(source) : source
    const format = formatOf(bytes)
    return format === 'dicom' ? await readDicom(bytes, maxPixels) : await readRaster(bytes, format, maxPixels)
  } catch (thrown) {
    if (!(thrown instanceof ImageError) || typeof source !== 'string') throw thrown
    throw new ImageError(`${source}: ${thrown.message}`, { cause: thrown })
  }
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    // looked at before it is opened: opening a named pipe waits for a writer
    const status = await stat(path)
    if (!status.isFile()) {
      throw new ImageError(`expected an image, but it is ${status.isDirectory() ? 'a folder' : 'no regular file'}`)
    }
    if (status.size > MAX_FILE_BYTES) {
      throw new ImageError(`expected a file of at most ${MAX_FILE_BYTES >> 20} MiB, but it has ${status.size} bytes`)
    }
    return await readFile(path)
  } catch (thrown) {
    if (thrown instanceof ImageError) throw thrown
    const missing = (thrown as NodeJS.ErrnoException).code === 'ENOENT'
    throw new ImageError(
      missing
        ? 'expected an image, but there is no such file'
        : `expected an image that can be read, but it cannot: ${(thrown as Error).message}`,
      { cause: thrown },
    )
  }
}

function formatOf(bytes: Uint8Array): RasterFormat | 'dicom' {
  if (bytes.length === 0) throw new ImageError('expected an image, but it is empty')
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 132)).toString('latin1')
  if (head.slice(128) === 'DICM') return 'dicom'
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png'
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg'
  if (['II*\0', 'II+\0', 'MM\0*', 'MM\0+'].includes(head.slice(0, 4))) return 'tiff'
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP') return 'webp'
  if (isDataSet(bytes)) return 'dicom'
  throw new ImageError('expected an image (DICOM, PNG, JPEG, TIFF or WebP), but it is none')
}

/** DICOM without preamble begins with an element of the meta information (group 2) or of the identification (group 8). */
function isDataSet(bytes: Uint8Array): boolean {
  if (bytes.length < 132) return false
  const [first, second, third, fourth] = bytes as unknown as [number, number, number, number]
  const [group, element] = first === 0 ? [second, 256 * third + fourth] : [first + 256 * second, third + 256 * fourth]
  return (group === 2 && element <= 0x10) || (group === 8 && element <= 0x60)
}
