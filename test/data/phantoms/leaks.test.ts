import { describe, expect, it } from 'vitest'
import type { GrayImage } from '../../../src/data/images/gray.js'
import { sampleBody } from '../../../src/data/phantoms/chest/anatomy.js'
import { type ChestSettings, drawChest, pneumoniaBoxes } from '../../../src/data/phantoms/chest/draw.js'
import { chexpert } from '../../../src/data/phantoms/chexpert/kind.js'
import { FINDING_NAMES } from '../../../src/data/phantoms/chexpert/labels.js'
import { drawMammogram, type MammogramSettings, sampleBreast } from '../../../src/data/phantoms/embed/breast.js'
import { type Assessment, sampleLesions } from '../../../src/data/phantoms/embed/lesions.js'
import { encodeJpeg } from '../../../src/data/phantoms/jpeg.js'
import { rsna } from '../../../src/data/phantoms/rsna/kind.js'
import { Random } from '../../../src/data/random.js'

/*
 * Nothing but the anatomy may tell the labels. Each image is drawn twice, with a finding and without: only what the finding
 * changes may differ. (scripts/phantoms/calibrate.py asks the same of thousands of images by classifiers.)
 */

const findings = FINDING_NAMES.slice(1)
const places = [0, 1, 3]

function chestOf(index: number, severities: ReadonlyMap<string, number>): ChestSettings {
  const keys = [21, 'leaks', index]
  const body = sampleBody(new Random(...keys), index % 2 === 0 ? 'F' : 'M', 60)
  return { keys, body, view: index % 3 === 0 ? 'PA' : 'AP', severities, width: 260, height: 214, scale: 56 }
}

/** Mean absolute difference, of the outermost three pixels on all sides and of all the rest. */
function differences(first: GrayImage, second: GrayImage): { border: number; inside: number } {
  const sums = { border: 0, inside: 0 }
  const counts = { border: 0, inside: 0 }
  const { width, height } = first
  for (const [index, value] of first.pixels.entries()) {
    const [x, y] = [index % width, Math.floor(index / width)]
    const part = Math.min(x, y, width - 1 - x, height - 1 - y) < 3 ? 'border' : 'inside'
    sums[part] += Math.abs(value - second.pixels[index]!)
    counts[part] += 1
  }
  return { border: sums.border / counts.border, inside: sums.inside / counts.inside }
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length

describe('a finding', () => {
  const without = places.map((place) => drawChest(chestOf(place, new Map())))

  for (const name of findings) {
    it(`${name}: changes the inside, and not the border or the bytes of the file`, async () => {
      const drawn = places.map((place) => drawChest(chestOf(place, new Map([[name, 0.7]]))))
      const found = drawn.map((image, place) => differences(image, without[place]!))
      const border = mean(found.map((each) => each.border))
      const inside = mean(found.map((each) => each.inside))
      expect(inside).toBeGreaterThan(0.25)
      expect(border).toBeLessThan(0.6)
      expect(border).toBeLessThan(0.6 * inside)

      const bytes = async (images: readonly GrayImage[]) =>
        await Promise.all(images.map(async (image) => (await encodeJpeg(image, 90)).length))
      const [before, after] = [await bytes(without), await bytes(drawn)]
      expect(Math.abs(mean(after) / mean(before) - 1)).toBeLessThan(0.06)
    })
  }

  it('is drawn the same whatever else there is, as far as it does not hide it', () => {
    const alone = pneumoniaBoxes(chestOf(1, new Map([['Pneumonia', 0.5]])))
    const among = pneumoniaBoxes(
      chestOf(
        1,
        new Map([
          ['Pneumonia', 0.5],
          ['Edema', 0.5],
          ['Support Devices', 1],
        ]),
      ),
    )
    expect(among).toEqual(alone)
    expect(alone.length).toBeGreaterThan(0)
  })
})

describe('a lesion', () => {
  it('changes the inside of a mammogram only', () => {
    for (const [index, assessment] of (['A', 'B', 'P', 'S', 'M', 'K'] as readonly Assessment[]).entries()) {
      const settings: MammogramSettings = {
        keys: [22, index],
        breast: sampleBreast(new Random(22, index)),
        side: 'L',
        view: index % 2 === 0 ? 'CC' : 'MLO',
        density: 2,
        lesions: [],
        width: 256,
        height: 320,
      }
      const lesions = sampleLesions(new Random(23, index), assessment)
      const { border, inside } = differences(drawMammogram(settings), drawMammogram({ ...settings, lesions }))
      // In levels of 4,096: what is scattered may come near the chest wall.
      expect(border).toBeLessThan(12)
      expect(inside).toBeGreaterThan(border)
    }
  })
})

describe('names and order', () => {
  it('of five-way patients do not tell the class', () => {
    const settings = { kind: 'chexpert', patients: 1, seed: 4, fiveWay: 40 } as const
    const classes = chexpert
      .patients(settings)
      .filter((patient) => patient >= 50_001 && patient < 60_000)
      .map((patient) => chexpert.images(settings, patient)[0]!.caption.slice(4))
    expect(new Set(classes).size).toBe(5)
    // Were they in one order, each class would always come at the same place in its five.
    for (const place of [0, 1, 2, 3, 4]) expect(new Set(classes.filter((_, at) => at % 5 === place)).size).toBe(5)
  })

  it('of RSNA images are evenly spread over both targets', () => {
    const settings = { kind: 'rsna', patients: 600, seed: 4, fiveWay: 0 } as const
    const images = rsna.patients(settings).map((patient) => rsna.images(settings, patient)[0]!)
    const order = images.map(({ path, caption }) => ({ path, target: caption.endsWith(': Lung Opacity') }))
    order.sort((first, second) => (first.path < second.path ? -1 : 1))
    const ranks = order.flatMap(({ target }, rank) => (target ? [rank] : []))
    expect(ranks.length).toBeGreaterThan(100)
    // The mean rank of so many is within 4 standard errors of the middle.
    expect(Math.abs(mean(ranks) - 299.5)).toBeLessThan((4 * 173) / Math.sqrt(ranks.length))
  })
})
