import {
  callOperator,
  type Device,
  empty,
  fromTypedArray,
  noGrad,
  scope,
  type Tensor,
  type TypedArray,
  zeros,
} from '../../torch/index.js'
import type { Box } from '../images/gray.js'
import type { Augmentation } from './parameters.js'
import { resampleRows, type Stretch } from './resample.js'

/** Otsu's box stretched to the square ('published': what the published data module does), or stretched to 8/7 of it and cropped. */
export type Resize = 'published' | 'crop'

export interface InputOptions {
  /** Default: 'published'. */
  readonly resize?: Resize
  /** Side of the result in pixels. Default: 224. */
  readonly size?: number
  /** 3 repeats the gray channel, without memory of its own. Default: 1. */
  readonly channels?: 1 | 3
  /** What is done to each image. Default: nothing, and a crop is the centre's. */
  readonly augmentations?: readonly Augmentation[]
  /** Where it is computed and stays. Default: where the images are. */
  readonly device?: Device
}

/**
 * How many images go through together on a CPU. Their intermediate results stay in the cache then, and in memory that is
 * used again: page faults of fresh memory took three quarters of the time of whole batches.
 */
const CPU_CHUNK = 8
/** 'crop' stretches to 256 for 224. */
const CROP_MARGIN = 8 / 7
const BLUR_RADIUS = 3
/** PIL's nearest neighbour has coordinates of 16.16 bits. */
const FIXED_POINT = 65536

/**
 * The last stage of the preprocessing: prepared images to what an image encoder takes, in whole batches.
 *
 * As published (datasets/transforms.py, Moco2Transform, github.com/XYPB/CLEFT), in that order: Otsu's box stretched
 * (bilinear, antialiased), colour jitter, Gaussian blur, affine (nearest neighbour, black around), flip, mean 0.5 and
 * deviation 0.5. 8-bit images are rounded to gray levels where PIL and torchvision round. Merged, to the same pixels: the
 * crop is taken out of the stretch (rows that are cut off are not computed), and affine and flip are one lookup.
 *
 * @param padded [B, 1, S, S], uint8; or uint16, whose 65535 is white and which is not rounded in between
 * @param boxes Otsu's box of each
 * @returns [B, channels, size, size], float32 from -1 to 1; it belongs to the caller
 * @throws RangeError for a box outside of its image, or numbers of images that differ
 */
export function inputOf(padded: Tensor, boxes: readonly Box[], options: InputOptions = {}): Tensor {
  const { resize = 'published', size = 224, channels = 1, augmentations = null } = options
  check(padded, boxes, size, augmentations)
  return noGrad(() =>
    scope(() => {
      const device = (options.device ?? padded.device) as Device
      const images = padded.to(device, { nonBlocking: true })
      const result = empty([boxes.length, 1, size, size], { device })
      const chunk = device.startsWith('cpu') ? Math.min(CPU_CHUNK, boxes.length) : boxes.length
      const space = new Workspace(chunk, padded.size(-1), size, device)
      for (let start = 0; start < boxes.length; start += chunk) {
        const end = Math.min(boxes.length, start + chunk)
        const place = { box: boxes.slice(start, end), augmentation: augmentations?.slice(start, end) ?? null }
        scope(() =>
          space.run(images.narrow(0, start, end - start), place, resize, result.narrow(0, start, end - start)),
        )
      }
      return channels === 3 ? result.expand([-1, 3, -1, -1]) : result
    }),
  )
}

function check(padded: Tensor, boxes: readonly Box[], size: number, augmentations: readonly Augmentation[] | null) {
  const [number, channels, rows, columns] = padded.shape
  if (padded.ndim !== 4 || channels !== 1 || rows !== columns || !['uint8', 'uint16'].includes(padded.dtype)) {
    throw new RangeError(
      `inputOf: expected images [B, 1, S, S] of uint8 or uint16, but received [${padded.shape}] of ${padded.dtype}`,
    )
  }
  if (boxes.length !== number || (augmentations !== null && augmentations.length !== number)) {
    throw new RangeError(
      `inputOf: expected a box and, where there are any, an augmentation for each of ${number} images, but received ${boxes.length} and ${augmentations?.length ?? 'none'}`,
    )
  }
  if (!(Number.isInteger(size) && size > BLUR_RADIUS)) {
    throw new RangeError(`inputOf: expected a size above ${BLUR_RADIUS} pixels, but received ${size}`)
  }
  for (const [image, { top, left, bottom, right }] of boxes.entries()) {
    const sound = [top, left, bottom, right].every(Number.isInteger) && top >= 0 && left >= 0
    if (!(sound && top <= bottom && left <= right && bottom < rows! && right < columns!)) {
      throw new RangeError(
        `inputOf: expected the box of image ${image} inside ${rows} x ${columns} pixels, but it is rows ${top} to ${bottom}, columns ${left} to ${right}`,
      )
    }
  }
}

interface Chunk {
  readonly box: readonly Box[]
  readonly augmentation: readonly Augmentation[] | null
}

/** Memory for some images on their way, and the way. */
class Workspace {
  readonly #turned: Tensor
  readonly #upright: Tensor
  readonly #bordered: Tensor
  readonly #rows: Tensor
  readonly #columns: Tensor
  readonly #lookup: Tensor
  readonly #counting: Tensor

  constructor(
    chunk: number,
    private readonly source: number,
    private readonly size: number,
    private readonly device: Device,
  ) {
    const room = (rows: number, columns: number, dtype: 'float32' | 'int32' | 'int64' = 'float32') =>
      empty([chunk, rows, columns], { dtype, device })
    this.#turned = room(source, source)
    this.#upright = room(source, size)
    // black all around: who looks outside finds it there
    this.#bordered = zeros([chunk, size + 2, size + 2], { device })
    this.#rows = room(size, size, 'int32')
    this.#columns = room(size, size, 'int32')
    this.#lookup = room(size, size, 'int64')
    this.#counting = fromTypedArray(
      Int32Array.from({ length: size }, (_, pixel) => pixel),
      [size],
      { device },
    )
  }

  run(images: Tensor, { box, augmentation }: Chunk, resize: Resize, result: Tensor): void {
    const rounded = images.dtype === 'uint8'
    const resized = this.resized(images, box, augmentation, resize, rounded)
    if (augmentation === null) {
      result.select(1, 0).copy_(resized)
    } else {
      this.jitter(resized, augmentation, rounded)
      this.blur(resized, augmentation, rounded)
      this.affine(resized, augmentation, result.select(1, 0))
    }
    result.mul_(2 / 255).sub_(1)
  }

  /** PIL's two passes: columns first, then rows. Gray levels from 0 to 255. */
  private resized(
    images: Tensor,
    boxes: readonly Box[],
    augmentations: readonly Augmentation[] | null,
    resize: Resize,
    rounded: boolean,
  ): Tensor {
    const { size, source } = this
    const number = boxes.length
    const to = resize === 'crop' ? Math.round(size * CROP_MARGIN) : size
    const room = to - size
    const from = (where: 'top' | 'left', image: number) => {
      const crop = augmentations?.[image]?.crop
      // torchvision: any of room + 1 places; in the middle otherwise
      return crop === undefined ? Math.round(room / 2) : Math.min(room, Math.floor(crop[where] * (room + 1)))
    }
    const turned = this.#turned.narrow(0, 0, number).copy_(images.select(1, 0).transpose(1, 2))
    if (!rounded) turned.mul_(255 / 65535)
    const across = boxes.map(
      ({ left, right }, image): Stretch => ({ start: left, length: right - left + 1, to, from: from('left', image) }),
    )
    const down = boxes.map(
      ({ top, bottom }, image): Stretch => ({ start: top, length: bottom - top + 1, to, from: from('top', image) }),
    )
    const round = (values: Tensor) => (rounded ? values.add_(0.5).floor_() : values)
    const narrowed = round(resampleRows(turned, across, size)).view([number, size, source])
    return round(resampleRows(this.#upright.narrow(0, 0, number).copy_(narrowed.transpose(1, 2)), down, size))
  }

  /** PIL's ImageEnhance: a blend with black, or with the image's mean gray level; what comes first, first. */
  private jitter(images: Tensor, augmentations: readonly Augmentation[], rounded: boolean): void {
    this.some(images, augmentations, 'jitter', (chosen, jitters) => {
      for (const first of [true, false]) {
        const isContrast = (each: { contrastFirst: boolean }) => each.contrastFirst === first
        const factor = this.numbers(jitters.map((each) => (isContrast(each) ? each.contrast : each.brightness)))
        const contrast = this.numbers(jitters.map((each) => (isContrast(each) ? 1 : 0)))
        const mean = chosen.mean([1, 2], true)
        if (rounded) mean.add_(0.5).floor_()
        const gray = mean.mul_(contrast)
        chosen.sub_(gray).mul_(factor).add_(gray).clamp_(0, 255)
        if (rounded) chosen.floor_()
      }
      return chosen
    })
  }

  /** A Gaussian of 7 x 7, its rows and columns one after the other; the border reflected. */
  private blur(images: Tensor, augmentations: readonly Augmentation[], rounded: boolean): void {
    const { size } = this
    this.some(images, augmentations, 'sigma', (chosen, sigmas) => {
      const kernels = sigmas.map(gaussian)
      const weights = Array.from({ length: 2 * BLUR_RADIUS + 1 }, (_, tap) =>
        this.numbers(kernels.map((kernel) => kernel[tap]!)),
      )
      const weighted = (wide: Tensor, dim: number) => {
        const sum = wide.narrow(dim, 0, size).mul(weights[0]!)
        for (let tap = 1; tap < weights.length; tap += 1) sum.addcmul_(wide.narrow(dim, tap, size), weights[tap]!)
        return sum
      }
      const around = [BLUR_RADIUS, BLUR_RADIUS, BLUR_RADIUS, BLUR_RADIUS]
      const wide = callOperator('aten::reflection_pad2d', chosen, around) as Tensor
      const blurred = weighted(weighted(wide, 2), 1)
      // torchvision rounds halves to even here
      return rounded ? blurred.round_() : blurred
    })
  }

  /** Affine and flip: for each pixel of the result, which pixel of the image it is. */
  private affine(images: Tensor, augmentations: readonly Augmentation[], result: Tensor): void {
    const { size } = this
    const number = augmentations.length
    const matrices = augmentations.map((augmentation) => inverseOf(augmentation, size))
    const column = (at: number) =>
      fromTypedArray(
        Int32Array.from(matrices, (matrix) => matrix[at]!),
        [number, 1, 1],
        { device: this.device },
      )
    const across = this.#counting.view([1, 1, size])
    const down = this.#counting.view([1, size, 1])
    // one further where it is outside on the left: the border
    const coordinate = (space: Tensor, first: number) =>
      space
        .narrow(0, 0, number)
        .copy_(across.mul(column(first + 1)))
        .add_(down.mul(column(first + 2)).add_(column(first)))
        .bitwiseRightShift_(16)
        .clamp_(-1, size)
    const bordered = this.#bordered.narrow(0, 0, number)
    bordered.narrow(1, 1, size).narrow(2, 1, size).copy_(images)
    const rows = coordinate(this.#rows, 3)
      .add_(1)
      .mul_(size + 2)
      .add_(1)
    const lookup = this.#lookup.narrow(0, 0, number).copy_(rows.add_(coordinate(this.#columns, 0)))
    const flat = [number, -1]
    callOperator('aten::gather.out', bordered.view(flat), 1, lookup.view(flat), { out: result.view(flat) })
  }

  /** Changes those images that have a parameter, and leaves the others alone. */
  private some<Key extends 'jitter' | 'sigma'>(
    images: Tensor,
    augmentations: readonly Augmentation[],
    key: Key,
    change: (chosen: Tensor, parameters: readonly NonNullable<Augmentation[Key]>[]) => Tensor,
  ): void {
    const places = augmentations.flatMap((each, image) => (each[key] === null ? [] : [image]))
    if (places.length === 0) return
    const index = this.put(BigInt64Array.from(places, BigInt), [places.length])
    const parameters = places.map((image) => augmentations[image]![key] as NonNullable<Augmentation[Key]>)
    images.indexCopy_(0, index, change(images.indexSelect(0, index), parameters))
  }

  /** A number for each image. */
  private numbers(values: readonly number[]): Tensor {
    return this.put(Float32Array.from(values), [values.length, 1, 1])
  }

  private put(values: TypedArray, shape: readonly number[]): Tensor {
    return fromTypedArray(values, shape, { device: this.device })
  }
}

function gaussian(sigma: number): number[] {
  const taps = Array.from({ length: 2 * BLUR_RADIUS + 1 }, (_, tap) =>
    Math.exp(-0.5 * ((tap - BLUR_RADIUS) / sigma) ** 2),
  )
  const sum = taps.reduce((total, tap) => total + tap, 0)
  return taps.map((tap) => tap / sum)
}

/**
 * Where in the image a pixel of the result comes from: column = [0] + [1] x + [2] y, row = [3] + [4] x + [5] y, in 1/65536
 * of a pixel. torchvision's inverse affine matrix about the middle, and PIL's fixed point (Geometry.c, affine_fixed).
 */
function inverseOf({ affine: { angle, scale, shift }, flip }: Augmentation, size: number): Int32Array {
  const radians = (angle * Math.PI) / 180
  const cosine = Math.cos(radians) / scale
  const sine = Math.sin(radians) / scale
  const middle = size / 2
  const x = -middle - Math.round(shift.x * size)
  const y = -middle - Math.round(shift.y * size)
  const fixed = (value: number) => Math.floor(value * FIXED_POINT + 0.5)
  const matrix = [
    fixed(cosine * x + sine * y + middle + 0.5 * (cosine + sine)),
    fixed(cosine),
    fixed(sine),
    fixed(-sine * x + cosine * y + middle + 0.5 * (cosine - sine)),
    fixed(-sine),
    fixed(cosine),
  ] as const
  if (!flip) return Int32Array.from(matrix)
  const [column, columnX, columnY, row, rowX, rowY] = matrix
  // the result's column x is the affine image's column size - 1 - x
  return Int32Array.of(column + (size - 1) * columnX, -columnX, columnY, row + (size - 1) * rowX, -rowX, rowY)
}
