import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { prepareImage, readImage, to8Bits } from '../../../src/data/images/index.js'
import { difference, readTensors } from '../tensors.js'

const reference = fileURLToPath(new URL('../../reference/dicom/', import.meta.url))
const fixtures = fileURLToPath(new URL('fixtures/', import.meta.url))
const [ROWS, COLUMNS] = [37, 53]

/** What every file of fixtures/make_dicom.py holds. */
function picture(bits: number, isSigned: boolean): number[] {
  return Array.from({ length: ROWS * COLUMNS }, (_, at) => {
    const value = (Math.floor(at / COLUMNS) * 31 + (at % COLUMNS) * 17) % 2 ** bits
    return isSigned ? value - 2 ** (bits - 1) : value
  })
}

describe('the reference files', () => {
  const pixels = readTensors(`${reference}pixels.safetensors`)
  const cases = JSON.parse(readFileSync(`${reference}case.json`, 'utf8')) as Record<
    string,
    { shape: [number, number]; photometric: string; bits_stored: number }
  >

  it.each(Object.keys(cases))('%s', async (name) => {
    const wanted = cases[name]!
    const stored = await readImage(reference + name)
    expect([stored.height, stored.width]).toEqual(wanted.shape)
    expect(stored.inverted).toBe(wanted.photometric === 'MONOCHROME1')
    expect(stored.bits).toBe(wanted.bits_stored)
    expect(stored.warnings).toEqual([])
    const { largest } = difference(stored.pixels, pixels.get(name)!.data)
    expect(largest).toBeLessThanOrEqual(name.includes('_jpeg') ? 2 : 0)
  })

  it('become the same image whether stored as MONOCHROME1 or 2', async () => {
    const one = await prepareImage(`${reference}cxr8_mono1.dcm`)
    const two = await prepareImage(`${reference}cxr8_mono2.dcm`)
    expect(one.padded.pixels.some((value) => value > 100)).toBe(true)
    // both are scaled by their own largest value
    expect(difference(one.padded.pixels, two.padded.pixels).mean).toBeLessThan(30)
  })
})

describe('every encoding, odd sizes', () => {
  const names = readdirSync(fixtures).filter((name) => /^[ui]1[26]_[a-z0-9]+\.dcm$/.test(name))

  it.each(names)('%s is exact', async (name) => {
    const [, sign, bits] = /^([ui])(\d+)_/.exec(name)!
    const stored = await readImage(fixtures + name)
    expect([stored.height, stored.width]).toEqual([ROWS, COLUMNS])
    expect(stored.pixels).toBeInstanceOf(sign === 'i' ? Int16Array : Uint16Array)
    expect(Array.from(stored.pixels)).toEqual(picture(Number(bits), sign === 'i'))
  })

  it('covers them all', () => {
    expect(names.length).toBeGreaterThanOrEqual(13)
  })

  it('leaves out bits that are not the pixel, and extends the sign', async () => {
    const used = await readImage(`${fixtures}u12_high_bits_used.dcm`)
    expect(Array.from(used.pixels)).toEqual(picture(12, false))
    const signed = await readImage(`${fixtures}i12_not_extended.dcm`)
    expect(Array.from(signed.pixels)).toEqual(picture(12, true))
  })

  it('leaves the bytes that it is given as they are', async () => {
    for (const name of ['u12_high_bits_used.dcm', 'u12_big.dcm', 'rgb.dcm']) {
      const bytes = readFileSync(fixtures + name)
      const before = Buffer.from(bytes)
      await readImage(bytes)
      expect(bytes.equals(before), name).toBe(true)
    }
  })

  it('takes the first of several frames, and says so', async () => {
    const stored = await readImage(`${fixtures}u12_two_frames.dcm`)
    expect(stored.warnings).toEqual(['frame 1 of 2 was used'])
    expect(Array.from(stored.pixels)).toEqual(picture(12, false))
  })

  it('makes colour gray, and says so', async () => {
    const stored = await readImage(`${fixtures}rgb.dcm`)
    expect(stored.warnings).toEqual(['its colour became gray'])
    const luma = picture(8, false).map((v) => 0.299 * v + 0.587 * Math.floor(v / 2) + 0.114 * (255 - v))
    expect(difference(stored.pixels, luma).largest).toBeLessThanOrEqual(0.6)
  })

  it('reads a file without preamble, and one without meta information', async () => {
    const bytes = readFileSync(`${fixtures}u12_implicit.dcm`)
    expect(Array.from((await readImage(bytes.subarray(128 + 4))).pixels)).toEqual(picture(12, false))
    const dataSet = bytes.subarray(bytes.indexOf(Buffer.of(0x08, 0, 0x16, 0)))
    expect(Array.from((await readImage(dataSet)).pixels)).toEqual(picture(12, false))
  })

  it('reads pixels on an odd address', async () => {
    const bytes = readFileSync(`${fixtures}u12_high_bits_used.dcm`)
    const moved = Buffer.concat([Buffer.of(0), bytes]).subarray(1)
    expect(Array.from((await readImage(moved)).pixels)).toEqual(picture(12, false))
  })
})

describe('what the file wants shown', () => {
  it('is its first window, after the rescale', async () => {
    const stored = await readImage(`${fixtures}u12_implicit.dcm`)
    expect(stored.rescale).toEqual({ slope: 2, intercept: -100 })
    expect(stored.window).toEqual({ center: 1000, width: 600, shape: 'linear' })
    const shown = to8Bits(stored, { windowing: 'dicom' })
    const wanted = picture(12, false).map((value) =>
      Math.min(255, Math.max(0, 255 * ((2 * value - 100 - 999.5) / 599 + 0.5))),
    )
    expect(difference(shown.pixels, wanted).largest).toBeLessThanOrEqual(0.51)
  })

  it('is its table, where it has one', async () => {
    const stored = await readImage(`${fixtures}u12_lookup.dcm`)
    expect(stored.lookup).toMatchObject({ first: 0, bits: 12 })
    const wanted = picture(12, false).map((value) => (255 * (4095 - value)) / 4095)
    expect(difference(to8Bits(stored, { windowing: 'dicom' }).pixels, wanted).largest).toBeLessThanOrEqual(0.51)
  })

  it('is not asked by the published scaling, which takes the largest value for white', async () => {
    const { pixels } = to8Bits(await readImage(`${fixtures}u12_implicit.dcm`))
    const values = picture(12, false)
    const largest = Math.max(...values)
    const wanted = values.map((value) => (255 * value) / largest)
    expect(difference(pixels, wanted).largest).toBeLessThanOrEqual(0.51)
  })
})
