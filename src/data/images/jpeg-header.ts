import { ImageError } from './error.js'

/** What a JPEG (also lossless, also JPEG-LS) says of itself before its first scan. */
export interface JpegHeader {
  readonly width: number
  readonly height: number
  readonly components: number
  /** Bits of a sample. */
  readonly precision: number
  /** The marker of its frame, 0xc0 (baseline) to 0xcf, or 0xf7 (JPEG-LS). */
  readonly frame: number
  /** As EXIF has it, 1 to 8; 1 (upright) where it says nothing. */
  readonly orientation: number
}

/** Markers of frames (ITU-T T.81, table B.1; T.87 for 0xf7): all but DHT (c4), JPG (c8) and DAC (cc). */
function isFrame(marker: number): boolean {
  return (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) || marker === 0xf7
}

/**
 * Reads markers only: some microseconds.
 * @throws ImageError where there is no frame before the first scan or the end
 */
export function readJpegHeader(bytes: Uint8Array): JpegHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let orientation = 1
  let at = 2
  while (at + 4 <= bytes.length) {
    if (bytes[at] !== 0xff) throw new ImageError('expected a JPEG, but its markers are damaged')
    const marker = bytes[at + 1]!
    if (marker === 0xff) {
      // any marker may be preceded by fill bytes
      at += 1
      continue
    }
    const length = view.getUint16(at + 2)
    const end = at + 2 + length
    if (isFrame(marker)) {
      if (length < 8 || end > bytes.length) break
      return {
        precision: bytes[at + 4]!,
        height: view.getUint16(at + 5),
        width: view.getUint16(at + 7),
        components: bytes[at + 9]!,
        frame: marker,
        orientation,
      }
    }
    // a scan, or the end of the image, before any frame
    if (marker === 0xda || marker === 0xd9 || length < 2) break
    if (marker === 0xe1 && end <= bytes.length)
      orientation = exifOrientation(bytes.subarray(at + 4, end)) ?? orientation
    at = end
  }
  throw new ImageError('expected a JPEG with a frame header, but it ends or is damaged before it')
}

/** Tag 0x0112 of the first directory (EXIF 2.3, 4.6). */
function exifOrientation(segment: Uint8Array): number | null {
  if (segment.length < 20 || Buffer.from(segment.subarray(0, 6)).toString('latin1') !== 'Exif\0\0') return null
  const tiff = new DataView(segment.buffer, segment.byteOffset + 6, segment.length - 6)
  const little = tiff.getUint16(0) === 0x4949
  const directory = tiff.getUint32(4, little)
  if (directory + 2 > tiff.byteLength) return null
  const count = tiff.getUint16(directory, little)
  for (let entry = directory + 2; entry + 12 <= tiff.byteLength && entry < directory + 2 + 12 * count; entry += 12) {
    if (tiff.getUint16(entry, little) !== 0x0112) continue
    const value = tiff.getUint16(entry + 8, little)
    return value >= 1 && value <= 8 ? value : null
  }
  return null
}
