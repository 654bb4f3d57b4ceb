import type { GrayImage } from '../images/gray.js'
import type { Random } from '../random.js'
import { bump, clamp, type Layer, noiseSeed, type Point, smoothField, smoothstep } from './canvas.js'

/*
 * From what the body absorbs to an image: position, a little warping, exposure, grain, collimation. None of it depends on
 * what is found in the body.
 */

/** Where the film lies: maps between its pixels and the drawing. */
export interface Placement {
  readonly width: number
  readonly height: number
  /** What the middle of the film shows. */
  readonly center: Point
  /** Units a pixel. */
  readonly pixel: number
  /** In radians. */
  readonly angle: number
  /** By how much, in units, a place is moved. */
  readonly warp: (x: number, y: number) => Point
}

export function sampleWarp(random: Random, amount: number, size: number): Placement['warp'] {
  const [across, down] = [smoothField(random, size), smoothField(random, size)]
  return (x, y) => ({ x: amount * across(x, y), y: amount * down(x, y) })
}

/** The film's pixel that shows a place of the drawing. */
export function pixelOf({ width, height, center, pixel, angle, warp }: Placement, place: Point): Point {
  let { x, y } = place
  // The warp is small and smooth: three rounds are exact to a hundredth of a pixel.
  for (let round = 0; round < 3; round += 1) {
    const moved = warp(x, y)
    x = place.x - moved.x
    y = place.y - moved.y
  }
  const dx = (x - center.x) / pixel
  const dy = (y - center.y) / pixel
  return {
    x: width / 2 + dx * Math.cos(angle) + dy * Math.sin(angle),
    y: height / 2 + dy * Math.cos(angle) - dx * Math.sin(angle),
  }
}

/** The drawing as the film sees it, still in absorption. Beyond the drawing its edge goes on. */
export function project(layer: Layer, placement: Placement): Float32Array {
  const { width, height, center, pixel, angle, warp } = placement
  const { left, top, scale, columns, rows } = layer.frame
  const cos = Math.cos(angle) * pixel
  const sin = Math.sin(angle) * pixel
  const film = new Float32Array(width * height)
  // The warp is smooth: every sixteenth pixel, straight between.
  const coarse = 16
  const coarseColumns = Math.ceil(width / coarse) + 2
  const coarseRows = Math.ceil(height / coarse) + 2
  const movedX = new Float32Array(coarseColumns * coarseRows)
  const movedY = new Float32Array(coarseColumns * coarseRows)
  const undistorted = (column: number, row: number): Point => {
    const dx = column - width / 2
    const dy = row - height / 2
    return { x: center.x + dx * cos - dy * sin, y: center.y + dx * sin + dy * cos }
  }
  for (let row = 0; row < coarseRows; row += 1) {
    for (let column = 0; column < coarseColumns; column += 1) {
      const place = undistorted(column * coarse, row * coarse)
      const moved = warp(place.x, place.y)
      movedX[row * coarseColumns + column] = place.x + moved.x
      movedY[row * coarseColumns + column] = place.y + moved.y
    }
  }
  const { data } = layer
  for (let row = 0; row < height; row += 1) {
    const coarseRow = Math.floor(row / coarse)
    const v = row / coarse - coarseRow
    for (let column = 0; column < width; column += 1) {
      const coarseColumn = Math.floor(column / coarse)
      const u = column / coarse - coarseColumn
      const at = coarseRow * coarseColumns + coarseColumn
      const below = at + coarseColumns
      const a = (1 - u) * (1 - v)
      const b = u * (1 - v)
      const c = (1 - u) * v
      const d = u * v
      const x = a * movedX[at]! + b * movedX[at + 1]! + c * movedX[below]! + d * movedX[below + 1]!
      const y = a * movedY[at]! + b * movedY[at + 1]! + c * movedY[below]! + d * movedY[below + 1]!
      const sourceX = clamp((x - left) * scale - 0.5, 0, columns - 1.001)
      const sourceY = clamp((y - top) * scale - 0.5, 0, rows - 1.001)
      const sourceColumn = Math.floor(sourceX)
      const sourceRow = Math.floor(sourceY)
      const fu = sourceX - sourceColumn
      const fv = sourceY - sourceRow
      const source = sourceRow * columns + sourceColumn
      const above = data[source]! * (1 - fu) + data[source + 1]! * fu
      const under = data[source + columns]! * (1 - fu) + data[source + columns + 1]! * fu
      film[row * width + column] = above * (1 - fv) + under * fv
    }
  }
  return film
}

export interface Exposure {
  /** Absorption that is black, and white. */
  readonly black: number
  readonly white: number
  readonly gamma: number
  /** In gray levels of 255. */
  readonly grain: number
  /** From one side to the other, as a fraction. */
  readonly heel: readonly [number, number]
}

/**
 * Gray levels from 0 to 255 with fractions: the tone curve with a soft shoulder, the tube's fall-off, grain.
 *
 * @param random for the grain
 */
export function expose(film: Float32Array, width: number, exposure: Exposure, random: Random): Float32Array {
  const { black, white, gamma, grain, heel } = exposure
  const height = film.length / width
  // A table is many times faster than a power a pixel.
  const table = Float32Array.from({ length: 1025 }, (_, index) => {
    const t = index / 1024
    return 255 * clamp(t ** gamma) * (1 - 0.06 * bump(t, 1, 0.15))
  })
  const levels = new Float32Array(film.length)
  let state = noiseSeed(random)
  let before = 0
  for (let row = 0; row < height; row += 1) {
    const down = heel[1] * (row / height - 0.5)
    for (let column = 0; column < width; column += 1) {
      const index = row * width + column
      const factor = 1 + down + heel[0] * (column / width - 0.5)
      const t = clamp(((film[index]! - black) / (white - black)) * factor)
      // xorshift32 (Marsaglia 2003): three of its ten-bit parts, added, are normal enough for grain.
      state ^= state << 13
      state ^= state >>> 17
      state ^= state << 5
      const sum = (state & 1023) + ((state >>> 10) & 1023) + ((state >>> 20) & 1023)
      const noise = (sum - 1534.5) / 511.5
      const smoothed = 0.75 * noise + 0.35 * before
      before = noise
      levels[index] = table[Math.round(1024 * t)]! + grain * (0.6 + 0.5 * t) * smoothed
    }
  }
  return levels
}

/** Black (or nearly) beyond the shutters. */
export function collimate(random: Random, levels: Float32Array, width: number): void {
  const height = levels.length / width
  if (!random.chance(0.4)) return
  const shade = random.uniform(0, 14)
  const edge = () => (random.chance(0.6) ? random.uniform(0.008, 0.055) : 0)
  const [left, right, top, bottom] = [edge() * width, width - edge() * width, edge() * height, height - edge() * height]
  const tilt = random.normal(0, 0.008)
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const x = column + tilt * row
      const y = row - tilt * column
      const inside = Math.min(
        x - left + (left === 0 ? 99 : 0),
        right - x + (right === width ? 99 : 0),
        y - top + (top === 0 ? 99 : 0),
        bottom - y + (bottom === height ? 99 : 0),
      )
      if (inside >= 1.5) continue
      const index = row * width + column
      levels[index] = shade + (levels[index]! - shade) * smoothstep(-1.5, 1.5, inside)
    }
  }
}

/** Letters of lead, three cells wide and five high. */
const LETTERS: Readonly<Record<string, readonly string[]>> = {
  L: ['100', '100', '100', '100', '111'],
  R: ['110', '101', '110', '101', '101'],
  C: ['111', '100', '100', '100', '111'],
  M: ['101', '111', '111', '101', '101'],
  O: ['111', '101', '101', '101', '111'],
}

/** Writes letters over an image, from a pixel on. */
export function stamp(
  levels: Float32Array | Uint16Array,
  width: number,
  [left, top]: readonly [number, number],
  letters: string,
  cell: number,
  shade: number,
): void {
  for (const [place, name] of [...letters].entries()) {
    for (const [line, cells] of LETTERS[name]!.entries()) {
      for (const [at, on] of [...cells].entries()) {
        if (on === '0') continue
        for (let dy = 0; dy < cell; dy += 1) {
          const start = (top + line * cell + dy) * width + left + (4 * place + at) * cell
          levels.fill(shade, start, start + cell)
        }
      }
    }
  }
}

/** A letter at an upper corner, as a technician lays it: L for the patient's left. */
export function mark(random: Random, levels: Float32Array, width: number): void {
  if (!random.chance(0.55)) return
  const height = levels.length / width
  const size = Math.round(random.uniform(0.035, 0.055) * width)
  const isLeft = random.chance(0.75)
  const fromSide = Math.round(random.uniform(0.05, 0.12) * width)
  const left = isLeft ? width - fromSide - size : fromSide
  const top = Math.round(random.uniform(0.03, 0.14) * height)
  const shade = random.uniform(225, 255)
  stamp(levels, width, [left, top], isLeft ? 'L' : 'R', Math.max(1, Math.round(size / 5)), shade)
}

/** Whole gray levels of 8 bits. */
export function toGray(levels: Float32Array, width: number): GrayImage {
  const pixels = new Uint8Array(levels.length)
  for (let index = 0; index < pixels.length; index += 1) pixels[index] = clamp(Math.round(levels[index]!), 0, 255)
  return { width, height: levels.length / width, pixels }
}
