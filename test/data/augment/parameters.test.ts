import { describe, expect, it } from 'vitest'
import { type Augmentation, drawAugmentation } from '../../../src/data/augment/parameters.js'
import { swapSides } from '../../../src/data/augment/sides.js'

const COUNT = 20_000
const drawn = Array.from({ length: COUNT }, (_, index) => drawAugmentation(index, { seed: 3, epoch: 1 }))

function statistics(values: readonly number[]) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length
  return { mean, deviation: Math.sqrt(variance), least: Math.min(...values), most: Math.max(...values) }
}

const share = (test: (each: Augmentation) => boolean) => drawn.filter(test).length / COUNT

describe('augmentation parameters', () => {
  // torchvision's: uniform between two ends
  const uniform: readonly [string, number, number, (each: Augmentation) => number | undefined][] = [
    ['brightness', 0.8, 1.2, (each) => each.jitter?.brightness],
    ['contrast', 0.8, 1.2, (each) => each.jitter?.contrast],
    ['sigma', 0.1, 2, (each) => each.sigma ?? undefined],
    ['angle', -10, 10, (each) => each.affine.angle],
    ['scale', 0.8, 1.1, (each) => each.affine.scale],
    ['shift across', -0.0625, 0.0625, (each) => each.affine.shift.x],
    ['shift down', -0.0625, 0.0625, (each) => each.affine.shift.y],
    ['crop', 0, 1, (each) => each.crop.top],
  ]
  for (const [name, low, high, value] of uniform) {
    it(`${name} is uniform from ${low} to ${high}`, () => {
      const values = drawn.map(value).filter((each) => each !== undefined)
      const { mean, deviation, least, most } = statistics(values)
      const width = high - low
      // five standard errors
      const error = (5 * width) / Math.sqrt(12 * values.length)
      expect(Math.abs(mean - (low + high) / 2)).toBeLessThan(error)
      expect(Math.abs(deviation - width / Math.sqrt(12))).toBeLessThan(error)
      expect([least >= low, most < high]).toEqual([true, true])
      expect([least < low + 0.01 * width, most > high - 0.01 * width]).toEqual([true, true])
    })
  }

  it('jitter and blur come in 40 % of images, flips and either order in half, independent of each other', () => {
    const error = 5 * Math.sqrt(0.25 / COUNT)
    expect(Math.abs(share((each) => each.jitter !== null) - 0.4)).toBeLessThan(error)
    expect(Math.abs(share((each) => each.sigma !== null) - 0.4)).toBeLessThan(error)
    expect(Math.abs(share((each) => each.flip) - 0.5)).toBeLessThan(error)
    expect(Math.abs(share((each) => each.jitter?.contrastFirst === true) - 0.2)).toBeLessThan(error)
    expect(Math.abs(share((each) => each.jitter !== null && each.sigma !== null) - 0.16)).toBeLessThan(error)
    expect(Math.abs(share((each) => each.sigma !== null && each.flip) - 0.2)).toBeLessThan(error)
  })

  it('depends on seed, epoch and index, and not on what else was drawn', () => {
    expect(drawAugmentation(5, { seed: 3, epoch: 1 })).toEqual(drawn[5])
    expect(drawAugmentation(5, { seed: 4, epoch: 1 })).not.toEqual(drawn[5])
    expect(drawAugmentation(5, { seed: 3, epoch: 2 })).not.toEqual(drawn[5])
    expect(drawAugmentation(6, { seed: 3, epoch: 1 })).not.toEqual(drawn[5])
    const still = drawAugmentation(5, { seed: 3, epoch: 1, flip: false })
    expect(still).toEqual({ ...drawn[5], flip: false })
    expect(share((each) => each.flip)).toBeGreaterThan(0)
  })
})

describe('swapSides', () => {
  it('swaps left and right as words, in their case, and nothing else', () => {
    expect(swapSides('mammogram on side left with view cc')).toBe('mammogram on side right with view cc')
    expect(swapSides('Right breast, LEFT nipple; left-sided')).toBe('Left breast, RIGHT nipple; right-sided')
    expect(swapSides('upright, bright, cleft, leftover')).toBe('upright, bright, cleft, leftover')
    expect(swapSides(swapSides('left right Left'))).toBe('left right Left')
  })
})
