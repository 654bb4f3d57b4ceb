import type { GrayImage, StoredImage } from './gray.js'

/**
 * How stored values of a DICOM file become gray. 'published': 255 / the largest value (datasets/utils.py, read_from_dicom);
 * 'dicom': the table or window that the file asks for, or its smallest to largest value where it asks for none.
 */
export type Windowing = 'published' | 'dicom'

export interface ScaleOptions {
  /** Default: 'published'. Images other than DICOM have no windows; it makes no difference to them. */
  windowing?: Windowing
  /** Of the result. Default: 8. */
  bits?: 8 | 16
}

type Samples = Uint8Array | Uint16Array

/** Stored values without sign, and what each of them becomes; no table where they stay as they are. */
export interface Indexed {
  readonly image: GrayImage
  readonly lookup: Samples | null
}

/** Adding and taking away 1.5 x 2^52 rounds half to even, as OpenCV does. */
const ROUND = 6755399441055744

/**
 * 8 bits a pixel, MONOCHROME1 inverted.
 *
 * DICOM (whatever its bits) and 16-bit images are scaled; 8-bit images stay as they are. (The published loader takes the
 * upper 8 bits of a 16-bit PNG: the same where it uses its range, near black where it holds 12 bits.)
 */
export function to8Bits(stored: StoredImage, options: { windowing?: Windowing } = {}): GrayImage {
  return toGray(stored, { ...options, bits: 8 })
}

/** As {@link to8Bits}, with 8 or 16 bits a pixel. */
export function toGray(stored: StoredImage, options: ScaleOptions = {}): GrayImage {
  const { image, lookup } = index(stored, options)
  if (lookup === null) return image
  const { width, height, pixels } = image
  const gray = lookup instanceof Uint8Array ? new Uint8Array(pixels.length) : new Uint16Array(pixels.length)
  for (let at = 0; at < gray.length; at += 1) gray[at] = lookup[pixels[at]!]!
  return { width, height, pixels: gray }
}

/** The table by which a stored image becomes gray, so that scaling can be one pass with something else. */
export function index(stored: StoredImage, { windowing = 'published', bits = 8 }: ScaleOptions = {}): Indexed {
  const { width, height, pixels } = stored
  if (pixels instanceof Uint32Array || pixels instanceof Int32Array) {
    return { image: { width, height, pixels: scaleLong(stored, windowing, bits) }, lookup: null }
  }
  const unsigned = withoutSign(pixels)
  const image = { width, height, pixels: unsigned }
  if (stored.format !== 'dicom' && pixels instanceof Uint8Array && !stored.inverted && bits === 8) {
    return { image, lookup: null }
  }
  // the smallest is asked for only where there is no window
  const [smallest, largest] =
    unsigned === pixels && windowing === 'published' ? [0, largestOf(unsigned)] : range(pixels)
  const convert = converter(stored, windowing, bits, smallest, largest)
  const length = unsigned instanceof Uint8Array ? 256 : 65536
  const lookup = bits === 8 ? new Uint8Array(length) : new Uint16Array(length)
  for (let value = smallest; value <= largest; value += 1) lookup[value & (length - 1)] = convert(value)
  return { image, lookup }
}

function withoutSign(pixels: Uint8Array | Uint16Array | Int8Array | Int16Array): Samples {
  const { buffer, byteOffset, length } = pixels
  if (pixels instanceof Int8Array) return new Uint8Array(buffer, byteOffset, length)
  return pixels instanceof Int16Array ? new Uint16Array(buffer, byteOffset, length) : pixels
}

/** Four at once: a chain of comparisons waits for each. */
function largestOf(pixels: Samples): number {
  let [first, second, third, fourth] = [0, 0, 0, 0]
  let at = 0
  for (; at + 4 <= pixels.length; at += 4) {
    if (pixels[at]! > first) first = pixels[at]!
    if (pixels[at + 1]! > second) second = pixels[at + 1]!
    if (pixels[at + 2]! > third) third = pixels[at + 2]!
    if (pixels[at + 3]! > fourth) fourth = pixels[at + 3]!
  }
  for (; at < pixels.length; at += 1) if (pixels[at]! > first) first = pixels[at]!
  return Math.max(first, second, third, fourth)
}

/** The smallest and the largest value. */
export function range(pixels: StoredImage['pixels']): [number, number] {
  let smallest = pixels[0] ?? 0
  let largest = smallest
  for (let at = 1; at < pixels.length; at += 1) {
    const value = pixels[at]!
    largest = value > largest ? value : largest
    smallest = value < smallest ? value : smallest
  }
  return [smallest, largest]
}

/** 32 bits: no table has a place for every value. */
function scaleLong(stored: StoredImage, windowing: Windowing, bits: 8 | 16): Samples {
  const { pixels } = stored
  const [smallest, largest] = range(pixels)
  const convert = converter(stored, windowing, bits, smallest, largest)
  const gray = bits === 8 ? new Uint8Array(pixels.length) : new Uint16Array(pixels.length)
  for (let at = 0; at < gray.length; at += 1) gray[at] = convert(pixels[at]!)
  return gray
}

/** What a stored value becomes: 0 to 255, or to 65535. */
function converter(
  stored: StoredImage,
  windowing: Windowing,
  bits: 8 | 16,
  smallest: number,
  largest: number,
): (value: number) => number {
  const white = bits === 8 ? 255 : 65535
  const shown =
    windowing === 'dicom' && stored.format === 'dicom'
      ? shownByFile(stored, smallest, largest)
      : scaledByLargest(stored, largest, white)
  return (value) => {
    const gray = Math.min(Math.max(shown(value) * white, 0), white) + ROUND - ROUND
    return stored.inverted ? white - gray : gray
  }
}

/** In parts of white. */
function scaledByLargest({ format, pixels }: StoredImage, largest: number, white: number): (value: number) => number {
  if (format !== 'dicom' && pixels instanceof Uint8Array) return (value) => value / 255
  if (largest === 0) return () => 0
  // as OpenCV's convertScaleAbs: the factor in single precision, and without sign
  const factor = Math.fround(white / largest)
  return (value) => Math.abs(Math.fround(factor * value)) / white
}

function shownByFile(stored: StoredImage, smallest: number, largest: number): (value: number) => number {
  const { slope, intercept } = stored.rescale
  const { lookup, window } = stored
  if (lookup !== null) {
    const { first, entries, bits } = lookup
    const white = 2 ** bits - 1
    return (value) => {
      const entry = Math.round(value * slope + intercept) - first
      return entries[Math.min(Math.max(entry, 0), entries.length - 1)]! / white
    }
  }
  if (window === null) {
    return largest === smallest ? () => 0 : (value) => (value - smallest) / (largest - smallest)
  }
  const { center, width, shape } = window
  if (shape === 'sigmoid') return (value) => 1 / (1 + Math.exp((-4 * (value * slope + intercept - center)) / width))
  if (shape === 'linear-exact') return (value) => (value * slope + intercept - center) / width + 0.5
  return (value) => {
    const distance = value * slope + intercept - (center - 0.5)
    // a width of 1 is a threshold
    return width > 1 ? distance / (width - 1) + 0.5 : distance > 0 ? 1 : 0
  }
}
