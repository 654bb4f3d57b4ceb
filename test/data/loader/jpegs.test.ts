import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { afterAll, describe, expect, it } from 'vitest'
import { type PreparedImage, prepareImage } from '../../../src/data/images/index.js'
import { DecoderPool } from '../../../src/data/loader/decoders.js'
import { JpegQueue } from '../../../src/data/loader/jpegs.js'
import { Random } from '../../../src/data/random.js'
import { native } from '../../../src/torch/native.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-jpegs-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const fixtures = fileURLToPath(new URL('../images/fixtures/', import.meta.url))
const reference = fileURLToPath(new URL('../../reference/dicom/', import.meta.url))

const settings = (size: number) => ({ size, bits: 8, windowing: 'published' }) as const
const short = (source: string | Uint8Array, size = 32) => new JpegQueue(settings(size), 1).prepare(source)

/** Waves and noise, gray. */
function picture(width: number, height: number, noise: number, random: Random) {
  const pixels = Uint8Array.from({ length: width * height }, (_, at) =>
    Math.min(255, Math.max(0, 120 + 110 * Math.sin((at % width) / 17) + noise * random.uniform(-1, 1))),
  )
  return sharp(pixels, { raw: { width, height, channels: 1 } })
}
const gray = (...parameters: Parameters<typeof picture>) => picture(...parameters).toColourspace('b-w')

function expectSame(found: PreparedImage | null, expected: PreparedImage): void {
  expect(found).not.toBeNull()
  expect(found!.box).toEqual(expected.box)
  expect(Buffer.from(found!.padded.pixels).equals(Buffer.from(expected.padded.pixels))).toBe(true)
  expect(found!.warnings).toEqual([])
}

describe('the short way', () => {
  const random = new Random(0, 'jpegs')

  it('gives the pixels and boxes of the long one', async () => {
    for (const [width, height] of [
      [64, 64],
      [65, 33],
      [200, 131],
      [96, 300],
      [256, 512],
      [512, 512],
      [33, 777],
      [390, 320],
    ] as const) {
      for (const size of [32, 33, 256]) {
        if (Math.max(width, height) < size) continue
        const [quality, noise] = [random.integer(100) + 1, random.pick([3, 40, 120])]
        for (const options of [{ quality }, { quality, optimiseCoding: false, chromaSubsampling: '4:4:4' }]) {
          for (const image of [gray(width, height, noise, random), picture(width, height, noise, random)]) {
            const bytes = await image.jpeg(options).toBuffer()
            expectSame(await short(bytes, size), await prepareImage(bytes, { size }))
          }
        }
      }
    }
  })

  it('reads files, restart markers, one level and black', async () => {
    for (const name of ['restart_gray.jpg', 'restart_colours.jpg']) {
      expectSame(await short(fixtures + name), await prepareImage(fixtures + name, { size: 32 }))
    }
    for (const level of [0, 1, 200, 255]) {
      const one = sharp(Buffer.alloc(70 * 50, level), { raw: { width: 70, height: 50, channels: 1 } })
      const bytes = await one.toColourspace('b-w').jpeg().toBuffer()
      expectSame(await short(bytes), await prepareImage(bytes, { size: 32 }))
    }
  })

  it('leaves to the long one what it does not know', async () => {
    const image = () => gray(90, 70, 20, random)
    const colour = sharp(
      Uint8Array.from({ length: 90 * 70 * 3 }, (_, at) => (at * 7) % 256),
      {
        raw: { width: 90, height: 70, channels: 3 },
      },
    )
    const left = [
      await image().jpeg({ progressive: true }).toBuffer(),
      await image().withMetadata({ orientation: 6 }).jpeg().toBuffer(),
      await colour.jpeg().toBuffer(),
      await image().png().toBuffer(),
      await image().webp().toBuffer(),
      readFileSync(`${reference}cxr8_mono2.dcm`),
      new Uint8Array(),
    ]
    for (const bytes of left) expect(await short(bytes)).toBeNull()
    // a side that grows
    expect(await short(await image().jpeg().toBuffer(), 128)).toBeNull()
    for (const path of [join(folder, 'none.jpg'), folder, '/dev/null', '', `${reference}cxr8_mono2.dcm`]) {
      expect(await short(path)).toBeNull()
    }
    expect((await native.prepareJpegs([await image().jpeg().toBuffer()], 32, 90 * 70 - 1)).boxes[0]).toBe(-1)
    expect(() => native.prepareJpegs([], 0, 1)).toThrow(/a size from 1/)
  })

  it('takes no damaged file that the long one refuses, and makes no other pixels of one', async () => {
    const outcomes = { taken: 0, left: 0 }
    for (let round = 0; round < 400; round += 1) {
      const [width, height] = [40 + random.integer(60), 40 + random.integer(60)]
      const image = random.chance(0.3) ? picture(width, height, 60, random) : gray(width, height, 60, random)
      const bytes = damage(random, await image.jpeg({ quality: 50 + random.integer(50) }).toBuffer())
      const found = await short(bytes)
      outcomes[found === null ? 'left' : 'taken'] += 1
      if (found !== null) expectSame(found, await prepareImage(bytes, { size: 32 }))
    }
    expect(outcomes.taken).toBeGreaterThan(30)
    expect(outcomes.left).toBeGreaterThan(100)
  })

  function damage(random: Random, bytes: Buffer): Buffer {
    const damaged = Buffer.from(bytes)
    const at = random.integer(random.chance(0.5) ? Math.min(700, bytes.length) : bytes.length)
    const kind = random.integer(4)
    if (kind === 0) damaged[at] = random.integer(256)
    else if (kind === 1) return damaged.subarray(0, at)
    else if (kind === 2) return Buffer.concat([damaged.subarray(0, at), damaged.subarray(at + 1 + random.integer(4))])
    else return Buffer.concat([damaged.subarray(0, at), Buffer.of(random.integer(256)), damaged.subarray(at)])
    return damaged
  }
})

describe('a pool', () => {
  it('gives each image its own, whichever way it goes', async () => {
    const random = new Random(1, 'jpegs')
    const sources = await Promise.all(
      Array.from({ length: 40 }, async (_, number) => {
        const image = gray(60 + number, 80, 20, random)
        const bytes = await (number % 5 === 0 ? image.png() : image.jpeg()).toBuffer()
        if (number % 2 === 0) return bytes
        // the name says nothing
        const path = join(folder, `ü${number}.png`)
        writeFileSync(path, bytes)
        return path
      }),
    )
    const decoder = new DecoderPool({ settings: settings(32), workers: 2 })
    const found = await Promise.all(sources.map((source) => decoder.prepare(source)))
    for (const [at, source] of sources.entries()) expectSame(found[at]!, await prepareImage(source, { size: 32 }))
    await decoder.close()
  })

  it('refuses what the long way refuses, and everything once it is closed', async () => {
    const bytes = await gray(90, 70, 20, new Random(2, 'jpegs')).jpeg().toBuffer()
    const decoder = new DecoderPool({ settings: settings(32), workers: 1 })
    await expect(decoder.prepare(bytes.subarray(0, 900))).rejects.toThrow(/expected a whole JPEG/)
    const waiting = Array.from({ length: 40 }, () => decoder.prepare(bytes))
    const outcomes = Promise.allSettled(waiting)
    await decoder.close()
    expect((await outcomes).map(({ status }) => status)).toContain('rejected')
    await expect(decoder.prepare(bytes)).rejects.toThrow(/they were closed/)
  })
})
