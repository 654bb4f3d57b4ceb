import sharp from 'sharp'
import type { GrayImage } from './images/gray.js'

/*
 * Contact sheets: images in a grid with captions below, to be looked at.
 */

export interface SheetItem {
  readonly image: GrayImage
  readonly caption: string
}

export interface SheetOptions {
  /** Images a row. Default: as many as make the sheet about square. */
  readonly columns?: number
  /** The square in pixels that each image is fitted into. Default: 256. */
  readonly tile?: number
  /** Of captions, which are cut after as many with '...'. Default: 3. */
  readonly lines?: number
  /** Told where this machine has no font, so that the sheet goes without captions. */
  readonly onWarning?: (warning: string) => void
}

const MARGIN = 8
const FONT_SIZE = 12
const LINE_HEIGHT = 15
/** Of a character of this size in a sans-serif font, a little more than the mean, since the real one is not known. */
const CHARACTER_WIDTH = 0.56 * FONT_SIZE

const escapeXml = (text: string): string =>
  // Characters that XML cannot hold, escaped or not, would make the whole sheet unreadable.
  text
    .replaceAll(/[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/gu, ' ')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')

/** Whole words a line; longer words are broken; what is more than `lines` lines ends in '...'. */
export function wrap(text: string, characters: number, lines: number): string[] {
  const wrapped: string[] = []
  let line = ''
  for (const word of text.split(/\s+/).filter((each) => each !== '')) {
    for (let rest = word; rest !== ''; ) {
      const room = line === '' ? characters : characters - line.length - 1
      if (rest.length <= room) {
        line = line === '' ? rest : `${line} ${rest}`
        rest = ''
      } else if (line === '') {
        wrapped.push(rest.slice(0, characters))
        rest = rest.slice(characters)
      } else {
        wrapped.push(line)
        line = ''
      }
    }
  }
  if (line !== '') wrapped.push(line)
  if (wrapped.length <= lines) return wrapped
  const last = wrapped[lines - 1]!
  return [...wrapped.slice(0, lines - 1), `${last.slice(0, Math.max(0, characters - 3))}...`]
}

function textSvg(width: number, lines: readonly string[]): Buffer {
  const spans = lines
    .map((line, index) => `<text x="0" y="${FONT_SIZE + index * LINE_HEIGHT}">${escapeXml(line)}</text>`)
    .join('')
  return Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${Math.max(1, lines.length) * LINE_HEIGHT}">` +
      `<g font-family="sans-serif" font-size="${FONT_SIZE}" fill="#ffffff">${spans}</g></svg>`,
  )
}

/** Whether letters come out as anything: a server may have no font at all, or only boxes that stand for missing letters. */
async function hasFont(): Promise<boolean> {
  const drawn = async (letter: string) =>
    await sharp(textSvg(40, [letter]))
      .ensureAlpha()
      .raw()
      .toBuffer()
  const [first, second] = await Promise.all([drawn('M'), drawn('.')])
  return first.some((value) => value !== 0) && !first.equals(second)
}

/** 8 bits, stretched from the least value to the largest where there are 16. */
function toEightBits({ pixels, width, height }: GrayImage): Buffer {
  if (pixels.length !== width * height) {
    throw new RangeError(
      `contactSheet: expected ${width} x ${height} = ${width * height} pixels, but received ${pixels.length}`,
    )
  }
  if (pixels instanceof Uint8Array) return Buffer.from(pixels.buffer, pixels.byteOffset, pixels.byteLength)
  let low = 65535
  let high = 0
  for (const value of pixels) {
    if (value < low) low = value
    if (value > high) high = value
  }
  const factor = 255 / Math.max(1, high - low)
  return Buffer.from(Uint8Array.from(pixels, (value) => Math.round((value - low) * factor)))
}

/**
 * A PNG of all images in a grid, each fitted into a square with its caption below.
 *
 * @param items at least one
 * @throws RangeError where there is none, or the sheet would have more than 16,384 pixels in a direction
 */
export async function contactSheet(items: readonly SheetItem[], options: SheetOptions = {}): Promise<Buffer> {
  if (items.length === 0) throw new RangeError('contactSheet: expected at least one image, but received none')
  const columns = Math.min(items.length, options.columns ?? Math.ceil(Math.sqrt(items.length)))
  const tile = options.tile ?? 256
  const captioned = items.some(({ caption }) => caption !== '') && (await hasFont())
  if (!captioned && items.some(({ caption }) => caption !== '')) {
    options.onWarning?.('this machine has no font (fontconfig found none): the sheet goes without captions')
  }
  const lines = captioned ? (options.lines ?? 3) : 0
  const cell = { width: tile + MARGIN, height: tile + MARGIN + lines * LINE_HEIGHT + (captioned ? 6 : 0) }
  const width = columns * cell.width + MARGIN
  const height = Math.ceil(items.length / columns) * cell.height + MARGIN
  if (Math.max(width, height) > 16384) {
    throw new RangeError(
      `contactSheet: expected a sheet of at most 16384 pixels a side, but ${items.length} images would make ${width} x ${height}; show fewer, or smaller ones`,
    )
  }
  const parts = await Promise.all(
    items.map(async ({ image, caption }, index) => {
      const left = MARGIN + (index % columns) * cell.width
      const top = MARGIN + Math.floor(index / columns) * cell.height
      const raw = { width: image.width, height: image.height, channels: 1 as const }
      const shown = await sharp(toEightBits(image), { raw })
        .resize(tile, tile, { fit: 'contain', background: '#000000' })
        .png({ compressionLevel: 1 })
        .toBuffer()
      const text = captioned ? wrap(caption, Math.floor(tile / CHARACTER_WIDTH), lines) : []
      return [
        { input: shown, left, top },
        ...(text.length > 0 ? [{ input: textSvg(tile, text), left, top: top + tile + 4 }] : []),
      ]
    }),
  )
  return await sharp({ create: { width, height, channels: 3, background: '#202020' } })
    .composite(parts.flat())
    .toColourspace('b-w')
    .png()
    .toBuffer()
}
