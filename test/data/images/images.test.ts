import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp, { type Sharp } from 'sharp'
import { afterAll, describe, expect, it } from 'vitest'
import {
  crop,
  type GrayImage,
  imageAtStage,
  otsuBox,
  padToSquare,
  prepareImage,
  readImage,
  type StoredImage,
  saveImage,
  to8Bits,
  toGray,
} from '../../../src/data/images/index.js'
import * as torch from '../../../src/torch/index.js'
import { difference, readTensors } from '../tensors.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-images-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const official = readTensors(fileURLToPath(new URL('../../reference/official/images.safetensors', import.meta.url)))
const squares = readTensors(fileURLToPath(new URL('fixtures/squares.safetensors', import.meta.url)))

/** A picture with a gradient in it, and a dark border. */
function picture(width: number, height: number, white = 255): Uint8Array | Uint16Array {
  const pixels = white > 255 ? new Uint16Array(width * height) : new Uint8Array(width * height)
  for (let row = 4; row < height - 4; row += 1) {
    for (let column = 4; column < width - 4; column += 1) {
      pixels[row * width + column] = Math.round((white * (0.3 + 0.7 * (row + column))) / (width + height))
    }
  }
  return pixels
}

function raw(pixels: Uint8Array | Uint16Array, width: number, height: number, channels: 1 | 3 | 4 = 1): Sharp {
  const image = sharp(pixels, { raw: { width, height, channels } })
  return channels > 1 ? image : image.toColourspace(pixels instanceof Uint8Array ? 'b-w' : 'grey16')
}

describe('the published preprocessing', () => {
  it.each([0, 1, 2])('gives what the published code gives (image %i)', async (index) => {
    const source = official.get(`in.${index}`)!
    const [height, width] = source.shape as [number, number]
    const values =
      index === 2 ? Uint16Array.from(source.data as Int32Array) : Uint8Array.from(source.data as Int32Array)
    const path = join(folder, `official${index}.png`)
    await saveImage({ width, height, pixels: values }, path)

    const stored = await readImage(path)
    expect(difference(stored.pixels, source.data).largest).toBe(0)
    const uint8 = to8Bits(stored)
    expect(difference(uint8.pixels, official.get(`out.${index}.uint8`)!.data).largest).toBe(0)
    const { padded, box } = await prepareImage(path)
    expect(difference(padded.pixels, official.get(`out.${index}.padded`)!.data).mean).toBeLessThan(0.01)
    const wanted = official.get(`out.${index}.otsu_box`)!.data
    expect([box.top, box.left, box.bottom, box.right]).toEqual(Array.from(wanted))
    const cropped = crop(padded, box)
    expect([cropped.height, cropped.width]).toEqual(official.get(`out.${index}.cropped`)!.shape)
    expect(difference(cropped.pixels, official.get(`out.${index}.cropped`)!.data).mean).toBeLessThan(0.01)
  })

  it('resizes by area, pads and finds boxes as OpenCV does, for larger, smaller, longer and single-pixel images', () => {
    const count = [...squares.keys()].filter((name) => name.endsWith('.image')).length
    expect(count).toBeGreaterThan(20)
    for (const name of squares.keys()) {
      if (!name.endsWith('.image')) continue
      const { shape, data } = squares.get(name)!
      const image = { width: shape[1]!, height: shape[0]!, pixels: data as Uint8Array }
      const padded = padToSquare(image, 48)
      const { largest, mean } = difference(padded.pixels, squares.get(name.replace('image', 'square'))!.data)
      expect(largest, `${name} ${shape}`).toBeLessThanOrEqual(1)
      expect(mean, `${name} ${shape}`).toBeLessThan(0.03)
      const { top, left, bottom, right } = otsuBox(padded)
      expect([top, left, bottom, right], name).toEqual(Array.from(squares.get(name.replace('image', 'box'))!.data))
    }
  })

  it('keeps a constant image constant, and boxes all of a black or constant one', () => {
    for (const value of [0, 1, 128, 255]) {
      for (const [width, height] of [
        [300, 200],
        [20, 31],
        [256, 256],
        [1, 5000],
      ] as const) {
        const padded = padToSquare({ width, height, pixels: new Uint8Array(width * height).fill(value) }, 64)
        expect(new Set(padded.pixels)).toEqual(new Set(width === height ? [value] : [0, value]))
      }
      const square = { width: 8, height: 8, pixels: new Uint8Array(64).fill(value) }
      expect(otsuBox(square)).toEqual({ top: 0, left: 0, bottom: 7, right: 7 })
    }
  })

  it('sums more rows than 32 bits can hold', () => {
    const height = 40_000 * 2
    const padded = padToSquare({ width: 1, height, pixels: new Uint16Array(height).fill(65535) }, 1)
    expect(Array.from(padded.pixels)).toEqual([65535])
  })

  it('gives 16 bits that are the 8 bits and more', async () => {
    const pixels = picture(90, 70, 4095)
    const bytes = await raw(pixels, 90, 70).png().toBuffer()
    const eight = await prepareImage(bytes, { size: 32 })
    const sixteen = await prepareImage(bytes, { size: 32, bits: 16 })
    expect(sixteen.padded.pixels).toBeInstanceOf(Uint16Array)
    expect(sixteen.box).toEqual(eight.box)
    const reduced = Float64Array.from(sixteen.padded.pixels, (value) => value / 257)
    expect(difference(reduced, eight.padded.pixels).largest).toBeLessThan(1.1)
    const upper = toGray(await readImage(await raw(picture(20, 20), 20, 20).png().toBuffer()), { bits: 16 })
    expect(Array.from(upper.pixels)).toEqual(Array.from(picture(20, 20), (value) => value * 257))
  })

  it('refuses sizes and boxes that are none', () => {
    const image: GrayImage = { width: 4, height: 4, pixels: new Uint8Array(16) }
    for (const size of [0, -1, 1.5, Number.NaN, 1e6]) expect(() => padToSquare(image, size)).toThrow(/expected a size/)
    expect(() => crop(image, { top: 0, left: 0, bottom: 4, right: 3 })).toThrow(/expected a box inside 4 x 4/)
    expect(() => crop(image, { top: 3, left: 0, bottom: 2, right: 3 })).toThrow(/expected a box inside/)
  })
})

describe('windowing', () => {
  const stored: StoredImage = {
    format: 'dicom',
    width: 4,
    height: 1,
    pixels: Uint16Array.of(0, 500, 1000, 2000),
    bits: 12,
    inverted: false,
    window: { center: 1000, width: 1001, shape: 'linear' },
    lookup: null,
    rescale: { slope: 1, intercept: 0 },
    warnings: [],
  }
  const shown = (change: Partial<StoredImage>, windowing: 'published' | 'dicom' = 'dicom') =>
    Array.from(to8Bits({ ...stored, ...change }, { windowing }).pixels)

  it('scales by the largest value, or by the window of the file', () => {
    expect(shown({}, 'published')).toEqual([0, 64, 128, 255])
    // (value - 999.5) / 1000 + 0.5 in parts of white: DICOM PS3.3, C.11.2.1.2.1
    expect(shown({})).toEqual([0, 0, 128, 255])
    expect(shown({ window: { center: 1000, width: 1000, shape: 'linear-exact' } })).toEqual([0, 0, 128, 255])
    expect(shown({ window: { center: 1000, width: 1000, shape: 'sigmoid' } })).toEqual([5, 30, 128, 250])
    expect(shown({ window: { center: 1000, width: 1, shape: 'linear' } })).toEqual([0, 0, 255, 255])
    expect(shown({ window: null })).toEqual([0, 64, 128, 255])
    expect(shown({ rescale: { slope: 2, intercept: -1000 } })).toEqual([0, 0, 128, 255])
  })

  it('inverts MONOCHROME1 after scaling', () => {
    expect(shown({ inverted: true }, 'published')).toEqual([255, 191, 127, 0])
    expect(shown({ inverted: true })).toEqual([255, 255, 127, 0])
  })

  it('scales signed and 32-bit values, and black', () => {
    expect(shown({ pixels: Int16Array.of(-200, 0, 100, 200) }, 'published')).toEqual([255, 0, 128, 255])
    expect(shown({ pixels: Int16Array.of(-200, 0, 100, 200), window: null })).toEqual([0, 128, 191, 255])
    expect(shown({ pixels: Uint32Array.of(0, 1e6, 3e6, 4e6) }, 'published')).toEqual([0, 64, 191, 255])
    expect(shown({ pixels: new Uint16Array(4) }, 'published')).toEqual([0, 0, 0, 0])
  })
})

describe('formats', () => {
  const gray = picture(60, 40)
  const colour = Uint8Array.from({ length: 60 * 40 * 3 }, (_, at) => (at * 7) % 256)
  const luma = Uint8Array.from({ length: 60 * 40 }, (_, at) =>
    Math.round(0.299 * colour[3 * at]! + 0.587 * colour[3 * at + 1]! + 0.114 * colour[3 * at + 2]!),
  )

  it('reads gray PNG, TIFF and WebP exactly, and JPEG nearly', async () => {
    const image = () => raw(gray, 60, 40)
    for (const [bytes, limit] of [
      [await image().png().toBuffer(), 0],
      [await image().tiff({ compression: 'lzw' }).toBuffer(), 0],
      [await image().webp({ lossless: true }).toBuffer(), 0],
      [await image().jpeg({ quality: 95 }).toBuffer(), 8],
    ] as const) {
      const stored = await readImage(bytes)
      expect(stored).toMatchObject({ width: 60, height: 40, bits: 8, inverted: false, warnings: [] })
      expect(difference(stored.pixels, gray).largest).toBeLessThanOrEqual(limit)
    }
  })

  it('reads 16 bits as they are', async () => {
    const deep = picture(60, 40, 65535)
    for (const bytes of [
      await raw(deep, 60, 40).png().toBuffer(),
      await raw(deep, 60, 40).tiff({ compression: 'lzw' }).toBuffer(),
    ]) {
      const stored = await readImage(bytes)
      expect(stored.bits).toBe(16)
      expect(difference(stored.pixels, deep).largest).toBe(0)
    }
  })

  it("makes colour gray by BT.601's luma, and leaves opacity out", async () => {
    const bytes = await raw(colour, 60, 40, 3).png().toBuffer()
    expect(difference((await readImage(bytes)).pixels, luma).largest).toBeLessThanOrEqual(1)
    const clear = Uint8Array.from({ length: 60 * 40 * 4 }, (_, at) =>
      at % 4 === 3 ? 9 : colour[3 * Math.floor(at / 4) + (at % 4)]!,
    )
    const opaque = await raw(clear, 60, 40, 4).png().toBuffer()
    expect(difference((await readImage(opaque)).pixels, luma).largest).toBeLessThanOrEqual(1)
  })

  it('turns what EXIF says is turned', async () => {
    const bytes = await raw(gray, 60, 40).withMetadata({ orientation: 6 }).jpeg({ quality: 100 }).toBuffer()
    const stored = await readImage(bytes)
    expect([stored.width, stored.height]).toEqual([40, 60])
    const turned = await raw(gray, 60, 40).rotate(90).raw().toBuffer()
    expect(difference(stored.pixels, turned).mean).toBeLessThan(2)
  })

  it('tells formats apart by content, and reads bytes as files', async () => {
    const path = join(folder, 'a-png.dcm')
    writeFileSync(path, await raw(gray, 60, 40).png().toBuffer())
    const stored = await readImage(path)
    expect(stored.format).toBe('png')
    expect(await readImage(new Uint8Array(readFileSync(path)))).toEqual(stored)
  })
})

describe('stages and files', () => {
  it('writes PNG and safetensors that hold the same', async () => {
    const source = join(folder, 'source.png')
    await saveImage({ width: 60, height: 40, pixels: picture(60, 40, 4095) }, source)
    for (const stage of ['pixels', 'uint8', 'padded', 'cropped'] as const) {
      const image = await imageAtStage(source, stage)
      const png = join(folder, `${stage}.png`)
      const tensors = join(folder, `${stage}.safetensors`)
      await saveImage(image, png)
      await saveImage(image, tensors)
      expect(difference((await readImage(png)).pixels, image.pixels).largest).toBe(0)
      using file = torch.openSafetensors(tensors)
      using tensor = file.tensor('image')
      expect([tensor.dtype, tensor.shape]).toEqual([
        stage === 'pixels' ? 'uint16' : 'uint8',
        [image.height, image.width],
      ])
      expect(difference(tensor.toTypedArray() as Uint8Array, image.pixels).largest).toBe(0)
    }
    const cropped = await imageAtStage(source, 'cropped')
    expect(cropped.box).not.toBeNull()
    expect(cropped.min).toBeLessThan(cropped.max)
  })

  it('refuses other endings, and a PNG of values with a sign', async () => {
    const image = { width: 2, height: 1, pixels: Int16Array.of(-1, 1) }
    await expect(saveImage(image, join(folder, 'x.jpg'))).rejects.toThrow(/ends in .png or .safetensors/)
    await expect(saveImage(image, join(folder, 'x.png'))).rejects.toThrow(/use .safetensors/)
  })
})
