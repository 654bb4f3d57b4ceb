import {
  callOperator,
  type Device,
  empty,
  fromTypedArray,
  scope,
  type Tensor,
  type TypedArray,
  zeros,
} from '../../torch/index.js'
import type { Box } from '../images/gray.js'
import { cropStart, inverseOf, type Places, type Resize, stretchedSide } from './geometry.js'
import type { Augmentation } from './parameters.js'
import { resampleRows, type Stretch } from './resample.js'

/*
 * The last stage in tensor operations, whole batches at a time: for GPUs, and for 16 bits.
 */

/**
 * How many images go through together on a CPU. Their intermediate results stay in the cache then, and in memory that is
 * used again: page faults of fresh memory took three quarters of the time of whole batches.
 */
const CPU_CHUNK = 8
const BLUR_RADIUS = 3

/**
 * `inputOf`, of what was checked.
 *
 * @param padded [B, 1, S, S], uint8 or uint16
 * @returns [B, 1, size, size], float32, on the device of the images
 */
export function inputByOperators(
  padded: Tensor,
  { boxes, augmentations }: Places,
  size: number,
  resize: Resize,
): Tensor {
  const device = padded.device as Device
  const result = empty([boxes.length, 1, size, size], { device })
  const chunk = device.startsWith('cpu') ? Math.min(CPU_CHUNK, boxes.length) : boxes.length
  const space = new Workspace(chunk, padded.size(-1), size, device)
  for (let start = 0; start < boxes.length; start += chunk) {
    const end = Math.min(boxes.length, start + chunk)
    const places = { boxes: boxes.slice(start, end), augmentations: augmentations?.slice(start, end) ?? null }
    scope(() => space.run(padded.narrow(0, start, end - start), places, resize, result.narrow(0, start, end - start)))
  }
  return result
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

  run(images: Tensor, { boxes, augmentations }: Places, resize: Resize, result: Tensor): void {
    const rounded = images.dtype === 'uint8'
    const resized = this.resized(images, boxes, augmentations, resize, rounded)
    if (augmentations === null) {
      result.select(1, 0).copy_(resized)
    } else {
      this.jitter(resized, augmentations, rounded)
      this.blur(resized, augmentations, rounded)
      this.affine(resized, augmentations, result.select(1, 0))
    }
    // as torchvision does
    result.div_(255).sub_(0.5).div_(0.5)
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
    const to = stretchedSide(size, resize)
    const from = (where: 'top' | 'left', image: number) => cropStart(augmentations?.[image]?.crop[where], to - size)
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
