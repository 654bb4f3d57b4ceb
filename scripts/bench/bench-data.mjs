// From files to batches: a first pass that decodes, and passes over packed shards, against a torch DataLoader with OpenCV and
// pydicom. Peer: peer_data.py. Two workers each; every pass ends in augmented, normalised batches of 32.
//   npm run bench -- data [--images DIR] [--rounds N] [--json]
// Without --images: gray JPEGs that are made here, 320 x 390 as CheXpert-small's and 1024 x 1024.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { DecoderPool } from '../../dist/data/loader/decoders.js'
import { DataLoader } from '../../dist/data/loader/loader.js'
import { Random } from '../../dist/data/random.js'
import { prepareDataset } from '../../dist/data/shards/prepare.js'
import { PreparedImages } from '../../dist/data/shards/prepared.js'
import { findPython, Peer, report, takeTurns } from './rows.mjs'

const batchSize = 32
const workers = 2
const goals = { jpeg: 1 / 1.5, shards: 1 / 15, dicom: 1 }
const dicomFolder = fileURLToPath(new URL('../../test/reference/dicom', import.meta.url))

/** Ribs, lungs and noise: about as many bytes a pixel as real X-rays. */
async function makeJpegs(folder, count, width, height) {
  mkdirSync(folder, { recursive: true })
  for (let number = 0; number < count; number += 1) {
    const random = new Random(1, 'bench', width, number)
    const [phase, tilt] = [random.uniform(0, 6), random.uniform(-1, 1)]
    const pixels = Buffer.alloc(width * height)
    for (let y = 0, at = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, at += 1) {
        const [u, v] = [(2 * x) / width - 1, (2 * y) / height - 1]
        const lung = Math.exp(-8 * ((Math.abs(u) - 0.45) ** 2 + 0.5 * v ** 2))
        const ribs = Math.sin(18 * v + 6 * u * u + tilt * u + phase)
        pixels[at] = Math.max(0, 190 - 130 * lung + 14 * ribs - 60 * u ** 8 + 8 * random.uniform(-1, 1))
      }
    }
    // gray, as CheXpert's: without a word sharp writes three colours
    await sharp(pixels, { raw: { width, height, channels: 1 } })
      .toColourspace('b-w')
      .jpeg({ quality: 90 })
      .toFile(join(folder, `${number}.jpg`))
  }
}

const filesBelow = (folder, ending) =>
  readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => ending.test(name))
    .sort()

function datasetOf(root, paths) {
  const samples = paths.map((path, row) => ({ row, path, caption: null, label: null }))
  return { kind: 'folder', root, samples, hash: 'bench', findings: [], classes: [] }
}

/** Milliseconds an image of one epoch. */
async function pass(loader) {
  const started = performance.now()
  let images = 0
  for await (const batch of loader) {
    images += batch.indices.length
    batch[Symbol.dispose]()
  }
  return (performance.now() - started) / images
}

const options = { batchSize, seed: 0, dropLast: false }

async function measure({ title, root, paths, goal, rounds, json, python, place, shards }) {
  const list = join(place, 'list.txt')
  writeFileSync(list, paths.map((path) => `${join(root, path)}\n`).join(''))
  const peer =
    python === null
      ? null
      : new Peer(python, './peer_data.py', [list, '--batch', batchSize, '--workers', workers].map(String))
  const decoder = new DecoderPool({ workers })
  const dataset = datasetOf(root, paths)
  const bytes = (names) => names.reduce((sum, name) => sum + statSync(name).size, 0) / paths.length
  const extra = (milliseconds, names) => ({
    images: paths.length,
    imagesPerSecond: Math.round(1000 / milliseconds),
    bytesPerImage: Math.round(bytes(names)),
  })
  try {
    const first = new DataLoader(dataset, { ...options, decoder })
    const theirs = peer === null ? null : async () => (await peer.ask('pass')).value
    await pass(first)
    await theirs?.()
    const times = await takeTurns(rounds, () => pass(first), theirs)
    const files = paths.map((path) => join(root, path))
    report({ name: `${title}, first pass`, unit: 'ms an image', ...times, goal, ...extra(times.ours, files) }, json)
    if (!shards) return
    const folder = join(place, 'shards')
    const prepared = await prepareDataset(dataset, folder, { decoder, maxProblems: 0 })
    const images = PreparedImages.open(folder)
    const packed = new DataLoader(dataset, { ...options, prepared: images })
    // the first one compares hashes
    const checking = await pass(packed)
    const from = await takeTurns(rounds, () => pass(packed), theirs)
    const names = readdirSync(folder).map((name) => join(folder, name))
    const more = { checkingHashes: checking, preparePerSecond: Math.round(prepared.prepared / prepared.seconds) }
    report(
      {
        name: `${title}, packed shards`,
        unit: 'ms an image',
        ...from,
        goal: goals.shards,
        ...extra(from.ours, names),
        ...more,
      },
      json,
    )
    images[Symbol.dispose]()
    rmSync(folder, { recursive: true })
  } finally {
    peer?.close()
    await decoder.close()
  }
}

export async function run({ json, args }) {
  const option = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const rounds = Number(option('--rounds') ?? 5)
  const python = findPython(['torch', 'cv2', 'pydicom', 'PIL'])
  if (python === null) console.error('no Python with torch, OpenCV, Pillow and pydicom was found: rows have no peer')
  const place = mkdtempSync(join(tmpdir(), 'cleft-bench-'))
  const common = { rounds, json, python, place }
  try {
    const given = option('--images')
    if (given !== undefined) {
      const paths = filesBelow(given, /\.(jpe?g|png)$/i)
      await measure({ ...common, title: 'images given', root: given, paths, goal: goals.jpeg, shards: true })
    } else {
      for (const [width, height, count] of [
        [390, 320, 512],
        [1024, 1024, 128],
      ]) {
        const root = join(place, `${width}x${height}`)
        await makeJpegs(root, count, width, height)
        const title = `JPEG ${width} x ${height}`
        await measure({ ...common, title, root, paths: filesBelow(root, /jpg$/), goal: goals.jpeg, shards: true })
      }
    }
    const files = filesBelow(dicomFolder, /\.dcm$/)
    const paths = Array.from({ length: 32 }, () => files).flat()
    await measure({ ...common, title: 'DICOM', root: dicomFolder, paths, goal: goals.dicom, shards: false })
  } finally {
    rmSync(place, { recursive: true })
  }
}
