import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { inputOf } from '../../../src/data/augment/input.js'
import { type Augmentation, drawAugmentation } from '../../../src/data/augment/parameters.js'
import type { Box } from '../../../src/data/images/gray.js'
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
const draw = (index: number, seed = 7) => drawAugmentation(index, { seed, epoch: 0 })

describe('input', () => {
  const expected = torch.openSafetensors(here('input.safetensors'))

  for (const [number, each] of cases.entries()) {
    it(`case ${number} is what PIL makes of it`, () =>
      torch.scope(() => {
        const ours = inputOf(pictures([each.picture], each.side), [boxOf(each.box)], {
          size: each.size,
          resize: each.to > each.size ? 'crop' : 'published',
          ...(each.augmentation === null ? {} : { augmentations: [each.augmentation] }),
        })
        expect(ours.shape).toEqual([1, 1, each.size, each.size])
        const difference = levels(ours)
          .sub(expected.tensor(String(number)))
          .abs()
        // a sum that is a half in whole numbers of 2^-22, as PIL's, may round the other way in float32
        expect(difference.gt(0.01).double().mean().item()).toBeLessThan(0.015)
        expect(difference.max().item()).toBeLessThan(1.01)
      }))
  }

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
      expect(() => inputOf(images, [])).toThrow(/expected a box and/)
      expect(() => inputOf(images, [whole(64)], { augmentations: [] })).toThrow(/an augmentation for each of 1 images/)
      expect(() => inputOf(images, [whole(65)])).toThrow(/box of image 0 inside 64 x 64 pixels/)
      expect(() => inputOf(images, [{ top: 5, left: 0, bottom: 4, right: 9 }])).toThrow(/box of image 0/)
      expect(() => inputOf(images, [{ top: Number.NaN, left: 0, bottom: 4, right: 9 }])).toThrow(/box of image 0/)
      expect(() => inputOf(images, [whole(64)], { size: 0 })).toThrow(/expected a size from 4 to/)
    }))
})
