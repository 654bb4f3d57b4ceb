import type { Random } from '../../random.js'
import { clamp, curve, type Point, smoothstep } from '../canvas.js'
import { inner, SIDES, type Side } from './anatomy.js'
import type { Scene } from './scene.js'

/*
 * Support devices: lines, tubes, leads and a pacemaker. They lie over everything, sharper and brighter than the body.
 */

/** @param severity how many and how bright */
export function placeDevices(random: Random, severity: number, scene: Scene): void {
  const devices: readonly [number, (random: Random, scene: Scene, strength: number) => void][] = [
    [0.6, electrodes],
    [0.55, centralLine],
    [0.45, breathingTube],
    [0.42, feedingTube],
    [0.36, pacemaker],
    [0.24, chestDrain],
    [0.26, sternotomy],
  ]
  const strength = 0.6 + 0.4 * severity
  let placed = 0
  for (const [probability, place] of devices) {
    if (!random.chance(probability * (0.6 + 0.6 * severity))) continue
    place(random, scene, strength)
    placed += 1
  }
  if (placed === 0) random.pick([centralLine, pacemaker, electrodes])(random, scene, strength)
}

/**
 * Brightens towards metal or plastic: 1.15 is the brightest. Fades out where the film may end: what crosses the image's border
 * would tell the label there.
 */
function over({ density }: Scene, amount: number): (index: number, weight: number) => void {
  const { columns } = density.frame
  return (index, weight) => {
    const row = Math.floor(index / columns)
    const aside = Math.abs(density.x(index - row * columns))
    const y = density.y(row)
    const seen = smoothstep(-0.2, 0.05, y) * smoothstep(1.95, 1.75, y) * smoothstep(1.1, 0.95, aside)
    const before = density.data[index]!
    density.data[index] = before + clamp(amount * weight * seen) * Math.max(0, 1.15 - before)
  }
}

function electrodes(random: Random, scene: Scene, strength: number): void {
  const paint = over(scene, 0.75 * strength)
  for (let lead = 0; lead < 3 + random.integer(3); lead += 1) {
    const side = random.pick(SIDES)
    const end = {
      x: side * random.uniform(0.35, 1),
      y: random.chance(0.5) ? random.uniform(0.1, 0.5) : random.uniform(1.1, 1.6),
    }
    const from = { x: side * random.uniform(0.5, 1.2), y: -0.7 }
    const sag = random.uniform(-0.3, 0.3)
    const wire = curve(10, (t) => ({
      x: from.x + (end.x - from.x) * t + sag * Math.sin(Math.PI * t),
      y: from.y + (end.y - from.y) * t,
    }))
    scene.density.stroke(wire, 0.022, paint)
    scene.density.ellipse(end, [0.045, 0.045], 0, 0.3, paint)
  }
}

/** From the neck or below a clavicle into the superior vena cava (left in the image). */
function centralLine(random: Random, scene: Scene, strength: number): void {
  const { shape } = scene
  const tip = { x: shape.shift - random.uniform(0.06, 0.13), y: random.uniform(0.45, 0.62) * shape.dome[0] }
  const side = random.chance(0.65) ? -1 : 1
  const middle = { x: shape.shift - 0.1, y: 0.22 }
  const path: Point[] = random.chance(0.5)
    ? [{ x: side * 0.3, y: -0.7 }, { x: side * 0.2, y: -0.1 }, middle, tip]
    : [{ x: side * 1.3, y: 0.5 }, { x: side * 0.95, y: 0.16 }, { x: side * 0.5, y: 0.09 }, middle, tip]
  scene.density.stroke(smooth(path), 0.03, over(scene, 0.6 * strength))
}

function breathingTube(random: Random, scene: Scene, strength: number): void {
  const { shape } = scene
  const tip = { x: shape.shift * 0.8, y: random.uniform(0.12, 0.3) * shape.dome[0] }
  const tube = [{ x: random.normal(0, 0.03), y: -0.74 }, { x: shape.rotation, y: -0.2 }, tip]
  const paint = over(scene, 0.5 * strength)
  for (const offset of [-0.035, 0.035]) {
    scene.density.stroke(
      tube.map(({ x, y }) => ({ x: x + offset, y })),
      0.02,
      paint,
    )
  }
}

function feedingTube(random: Random, scene: Scene, strength: number): void {
  const { shape } = scene
  const down = shape.dome[1]
  const path = [
    { x: random.normal(0, 0.03), y: -0.74 },
    { x: shape.shift + 0.03, y: 0.4 },
    { x: shape.shift + 0.06, y: down - 0.1 },
    { x: 0.28, y: down + 0.2 },
    { x: random.uniform(0.35, 0.65), y: down + random.uniform(0.25, 0.5) },
  ]
  scene.density.stroke(smooth(path), 0.032, over(scene, 0.5 * strength))
}

function pacemaker(random: Random, scene: Scene, strength: number): void {
  const { shape } = scene
  const side: Side = random.chance(0.8) ? 1 : -1
  const box = { x: side * random.uniform(0.62, 0.86), y: random.uniform(0.2, 0.42) }
  scene.density.ellipse(box, [0.16, 0.13], random.uniform(-0.4, 0.4), 0.12, over(scene, 0.85 * strength))
  const paint = over(scene, 0.75 * strength)
  for (let lead = 0; lead < 1 + random.integer(2); lead += 1) {
    const end =
      lead === 0
        ? {
            x: shape.shift + inner(scene.body, shape, 1, shape.dome[1] * 0.85) * random.uniform(0.5, 0.8),
            y: shape.dome[1] * 0.93,
          }
        : { x: shape.shift - 0.14, y: shape.dome[0] * 0.66 }
    const path = [
      box,
      { x: side * 0.5, y: 0.1 },
      { x: shape.shift - 0.08, y: 0.24 },
      { x: shape.shift - 0.12, y: 0.6 * shape.dome[0] },
      end,
    ]
    scene.density.stroke(smooth(path), 0.022, paint)
  }
}

function chestDrain(random: Random, scene: Scene, strength: number): void {
  const side = random.pick(SIDES)
  const path = [
    { x: side * 1.35, y: random.uniform(1.1, 1.4) },
    { x: side * 0.95, y: 1 },
    { x: side * random.uniform(0.45, 0.75), y: random.uniform(0.2, 0.6) },
  ]
  const paint = over(scene, 0.45 * strength)
  for (const offset of [-0.028, 0.028]) {
    scene.density.stroke(smooth(path.map(({ x, y }) => ({ x: x + offset, y }))), 0.02, paint)
  }
}

/** Wires around the sternum after an operation. */
function sternotomy(random: Random, scene: Scene, strength: number): void {
  const paint = over(scene, 0.7 * strength)
  const x = scene.shape.rotation * -0.5
  for (let wire = 0; wire < 5 + random.integer(2); wire += 1) {
    const y = 0.25 + 0.19 * wire
    const loop = curve(8, (t) => ({
      x: x + 0.07 * Math.cos(2 * Math.PI * t) + random.normal(0, 0.004),
      y: y + 0.03 * Math.sin(2 * Math.PI * t),
    }))
    scene.density.stroke(loop, 0.014, paint)
  }
}

/** Through the points without corners (Catmull and Rom 1974). */
function smooth(points: readonly Point[]): Point[] {
  const at = (index: number) => points[clamp(index, 0, points.length - 1)]!
  return points.slice(0, -1).flatMap((_, piece) => {
    const [a, b, c, d] = [at(piece - 1), at(piece), at(piece + 1), at(piece + 2)]
    const blend = (key: 'x' | 'y', t: number) =>
      0.5 *
      (2 * b[key] +
        (c[key] - a[key]) * t +
        (2 * a[key] - 5 * b[key] + 4 * c[key] - d[key]) * t * t +
        (3 * b[key] - a[key] - 3 * c[key] + d[key]) * t ** 3)
    const pieces = curve(5, (t) => ({ x: blend('x', t), y: blend('y', t) }))
    return piece === 0 ? pieces : pieces.slice(1)
  })
}
