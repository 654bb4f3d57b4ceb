import type { Box } from '../images/gray.js'
import type { Augmentation } from './parameters.js'

/*
 * The geometry of the last stage.
 */

/**
 * What of an image is stretched to the square: Otsu's box ('published': what the published data module does), the same to
 * 8/7 of it and cropped ('crop'), or the padded image as it is ('whole').
 */
export const RESIZES = ['published', 'crop', 'whole'] as const
export type Resize = (typeof RESIZES)[number]

/** 'crop' stretches to 256 for 224. */
const CROP_MARGIN = 8 / 7
/** PIL's nearest neighbour has coordinates of 16.16 bits. */
const FIXED_POINT = 65536

/** Otsu's boxes, and what is done to each image. */
export interface Places {
  readonly boxes: readonly Box[]
  readonly augmentations: readonly Augmentation[] | null
}

/** The side that a box is stretched to. */
export const stretchedSide = (size: number, resize: Resize) =>
  resize === 'crop' ? Math.round(size * CROP_MARGIN) : size

/** Python's: halves to even. */
const roundEven = (value: number) => (Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value))

/** Where a crop begins, in pixels, as in torchvision: any of room + 1 places; in the middle without a fraction. */
export const cropStart = (fraction: number | undefined, room: number) =>
  fraction === undefined ? roundEven(room / 2) : Math.min(room, Math.floor(fraction * (room + 1)))

/** What leaves every pixel where it is, as {@link inverseOf}. */
export const UNMOVED = [FIXED_POINT / 2, FIXED_POINT, 0, FIXED_POINT / 2, 0, FIXED_POINT] as const

/**
 * Where in the image a pixel of the result comes from: column = [0] + [1] x + [2] y, row = [3] + [4] x + [5] y, in 1/65536
 * of a pixel. torchvision's inverse affine matrix about the middle, and PIL's fixed point (Geometry.c, affine_fixed).
 */
export function inverseOf({ affine: { angle, scale, shift }, flip }: Augmentation, size: number): readonly number[] {
  const radians = (angle * Math.PI) / 180
  const cosine = Math.cos(radians) / scale
  const sine = Math.sin(radians) / scale
  const middle = size / 2
  const x = -middle - roundEven(shift.x * size)
  const y = -middle - roundEven(shift.y * size)
  const fixed = (value: number) => Math.floor(value * FIXED_POINT + 0.5)
  const matrix = [
    fixed(cosine * x + sine * y + middle + 0.5 * (cosine + sine)),
    fixed(cosine),
    fixed(sine),
    fixed(-sine * x + cosine * y + middle + 0.5 * (cosine - sine)),
    fixed(-sine),
    fixed(cosine),
  ] as const
  if (!flip) return matrix
  const [column, columnX, columnY, row, rowX, rowY] = matrix
  // the result's column x is the affine image's column size - 1 - x
  return [column + (size - 1) * columnX, -columnX, columnY, row + (size - 1) * rowX, -rowX, rowY]
}
