import { callOperator, cat, type Device, fromTypedArray, nn, noGrad, scope, type Tensor } from '../../torch/index.js'
import type { Box } from '../images/gray.js'
import { cropStart, inverseOf, type Places, type Resize, stretchedSide, UNMOVED } from './geometry.js'
import { inputByOperators } from './operators.js'
import type { Augmentation } from './parameters.js'

export { RESIZES, type Resize } from './geometry.js'

export interface InputOptions {
  /** Default: 'published'. */
  readonly resize?: Resize
  /** Side of the result in pixels. Default: 224. */
  readonly size?: number
  /**
   * Images are made at so many times the side, and averaged down. The published augmentation blurs by pixels and looks up
   * nearest ones, which is coarse on small images: there 2 is better. Default: 1.
   */
  readonly oversample?: number
  /** 3 repeats the gray channel, without memory of its own. Default: 1. */
  readonly channels?: 1 | 3
  /** What is done to each image. Default: nothing, and a crop is the centre's. */
  readonly augmentations?: readonly Augmentation[]
  /**
   * [B, 2]: of each image, the number of its tensor and its number there. Default: all of them, one after the other.
   */
  readonly order?: Int32Array
  /** Where it is computed and stays. Default: where the images are. */
  readonly device?: Device
}

/** The blur looks this far around, and one pixel is not reflected. */
const SMALLEST = 4
const LARGEST = 16384

/**
 * The last stage of the preprocessing: prepared images to what an image encoder takes, in whole batches.
 *
 * As published (datasets/transforms.py, Moco2Transform, github.com/XYPB/CLEFT), in that order: Otsu's box stretched
 * (bilinear, antialiased), colour jitter, Gaussian blur, affine (nearest neighbour, black around), flip, mean 0.5 and
 * deviation 0.5. 8-bit images are rounded to gray levels where PIL and torchvision round. Merged, to the same pixels: the
 * crop is taken out of the stretch (rows that are cut off are not computed), and affine and flip are one lookup. 8-bit images
 * on a CPU take the operator cleft::input_stage, which does all of it image by image, the images over libtorch's threads;
 * others take tensor operations.
 *
 * @param padded [B, 1, S, S], uint8; or uint16, whose 65535 is white and which is not rounded in between; or several such,
 *   one after the other
 * @param boxes Otsu's box of each
 * @returns [B, channels, size, size], float32 from -1 to 1; it belongs to the caller
 * @throws RangeError for a box outside of its image, or numbers of images or dtypes that differ
 */
export function inputOf(padded: Tensor | readonly Tensor[], boxes: readonly Box[], options: InputOptions = {}): Tensor {
  const {
    resize = 'published',
    size: made = 224,
    oversample = 1,
    channels = 1,
    augmentations = null,
    order = null,
  } = options
  const images = Array.isArray(padded) ? (padded as readonly Tensor[]) : [padded as Tensor]
  if (!(Number.isInteger(oversample) && oversample >= 1)) {
    throw new RangeError(
      `inputOf: expected a whole number of times that images are made larger and averaged, but received oversample ${oversample}`,
    )
  }
  const size = made * oversample
  check(images, boxes, size, augmentations, order)
  const side = images[0]!.size(-1)
  const whole = { top: 0, left: 0, bottom: side - 1, right: side - 1 }
  const places = { boxes: resize === 'whole' ? boxes.map(() => whole) : boxes, augmentations }
  return noGrad(() =>
    scope(() => {
      const device = (options.device ?? images[0]!.device) as Device
      const there = images.map((some) => (some.device === device ? some : some.to(device, { nonBlocking: true })))
      const fused = device.startsWith('cpu') && images[0]!.dtype === 'uint8'
      const result = fused
        ? inputInOne(there, places, size, resize, order)
        : inputByOperators(inOrder(there, order), places, size, resize)
      const averaged = oversample === 1 ? result : nn.functional.avgPool2d(result, oversample)
      return channels === 3 ? averaged.expand([-1, 3, -1, -1]) : averaged
    }),
  )
}

/** What an image has without augmentation. */
const UNCHANGED = { brightness: 1, contrast: 1, contrastFirst: false }
const PARAMETERS = 12

/** As one tensor. */
function inOrder(images: readonly Tensor[], order: Int32Array | null): Tensor {
  if (order === null) return images.length === 1 ? images[0]! : cat(images)
  return cat(
    Array.from({ length: order.length / 2 }, (_, at) => images[order[2 * at]!]!.narrow(0, order[2 * at + 1]!, 1)),
  )
}

/** By the operator for CPUs. */
function inputInOne(
  images: readonly Tensor[],
  { boxes, augmentations }: Places,
  size: number,
  resize: Resize,
  order: Int32Array | null,
): Tensor {
  const stretched = stretchedSide(size, resize)
  const corners = new Int32Array(4 * boxes.length)
  const parameters = new Float64Array(PARAMETERS * boxes.length)
  for (const [image, { top, left, bottom, right }] of boxes.entries()) {
    corners.set([top, left, bottom, right], 4 * image)
    const augmentation = augmentations?.[image]
    const { brightness, contrast, contrastFirst } = augmentation?.jitter ?? UNCHANGED
    const start = (where: 'top' | 'left') => cropStart(augmentation?.crop[where], stretched - size)
    const change = [start('top'), start('left'), brightness, contrast, Number(contrastFirst), augmentation?.sigma ?? 0]
    parameters.set(change, PARAMETERS * image)
    parameters.set(
      augmentation === undefined ? UNMOVED : inverseOf(augmentation, size),
      PARAMETERS * image + change.length,
    )
  }
  return callOperator(
    'cleft::input_stage',
    images,
    fromTypedArray(corners, [boxes.length, 4]),
    fromTypedArray(parameters, [boxes.length, PARAMETERS]),
    size,
    stretched,
    order === null ? null : fromTypedArray(order, [boxes.length, 2]),
  ) as Tensor
}

function check(
  images: readonly Tensor[],
  boxes: readonly Box[],
  size: number,
  augmentations: readonly Augmentation[] | null,
  order: Int32Array | null,
): void {
  const [first] = images
  if (first === undefined) throw new RangeError('inputOf: expected images [B, 1, S, S], but received none')
  let number = 0
  const [side, dtype] = [first.shape.at(-1), first.dtype]
  for (const some of images) {
    const [count, channels, rows, columns] = some.shape
    const square = some.ndim === 4 && channels === 1 && rows === side && columns === side
    if (!(square && some.dtype === dtype && ['uint8', 'uint16'].includes(dtype))) {
      throw new RangeError(
        `inputOf: expected images [B, 1, S, S] of uint8 or uint16, all of one size and dtype, but received [${some.shape}] of ${some.dtype}`,
      )
    }
    number += count!
  }
  if (order !== null) {
    for (let at = 0; at < order.length; at += 2) {
      const [which, image] = [order[at]!, order[at + 1] ?? -1]
      if (!(image >= 0 && image < (images[which]?.shape[0] ?? 0))) {
        throw new RangeError(
          `inputOf: expected an order of images that are there, but it has number ${image} of ${which}`,
        )
      }
    }
    number = order.length / 2
  }
  if (boxes.length !== number || (augmentations !== null && augmentations.length !== number)) {
    throw new RangeError(
      `inputOf: expected a box and, where there are any, an augmentation for each of ${number} images, but received ${boxes.length} and ${augmentations?.length ?? 'none'}`,
    )
  }
  if (!(Number.isInteger(size) && size >= SMALLEST && size <= LARGEST)) {
    throw new RangeError(`inputOf: expected a size from ${SMALLEST} to ${LARGEST} pixels, but received ${size}`)
  }
  for (const [image, { top, left, bottom, right }] of boxes.entries()) {
    const sound = [top, left, bottom, right].every(Number.isInteger) && top >= 0 && left >= 0
    if (!(sound && top <= bottom && left <= right && bottom < side! && right < side!)) {
      throw new RangeError(
        `inputOf: expected the box of image ${image} inside ${side} x ${side} pixels, but it is rows ${top} to ${bottom}, columns ${left} to ${right}`,
      )
    }
  }
}
