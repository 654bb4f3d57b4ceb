/** What is wrong with one image file, in a sentence. */
export class ImageError extends Error {
  override name = 'ImageError'
}

/** Pixels of an image, or of one frame: 100 million (10,000 x 10,000), four times the largest mammograms. */
export const MAX_PIXELS = 100_000_000
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
  if (width * height > maxPixels) {
    throw new ImageError(
      `expected at most ${maxPixels.toLocaleString('en-US')} pixels, but it says to be ${width} x ${height}; make it smaller first`,
    )
  }
}

/** The first line of what a library threw, without its prefixes. */
export function firstLine(thrown: unknown): string {
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  return (
    message
      .trim()
      .split('\n')[0]!
      .replace(
        /^(Input (buffer|file) (has corrupt header|contains unsupported image format)|dicomParser\.\w+):?\s*/,
        '',
      )
      .replace(/\.+$/, '') || 'it is damaged'
  )
}
