/*
 * Images of one channel on their way from a file to a tensor. The stages, each a function from the one before:
 *
 *   pixels   the stored values, as the file has them             StoredImage
 *   uint8    8 bits, MONOCHROME1 inverted                         GrayImage
 *   padded   longest side to 256 by area, zeros around: a square  GrayImage
 *   cropped  Otsu's box of it                                     GrayImage
 *   input    224 x 224, normalised: a tensor                      (src/data/augment)
 *
 * Packed shards hold 'padded' and the box. Published: datasets/transforms.py, utils.py (github.com/XYPB/CLEFT).
 */

export interface GrayImage {
  readonly width: number
  readonly height: number
  /** Row by row; 8 bits, or 16 where that was asked for. */
  readonly pixels: Uint8Array | Uint16Array
}

/** What a file holds, before anything is done to it. */
export interface StoredImage {
  /** Values of 'dicom' are scaled to 8 bits by their largest one, also where they have 8 already; others are 8 or 16 bits. */
  readonly format: 'dicom' | 'png' | 'jpeg' | 'tiff' | 'webp'
  readonly width: number
  readonly height: number
  /** Row by row. */
  readonly pixels: Uint8Array | Uint16Array | Int8Array | Int16Array | Uint32Array | Int32Array
  /** Significant bits of a pixel. */
  readonly bits: number
  /** True for MONOCHROME1: the largest value is black. */
  readonly inverted: boolean
  /** The window that the file asks for, in values after the rescale; null where it has none. */
  readonly window: Window | null
  /** The table that the file asks for in place of a window; null where it has none. */
  readonly lookup: ValueLookup | null
  /** Stored value to modality value. */
  readonly rescale: { readonly slope: number; readonly intercept: number }
  /** What a person should know: 'frame 1 of 5 was used'. */
  readonly warnings: readonly string[]
}

/** Values from which to which are shown as black to white (DICOM PS3.3, C.11.2.1.2 and 3). */
export interface Window {
  readonly center: number
  readonly width: number
  readonly shape: 'linear' | 'linear-exact' | 'sigmoid'
}

/** What is shown for each value (DICOM PS3.3, C.11.2.1.1). */
export interface ValueLookup {
  /** The value that the first entry is for, after the rescale; what is below gets it too. */
  readonly first: number
  readonly entries: Uint16Array
  /** Of an entry: 8 to 16. */
  readonly bits: number
}

/** Inclusive on all sides, in pixels. */
export interface Box {
  readonly top: number
  readonly left: number
  readonly bottom: number
  readonly right: number
}

/** What packed shards keep of an image, and what training starts from. */
export interface PreparedImage {
  /** Square. */
  readonly padded: GrayImage
  /** Otsu's box in it. */
  readonly box: Box
  readonly warnings: readonly string[]
}
