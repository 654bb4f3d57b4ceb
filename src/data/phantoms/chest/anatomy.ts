import type { Random } from '../../random.js'
import { bump, clamp, type Frame, frameOf, smoothstep } from '../canvas.js'

/*
 * A chest in a frontal view. The unit is half the inner width of the thorax (about 14 cm); x runs from the spine to the
 * right of the image, which is the patient's left; y runs down from the apex of the lungs.
 */

/** -1: left in the image (the patient's right); 1: right in the image. */
export type Side = -1 | 1
export const SIDES: readonly Side[] = [-1, 1]

export type FrontalView = 'AP' | 'PA'

/** What is as it is in every image of a patient. */
export interface Body {
  readonly sex: 'F' | 'M'
  /** From apex to the right dome in full inspiration. */
  readonly lungHeight: number
  /** How far the thorax narrows upwards: 1 is a barrel. */
  readonly barrel: number
  /** 0 slim to 1 stout: soft tissue. */
  readonly stout: number
  readonly heartWidth: number
  readonly heartSlope: number
  readonly knob: number
  readonly mediastinum: number
  readonly ribSlope: number
  readonly ribWidth: number
  readonly clavicleTilt: number
  readonly vesselSeed: number
  readonly breast: number
}

export function sampleBody(random: Random, sex: 'F' | 'M', age: number): Body {
  return {
    sex,
    lungHeight: clamp(random.normal(1.6, 0.13), 1.3, 1.95),
    barrel: random.uniform(0.86, 1),
    stout: clamp(random.normal(0.45, 0.22)),
    heartWidth: clamp(random.normal(0.4, 0.04), 0.3, 0.5),
    heartSlope: random.uniform(1, 1.7),
    knob: clamp(random.normal(0.07 + 0.0009 * (age - 50), 0.02), 0.03, 0.14),
    mediastinum: clamp(random.normal(0.185, 0.018), 0.15, 0.23),
    ribSlope: random.uniform(0.2, 0.42),
    ribWidth: random.uniform(0.075, 0.1),
    clavicleTilt: random.uniform(-0.12, 0.16),
    vesselSeed: random.integer(2 ** 31),
    breast: sex === 'F' ? random.uniform(0.03, 0.13) : random.uniform(0, 0.025),
  }
}

/** What differs from one exposure to the next, and what findings change of the shape. */
export interface Shape {
  readonly view: FrontalView
  /** Depth of the domes below the apex: left and right in the image. */
  readonly dome: [number, number]
  /** Of the angle between diaphragm and chest wall, below the dome. */
  readonly sulcus: [number, number]
  heartLeft: number
  heartRight: number
  mediastinum: number
  /** Sideways, to the right of the image. */
  shift: number
  /** Of the spine against the sternum, from rotation of the patient. */
  readonly rotation: number
  /** How far the chest wall is pushed in, as a function of y, on each side. */
  readonly dent: [(y: number) => number, (y: number) => number]
  readonly lungDensity: number
}

export function sampleShape(random: Random, body: Body, view: FrontalView): Shape {
  // Lying or sitting patients breathe in less, and the heart is farther from the detector.
  const inspiration = view === 'AP' ? random.uniform(0.78, 0.98) : random.uniform(0.9, 1.04)
  const magnified = view === 'AP' ? random.uniform(1.03, 1.2) : random.uniform(0.95, 1.05)
  const right = body.lungHeight * inspiration
  const sulcus = () => random.uniform(0.17, 0.32)
  return {
    view,
    dome: [right, right + random.uniform(0.0, 0.14)],
    sulcus: [sulcus(), sulcus()],
    heartLeft: body.heartWidth * magnified * random.uniform(0.95, 1.06),
    heartRight: 0.13 * magnified * random.uniform(0.8, 1.25),
    mediastinum: body.mediastinum * (view === 'AP' ? random.uniform(1, 1.18) : random.uniform(0.94, 1.04)),
    shift: random.normal(0, 0.02),
    rotation: random.normal(0, 0.03),
    dent: [() => 0, () => 0],
    lungDensity: random.uniform(0.2, 0.4),
  }
}

/** Half the inner width of the thorax at a height: rises quickly from the apex, slowly below. */
export function wall(body: Body, shape: Shape, side: Side, y: number): number {
  const index = side < 0 ? 0 : 1
  const depth = shape.dome[index] + shape.sulcus[index]
  const t = clamp(y / (0.62 * depth))
  const rounded = Math.sqrt(Math.max(0, 1 - (1 - t) ** 2.3))
  const upper = 0.46 + (body.barrel - 0.46) * rounded
  return upper + (1 - body.barrel) * smoothstep(0.3 * depth, depth, y) - shape.dent[index](y)
}

/** Where the lung begins beside the mediastinum: great vessels, hilum and heart. Measured from the spine to that side. */
export function inner(body: Body, shape: Shape, side: Side, y: number): number {
  const index = side < 0 ? 0 : 1
  const height = shape.dome[index]
  const apex = 0.46 - shape.mediastinum
  // The lung's apex is a dome that lies well aside of the spine.
  const top = y < 0.2 ? apex * (1 - Math.sqrt(Math.max(0, 1 - (1 - clamp(y / 0.2)) ** 2))) : 0
  const t = y / height
  const own = shape.shift * side * smoothstep(0.05, 0.5, t)
  if (side < 0) {
    const atrium = shape.heartRight * Math.sin(Math.PI * clamp((t - 0.45) / 0.68)) ** 0.8
    return shape.mediastinum + top + atrium + 0.02 * bump(t, 0.45, 0.06) + own
  }
  const s = clamp((t - 0.4) / 0.5)
  const ventricle = t < 0.9 ? Math.sin((Math.PI / 2) * s) ** body.heartSlope : 1 - 0.45 * smoothstep(0.9, 1.25, t)
  const trunk = 0.05 * bump(t, 0.43, 0.05)
  return shape.mediastinum + top + body.knob * bump(t, 0.27, 0.055) + trunk + shape.heartLeft * ventricle + own
}

/** The diaphragm's height at a place beside the spine. */
export function diaphragm(shape: Shape, side: Side, aside: number): number {
  const index = side < 0 ? 0 : 1
  const t = (aside - 0.48) / 0.5
  return shape.dome[index] + shape.sulcus[index] * (t > 0 ? t ** 2.4 : 0.35 * t * t)
}

/** The depth that the lungs of a shape reach. */
export function depthOf(shape: Shape, side: Side): number {
  const index = side < 0 ? 0 : 1
  return shape.dome[index] + shape.sulcus[index]
}

/** All that is drawn: from above the shoulders to well below the diaphragm. */
export function chestFrame(scale: number): Frame {
  return frameOf(-1.75, -0.75, 1.75, 2.65, scale)
}
