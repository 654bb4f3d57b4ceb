/** What is wrong with one image file, in a sentence. */
export class ImageError extends Error {
  override name = 'ImageError'
}

/** Pixels of an image, or of one frame: 67 million (8,192 x 8,192), almost three times the largest mammograms. */
export const MAX_PIXELS = 1 << 26
/** Pixels of a side: what DICOM and JPEG can say. Decoders take their time, or memory, for rows. */
export const MAX_SIDE = 65535
/** Bytes of a file: it is read whole. */
export const MAX_FILE_BYTES = 512 << 20

/**
 * Before anything of that size is allocated or decoded.
 * @throws ImageError
 */
export function checkSize(width: number, height: number, maxPixels: number = MAX_PIXELS): void {
  if (!(width > 0 && height > 0)) {
    throw new ImageError(`expected an image with pixels, but it says to be ${width} x ${height}`)
  }
  if (width > MAX_SIDE || height > MAX_SIDE) {
    throw new ImageError(`expected at most ${MAX_SIDE} pixels on a side, but it says to be ${width} x ${height}`)
  }
  if (width * height > maxPixels) {
    throw new ImageError(
      `expected at most ${maxPixels.toLocaleString('en-US')} pixels, but it says to be ${width} x ${height}; make it smaller first`,
    )
  }
}

/** What libraries begin their messages with: their own names, and what is said here already. */
const PREFIXES =
  /^(Input (buffer|file) (has corrupt header|contains unsupported image format)|(dicomParser|(little|big)EndianByteArrayParser)[.:][\w.]+)(:| -)?\s*/

/** The first line of what a library threw, without prefixes. */
export function firstLine(thrown: unknown): string {
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return printable(message.trim().split('\n')[0]!.replace(PREFIXES, '').replace(/\.+$/, '')) || 'it is damaged'
}

/** Words out of a file, fit for a terminal: without control characters, and not long. */
export function printable(text: string): string {
  return text.replace(/[^ -~]/g, '?').slice(0, 120)
}
