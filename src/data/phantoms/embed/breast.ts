import type { GrayImage } from '../../images/gray.js'
import { Random } from '../../random.js'
import { bump, clamp, curve, frameOf, Layer, noiseSeed, type Point, smoothField, smoothstep } from '../canvas.js'
import { type Placement, project, sampleWarp, stamp } from '../film.js'
import { drawLesions, type Lesion } from './lesions.js'

/*
 * A breast, compressed. The unit is about 10 cm; x runs from the chest wall outwards, y down. Drawn as a left breast (chest
 * wall at the left of the image), and mirrored for the right one.
 */

export type BreastView = 'CC' | 'MLO'

/** What is the same in all images of one breast. */
export interface Breast {
  readonly depth: number
  readonly height: number
  /** Where the glandular tissue's middle lies, as a fraction of the depth. */
  readonly glandAt: number
  readonly seed: number
}

export function sampleBreast(random: Random): Breast {
  return {
    depth: clamp(random.normal(0.82, 0.12), 0.55, 1.1),
    height: clamp(random.normal(0.62, 0.07), 0.45, 0.76),
    glandAt: random.uniform(0.42, 0.58),
    seed: random.integer(2 ** 31),
  }
}

export interface MammogramSettings {
  readonly keys: readonly (number | string)[]
  readonly breast: Breast
  readonly side: 'L' | 'R'
  readonly view: BreastView
  /** 1 fatty to 4 extremely dense. */
  readonly density: number
  readonly lesions: readonly Lesion[]
  readonly width: number
  readonly height: number
}

/** How much of the breast is glandular, by density class: the middle of BI-RADS's quarters. */
const GLANDULAR = [0.06, 0.26, 0.5, 0.76] as const

const SCALE = 330

interface Outline {
  /** How far the breast reaches from the chest wall. */
  readonly reach: (y: number) => number
  readonly nipple: Point
  /** Of the pectoral muscle; 0 in CC. */
  readonly muscle: (y: number) => number
}

function outlineOf(random: Random, { depth, height }: Breast, view: BreastView): Outline {
  if (view === 'CC') {
    const middle = random.normal(0, 0.03)
    const power = random.uniform(1.9, 2.4)
    return {
      reach: (y) => depth * Math.max(0, 1 - Math.abs((y - middle) / height) ** power) ** (1 / power),
      nipple: { x: depth, y: middle },
      muscle: () => 0,
    }
  }
  const nippleY = random.uniform(0.08, 0.24)
  const top = -0.85
  const bottom = nippleY + height * random.uniform(0.72, 0.85)
  const axilla = random.uniform(0.36, 0.5)
  const across = random.uniform(0.34, 0.52)
  const down = random.uniform(-0.05, 0.3)
  const bow = random.uniform(-0.02, 0.07)
  return {
    reach: (y) => {
      if (y > bottom) return 0.03
      if (y > nippleY)
        return 0.03 + (depth - 0.03) * Math.sqrt(Math.max(0, 1 - ((y - nippleY) / (bottom - nippleY)) ** 2))
      const t = clamp((y - top) / (nippleY - top))
      return depth * (axilla + (1 - axilla) * Math.sin((Math.PI / 2) * t) ** 1.4)
    },
    nipple: { x: depth, y: nippleY },
    muscle: (y) => {
      const t = clamp((y - top) / (down - top))
      return across * (1 - t) + bow * Math.sin(Math.PI * t)
    },
  }
}

/** Gray levels of 12 bits. */
export function drawMammogram(settings: MammogramSettings): GrayImage {
  const { keys, breast, view, lesions, width, height } = settings
  const random = new Random(...keys, 'breast')
  const outline = outlineOf(random, breast, view)
  const layer = new Layer(frameOf(-0.02, -0.84, 1.26, 0.84, SCALE))
  const gland = drawTissue(new Random(...keys, 'tissue'), layer, outline, settings)
  drawLigaments(new Random(...keys, 'ligaments'), layer, outline, gland)
  drawLesions(new Random(...keys, 'lesions'), layer, lesions, (place) => lesionPlace(outline, breast, view, place))
  const placement = placeFilm(new Random(...keys, 'position'), width, height)
  return exposeMammogram(new Random(...keys, 'exposure'), project(layer, placement), settings)
}

/** The same lesion in both views: as far from the nipple, above or below it as the view sees. */
function lesionPlace(
  { nipple, reach, muscle }: Outline,
  { depth }: Breast,
  view: BreastView,
  { u, v, w }: Lesion,
): Point {
  const y = nipple.y + (view === 'CC' ? w : v)
  const room = reach(y)
  return { x: clamp(u * depth, muscle(y) * 0.6 + 0.1, room - 0.13), y }
}

function drawTissue(
  random: Random,
  layer: Layer,
  outline: Outline,
  { breast, density, view }: MammogramSettings,
): Layer {
  const { columns, rows } = layer.frame
  const gland = new Layer(layer.frame)
  const coarse = smoothField(random, 0.26)
  const middle = smoothField(random, 0.11)
  const fine = smoothField(random, 0.045)
  const finest = smoothField(random, 0.018)
  const share = clamp(GLANDULAR[density - 1]! + random.normal(0, 0.07), 0.02, 0.95)
  // Of a field that is about -1 to 1: higher where less is glandular.
  const threshold = 0.62 - 1.25 * share
  const center = { x: breast.depth * breast.glandAt, y: outline.nipple.y * 0.6 }
  const radii = [breast.depth * (0.42 + 0.22 * share), breast.height * (0.5 + 0.3 * share)] as const
  const fat = random.uniform(0.26, 0.34)
  const level = random.uniform(0.48, 0.6)
  const dense = random.uniform(0.24, 0.32)
  for (let row = 0; row < rows; row += 1) {
    const y = layer.y(row)
    const room = outline.reach(y)
    // Above and below the breast there is nothing at the film's edge.
    if (room < 0.035) continue
    const muscle = view === 'MLO' ? outline.muscle(y) : -1
    for (let column = 0; column < columns; column += 1) {
      const x = layer.x(column)
      const inside = room - x
      if (inside <= 0) continue
      const index = row * columns + column
      const [a, b, c, d] = [coarse(x, y), middle(x, y), fine(x, y), finest(x, y)]
      const away = Math.hypot((x - center.x) / radii[0], (y - center.y) / radii[1])
      const field = 0.75 * (1 - away) + 0.5 * a + 0.4 * b + 0.28 * c + 0.14 * d
      const amount = smoothstep(threshold - 0.28, threshold + 0.34, field) * smoothstep(0.02, 0.14, inside)
      gland.data[index] = amount
      const thickness = Math.sqrt(clamp(inside / 0.16))
      let tissue =
        fat * (0.55 + 0.45 * thickness) * (1 + 0.08 * a + 0.09 * b + 0.08 * c) +
        dense * amount * (0.8 + 0.2 * b + 0.16 * c)
      // Skin: a thin line along the edge.
      tissue += 0.07 * bump(inside, 0.008, 0.008)
      const inMuscle = smoothstep(-0.015, 0.015, muscle - x)
      tissue += inMuscle * Math.max(0, level - 0.1 * smoothstep(-0.8, 0.2, y) + 0.02 * b - tissue)
      layer.data[index] = tissue
    }
  }
  const nipple = { x: outline.nipple.x - 0.005, y: outline.nipple.y }
  layer.ellipse(nipple, [0.045, 0.035], 0, 0.5, (index, weight) => {
    layer.data[index] = Math.max(layer.data[index]!, 0.42 * weight)
  })
  return gland
}

/** Thin bands between nipple and chest wall, and a few vessels. */
function drawLigaments(random: Random, layer: Layer, { nipple, reach, muscle }: Outline, gland: Layer): void {
  for (let band = 0; band < 34; band += 1) {
    const y = nipple.y + random.uniform(-0.6, 0.55)
    const start = { x: random.uniform(0.1, 0.75) * reach(y), y }
    if (start.x < muscle(y) + 0.03) continue
    const angle = Math.atan2(nipple.y - y, nipple.x - start.x) + random.normal(0, 0.35)
    const length = random.uniform(0.12, 0.4)
    const bend = random.normal(0, 0.06)
    const line = curve(6, (t) => ({
      x: start.x + Math.cos(angle) * length * t - Math.sin(angle) * bend * Math.sin(Math.PI * t),
      y: start.y + Math.sin(angle) * length * t + Math.cos(angle) * bend * Math.sin(Math.PI * t),
    }))
    const strength = random.uniform(0.025, 0.07)
    layer.stroke(line, random.chance(0.15) ? 0.018 : 0.008, (index, weight) => {
      if (layer.data[index]! > 0.1) layer.data[index]! += strength * weight * (1 - 0.6 * gland.data[index]!)
    })
  }
}

/** Side and view, in lead at the outer upper corner of every image: the brightest there is, whatever the breast holds. */
function markMammogram(random: Random, pixels: Uint16Array, { side, view, width }: MammogramSettings): void {
  const cell = 3 + random.integer(2)
  const room = (4 * (view.length + 1) - 1) * cell
  const aside = 12 + random.integer(20)
  const left = side === 'L' ? width - room - aside : aside
  stamp(pixels, width, [left, 14 + random.integer(30)], `${side}${view}`, cell, 4095)
}

function placeFilm(random: Random, width: number, height: number): Placement {
  // The chest wall lies at the film's edge.
  const pixel = random.uniform(1.5, 1.66) / height
  return {
    width,
    height,
    center: { x: (pixel * width) / 2 - random.uniform(0, 0.015), y: random.normal(0, 0.015) },
    pixel,
    angle: random.normal(0, 0.012),
    warp: sampleWarp(random, 0.02, 0.4),
  }
}

function exposeMammogram(random: Random, film: Float32Array, settings: MammogramSettings): GrayImage {
  const { side, width } = settings
  const gain = random.uniform(4100, 5200)
  const gamma = random.uniform(0.85, 1.2)
  const ground = random.uniform(0, 60)
  const grain = random.uniform(12, 40)
  const pixels = new Uint16Array(film.length)
  let state = noiseSeed(random)
  for (let index = 0; index < film.length; index += 1) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    const noise = ((state & 1023) + ((state >>> 10) & 1023) + ((state >>> 20) & 1023) - 1534.5) / 511.5
    const value = film[index]!
    const level = value < 0.02 ? ground + 3 * noise : ground + gain * clamp(value, 0, 1.2) ** gamma + grain * noise
    const row = Math.floor(index / width)
    const column = index - row * width
    const target = side === 'L' ? index : row * width + width - 1 - column
    pixels[target] = clamp(Math.round(level), 0, 4095)
  }
  markMammogram(random, pixels, settings)
  return { width, height: film.length / width, pixels }
}
