import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { contactSheet, wrap } from '../../src/data/sheet.js'

const gray = (width: number, height: number, value: number) => ({
  width,
  height,
  pixels: new Uint8Array(width * height).fill(value),
})

async function pixels(png: Buffer) {
  const { data, info } = await sharp(png).greyscale().raw().toBuffer({ resolveWithObject: true })
  return { at: (x: number, y: number) => data[(y * info.width + x) * info.channels]!, ...info, data }
}

describe('contactSheet', () => {
  it('shows each image in its place, fitted into its square', async () => {
    const items = [40, 90, 200].map((value) => ({ image: gray(30, 60, value), caption: '' }))
    const sheet = await pixels(await contactSheet(items, { columns: 2, tile: 60 }))
    expect([sheet.width, sheet.height]).toEqual([2 * 68 + 8, 2 * 68 + 8])
    expect(sheet.at(38, 38)).toBe(40)
    expect(sheet.at(106, 38)).toBe(90)
    expect(sheet.at(38, 106)).toBe(200)
    // Beside the narrow image its square is black; where there is no image, the ground shows.
    expect(sheet.at(12, 38)).toBe(0)
    expect(sheet.at(106, 106)).toBe(sheet.at(2, 2))
  })

  it('stretches 16 bits over all grays', async () => {
    const image = { width: 2, height: 1, pixels: Uint16Array.from([1000, 3000]) }
    const sheet = await pixels(await contactSheet([{ image, caption: '' }], { tile: 40 }))
    expect(sheet.at(10, 28)).toBeLessThan(20)
    expect(sheet.at(46, 28)).toBeGreaterThan(235)
  })

  it('writes captions below, or says that there is no font', async () => {
    const warnings: string[] = []
    const onWarning = (warning: string) => warnings.push(warning)
    const show = async (caption: string) =>
      await pixels(await contactSheet([{ image: gray(64, 64, 0), caption }], { tile: 128, onWarning }))
    const sheet = await show('a <patient> & "more" \u0000\uD800 of it')
    if (warnings.length > 0) expect(warnings[0]).toMatch(/no font/)
    else {
      const below = sheet.data.subarray(140 * sheet.width * sheet.channels)
      expect(below.reduce((most, value) => Math.max(most, value), 0)).toBeGreaterThan(150)
    }
  })

  it('refuses nothing, too much, and pixels that do not fit', async () => {
    await expect(contactSheet([])).rejects.toThrow(/at least one image/)
    const many = Array.from({ length: 70 }, () => ({ image: gray(2, 2, 0), caption: '' }))
    await expect(contactSheet(many, { columns: 1 })).rejects.toThrow(/show fewer/)
    const short = { image: { width: 3, height: 3, pixels: new Uint8Array(8) }, caption: '' }
    await expect(contactSheet([short])).rejects.toThrow(/3 x 3 = 9 pixels, but received 8/)
  })
})

describe('wrap', () => {
  it('keeps words whole where it can, and cuts with dots', () => {
    expect(wrap('one two three', 7, 3)).toEqual(['one two', 'three'])
    expect(wrap('incomprehensible', 6, 3)).toEqual(['incomp', 'rehens', 'ible'])
    expect(wrap('one two three four', 5, 2)).toEqual(['one', 'tw...'])
    expect(wrap('  ', 5, 2)).toEqual([])
  })
})
