import sharp, { type Sharp } from 'sharp'
import * as vega from 'vega'
import type { GrayImage } from '../../data/images/gray.js'
import { escapeText, shorten } from './html.js'

/*
 * Images in reports: X-rays, maps laid over them, and sheets of them as PNG.
 */

/** What a map says of each part of an image: attention, or gradients. */
export interface Heat {
  readonly width: number
  readonly height: number
  /** Row by row: the patches' grid, or finer. */
  readonly values: Float32Array
}

/** Longest side in a report, in pixels. */
const LONGEST = 320
const JPEG_QUALITY = 90

/** 8 bits. 16-bit images from their least to their greatest value. */
function bytesOf({ width, height, pixels }: GrayImage): Uint8Array {
  if (width < 1 || height < 1 || pixels.length !== width * height) {
    throw new RangeError(`report: expected ${width} x ${height} pixels, but received ${pixels.length}`)
  }
  if (pixels instanceof Uint8Array) return pixels
  let [least, greatest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const pixel of pixels) {
    least = Math.min(least, pixel)
    greatest = Math.max(greatest, pixel)
  }
  return Uint8Array.from(pixels, (pixel) => Math.round((255 * (pixel - least)) / Math.max(1, greatest - least)))
}

function small(image: Sharp): Sharp {
  return image.resize({ width: LONGEST, height: LONGEST, fit: 'inside', withoutEnlargement: true })
}

export async function grayJpeg(image: GrayImage): Promise<Buffer> {
  const { width, height } = image
  const raw = { width, height, channels: 1 as const }
  return small(sharp(bytesOf(image), { raw }))
    .jpeg({ quality: JPEG_QUALITY })
    .toBuffer()
}

/**
 * The image with a map over it: dark and clear where the map is lowest, bright and covering where it is highest. Each map is
 * stretched to its own range.
 */
export async function overlayJpeg(image: GrayImage, heat: Heat): Promise<Buffer> {
  const { width, height } = image
  const gray = bytesOf(image)
  const values = stretched(heat)
  const colors = colorTable()
  const pixels = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const value = sampleAt(values, heat, (x + 0.5) / width, (y + 0.5) / height)
      const color = colors[Math.round(255 * value)]!
      const opacity = 0.6 * value
      const at = y * width + x
      for (let c = 0; c < 3; c += 1) pixels[3 * at + c] = (1 - opacity) * gray[at]! + opacity * color[c]!
    }
  }
  return small(sharp(pixels, { raw: { width, height, channels: 3 } }))
    .jpeg({ quality: JPEG_QUALITY })
    .toBuffer()
}

/** From 0 to 1; all 0 where the map is the same everywhere. */
function stretched({ width, height, values }: Heat): Float32Array {
  if (width < 1 || height < 1 || values.length !== width * height) {
    throw new RangeError(`report: expected a map of ${width} x ${height} values, but received ${values.length}`)
  }
  const wrong = values.find((value) => !Number.isFinite(value))
  if (wrong !== undefined) throw new RangeError(`report: expected a map of finite values, but received ${wrong}`)
  const least = values.reduce((a, b) => Math.min(a, b))
  const range = values.reduce((a, b) => Math.max(a, b)) - least
  return range === 0 ? new Float32Array(values.length) : values.map((value) => (value - least) / range)
}

/** Between the centres of the map's cells. @param u, v from 0 to 1 across the image */
function sampleAt(values: Float32Array, { width, height }: Heat, u: number, v: number): number {
  const clamp = (value: number, last: number) => Math.min(last, Math.max(0, value))
  const [x, y] = [clamp(u * width - 0.5, width - 1), clamp(v * height - 0.5, height - 1)]
  const [left, top] = [Math.floor(x), Math.floor(y)]
  const [right, bottom] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)]
  const row = (r: number) => values[r * width + left]! * (1 - x + left) + values[r * width + right]! * (x - left)
  return row(top) * (1 - y + top) + row(bottom) * (y - top)
}

/** 256 colours from dark to bright, even to the eye and in grey print too. */
function colorTable(): readonly (readonly number[])[] {
  const scheme = vega.scheme('inferno') as unknown as (value: number) => string
  return Array.from({ length: 256 }, (_, k) =>
    scheme(k / 255)
      .match(/\d+/g)!
      .slice(0, 3)
      .map(Number),
  )
}

/** A bar with the colours of maps, for a legend. */
export async function colorBar(): Promise<Buffer> {
  const pixels = Uint8Array.from(colorTable().flat())
  return sharp(pixels, { raw: { width: 256, height: 1, channels: 3 } })
    .resize({ width: 256, height: 12, fit: 'fill', kernel: 'nearest' })
    .png()
    .toBuffer()
}

export function dataUri(bytes: Buffer | string, type: 'image/jpeg' | 'image/png' | 'image/svg+xml'): string {
  return `data:${type};base64,${Buffer.from(bytes).toString('base64')}`
}

/** Twice the pixels that a screen has, for print. */
export async function svgToPng(svg: string): Promise<Buffer> {
  return sharp(Buffer.from(svg), { density: 144 }).png().toBuffer()
}

export interface Tile {
  readonly image: Buffer | null
  /** Some lines below it. */
  readonly lines: readonly string[]
}

const TILE = 210
const LINE = 15

/** Lines as wide as a tile; what comes after the fifth is cut off. */
function wrapped(text: string): string[] {
  const lines = ['']
  for (const word of shorten(text, 400).split(' ')) {
    if (lines.at(-1) !== '' && lines.at(-1)!.length + word.length >= 33) lines.push('')
    lines.push(`${lines.pop()} ${shorten(word, 33)}`.trim())
  }
  return lines.length > 5 ? [...lines.slice(0, 4), `${lines[4]!.slice(0, 30)}\u2026`] : lines
}

/** Rows of images with words below, as a PNG. */
export async function tileSheet(rows: readonly (readonly Tile[])[]): Promise<Buffer> {
  const columns = Math.max(1, ...rows.map((row) => row.length))
  let top = 10
  const parts: string[] = []
  for (const row of rows) {
    const texts = row.map(({ lines }) => lines.flatMap((line) => wrapped(line)))
    const imageHeight = row.some(({ image }) => image !== null) ? TILE - 10 : 0
    for (const [column, { image }] of row.entries()) {
      const left = 10 + column * TILE
      if (image) {
        parts.push(
          `<image x="${left}" y="${top}" width="${TILE - 10}" height="${imageHeight}" href="${dataUri(image, 'image/jpeg')}"/>`,
        )
      }
      for (const [k, line] of texts[column]!.entries()) {
        parts.push(
          `<text x="${left}" y="${top + imageHeight + (k + 1) * LINE}" font-size="11">${escapeText(line)}</text>`,
        )
      }
    }
    top += imageHeight + LINE * Math.max(0, ...texts.map((lines) => lines.length)) + 16
  }
  const [width, height] = [columns * TILE + 10, top]
  return svgToPng(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="Helvetica, Arial, DejaVu Sans, sans-serif"><rect width="100%" height="100%" fill="white"/>${parts.join('')}</svg>`,
  )
}
