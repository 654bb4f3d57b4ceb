import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDataset } from '../../../src/data/datasets/index.js'
import { prepareImage } from '../../../src/data/images/index.js'
import { DecoderPool } from '../../../src/data/loader/decoders.js'
import { DataLoader } from '../../../src/data/loader/loader.js'
import { PreparedImages } from '../../../src/data/shards/prepared.js'
import * as torch from '../../../src/torch/index.js'

const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
const place = mkdtempSync(join(tmpdir(), 'cleft-prepare-'))
const root = join(place, 'images')
const out = join(place, 'out')
afterAll(() => rmSync(place, { recursive: true }))

beforeAll(async () => {
  for (const name of ['normal', 'edema']) {
    mkdirSync(join(root, name), { recursive: true })
    for (let number = 0; number < 5; number += 1) {
      const [width, height] = [90 + 10 * number, 120]
      const pixels = Uint8Array.from({ length: width * height }, (_, at) => (at * (number + 3)) % 251)
      const image = sharp(pixels, { raw: { width, height, channels: 1 } })
      await (name === 'normal' ? image.png() : image.jpeg()).toFile(
        join(root, name, `${name}${number}.${name === 'normal' ? 'png' : 'jpg'}`),
      )
    }
  }
  writeFileSync(join(root, 'edema', 'broken.png'), 'no image')
})

const cleft = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'prepare', root, '--out', out, ...args], {
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}

describe('cleft prepare', () => {
  it('stops at too many unreadable files, goes on where more are allowed, and keeps what is there', () => {
    const strict = cleft('--size', '64', '--workers', '1')
    expect(strict.status).toBe(1)
    expect(strict.stdout).toBe('')
    expect(strict.stderr).toMatch(
      /cleft: expected at most 1 % of 11 to be unusable, but 1 are: .*edema\/broken.png: .*\n$/,
    )
    const first = cleft('--size', '64', '--workers', '2', '--max-problems', '0.2', '--json')
    expect(first.stderr).toMatch(/1 images could not be read: .*problems.json/)
    const counts = JSON.parse(first.stdout)
    expect(counts).toMatchObject({ kind: 'folder', images: 11, problems: 1 })
    expect(counts.prepared + counts.kept).toBe(10)
    const { problems } = JSON.parse(readFileSync(join(out, 'problems.json'), 'utf8'))
    expect(problems).toMatchObject([{ path: 'edema/broken.png' }])
    const second = cleft('--size', '64', '--workers', '1', '--max-problems', '0.2', '--json')
    expect(JSON.parse(second.stdout)).toMatchObject({ prepared: 0, kept: 10 })
  })

  it('gives training what decoding gives', async () => {
    const dataset = await openDataset({ kind: 'folder', root, split: 'all' })
    using prepared = PreparedImages.open(out)
    const decoder = new DecoderPool({ settings: prepared.settings, workers: 1 })
    const options = { batchSize: 5, seed: 4, size: 48, training: false, augment: true, maxProblems: 0.2 }
    const pixelsOf = async (loader: DataLoader) => {
      const found: number[][] = []
      for await (const batch of loader) {
        found.push([...batch.pixels.toTypedArray()].map(Number))
        batch[Symbol.dispose]()
      }
      expect(loader.problems.list.map(({ path }) => path)).toEqual(['edema/broken.png'])
      return found
    }
    const decoded = await pixelsOf(new DataLoader(dataset, { ...options, decoder }))
    expect(decoded.flat().length).toBe(10 * 48 * 48)
    expect(await pixelsOf(new DataLoader(dataset, { ...options, prepared }))).toEqual(decoded)
    await decoder.close()
    const path = 'normal/normal3.png'
    const image = await prepareImage(join(root, path), prepared.settings)
    torch.scope(() => {
      const found = prepared.view(path)
      expect(found.box).toEqual(image.box)
      expect(found.image.toTypedArray()).toEqual(image.padded.pixels)
    })
  })

  it('refuses other settings and wrong numbers in one line', () => {
    for (const args of [
      ['--size', '32'],
      ['--size', '64', '--bits', '16'],
      ['--size', 'x'],
      ['--size', '64', '--workers', '0'],
      ['--size', '64', '--spec', '{'],
    ]) {
      const { status, stderr, stdout } = cleft(...args)
      expect([status, stdout]).toEqual([1, ''])
      expect(stderr).toMatch(/^cleft: expected [^\n]*\n$/)
    }
  })
})
