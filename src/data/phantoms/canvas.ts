import type { Random } from '../random.js'

/*
 * What phantoms are drawn on: layers of numbers over a plane measured in units of the anatomy, soft strokes and soft
 * ellipses, and smooth random fields that are made coarse and interpolated.
 */

export interface Point {
  readonly x: number
  readonly y: number
}

/** The part of the plane that is drawn, and how finely. */
export interface Frame {
  readonly left: number
  readonly top: number
  /** Pixels a unit. */
  readonly scale: number
  readonly columns: number
  readonly rows: number
}

export function frameOf(left: number, top: number, right: number, bottom: number, scale: number): Frame {
  return { left, top, scale, columns: Math.round((right - left) * scale), rows: Math.round((bottom - top) * scale) }
}

export const clamp = (value: number, low = 0, high = 1): number => (value < low ? low : value > high ? high : value)

/** 0 below `from`, 1 above `to`, smooth between. */
export function smoothstep(from: number, to: number, value: number): number {
  const t = clamp((value - from) / (to - from))
  return t * t * (3 - 2 * t)
}

/** A bump of height 1 at the middle; the width is its standard deviation. */
export function bump(value: number, middle: number, width: number): number {
  const t = (value - middle) / width
  return Math.exp(-0.5 * t * t)
}

/** A whole number below 2³², to start a fast generator of pixel noise with. */
export const noiseSeed = (random: Random): number => random.integer(2 ** 31 - 1) + 1

/** What an ellipse, a stroke or a texture does to a pixel: the weight is 0 to 1. */
type Paint = (index: number, weight: number) => void

export class Layer {
  readonly frame: Frame
  readonly data: Float32Array
  /** Kept between strokes: memory of each stroke's own would take longer than the drawing. */
  #scratch: { readonly weights: Float32Array; readonly touched: Int32Array } | undefined

  constructor(frame: Frame, fill = 0) {
    this.frame = frame
    this.data = new Float32Array(frame.columns * frame.rows).fill(fill)
  }

  /** The x of a column's middle. */
  x(column: number): number {
    return this.frame.left + (column + 0.5) / this.frame.scale
  }

  y(row: number): number {
    return this.frame.top + (row + 0.5) / this.frame.scale
  }

  column(x: number): number {
    return Math.floor((x - this.frame.left) * this.frame.scale)
  }

  row(y: number): number {
    return Math.floor((y - this.frame.top) * this.frame.scale)
  }

  /** Calls back for every pixel of a rectangle, cut to the frame. */
  forEach(
    left: number,
    top: number,
    right: number,
    bottom: number,
    visit: (index: number, x: number, y: number) => void,
  ): void {
    const { columns, rows } = this.frame
    const firstColumn = Math.max(0, this.column(left))
    const lastColumn = Math.min(columns - 1, this.column(right))
    const lastRow = Math.min(rows - 1, this.row(bottom))
    for (let row = Math.max(0, this.row(top)); row <= lastRow; row += 1) {
      const y = this.y(row)
      for (let column = firstColumn; column <= lastColumn; column += 1) {
        visit(row * columns + column, this.x(column), y)
      }
    }
  }

  /** A line of a given width through points, with soft edges; `paint` gets the largest weight of all its pieces once. */
  stroke(points: readonly Point[], width: number | readonly number[], paint: Paint, profile = softProfile): void {
    const widths = (index: number) => (typeof width === 'number' ? width : width[Math.min(index, width.length - 1)]!)
    this.#scratch ??= { weights: new Float32Array(this.data.length), touched: new Int32Array(this.data.length) }
    const { weights, touched } = this.#scratch
    let count = 0
    for (let piece = 0; piece + 1 < points.length; piece += 1) {
      count = this.#piece(points[piece]!, points[piece + 1]!, widths(piece) / 2, widths(piece + 1) / 2, profile, count)
    }
    for (let at = 0; at < count; at += 1) {
      const index = touched[at]!
      paint(index, weights[index]!)
      weights[index] = 0
    }
  }

  /** Notes the weights of a straight piece in the scratch layer; how many pixels are noted then. */
  #piece(
    from: Point,
    to: Point,
    halfFrom: number,
    halfTo: number,
    profile: (d: number) => number,
    before: number,
  ): number {
    const { weights, touched } = this.#scratch!
    const { columns, rows, scale } = this.frame
    const soft = 1 / scale
    const dx = to.x - from.x
    const dy = to.y - from.y
    const lengthSquared = dx * dx + dy * dy || 1e-12
    const reach = Math.max(halfFrom, halfTo) + soft
    const firstColumn = Math.max(0, this.column(Math.min(from.x, to.x) - reach))
    const lastColumn = Math.min(columns - 1, this.column(Math.max(from.x, to.x) + reach))
    const lastRow = Math.min(rows - 1, this.row(Math.max(from.y, to.y) + reach))
    let count = before
    for (let row = Math.max(0, this.row(Math.min(from.y, to.y) - reach)); row <= lastRow; row += 1) {
      const fromY = this.y(row) - from.y
      for (let column = firstColumn; column <= lastColumn; column += 1) {
        const fromX = this.x(column) - from.x
        const along = clamp((fromX * dx + fromY * dy) / lengthSquared)
        const awayX = fromX - along * dx
        const awayY = fromY - along * dy
        const distance = Math.sqrt(awayX * awayX + awayY * awayY)
        const half = halfFrom + (halfTo - halfFrom) * along
        if (distance >= half + soft) continue
        const weight = profile(distance / half) * clamp((half + soft - distance) / (2 * soft))
        const index = row * columns + column
        const noted = weights[index]!
        if (weight <= noted) continue
        if (noted === 0) {
          touched[count] = index
          count += 1
        }
        weights[index] = weight
      }
    }
    return count
  }

  /** An ellipse with an edge that falls from 1 to 0 over the given fraction of its radius. */
  ellipse(
    center: Point,
    radii: readonly [number, number],
    angle: number,
    edge: number,
    paint: (index: number, weight: number, x: number, y: number) => void,
  ): void {
    const reach = Math.max(...radii)
    const cos = Math.cos(angle)
    const sin = Math.sin(angle)
    this.forEach(center.x - reach, center.y - reach, center.x + reach, center.y + reach, (index, x, y) => {
      const dx = x - center.x
      const dy = y - center.y
      const u = (dx * cos + dy * sin) / radii[0]
      const v = (dy * cos - dx * sin) / radii[1]
      const square = u * u + v * v
      if (square >= 1) return
      paint(index, 1 - smoothstep(1 - edge, 1, Math.sqrt(square)), x, y)
    })
  }
}

/** Round: brightest in the middle, as a vessel or a tube full of fluid is. `distance` is 0 in the middle, 1 at the edge. */
export const softProfile = (distance: number): number => Math.sqrt(Math.max(0, 1 - 0.9 * distance * distance))

/** With brighter edges, as a bone's cortex has. */
export const boneProfile = (distance: number): number =>
  0.62 + 0.38 * smoothstep(0.55, 0.9, distance) - 0.35 * smoothstep(0.92, 1.1, distance)

/** A smooth random field with values about -1 to 1, and bumps of about `size` units. */
export function smoothField(random: Random, size: number): (x: number, y: number) => number {
  const grid = 32
  const values = Float32Array.from({ length: grid * grid }, () => random.uniform(-1, 1))
  const offset = [random.uniform(0, grid), random.uniform(0, grid)] as const
  // Turned, or the grid's directions would show.
  const angle = random.uniform(0.2, 1.3)
  const cos = Math.cos(angle) / size
  const sin = Math.sin(angle) / size
  return (x, y) => {
    const u = x * cos - y * sin + offset[0]
    const v = x * sin + y * cos + offset[1]
    const column = Math.floor(u)
    const row = Math.floor(v)
    const fu = u - column
    const fv = v - row
    const su = fu * fu * (3 - 2 * fu)
    const sv = fv * fv * (3 - 2 * fv)
    const top = (row & 31) * grid
    const bottom = ((row + 1) & 31) * grid
    const left = column & 31
    const right = (column + 1) & 31
    const above = values[top + left]! + (values[top + right]! - values[top + left]!) * su
    const below = values[bottom + left]! + (values[bottom + right]! - values[bottom + left]!) * su
    return above + (below - above) * sv
  }
}

/** A function of the row, worked out once a row where pixels are visited in order. */
export function byRow(value: (y: number) => number): (y: number) => number {
  let [lastY, last] = [Number.NaN, 0]
  return (y) => {
    if (y !== lastY) [lastY, last] = [y, value(y)]
    return last
  }
}

/** Points along a curve, from a function of 0 to 1. */
export function curve(pieces: number, point: (t: number) => Point): Point[] {
  return Array.from({ length: pieces + 1 }, (_, index) => point(index / pieces))
}
