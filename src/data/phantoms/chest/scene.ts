import type { Random } from '../../random.js'
import { boneProfile, clamp, curve, type Frame, Layer, type Point, smoothField, smoothstep } from '../canvas.js'
import { type Body, diaphragm, inner, type Shape, SIDES, type Side, wall } from './anatomy.js'

/** What a chest is drawn in: how much each pixel absorbs (0 air to about 1.1 bone or metal), and where the lungs are. */
export interface Scene {
  readonly body: Body
  readonly shape: Shape
  readonly density: Layer
  /** 1 in a lung, 0 outside, soft between: left and right in the image. */
  readonly lungs: readonly [Layer, Layer]
}

export const SOLID = 0.8

/** Lungs first: findings change where they are and what is in them. */
export function outlineLungs(body: Body, shape: Shape, frame: Frame): [Layer, Layer] {
  const soft = 0.022
  const softHeart = 0.035
  return SIDES.map((side) => {
    const lung = new Layer(frame)
    const floors = Array.from({ length: frame.columns }, (_, column) => diaphragm(shape, side, side * lung.x(column)))
    for (let row = Math.max(0, lung.row(-0.05)); row < frame.rows; row += 1) {
      const y = lung.y(row)
      const outer = wall(body, shape, side, y)
      const from = inner(body, shape, side, y)
      for (let column = 0; column < frame.columns; column += 1) {
        const aside = side * lung.x(column)
        if (aside < from - softHeart || aside > outer + soft || y > floors[column]! + soft) continue
        lung.data[row * frame.columns + column] =
          smoothstep(-softHeart, softHeart, aside - from) *
          smoothstep(-soft, soft, outer - aside) *
          smoothstep(-soft, soft, floors[column]! - y) *
          smoothstep(-0.03, 0.03, y)
      }
    }
    return lung
  }) as [Layer, Layer]
}

/** Soft tissue: neck, shoulders, trunk and arms, thicker towards the middle and the abdomen. */
export function drawTrunk(random: Random, scene: Scene): void {
  const { body, shape, density } = scene
  const { columns, rows } = density.frame
  const armsDown = shape.view === 'AP' ? random.chance(0.75) : random.chance(0.15)
  const fat = 0.1 + 0.22 * body.stout
  const shoulder = random.uniform(-0.05, 0.12)
  const slope = random.uniform(0.1, 0.22)
  const neck = random.uniform(0.32, 0.42)
  const uneven = smoothField(random, 0.9)
  const armpit = random.uniform(0.75, 1.05)
  const armAngle = armsDown ? random.uniform(-0.05, 0.1) : random.uniform(0.5, 0.9)
  const gap = armsDown ? random.uniform(0.02, 0.1) : 0
  const lines = Array.from({ length: columns }, (_, column) => {
    const aside = Math.abs(density.x(column))
    return shoulder - 0.33 + slope * aside + 0.13 * aside ** 2 - 0.55 * Math.exp((neck - 0.1 - aside) / 0.11)
  })
  for (let row = 0; row < rows; row += 1) {
    const y = density.y(row)
    const trunk = 1.04 + fat + 0.1 * smoothstep(1, 2.4, y) + body.breast * 0.8 * smoothstep(0.7, 1.3, y)
    const depth = 0.6 + 0.2 * smoothstep(0.4, 1.9, y)
    const armWidth = 0.42 - 0.05 * y
    for (let column = 0; column < columns; column += 1) {
      const x = density.x(column)
      const aside = Math.abs(x)
      // Distance inside the skin: up to the line of neck and shoulder, sideways to the trunk's or the arm's.
      const below = y - lines[column]!
      const inTrunk = Math.min(trunk - aside + 1.3 * Math.max(0, armpit - y), 0.8 * below)
      const armInner = trunk + gap + armAngle * Math.max(0, y - armpit)
      const inArm = Math.min(aside - armInner + 1.5 * Math.max(0, armpit - y), armInner + armWidth - aside, 0.8 * below)
      const thickness = depth * (1 - 0.25 * smoothstep(0.8, 1.5, aside))
      const trunkTissue = inTrunk > 0 ? thickness * Math.min(1, 0.3 + 0.7 * Math.sqrt(Math.min(1, inTrunk / 0.4))) : 0
      const armTissue = inArm > 0 ? 0.5 * Math.min(1, 0.35 + 0.65 * Math.sqrt(inArm / 0.2)) : 0
      const tissue = Math.max(trunkTissue, armTissue)
      if (tissue > 0) density.data[row * columns + column] = tissue * (1 + 0.05 * uneven(x, y))
    }
  }
}

/** The air of the lungs, and what is solid between them. */
export function drawChestOrgans(random: Random, scene: Scene): void {
  const { shape, density, lungs, body } = scene
  const { columns, rows } = density.frame
  const texture = smoothField(random, 0.5)
  const fine = smoothField(random, 0.09)
  const gradient = random.uniform(-0.06, 0.1)
  const middle = random.uniform(0.68, 0.8)
  const centers = [0, 1].map(() => random.uniform(0.5, 0.62))
  for (let row = 0; row < rows; row += 1) {
    const y = density.y(row)
    const breastRow = body.breast * smoothstep(0.55, 1.15, y) * (1 - smoothstep(1.5, 1.75, y))
    for (let column = 0; column < columns; column += 1) {
      const index = row * columns + column
      const tissue = density.data[index]!
      if (tissue === 0) continue
      const x = density.x(column)
      const aside = Math.abs(x)
      const inside = smoothstep(1.02, 0.9, aside)
      const center = smoothstep(-0.3, 0.2, y) * inside
      const solid = tissue + Math.max(0, middle + 0.14 * smoothstep(0.75, 0.05, aside) - tissue) * center
      const lung = lungs[0].data[index]! + lungs[1].data[index]!
      const breast = breastRow === 0 ? 0 : breastRow * smoothstep(0.22, 0.4, aside) * smoothstep(1.35, 1, aside)
      density.data[index] = solid + breast * (0.35 + 0.65 * lung)
      if (lung === 0) continue
      const offCenter = aside - centers[x < 0 ? 0 : 1]!
      const rough = 0.03 * texture(x, y) + 0.012 * fine(x, y) + 0.16 * offCenter * offCenter
      density.data[index]! += lung * (clamp(shape.lungDensity + gradient * (y - 0.8) + rough, 0.08, 0.6) - solid)
    }
  }
  drawAirways(random, scene)
  drawStomach(random, scene)
}

function drawAirways(random: Random, { shape, density }: Scene): void {
  const darken = (amount: number) => (index: number, weight: number) => {
    density.data[index]! -= amount * weight
  }
  const carina = { x: shape.shift + 0.02, y: 0.36 * shape.dome[0] + random.uniform(-0.03, 0.03) }
  const top = { x: shape.rotation * 0.5, y: -0.7 }
  density.stroke([top, { x: shape.shift * 0.6, y: 0.1 }, carina], random.uniform(0.1, 0.13), darken(0.13))
  for (const side of SIDES) {
    density.stroke(
      [carina, { x: carina.x + side * 0.24, y: carina.y + (side < 0 ? 0.16 : 0.12) }],
      [0.085, 0.06],
      darken(0.07),
    )
  }
}

/** Air under the diaphragm at the right of the image, in most. */
function drawStomach(random: Random, { shape, density }: Scene): void {
  const bubbles = random.integer(4)
  for (let bubble = 0; bubble < bubbles; bubble += 1) {
    const center = { x: random.uniform(0.35, 0.75), y: shape.dome[1] + random.uniform(0.16, 0.5) }
    const amount = random.uniform(0.1, 0.3)
    const radii = [random.uniform(0.08, 0.24), random.uniform(0.05, 0.12)] as const
    density.ellipse(center, radii, random.uniform(-0.4, 0.4), 0.4, (index, weight) => {
      density.data[index]! -= amount * weight
    })
  }
}

/** Where the vessels of a lung come from. */
export const hilum = (shape: Shape, side: Side): Point => ({
  x: shape.shift + side * (shape.mediastinum + 0.1),
  y: (side < 0 ? 0.52 : 0.47) * shape.dome[side < 0 ? 0 : 1],
})

/**
 * @param amount how dense they are; 1 is usual
 * @param keep 0 to 1, by pixel: what is left of them (there are none beyond a collapsed lung)
 */
export function drawVessels(random: Random, scene: Scene, amount: number, keep: (index: number) => number): void {
  const { density, lungs, shape } = scene
  for (const side of SIDES) {
    const lung = lungs[side < 0 ? 0 : 1]
    const paint = (strength: number) => (index: number, weight: number) => {
      density.data[index]! += strength * weight * (0.08 + 0.92 * lung.data[index]!) * keep(index)
    }
    const root = hilum(shape, side)
    density.ellipse(root, [0.13, 0.2], side * 0.3, 0.9, paint(0.07 * amount))
    const branch = (from: Point, angle: number, width: number, generation: number): void => {
      const length = random.uniform(0.17, 0.3) * (generation === 0 ? 1.15 : 1)
      const bend = random.normal(0, 0.18)
      const step = (direction: number, by: number, start: Point): Point => ({
        x: start.x + side * Math.cos(direction) * by,
        y: start.y + Math.sin(direction) * by,
      })
      const middle = step(angle, length / 2, from)
      const to = step(angle + 1.5 * bend, length / 2, middle)
      density.stroke(
        [from, middle, to],
        [width, width * 0.87, width * 0.75],
        paint((0.105 * amount) / (1 + 0.3 * generation)),
      )
      if (generation >= 3) return
      branch(to, angle + bend + random.uniform(-0.1, 0.3), width * 0.72, generation + 1)
      branch(to, angle + bend - random.uniform(0.15, 0.55), width * 0.62, generation + 1)
    }
    // From straight up to straight down along the heart: more of them below.
    for (const angle of [-1.25, -0.75, -0.2, 0.3, 0.7, 1.05, 1.35]) {
      // They leave it one above another, not from a point.
      const from = { x: root.x + side * random.uniform(-0.04, 0.02), y: root.y + 0.11 * angle }
      branch(from, angle + random.normal(0, 0.12), random.uniform(0.035, 0.05), 0)
    }
  }
}

/** A rib's middle line, from the spine outwards along the back, or from the chest wall inwards along the front. */
export function ribLine(scene: Scene, side: Side, rib: number, front: boolean): Point[] {
  const { body, shape } = scene
  const pitch = (1.05 * (shape.dome[0] + 0.2)) / 9
  const start = (front ? 0.5 : -0.08) + rib * pitch
  return curve(12, (t) => {
    if (front) {
      const y = start + 0.33 * t ** 1.3
      return { x: side * (wall(body, shape, side, start) * (1 - 0.62 * t)), y }
    }
    const y = start - 0.05 * Math.sin(Math.PI * Math.min(1, t * 1.6)) + body.ribSlope * t ** 2.2 + 0.16 * t ** 8
    const edge = wall(body, shape, side, Math.max(0.02, y)) + 0.02
    return { x: shape.rotation + side * (0.07 + (edge - 0.07) * Math.sin((Math.PI / 2) * Math.min(1, t * 1.08))), y }
  })
}

export interface BrokenRib {
  readonly side: Side
  readonly rib: number
  /** Where along the rib, 0 to 1. */
  readonly at: number
  readonly step: number
}

export function drawBones(random: Random, scene: Scene, broken: readonly BrokenRib[]): void {
  const { body, shape, density } = scene
  const add = (amount: number) => (index: number, weight: number) => {
    const before = density.data[index]!
    density.data[index] = before + amount * weight * clamp(1.08 - before) * Math.min(1, 4 * before)
  }
  const bone = random.uniform(0.1, 0.19)
  drawSpine(random, scene, add(bone))
  for (const side of SIDES) {
    for (let rib = 0; rib < 10; rib += 1) {
      const line = ribLine(scene, side, rib, false)
      const fracture = broken.find((each) => each.side === side && each.rib === rib)
      const draw = (points: readonly Point[]) => density.stroke(points, body.ribWidth, add(bone), boneProfile)
      if (fracture === undefined) {
        draw(line)
        continue
      }
      // Callus, or blood, around the break.
      const end = drawBrokenRib(line, fracture, draw)
      density.ellipse(end, [0.085, 0.07], 0, 0.7, add(bone * 1.5))
    }
    for (let rib = 0; rib < 6; rib += 1) {
      density.stroke(ribLine(scene, side, rib, true), body.ribWidth * 1.05, add(bone * 0.45), boneProfile)
    }
    const tilt = body.clavicleTilt + random.normal(0, 0.04)
    const height = random.uniform(0.02, 0.14)
    const clavicle = curve(10, (t) => ({
      x: shape.rotation + side * (0.13 + 1.02 * t),
      y: height + 0.13 - tilt * t - 0.15 * Math.sin(Math.PI * t * 0.9) * t,
    }))
    density.stroke(clavicle, [0.11, 0.09, 0.085, 0.085, 0.09, 0.1], add(bone * 0.95), boneProfile)
    const scapula = random.uniform(0.86, 1.12)
    const blade = curve(6, (t) => ({ x: side * (scapula + 0.2 * t * (1 - t) - 0.05 * t), y: 0.12 + 0.85 * t }))
    density.stroke(blade, 0.05, add(bone * 0.35))
    density.ellipse({ x: side * 1.32, y: 0.12 }, [0.19, 0.2], 0, 0.25, add(bone * 0.8))
    density.stroke(
      [
        { x: side * 1.36, y: 0.22 },
        { x: side * 1.55, y: 1.3 },
      ],
      0.18,
      add(bone * 0.7),
      boneProfile,
    )
  }
}

/** The two ends, apart and out of line. */
function drawBrokenRib(line: readonly Point[], { at, step }: BrokenRib, draw: (points: Point[]) => void): Point {
  const cut = Math.max(2, Math.min(line.length - 3, Math.round(at * (line.length - 1))))
  draw(line.slice(0, cut + 1))
  const outer = line.slice(cut).map((point, index) => {
    const back = Math.max(0, 1 - index / 5)
    return { x: point.x - Math.sign(point.x) * 0.035 * back, y: point.y + step * back }
  })
  draw(outer)
  return line[cut]!
}

function drawSpine(random: Random, { shape, density }: Scene, paint: (index: number, weight: number) => void): void {
  const pitch = random.uniform(0.165, 0.19)
  const bend = random.normal(0, 0.02)
  const x = (y: number) => shape.rotation + bend * Math.sin(2 * y)
  density.stroke(
    curve(10, (t) => ({ x: x(-0.7 + 3.3 * t), y: -0.7 + 3.3 * t })),
    0.25,
    (index, weight) => paint(index, 0.6 * weight),
  )
  for (let y = -0.7; y < 2.6; y += pitch) {
    density.ellipse({ x: x(y), y }, [0.135, pitch * 0.4], 0, 0.3, (index, weight) => paint(index, 0.55 * weight))
    density.ellipse({ x: x(y), y: y + pitch * 0.3 }, [0.022, 0.04], 0, 0.6, paint)
  }
}
