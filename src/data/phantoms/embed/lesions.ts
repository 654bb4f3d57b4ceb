import type { Random } from '../../random.js'
import { clamp, curve, type Layer, type Point, smoothField, smoothstep } from '../canvas.js'

/*
 * Masses and calcifications as BI-RADS describes them, and how each assessment comes by them.
 */

/** EMBED's letters: additional evaluation, negative, benign, probably benign, suspicious, highly suggestive, known cancer. */
export type Assessment = 'A' | 'N' | 'B' | 'P' | 'S' | 'M' | 'K'

/** Codes as in the legend file. */
export interface Mass {
  readonly shape: 'R' | 'O' | 'X' | 'F'
  readonly margin: 'D' | 'I' | 'S'
  readonly density: '+' | '=' | '-'
  readonly radius: number
}

export interface Calcifications {
  readonly find: 'P' | 'C' | 'A' | 'F'
  readonly distribution: 'D' | 'G' | 'S'
}

export interface Lesion {
  /** How far from the chest wall, as a fraction of the depth. */
  readonly u: number
  /** Below the nipple in MLO, and in CC. */
  readonly v: number
  readonly w: number
  /** 0 hardly to be seen, to 1. */
  readonly severity: number
  readonly mass: Mass | null
  readonly calcifications: Calcifications | null
  /** A metal clip, left by a biopsy. */
  readonly clip: boolean
}

/** What the legend says of each code used here, in the legend's columns. */
export const LEGEND: readonly (readonly [header: string, code: string, meaning: string])[] = [
  ['massshape', 'R', 'round'],
  ['massshape', 'O', 'oval'],
  ['massshape', 'X', 'irregular'],
  ['massshape', 'F', 'focal asymmetry'],
  ['massmargin', 'D', 'circumscribed'],
  ['massmargin', 'I', 'indistinct'],
  ['massmargin', 'S', 'spiculated'],
  ['massdens', '+', 'high density'],
  ['massdens', '=', 'isodense'],
  ['massdens', '-', 'low density'],
  ['calcfind', 'P', 'punctate'],
  ['calcfind', 'C', 'coarse'],
  ['calcfind', 'A', 'amorphous'],
  ['calcfind', 'F', 'fine pleomorphic'],
  ['calcdistri', 'D', 'diffuse'],
  ['calcdistri', 'G', 'grouped'],
  ['calcdistri', 'S', 'segmental'],
]

/** What an assessment was given for; nothing for a negative one. */
export function sampleLesions(random: Random, assessment: Assessment): Lesion[] {
  if (assessment === 'N') return []
  const severity = random.chance(0.2) ? random.uniform(0, 0.2) : random.uniform(0.2, 1)
  const where = {
    u: random.uniform(0.42, 0.6),
    v: random.uniform(-0.18, 0.04),
    w: random.uniform(-0.13, 0.1),
    severity,
  }
  const radius = (low: number, high: number) => low + (high - low) * (0.35 * random.uniform() + 0.65 * severity)
  const calcified = random.chance(0.45)
  const none = { mass: null, calcifications: null, clip: false }
  switch (assessment) {
    case 'B':
      return calcified
        ? [{ ...where, ...none, calcifications: { find: 'C', distribution: 'D' } }]
        : [{ ...where, ...none, mass: { shape: 'R', margin: 'D', density: '-', radius: radius(0.1, 0.17) } }]
    case 'A':
      return [{ ...where, ...none, mass: { shape: 'F', margin: 'I', density: '=', radius: radius(0.17, 0.28) } }]
    case 'P':
      return calcified
        ? [{ ...where, ...none, calcifications: { find: 'P', distribution: 'G' } }]
        : [{ ...where, ...none, mass: { shape: 'O', margin: 'D', density: '=', radius: radius(0.1, 0.17) } }]
    case 'S': {
      const mass = {
        shape: 'X',
        margin: 'I',
        density: random.pick(['=', '+'] as const),
        radius: radius(0.12, 0.21),
      } as const
      const calcifications = { find: 'A', distribution: 'G' } as const
      return [{ ...where, ...none, ...(calcified ? { calcifications } : { mass }) }]
    }
    case 'M':
    case 'K':
      return [
        {
          ...where,
          mass: { shape: 'X', margin: 'S', density: '+', radius: radius(0.12, assessment === 'M' ? 0.2 : 0.24) },
          calcifications: calcified ? { find: 'F', distribution: 'S' } : null,
          clip: assessment === 'K',
        },
      ]
  }
}

export function drawLesions(
  random: Random,
  layer: Layer,
  lesions: readonly Lesion[],
  placeOf: (lesion: Lesion) => Point,
): void {
  for (const lesion of lesions) {
    const place = placeOf(lesion)
    if (lesion.mass !== null) drawMass(random, layer, lesion.mass, place, lesion.severity)
    if (lesion.calcifications !== null) drawCalcifications(random, layer, lesion.calcifications, place, lesion.severity)
    if (lesion.clip) {
      const end = { x: place.x + 0.025, y: place.y + random.uniform(-0.02, 0.02) }
      layer.stroke([place, end], 0.014, (index, weight) => raise(layer, index, 1.15, weight))
    }
  }
}

function raise({ data }: Layer, index: number, to: number, weight: number): void {
  // Nothing lies outside of the breast.
  if (data[index]! > 0.08) data[index]! += Math.max(0, to - data[index]!) * clamp(weight)
}

function drawMass(random: Random, layer: Layer, mass: Mass, place: Point, severity: number): void {
  const { shape, margin, radius } = mass
  const level = { '+': 0.95, '=': 0.82, '-': 0.68 }[mass.density]
  const strength = (mass.density === '+' ? 0.6 : 0.55) + 0.4 * severity
  const lobed = smoothField(random, radius * 0.6)
  const uneven = { R: 0.05, O: 0.08, X: 0.55, F: 0.7 }[shape]
  const edge = { D: 0.18, I: 0.7, S: 0.5 }[margin] + (shape === 'F' ? 0.2 : 0)
  const flat = shape === 'O' ? 0.68 : 1
  layer.ellipse(
    place,
    [radius * 1.15, radius * 1.15 * flat],
    random.uniform(0, Math.PI),
    Math.min(1, edge),
    (index, weight, x, y) =>
      raise(layer, index, level, strength * smoothstep(0.05, 0.8, weight * (1 + uneven * lobed(x, y)))),
  )
  if (margin !== 'S') return
  for (let spike = 0; spike < 14 + random.integer(10); spike += 1) {
    const angle = random.uniform(0, 2 * Math.PI)
    const length = radius * random.uniform(1.4, 2.3)
    const bend = random.normal(0, 0.1)
    const line = curve(3, (t) => ({
      x: place.x + Math.cos(angle + bend * t) * length * t,
      y: place.y + Math.sin(angle + bend * t) * length * t,
    }))
    layer.stroke(line, [0.022, 0.014, 0.006], (index, weight) => raise(layer, index, level, 0.55 * strength * weight))
  }
}

function drawCalcifications(
  random: Random,
  layer: Layer,
  { find, distribution }: Calcifications,
  place: Point,
  severity: number,
): void {
  const count = Math.round({ C: 11, P: 14, A: 26, F: 28 }[find] * (0.5 + 1.1 * severity))
  const size = { C: 0.034, P: 0.01, A: 0.0075, F: 0.0085 }[find]
  const spread = { D: [0.22, 0.22], G: [0.07, 0.07], S: [0.2, 0.07] }[distribution] as [number, number]
  const toNipple = random.normal(0, 0.4)
  for (let grain = 0; grain < count; grain += 1) {
    const along = random.normal(0, spread[0] * 0.6)
    const across = random.normal(0, spread[1] * 0.6)
    const at = {
      x: place.x + along * Math.cos(toNipple) - across * Math.sin(toNipple),
      y: place.y + along * Math.sin(toNipple) + across * Math.cos(toNipple),
    }
    const own = size * random.uniform(0.7, 1.5)
    const strength = (find === 'A' ? 0.5 : 0.85) * (0.6 + 0.4 * severity)
    if (find === 'F') {
      const angle = random.uniform(0, Math.PI)
      const end = { x: at.x + 2 * own * Math.cos(angle), y: at.y + 2 * own * Math.sin(angle) }
      layer.stroke([at, end], own, (index, weight) => raise(layer, index, 1.1, strength * weight))
    } else {
      layer.stroke([at, at], 2 * own, (index, weight) => raise(layer, index, 1.1, strength * weight))
    }
  }
  // Where many lie close together, the tissue around is denser too.
  if (distribution === 'D') return
  layer.ellipse(place, [spread[0] * 1.5 + 0.06, spread[1] * 1.6 + 0.06], toNipple, 1, (index, weight) =>
    raise(layer, index, 0.82, (0.15 + 0.5 * severity) * weight),
  )
}
