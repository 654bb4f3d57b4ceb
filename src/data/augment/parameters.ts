import { Random } from '../random.js'

/*
 * The published training augmentation (Moco2Transform in datasets/transforms.py, github.com/XYPB/CLEFT), as numbers: what
 * torchvision's transforms would draw for one image. Applied in this order: crop, jitter, blur, affine, flip.
 */

/** What is done to one image. */
export interface Augmentation {
  /** Where the crop begins, each as a fraction from 0 to 1 of the room that there is; used where `resize` is 'crop'. */
  readonly crop: { readonly top: number; readonly left: number }
  /** ColorJitter: the two factors, and which comes first; null where it is left out. */
  readonly jitter: { readonly brightness: number; readonly contrast: number; readonly contrastFirst: boolean } | null
  /** GaussianBlur: its deviation in pixels; null where it is left out. */
  readonly sigma: number | null
  /** RandomAffine. Angle in degrees, clockwise; shifts as fractions of the side, before they are rounded to pixels. */
  readonly affine: {
    readonly angle: number
    readonly scale: number
    readonly shift: { readonly x: number; readonly y: number }
  }
  /** Whether left and right change places, last. */
  readonly flip: boolean
}

const JITTER = { probability: 0.4, brightness: 0.2, contrast: 0.2 }
const BLUR = { probability: 0.4, smallest: 0.1, largest: 2 }
const AFFINE = { degrees: 10, smallest: 0.8, largest: 1.1, shift: 0.0625 }
const FLIP = 0.5

export interface DrawOptions {
  readonly seed: number
  readonly epoch: number
  /** Whether images may be flipped. Default: true. */
  readonly flip?: boolean
}

/**
 * The augmentation of one image in one epoch. It depends on seed, epoch and index alone: not on the batch that the image is
 * in, nor on who asks.
 *
 * @param index which image: its place in the data set
 */
export function drawAugmentation(index: number, { seed, epoch, flip = true }: DrawOptions): Augmentation {
  const random = new Random(seed, 'augment', epoch, index)
  // everything is drawn, used or not: another setting must not change the rest
  const crop = { top: random.uniform(), left: random.uniform() }
  const jitters = random.chance(JITTER.probability)
  const jitter = {
    brightness: random.uniform(1 - JITTER.brightness, 1 + JITTER.brightness),
    contrast: random.uniform(1 - JITTER.contrast, 1 + JITTER.contrast),
    contrastFirst: random.chance(0.5),
  }
  const blurs = random.chance(BLUR.probability)
  const sigma = random.uniform(BLUR.smallest, BLUR.largest)
  const affine = {
    angle: random.uniform(-AFFINE.degrees, AFFINE.degrees),
    shift: { x: random.uniform(-AFFINE.shift, AFFINE.shift), y: random.uniform(-AFFINE.shift, AFFINE.shift) },
    scale: random.uniform(AFFINE.smallest, AFFINE.largest),
  }
  const flips = random.chance(FLIP)
  return { crop, jitter: jitters ? jitter : null, sigma: blurs ? sigma : null, affine, flip: flip && flips }
}
