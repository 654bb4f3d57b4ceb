import type { Box, StoredImage } from './gray.js'
import { crop, otsuBox } from './otsu.js'
import { type ReadOptions, readImage } from './read.js'
import { range, type ScaleOptions, toGray } from './scale.js'
import { PADDED_SIZE, padToSquare } from './square.js'

/** The stages that are images of one channel; 'input', the last, is a tensor (src/data/augment). */
export const imageStages = ['pixels', 'uint8', 'padded', 'cropped'] as const
export type ImageStage = (typeof imageStages)[number]

export interface StageOptions extends ReadOptions, Pick<ScaleOptions, 'windowing'> {
  /** Side of the padded square. Default: 256. */
  size?: number
}

/** An image at one stage of the preprocessing, and what there is to say of it. */
export interface StagedImage {
  readonly stage: ImageStage
  readonly width: number
  readonly height: number
  /** (height, width), row by row. */
  readonly pixels: StoredImage['pixels']
  readonly dtype: 'uint8' | 'uint16' | 'int8' | 'int16' | 'uint32' | 'int32'
  readonly min: number
  readonly max: number
  /** Otsu's box in the padded square; null at the stages before it. */
  readonly box: Box | null
  readonly format: StoredImage['format']
  /** Significant bits of a stored pixel. */
  readonly bits: number
  /** MONOCHROME1. */
  readonly inverted: boolean
  readonly warnings: readonly string[]
}

/**
 * An image as it is at one stage: 'pixels' as they are stored, 'uint8', 'padded' to a square, 'cropped' to Otsu's box.
 * @throws ImageError as {@link readImage}
 */
export async function imageAtStage(
  source: string | Uint8Array,
  stage: ImageStage,
  options: StageOptions = {},
): Promise<StagedImage> {
  const stored = await readImage(source, options)
  const { format, bits, inverted, warnings } = stored
  const { box, ...image } = atStage(stored, stage, options)
  const [min, max] = range(image.pixels)
  const { width, height, pixels } = image
  return { stage, width, height, pixels, dtype: dtypeOf(pixels), min, max, box, format, bits, inverted, warnings }
}

function atStage(
  stored: StoredImage,
  stage: ImageStage,
  { windowing, size = PADDED_SIZE }: StageOptions,
): Pick<StagedImage, 'width' | 'height' | 'pixels' | 'box'> {
  if (stage === 'pixels') return { ...stored, box: null }
  const gray = toGray(stored, { windowing })
  if (stage === 'uint8') return { ...gray, box: null }
  const padded = padToSquare(gray, size)
  const box = otsuBox(padded)
  return { ...(stage === 'padded' ? padded : crop(padded, box)), box }
}

function dtypeOf(pixels: StoredImage['pixels']): StagedImage['dtype'] {
  const kind = pixels instanceof Uint8Array || pixels instanceof Uint16Array || pixels instanceof Uint32Array
  return `${kind ? 'uint' : 'int'}${(8 * pixels.BYTES_PER_ELEMENT) as 8 | 16 | 32}`
}
