import type { Random } from '../../random.js'
import { bump, byRow, clamp, curve, Layer, type Point, smoothField, smoothstep } from '../canvas.js'
import { type Body, depthOf, inner, type Shape, SIDES, type Side, wall } from './anatomy.js'
import { type BrokenRib, hilum, type Scene, SOLID } from './scene.js'

/*
 * What each finding changes in the picture. `severity` is 0 (hardly to be seen) to 1.
 *
 * First what changes the shape (heart, mediastinum, diaphragm, ribs), then what fills or empties the lungs.
 */

const sideOf = (random: Random): Side => (random.chance(0.55) ? -1 : 1)
const lungOf = (scene: Scene, side: Side): Layer => scene.lungs[side < 0 ? 0 : 1]

/** The heart wider than half of the thorax. */
export function enlargeHeart(random: Random, severity: number, shape: Shape): void {
  shape.heartLeft += 0.08 + 0.23 * severity * random.uniform(0.85, 1.15)
  shape.heartRight += 0.02 + 0.09 * severity * random.uniform(0.6, 1.4)
}

/** The upper mediastinum wider. */
export function widenMediastinum(random: Random, severity: number, shape: Shape): void {
  shape.mediastinum += 0.02 + 0.09 * severity * random.uniform(0.8, 1.2)
}

/** Ribs broken one above another, along a line, with the wall pushed in and some blood below it. */
export function breakRibs(random: Random, severity: number, body: Body, shape: Shape): BrokenRib[] {
  const side = sideOf(random)
  const count = 3 + Math.round(3 * severity)
  const first = 3 + random.integer(3)
  const at = random.uniform(0.62, 0.78)
  const middle = 0.3 + 0.14 * (first + count / 2)
  const depth = 0.05 + 0.13 * severity
  const before = shape.dent[side < 0 ? 0 : 1]
  shape.dent[side < 0 ? 0 : 1] = (y) =>
    before(y) + depth * bump(y, middle * (body.lungHeight / 1.6), 0.14 + 0.05 * count)
  return Array.from({ length: count }, (_, index) => ({
    side,
    rib: first + index,
    at: at + random.normal(0, 0.02),
    step: (random.chance(0.7) ? 1 : -1) * (0.03 + 0.06 * severity) * random.uniform(0.7, 1.2),
  }))
}

/** Lost air: which side, and how much of its height. */
export interface VolumeLoss {
  readonly side: Side
  readonly severity: number
}

/** The diaphragm drawn up, and the heart drawn over. */
export function loseVolume(random: Random, severity: number, shape: Shape): VolumeLoss {
  const side = random.chance(0.45) ? -1 : 1
  shape.dome[side < 0 ? 0 : 1] -= 0.1 + 0.24 * severity * random.uniform(0.8, 1.2)
  shape.shift += side * (0.02 + 0.08 * severity) * random.uniform(0.7, 1.3)
  return { side, severity }
}

/** Bands and a wedge above the drawn-up diaphragm. */
export function drawAtelectasis(random: Random, { side, severity }: VolumeLoss, scene: Scene): void {
  const { body, shape } = scene
  const lung = lungOf(scene, side)
  const base = shape.dome[side < 0 ? 0 : 1]
  const fill = filler(scene, lung)
  const bands = 1 + random.integer(3)
  for (let band = 0; band < bands; band += 1) {
    const y = base - random.uniform(0.06, 0.36)
    const from = inner(body, shape, side, y) + random.uniform(0, 0.12)
    const length = random.uniform(0.25, 0.5)
    const tilt = random.uniform(-0.12, 0.14)
    const line = curve(4, (t) => ({ x: side * (from + length * t), y: y + tilt * t + 0.03 * Math.sin(3 * t) }))
    lung.stroke(line, [0.025 + 0.03 * severity, 0.05 + 0.04 * severity, 0.02], fill(0.3 + 0.4 * severity))
  }
  // A lobe without air lies as a wedge along the heart.
  const width = 0.2 + 0.28 * severity
  const height = 0.3 + 0.35 * severity
  const strength = 0.2 + 0.55 * severity
  const border = byRow((y) => inner(body, shape, side, y))
  const wedge = fill(strength)
  lung.forEach(-1.2, base - height, 1.2, base + 0.4, (index, x, y) => {
    const rise = clamp((y - base + height) / height)
    const aside = side * x - border(y)
    wedge(index, 1 - smoothstep(width * rise - 0.05, width * rise + 0.05, aside))
  })
}

/** Turns lung into something as dense as soft tissue, by a weight. */
function filler(scene: Scene, lung: Layer): (strength: number) => (index: number, weight: number) => void {
  const { data } = scene.density
  return (strength) => (index, weight) => {
    const before = data[index]!
    data[index] = before + Math.max(0, SOLID - before) * clamp(strength * weight) * Math.min(1, 2.5 * lung.data[index]!)
  }
}

/** A cloud with an uneven edge: 1 inside. */
function cloud(
  random: Random,
  lung: Layer,
  center: Point,
  radii: readonly [number, number],
  uneven: number,
  paint: (index: number, weight: number) => void,
): void {
  const coarse = smoothField(random, 0.22)
  const fine = smoothField(random, 0.07)
  const angle = random.uniform(-0.6, 0.6)
  lung.ellipse(center, [radii[0] * 1.35, radii[1] * 1.35], angle, 0.75, (index, weight, x, y) => {
    const mottled = weight + uneven * (0.5 * coarse(x, y) + 0.3 * fine(x, y))
    paint(index, smoothstep(0.08, 0.95, mottled * Math.min(1, 2.2 * weight)))
  })
}

/** A place in a lung. */
function place(
  random: Random,
  { body, shape }: Pick<Scene, 'body' | 'shape'>,
  side: Side,
  low: number,
  high: number,
): Point {
  const y = shape.dome[side < 0 ? 0 : 1] * random.uniform(low, high)
  const from = inner(body, shape, side, y)
  const to = wall(body, shape, side, y)
  return { x: side * (from + (to - from) * random.uniform(0.25, 0.72)), y }
}

/** Where an opacity lies. */
export interface Patch {
  readonly center: Point
  readonly radii: readonly [number, number]
}

/** One dense patch, with bronchi that still hold air. */
export function consolidate(random: Random, severity: number, scene: Scene): void {
  const side = sideOf(random)
  const lung = lungOf(scene, side)
  const upper = random.chance(0.2)
  const center = upper ? place(random, scene, side, 0.22, 0.42) : place(random, scene, side, 0.55, 0.85)
  const radii = [random.uniform(0.26, 0.32) + 0.15 * severity, random.uniform(0.26, 0.32) + 0.16 * severity] as const
  cloud(random, lung, center, radii, 0.45, filler(scene, lung)(0.7 + 0.28 * severity))
  const root = hilum(scene.shape, side)
  for (let bronchus = 0; bronchus < 3; bronchus += 1) {
    const end = { x: center.x + random.uniform(-0.2, 0.2), y: center.y + random.uniform(-0.2, 0.2) }
    const start = { x: (root.x + center.x) / 2, y: (root.y + center.y) / 2 }
    lung.stroke([start, end], [0.03, 0.018], (index, weight) => {
      scene.density.data[index]! -= 0.13 * severity * weight * lung.data[index]!
    })
  }
}

/** Where several patches lie, mostly below: known before anything is drawn, for tables that give boxes. */
export function placePneumonia(random: Random, severity: number, anatomy: Pick<Scene, 'body' | 'shape'>): Patch[] {
  const first = sideOf(random)
  const both = random.chance(0.45 + 0.35 * severity)
  return SIDES.filter((side) => side === first || both).flatMap((side) => {
    const count = 1 + random.integer(2) + Math.round(severity)
    const [low, high] = random.chance(0.85) ? [0.6, 0.92] : [0.25, 0.6]
    return Array.from({ length: count }, () => ({
      center: place(random, anatomy, side, low!, high!),
      radii: [random.uniform(0.15, 0.23) + 0.1 * severity, random.uniform(0.15, 0.25) + 0.1 * severity] as const,
    }))
  })
}

/** Mottled, and fainter than a consolidation. */
export function inflame(random: Random, severity: number, patches: readonly Patch[], scene: Scene): void {
  for (const { center, radii } of patches) {
    const lung = lungOf(scene, center.x < 0 ? -1 : 1)
    cloud(random, lung, center, radii, 1, filler(scene, lung)(0.36 + 0.42 * severity))
  }
}

/** Haze of no particular kind. */
export function opacify(random: Random, severity: number, scene: Scene): void {
  const first = sideOf(random)
  const both = random.chance(0.4)
  for (const side of SIDES) {
    if (side !== first && !both) continue
    const lung = lungOf(scene, side)
    const center = place(random, scene, side, 0.35, 0.9)
    const radii = [random.uniform(0.25, 0.42), random.uniform(0.25, 0.5)] as const
    cloud(random, lung, center, radii, 0.5, filler(scene, lung)(0.22 + 0.34 * severity))
  }
}

/** A nodule or a mass: round, and sharper than an infiltrate. Sometimes several. */
export function addNodules(random: Random, severity: number, scene: Scene): void {
  const many = random.chance(0.45)
  const count = many ? 6 + random.integer(7) : 1
  for (let nodule = 0; nodule < count; nodule += 1) {
    const side = sideOf(random)
    const lung = lungOf(scene, side)
    const radius = many ? random.uniform(0.06, 0.09) + 0.05 * severity : random.uniform(0.12, 0.16) + 0.16 * severity
    const center = many ? place(random, scene, side, 0.2, 0.88) : place(random, scene, side, 0.22, 0.5)
    const lobed = smoothField(random, radius * 1.1)
    lung.ellipse(
      center,
      [radius * 1.2, radius * random.uniform(1, 1.25)],
      random.uniform(0, 3),
      0.35,
      (index, weight, x, y) =>
        filler(scene, lung)(0.55 + 0.4 * severity)(index, smoothstep(0.1, 0.75, weight * (1 + 0.35 * lobed(x, y)))),
    )
  }
}

/** Water in the lungs: haze from both hila, lines at the bases, vessels without edges. */
export function flood(random: Random, severity: number, scene: Scene): void {
  const { shape, body } = scene
  for (const side of SIDES) {
    const lung = lungOf(scene, side)
    const fill = filler(scene, lung)
    const root = hilum(shape, side)
    const own = severity * random.uniform(0.85, 1.15)
    const center = { x: root.x + side * 0.2, y: root.y + 0.18 }
    cloud(random, lung, center, [0.5 + 0.12 * own, 0.58 + 0.16 * own], 0.3, fill(0.12 + 0.36 * own))
    cloud(random, lung, center, [0.3, 0.42], 0.5, fill(0.08 + 0.2 * own))
    const depth = depthOf(shape, side)
    for (let line = 0; line < Math.round(10 * severity); line += 1) {
      const y = depth - random.uniform(0.15, 0.6)
      const edge = wall(body, shape, side, y)
      lung.stroke(
        [
          { x: side * edge, y },
          { x: side * (edge - random.uniform(0.1, 0.17)), y: y - 0.02 },
        ],
        0.014,
        fill(0.35),
      )
    }
    const reticular = smoothField(random, 0.06)
    lung.forEach(-1.2, 0, 1.2, depth, (index, x, y) => {
      scene.density.data[index]! += 0.035 * own * reticular(x, y) * lung.data[index]!
    })
  }
}

/** Fluid that rises along the wall: a meniscus, and no sharp angle. Lying, a veil that thickens downwards. */
export function pourFluid(random: Random, severity: number, scene: Scene): void {
  const { shape, body } = scene
  const both = random.chance(0.45)
  const first = random.chance(0.5) ? -1 : 1
  for (const side of SIDES) {
    if (side !== first && !both) continue
    const lung = lungOf(scene, side)
    const own = clamp(severity * random.uniform(0.6, 1.2))
    const depth = depthOf(shape, side)
    const level = depth - 0.13 - 0.72 * own
    const rise = 0.12 + 0.25 * own
    const veil = shape.view === 'AP' && random.chance(0.4)
    const soft = veil ? 0.3 : 0.05
    const wavy = smoothField(random, 0.4)
    const edge = byRow((y) => wall(body, shape, side, y))
    const fill = filler(scene, lung)(veil ? 0.8 : 0.96)
    lung.forEach(-1.2, 0, 1.2, depth + 0.05, (index, x, y) => {
      const width = edge(y)
      const t = clamp((side * x - 0.2) / Math.max(0.1, width - 0.2))
      const surface = level - rise * t ** 3 + 0.1 * (1 - t) * own + 0.02 * wavy(x, y)
      fill(index, smoothstep(-soft, soft, y - surface))
    })
    // Some runs up between lung and wall.
    const strip = 0.03 + 0.05 * own
    lung.forEach(-1.2, level - 0.45, 1.2, depth, (index, x, y) => {
      const gap = edge(y) - side * x
      const here = strip * smoothstep(level - 0.45, level, y)
      fill(index, 0.75 * smoothstep(0.02, -0.02, gap - here))
    })
  }
}

export interface Collapse {
  readonly side: Side
  /** How far the lung has come off the wall at the apex. */
  readonly gap: number
}

export const collapse = (random: Random, severity: number): Collapse => ({
  side: sideOf(random),
  gap: 0.12 + 0.42 * severity * random.uniform(0.8, 1.2),
})

/** How far inside the thorax's wall the lung's edge lies. */
function gapAt({ gap }: Collapse, y: number, depth: number): number {
  return gap * (0.35 + 0.65 * (1 - smoothstep(0.1, 0.85 * depth, y))) * smoothstep(1.02 * depth, 0.6 * depth, y)
}

/** 1 in the lung, 0 in the air around it. */
export function keptLung(scene: Scene, { side, gap }: Collapse): Layer {
  const kept = new Layer(scene.density.frame, 1)
  const { body, shape } = scene
  const depth = depthOf(shape, side)
  const rim = byRow((y) => wall(body, shape, side, Math.max(0.05, y - gap * 0.75)) - gapAt({ side, gap }, y, depth))
  kept.forEach(side < 0 ? -1.2 : 0, -0.1, side < 0 ? 0 : 1.2, depth, (index, x, y) => {
    const fromTop = y - gap * 0.75
    kept.data[index] = smoothstep(-0.012, 0.012, rim(y) - side * x) * smoothstep(-0.012, 0.012, fromTop)
  })
  return kept
}

/** Air beside the lung: darker, without vessels; the pleura as a thin line. */
export function drawPneumothorax(scene: Scene, { side, gap }: Collapse, kept: Layer): void {
  const lung = lungOf(scene, side)
  const { data } = scene.density
  for (let index = 0; index < data.length; index += 1) {
    const inside = lung.data[index]!
    if (inside === 0) continue
    const keep = kept.data[index]!
    // The edge of the mask is the pleura, seen along its surface.
    const pleura = 4 * keep * (1 - keep)
    data[index] = Math.max(
      0.05,
      data[index]! + inside * (-0.1 * (1 - keep) + 0.06 * keep * Math.min(1, 2 * gap) + 0.14 * pleura),
    )
  }
}

/** Thickened or calcified pleura along the wall and over the apex. */
export function thickenPleura(random: Random, severity: number, scene: Scene): void {
  const { shape, body } = scene
  const both = random.chance(0.55)
  const first = sideOf(random)
  for (const side of SIDES) {
    if (side !== first && !both) continue
    const lung = lungOf(scene, side)
    const fill = filler(scene, lung)(0.55 + 0.4 * severity)
    const depth = depthOf(shape, side)
    const thick = 0.09 + 0.12 * severity
    const uneven = smoothField(random, 0.16)
    const edge = byRow((y) => wall(body, shape, side, y))
    lung.forEach(-1.2, -0.05, 1.2, depth, (index, x, y) => {
      const gap = edge(y) - side * x
      const here = thick * (0.75 + 0.5 * uneven(x, y))
      fill(index, smoothstep(0.03, -0.03, gap - here))
      fill(index, 0.9 * smoothstep(0.04, -0.04, y - 0.09 - 0.14 * severity * (1 + 0.4 * uneven(y, x))))
    })
    // Plaques with calcium, seen from the side and from the front.
    for (let plaque = 0; plaque < 2 + Math.round(3 * severity); plaque += 1) {
      const y = random.uniform(0.45, 0.85) * depth
      const outer = edge(y) - random.uniform(0, 0.25)
      const tilt = random.uniform(-0.1, 0.1)
      lung.stroke(
        [
          { x: side * outer, y },
          { x: side * (outer - 0.03 + tilt), y: y + random.uniform(0.08, 0.2) },
        ],
        0.03,
        (index, weight) => {
          scene.density.data[index]! += (0.12 + 0.18 * severity) * weight * lung.data[index]!
        },
      )
    }
  }
}
