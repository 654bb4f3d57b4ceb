import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { cropStart, type Resize } from '../../../src/data/augment/geometry.js'
import { type InputOptions, inputOf } from '../../../src/data/augment/input.js'
import { inputByOperators } from '../../../src/data/augment/operators.js'
import { type Augmentation, drawAugmentation } from '../../../src/data/augment/parameters.js'
import type { Box } from '../../../src/data/images/gray.js'
import { Random } from '../../../src/data/random.js'
import * as torch from '../../../src/torch/index.js'

interface Case {
  readonly picture: number
  readonly side: number
  readonly box: [number, number, number, number]
  readonly size: number
  readonly to: number
  readonly augmentation: Augmentation | null
}

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))
const cases: readonly Case[] = JSON.parse(readFileSync(here('input.json'), 'utf8'))

/** The same formula is in make_numbers.py. */
function picture(number: number, side: number): Uint8Array {
  const pixels = new Uint8Array(side * side)
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const fine = ((x * x * (3 + number) + y * y * 5 + x * y * 7) >> 5) % 256
      const coarse = Math.floor((Math.floor((x * 255) / (side - 1)) + Math.floor((y * 255) / (side - 1))) / 2)
      pixels[y * side + x] = Math.floor((fine + 3 * coarse) / 4)
    }
  }
  return pixels
}

const pictures = (numbers: readonly number[], side: number) =>
  torch.cat(numbers.map((number) => torch.fromTypedArray(picture(number, side), [1, 1, side, side])))

const boxOf = ([top, left, bottom, right]: Case['box']): Box => ({ top, left, bottom, right })
const whole = (side: number): Box => ({ top: 0, left: 0, bottom: side - 1, right: side - 1 })
/** Back to gray levels. */
const levels = (input: torch.Tensor) => input.add(1).mul(127.5)
/** What is compared with: the same on any device. */
const byOperators = (images: torch.Tensor, boxes: readonly Box[], options: InputOptions) => {
  const { augmentations = null, size = 224, resize = 'published' } = options
  return inputByOperators(images, { boxes, augmentations }, size, resize)
}
const draw = (index: number, seed = 7) => drawAugmentation(index, { seed, epoch: 0 })

describe('input', () => {
  const expected = torch.openSafetensors(here('input.safetensors'))

  const optionsOf = ({ size, to, augmentation }: Case) => ({
    size,
    resize: (to > size ? 'crop' : 'published') as Resize,
    ...(augmentation === null ? {} : { augmentations: [augmentation] }),
  })

  for (const [number, each] of cases.entries()) {
    it(`case ${number} is what PIL makes of it`, () =>
      torch.scope(() => {
        const ours = inputOf(pictures([each.picture], each.side), [boxOf(each.box)], optionsOf(each))
        expect(ours.shape).toEqual([1, 1, each.size, each.size])
        // to the bit: PIL's arithmetic is that of whole numbers, torchvision's blur and normalisation that of float32
        const theirs = expected.tensor(String(number)).float().div(255).sub(0.5).div(0.5)
        expect(ours.view([each.size, each.size]).equal(theirs)).toBe(true)
      }))

    it(`case ${number} is nearly that in tensor operations`, () =>
      torch.scope(() => {
        const ours = byOperators(pictures([each.picture], each.side), [boxOf(each.box)], optionsOf(each))
        const difference = levels(ours)
          .sub(expected.tensor(String(number)))
          .abs()
        // a sum that is a half in whole numbers of 2^-22, as PIL's, may round the other way in float32
        expect(difference.gt(0.01).double().mean().item()).toBeLessThan(0.015)
        expect(difference.max().item()).toBeLessThan(1.01)
      }))
  }

  it('is the same by the operator for CPUs and in tensor operations, whatever is done to an image', () =>
    torch.scope(() => {
      const random = new Random(5, 'places')
      for (const [side, size] of [
        [9, 4],
        [15, 33],
        [17, 40],
        [100, 31],
        [256, 64],
      ] as const) {
        const numbers = Array.from({ length: 12 }, (_, index) => index % 4)
        const images = pictures(numbers, side)
        const boxes = numbers.map((_, index): Box => {
          const [top, left] = [random.integer(side), random.integer(side)]
          const one = { top, left, bottom: top, right: left }
          if (index === 0) return one
          if (index === 1) return whole(side)
          return { top, left, bottom: top + random.integer(side - top), right: left + random.integer(side - left) }
        })
        for (const resize of ['published', 'crop'] as const) {
          for (const [jitters, blurs, flips] of [
            [false, false, false],
            [true, false, true],
            [false, true, false],
            [true, true, true],
          ] as const) {
            const augmentations = numbers.map((_, index) => ({
              ...draw(index, side),
              jitter: jitters
                ? { brightness: 0.8 + 0.03 * index, contrast: 1.2, contrastFirst: index % 2 === 0 }
                : null,
              sigma: blurs ? 0.1 + 0.15 * index : null,
              flip: flips,
            }))
            const options = { size, resize, augmentations }
            const difference = levels(inputOf(images, boxes, options)).sub(levels(byOperators(images, boxes, options)))
            // one that rounds the other way may be one level off, after contrast and brightness two or three
            expect(difference.abs().max().item()).toBeLessThan(3.01)
            expect(difference.abs().gt(0.01).double().mean().item()).toBeLessThan(0.02)
          }
          const difference = levels(inputOf(images, boxes, { size, resize })).sub(
            levels(byOperators(images, boxes, { size, resize })),
          )
          expect(difference.abs().max().item()).toBeLessThan(1.01)
          expect(difference.abs().gt(0.01).double().mean().item()).toBeLessThan(0.02)
        }
      }
    }))

  it('is the same to the bit in one thread and in two, again, and from one tensor or from several', () =>
    torch.scope(() => {
      const numbers = Array.from({ length: 9 }, (_, index) => index % 4)
      const images = pictures(numbers, 64)
      const boxes = numbers.map((number, index) => ({ top: number, left: index, bottom: 50 + number, right: 60 }))
      const options = { size: 40, augmentations: numbers.map((_, index) => draw(index)) }
      const threads = torch.getNumThreads()
      torch.setNumThreads(1)
      const alone = inputOf(images, boxes, options)
      torch.setNumThreads(2)
      const two = [inputOf(images, boxes, options), inputOf(images, boxes, options)]
      torch.setNumThreads(threads)
      for (const each of two) expect(each.equal(alone)).toBe(true)
      const several = [images.narrow(0, 0, 1), images.narrow(0, 1, 5), images.narrow(0, 6, 3)]
      expect(inputOf(several, boxes, options).equal(alone)).toBe(true)
      const deep = several.map((some) => some.to('uint16').mul(257).to('uint16'))
      expect(inputOf(deep, boxes, options).equal(inputOf(torch.cat(deep), boxes, options))).toBe(true)
      // laid out otherwise
      const turned = images.transpose(2, 3).contiguous().transpose(2, 3)
      expect(turned.isContiguous()).toBe(false)
      expect(inputOf(turned, boxes, options).equal(alone)).toBe(true)
      expect(inputOf(images.narrow(0, 0, 0), [], { size: 8 }).shape).toEqual([0, 1, 8, 8])
    }))

  it('crops where torchvision does: in the middle, halves to even, or at one of room + 1 places', () => {
    expect([0, 1, 3, 5, 7, 9, 32].map((room) => cropStart(undefined, room))).toEqual([0, 0, 2, 2, 4, 4, 16])
    expect([0, 0.33, 0.34, 0.67, 0.999, 1].map((fraction) => cropStart(fraction, 2))).toEqual([0, 0, 1, 2, 2, 2])
  })

  it('moves far out of the picture into black', () =>
    torch.scope(() => {
      const still = { ...draw(0), jitter: null, sigma: null }
      for (const x of [-30, -1, 1, 30, 1e6]) {
        const augmentations = [{ ...still, affine: { angle: 0, scale: 1, shift: { x, y: 0 } } }]
        const result = inputOf(pictures([0], 64), [whole(64)], { size: 32, augmentations })
        expect([result.min().item(), result.max().item()]).toEqual([-1, -1])
      }
    }))

  it("leaves Otsu's box aside where the whole image is wanted", () =>
    torch.scope(() => {
      const numbers = [0, 1, 2, 3]
      const images = pictures(numbers, 64)
      const boxes = numbers.map((number) => ({ top: 9, left: 11 + number, bottom: 50, right: 55 }))
      const augmentations = numbers.map((number) => draw(number))
      for (const options of [{ size: 40 }, { size: 40, augmentations }]) {
        const all = inputOf(images, boxes, { ...options, resize: 'whole' })
        expect(
          all.equal(
            inputOf(
              images,
              numbers.map(() => whole(64)),
              options,
            ),
          ),
        ).toBe(true)
        expect(all.equal(inputOf(images, boxes, options))).toBe(false)
      }
    }))

  it('averages what it makes at a multiple of the side', () =>
    torch.scope(() => {
      const numbers = [0, 1, 2, 3]
      const images = pictures(numbers, 64)
      const boxes = numbers.map(() => ({ top: 9, left: 11, bottom: 50, right: 55 }))
      const augmentations = numbers.map((number) => draw(number))
      const found = inputOf(images, boxes, { size: 20, oversample: 2, augmentations, channels: 3 })
      expect(found.shape).toEqual([4, 3, 20, 20])
      const large = inputOf(images, boxes, { size: 40, augmentations })
      const means = large.view([4, 1, 20, 2, 20, 2]).mean([3, 5])
      expect(found.sub(means).abs().max().item()).toBeLessThan(1e-6)
      expect(() => inputOf(images, boxes, { size: 20, oversample: 1.5 })).toThrow(/average/)
    }))

  it('does not depend on the batch', () =>
    torch.scope(() => {
      const numbers = Array.from({ length: 19 }, (_, index) => index % 4)
      const images = pictures(numbers, 64)
      const boxes = numbers.map((number, index) => ({ top: number, left: index, bottom: 50 + number, right: 60 }))
      for (const resize of ['published', 'crop'] as const) {
        const augmentations = numbers.map((_, index) => draw(index))
        const together = inputOf(images, boxes, { size: 40, resize, augmentations })
        for (const index of [0, 7, 8, 18]) {
          const alone = inputOf(images.narrow(0, index, 1), [boxes[index]!], {
            size: 40,
            resize,
            augmentations: [augmentations[index]!],
          })
          expect(alone.equal(together.narrow(0, index, 1))).toBe(true)
        }
      }
    }))

  it('takes 16 bits: the same picture, not rounded', () =>
    torch.scope(() => {
      const numbers = [0, 1, 2, 3]
      const wide = numbers.map((number) => Uint16Array.from(picture(number, 64), (level) => level * 257))
      const deep = torch.cat(wide.map((pixels) => torch.fromTypedArray(pixels, [1, 1, 64, 64])))
      expect(deep.dtype).toBe('uint16')
      const boxes = numbers.map(() => ({ top: 3, left: 4, bottom: 60, right: 55 }))
      const options = { size: 56, augmentations: numbers.map((number) => draw(number)) }
      const difference = inputOf(deep, boxes, options)
        .sub(inputOf(pictures(numbers, 64), boxes, options))
        .mul(127.5)
        .abs()
      expect(difference.mean().item()).toBeLessThan(0.75)
      expect(difference.max().item()).toBeGreaterThan(0)
      expect(difference.max().item()).toBeLessThan(4)
    }))

  it('repeats the channel without memory, leaves nothing behind, and gives what it is given', () => {
    const images = pictures([0, 1], 64)
    const before = torch.memory.counters().live
    const result = inputOf(images, [whole(64), whole(64)], { size: 32, channels: 3 })
    expect(torch.memory.counters().live).toBe(before + 1)
    expect(result.shape).toEqual([2, 3, 32, 32])
    expect(result.storageBytes()).toBe(2 * 32 * 32 * 4)
    expect([result.min().item() >= -1, result.max().item() <= 1]).toEqual([true, true])
    torch.dispose([images, result])
  })

  it('refuses what does not fit', () =>
    torch.scope(() => {
      const images = pictures([0], 64)
      expect(() => inputOf(images.float(), [whole(64)])).toThrow(/expected images \[B, 1, S, S\] of uint8 or uint16/)
      expect(() => inputOf([], [])).toThrow(/expected images .* but received none/)
      expect(() => inputOf(images, [])).toThrow(/expected a box and/)
      expect(() => inputOf(images, [whole(64)], { augmentations: [] })).toThrow(/an augmentation for each of 1 images/)
      expect(() => inputOf(images, [whole(65)])).toThrow(/box of image 0 inside 64 x 64 pixels/)
      expect(() => inputOf(images, [{ top: 5, left: 0, bottom: 4, right: 9 }])).toThrow(/box of image 0/)
      expect(() => inputOf(images, [{ top: Number.NaN, left: 0, bottom: 4, right: 9 }])).toThrow(/box of image 0/)
      for (const size of [0, 3, 4.5, Number.NaN, 1e6]) {
        expect(() => inputOf(images, [whole(64)], { size })).toThrow(/expected a size from 4 to/)
      }
      expect(() => inputOf([images, pictures([0], 32)], [whole(64), whole(32)])).toThrow(/all of one size and dtype/)
      expect(() => inputOf([images, images.to('uint16')], [whole(64), whole(64)])).toThrow(/all of one size and dtype/)
      expect(() => inputOf(torch.empty([1, 1, 0, 0], { dtype: 'uint8' }), [whole(1)])).toThrow(/box of image 0/)
      const jitter = { brightness: Number.NaN, contrast: 1, contrastFirst: false }
      const augmentations = [{ ...draw(0), jitter }]
      expect(() => inputOf(images, [whole(64)], { augmentations })).toThrow(/an augmentation of image 0/)
    }))

  it('takes images of several tensors in any order, by the operator and without it', () =>
    torch.scope(() => {
      const [some, others] = [pictures([0, 1, 2], 64), pictures([3, 4], 64)]
      const order = Int32Array.of(1, 1, 0, 2, 0, 2, 1, 0)
      const boxes = Array(4).fill(whole(64))
      for (const dtype of ['uint8', 'uint16'] as const) {
        const [a, b] = [some.to(dtype), others.to(dtype)]
        const one = torch.cat([b.narrow(0, 1, 1), a.narrow(0, 2, 1), a.narrow(0, 2, 1), b.narrow(0, 0, 1)])
        const expected = inputOf(one, boxes, { size: 48 })
        expect(inputOf([a, b], boxes, { size: 48, order }).equal(expected)).toBe(true)
        for (const wrong of [
          Int32Array.of(0, 3),
          Int32Array.of(2, 0),
          Int32Array.of(-1, 0),
          Int32Array.of(0, -1),
          Int32Array.of(0),
        ]) {
          expect(() => inputOf([a, b], [whole(64)], { order: wrong })).toThrow(/an order of images that are there/)
        }
        expect(() => inputOf([a, b], boxes, { order: order.slice(2) })).toThrow(/a box/)
      }
    }))

  it('refuses wrong tensors and numbers below as well', () =>
    torch.scope(() => {
      const images = pictures([0, 1], 64)
      const box = [0, 0, 63, 63]
      const unmoved = [32768, 65536, 0, 32768, 0, 65536]
      const plain = [0, 0, 1, 1, 0, 0, ...unmoved]
      const given = (
        change: {
          images?: readonly torch.Tensor[]
          boxes?: torch.Tensor
          parameters?: torch.Tensor
          size?: number
          stretched?: number
          order?: torch.Tensor
        } = {},
      ) =>
        torch.callOperator(
          'cleft::input_stage',
          change.images ?? [images],
          change.boxes ?? torch.tensor([box, box], { dtype: 'int32' }),
          change.parameters ?? torch.tensor([plain, plain], { dtype: 'float64' }),
          change.size ?? 32,
          change.stretched ?? 32,
          change.order,
        ) as torch.Tensor
      expect(given().shape).toEqual([2, 1, 32, 32])
      for (const wrong of [
        [images.float()],
        [images.narrow(3, 0, 32)],
        [images.squeeze(1)],
        [images.narrow(0, 0, 1), pictures([1], 32)],
      ]) {
        expect(() => given({ images: wrong })).toThrow(/expected images \[N, 1, S, S\] of uint8/)
      }
      expect(() => given({ images: [images, images] })).toThrow(/a box for each image/)
      expect(() => given({ images: [] })).toThrow(/a box for each image/)
      for (const pair of [
        [1, 0],
        [-1, 0],
        [0, 2],
        [0, -1],
      ]) {
        const order = torch.tensor([[0, 0], pair], { dtype: 'int32' })
        expect(() => given({ order })).toThrow(/an order of images that are there/)
      }
      expect(() => given({ order: torch.zeros([2, 2]) })).toThrow(/an order \[B, 2\] of int32/)
      expect(() => given({ order: torch.zeros([1, 2], { dtype: 'int32' }) })).toThrow(/a box for each image/)
      for (const boxes of [torch.tensor([box, box], { dtype: 'int64' }), torch.zeros([2, 3], { dtype: 'int32' })]) {
        expect(() => given({ boxes })).toThrow(/expected boxes \[B, 4\] of int32/)
      }
      for (const wrong of [
        [-1, 0, 63, 63],
        [0, 0, 64, 63],
        [5, 0, 4, 63],
        [0, 9, 63, 8],
        [0, 0, 63, 2 ** 31 - 1],
      ]) {
        expect(() => given({ boxes: torch.tensor([box, wrong], { dtype: 'int32' }) })).toThrow(/the box of image 1/)
      }
      const shapes = [torch.zeros([2, 11], { dtype: 'float64' }), torch.zeros([2, 12]), torch.zeros([12])]
      for (const parameters of shapes) expect(() => given({ parameters })).toThrow(/expected parameters \[2, 12\]/)
      for (let at = 0; at < plain.length; at += 1) {
        for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1e300, 1e300]) {
          const parameters = torch.tensor([plain, plain.with(at, value)], { dtype: 'float64' })
          expect(() => given({ parameters })).toThrow(/an augmentation of image 1/)
        }
      }
      for (const at of [0, 1]) {
        const parameters = torch.tensor([plain, plain.with(at, 1)], { dtype: 'float64' })
        expect(() => given({ parameters })).toThrow(/an augmentation of image 1/)
        expect(given({ parameters, stretched: 33 }).shape).toEqual([2, 1, 32, 32])
      }
      for (const [size, stretched] of [
        [3, 32],
        [32, 31],
        [-1, -1],
        [2 ** 40, 2 ** 40],
      ] as const) {
        expect(() => given({ size, stretched })).toThrow(/expected a size from 4 to/)
      }
      // the largest numbers that are let through
      const far = torch.tensor([plain, [...plain.slice(0, 6), ...unmoved.map(() => 2 ** 44)]], { dtype: 'float64' })
      expect(given({ parameters: far }).select(0, 1).max().item()).toBe(-1)
    }))
})
