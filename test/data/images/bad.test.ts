import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { crc32, deflateRawSync, deflateSync } from 'node:zlib'
import sharp from 'sharp'
import { afterAll, describe, expect, it } from 'vitest'
import { ImageError, prepareImage, readImage } from '../../../src/data/images/index.js'
import { Random } from '../../../src/data/random.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-bad-images-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const reference = fileURLToPath(new URL('../../reference/dicom/', import.meta.url))
const fixtures = fileURLToPath(new URL('../dicom/fixtures/', import.meta.url))
const dicom = (name: string) => readFileSync(name.startsWith('u') ? fixtures + name : reference + name)

/** One sentence about what was expected and what came. */
async function expectRefused(source: string | Uint8Array, pattern: RegExp): Promise<void> {
  const error = await readImage(source).then(
    () => null,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(ImageError)
  const { message } = error as ImageError
  expect(message).toMatch(pattern)
  expect(message).toMatch(/expected .*, but /)
  expect(message).toMatch(/^[ -~]+$/)
}

function png(width: number, height: number, data: Uint8Array): Buffer {
  const chunk = (type: string, content: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(type), content])
    const frame = Buffer.alloc(8)
    frame.writeUInt32BE(content.length)
    frame.writeUInt32BE(crc32(body), 4)
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)])
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width)
  header.writeUInt32BE(height, 4)
  header[8] = 8
  const signature = Buffer.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 0x1a, 10)
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', data), chunk('IEND', Buffer.alloc(0))])
}

/** Another value for a 16-bit number of the data set, found by the bytes of its tag and VR. */
function withNumber(bytes: Buffer, tag: number, value: number): Buffer {
  const changed = Buffer.from(bytes)
  const at = changed.indexOf(Buffer.from([0x28, 0, tag & 0xff, tag >> 8, 0x55, 0x53]))
  expect(at).toBeGreaterThan(0)
  changed.writeUInt16LE(value, at + 8)
  return changed
}

describe('files that are no images', () => {
  it('are refused, with their path', async () => {
    await expectRefused(join(folder, 'none.png'), /none\.png: expected an image, but there is no such file/)
    await expectRefused(folder, /is a folder/)
    await expectRefused('/dev/null', /no regular file/)
    const text = join(folder, 'text.jpg')
    writeFileSync(text, 'no image '.repeat(40))
    await expectRefused(text, /text\.jpg: expected an image .*but it is none/)
    const empty = join(folder, 'empty.dcm')
    writeFileSync(empty, '')
    await expectRefused(empty, /it is empty/)
    await expectRefused(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), /it is none/)
  })

  it('are refused where they are cut off, wherever that is', async () => {
    const gray = Uint8Array.from({ length: 90 * 70 }, (_, at) => (at * 31) % 251)
    const image = () => sharp(gray, { raw: { width: 90, height: 70, channels: 1 } }).toColourspace('b-w')
    for (const bytes of [
      await image().png().toBuffer(),
      await image().jpeg().toBuffer(),
      await image().webp().toBuffer(),
      await image().tiff({ compression: 'lzw' }).toBuffer(),
      ...readdirSync(reference)
        .filter((name) => name.endsWith('.dcm'))
        .map(dicom),
    ]) {
      for (const part of [0.02, 0.3, 0.7, 0.95]) {
        await expectRefused(bytes.subarray(0, Math.floor(part * bytes.length)), /expected/)
      }
    }
  })
})

describe('decompression bombs', () => {
  it('are refused by what they claim, before anything is decoded', async () => {
    const few = deflateSync(Buffer.alloc(1000))
    await expectRefused(png(100_000, 100_000, few), /pixel limit|at most/)
    await expectRefused(png(10_000, 10_000, few), /at most 67,108,864 pixels, but it says to be 10000 x 10000/)
    await expectRefused(png(99_999, 1, few), /at most 65535 pixels on a side/)
    const jpeg = await sharp(new Uint8Array(64), { raw: { width: 8, height: 8, channels: 1 } })
      .jpeg()
      .toBuffer()
    const size = jpeg.indexOf(Buffer.of(0xff, 0xc0)) + 5
    jpeg.writeUInt16BE(65500, size)
    jpeg.writeUInt16BE(65500, size + 2)
    await expectRefused(jpeg, /65500 x 65500/)
    await expectRefused(withNumber(withNumber(dicom('cxr8_mono2.dcm'), 0x10, 65535), 0x11, 65535), /65535 x 65535/)
    await expect(readImage(png(20, 20, few), { maxPixels: 399 })).rejects.toThrow(/at most 399 pixels/)
  })

  it('of frames that claim more than their file does are refused', async () => {
    for (const name of ['mg12_mono2_lossless.dcm', 'mg12_mono2_jls.dcm', 'cxr8_mono2_jpeg.dcm', 'u12_j2k.dcm']) {
      const bytes = withNumber(dicom(name), 0x10, 30)
      await expectRefused(bytes, /expected a frame of \d+ x 30 x 1, as the header says, but it has/)
    }
  })

  it('of deflated data and of endless elements are refused', async () => {
    const deflated = dicom('u12_deflated.dcm')
    const meta = deflated.subarray(0, 144 + deflated.readUInt32LE(140))
    const zeros = deflateRawSync(Buffer.alloc(300 << 20), { level: 1 })
    await expectRefused(Buffer.concat([meta, zeros]), /inflates to 256 MiB at most/)
    const items = Buffer.alloc(8 * 600_000)
    for (let at = 0; at < items.length; at += 8) items.writeUInt32LE(0xe000fffe, at)
    const sequence = Buffer.from('0900020053510000ffffffff', 'hex')
    const plain = dicom('cxr8_mono2.dcm')
    const start = plain.subarray(0, 144 + plain.readUInt32LE(140))
    await expectRefused(Buffer.concat([start, sequence, items]), /at most 500000 elements/)
    const nested = Buffer.alloc(20 * 50_000, Buffer.from('0900020053510000fffffffffeff00e0ffffffff', 'hex'))
    await expectRefused(Buffer.concat([start, nested]), /nested too deep|truncated/)
  })
})

describe('DICOM files that lie', () => {
  const plain = dicom('cxr8_mono2.dcm')

  it('about sizes, bits and samples', async () => {
    await expectRefused(withNumber(plain, 0x10, 0), /224 x 0/)
    await expectRefused(withNumber(plain, 0x11, 0), /0 x 256/)
    await expectRefused(withNumber(plain, 0x11, 2000), /expected 512000 bytes of pixels, but/)
    for (const bits of [0, 1, 12, 64]) {
      await expectRefused(withNumber(plain, 0x100, bits), new RegExp(`but it has ${bits}$`))
    }
    await expectRefused(withNumber(plain, 0x101, 9), /9 are stored/)
    await expectRefused(withNumber(plain, 0x102, 30), /highest is bit 30/)
    await expectRefused(withNumber(plain, 0x02, 2), /samples a pixel/)
  })

  it('about where they end', async () => {
    const at = plain.indexOf(Buffer.of(0xe0, 0x7f, 0x10, 0x00))
    for (const length of [0xffffffff, 0x7fffffff, 10]) {
      const bytes = Buffer.from(plain)
      bytes.writeUInt32LE(length, at + 8)
      await expectRefused(bytes, /bytes of pixels/)
    }
    await expectRefused(plain.subarray(0, at), /no pixel data/)
    const frames = dicom('mg12_mono2_jls.dcm')
    const item = frames.indexOf(Buffer.of(0xff, 0xd8, 0xff)) - 4
    for (const [length, problem] of [
      [0x7fffffff, /the file ends/],
      [1000, /something else is between/],
    ] as const) {
      const bytes = Buffer.from(frames)
      bytes.writeUInt32LE(length, item)
      await expectRefused(bytes, problem)
    }
  })

  it('are refused where a lossless frame is damaged inside', async () => {
    const bytes = Buffer.from(dicom('mg12_mono2_lossless.dcm'))
    const start = bytes.indexOf(Buffer.of(0xff, 0xda))
    bytes.writeUInt16BE(0xffd9, start + 20_000)
    await expectRefused(bytes, /premature end/)
  })

  it('are refused where tiles are missing', async () => {
    const bytes = Buffer.from(dicom('u12_j2k.dcm'))
    const size = bytes.indexOf(Buffer.of(0xff, 0x4f, 0xff, 0x51)) + 8
    bytes.writeUInt32BE(10, size + 16)
    bytes.writeUInt32BE(10, size + 20)
    await expectRefused(bytes, /it has 1 of 24 tiles|cannot/)
    bytes.writeUInt32BE(40, size + 16)
    bytes.writeUInt32BE(40, size + 20)
    await expectRefused(bytes, /it has 1 of 2 tiles/)
  })

  it('are refused where nobody can decode them', async () => {
    const bytes = Buffer.from(plain)
    const at = bytes.indexOf('1.2.840.10008.1.2.1')
    bytes.write('1.2.840.10008.1.2.9', at)
    await expectRefused(bytes, /transfer syntax that can be decoded, but it is 1\.2\.840\.10008\.1\.2\.9/)
  })
})

describe('random damage', () => {
  const sources = [
    ...readdirSync(reference).filter((name) => name.endsWith('.dcm')),
    ...readdirSync(fixtures).filter((name) => name.startsWith('u12_')),
  ].map((name) => ({ name, bytes: dicom(name) }))

  it('ends in an image or in a sentence', async () => {
    const random = new Random(0, 'damage')
    const outcomes = { image: 0, refused: 0 }
    for (let round = 0; round < 400; round += 1) {
      const { name, bytes } = random.pick(sources)
      const damaged = damage(random, bytes)
      try {
        const { padded } = await prepareImage(damaged)
        expect(padded.pixels.length).toBe(65536)
        outcomes.image += 1
      } catch (thrown) {
        if (!(thrown instanceof ImageError)) throw new Error(`round ${round}, ${name}: ${thrown}`, { cause: thrown })
        expect(thrown.message).toMatch(/^[ -~]+$/)
        outcomes.refused += 1
      }
    }
    expect(outcomes.image).toBeGreaterThan(50)
    expect(outcomes.refused).toBeGreaterThan(50)
  })

  /** Bytes changed, a number made extreme, or a piece taken out, mostly in the header. */
  function damage(random: Random, bytes: Buffer): Buffer {
    const damaged = Buffer.from(bytes)
    const place = () => random.integer(random.chance(0.6) ? Math.min(1500, bytes.length - 4) : bytes.length - 4)
    const kind = random.integer(4)
    if (kind === 0) for (let i = random.integer(10); i >= 0; i -= 1) damaged[place()] = random.integer(256)
    else if (kind === 1) damaged.writeUInt32LE(random.pick([0, 1, 0xffff, 0x7fffffff, 0xffffffff]), place())
    else if (kind === 2) return damaged.subarray(0, place())
    else {
      const start = place()
      return Buffer.concat([damaged.subarray(0, start), damaged.subarray(start + random.integer(300))])
    }
    return damaged
  }
})
