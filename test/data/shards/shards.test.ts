import { spawn, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { type PrepareOptions, prepareDataset } from '../../../src/data/shards/prepare.js'
import { PreparedImages } from '../../../src/data/shards/prepared.js'
import { ShardWriter } from '../../../src/data/shards/writer.js'
import type { Reporter } from '../../../src/setup/report.js'
import * as torch from '../../../src/torch/index.js'
import { prepareImage } from '../loader/decode-module.mjs'
import { datasetOf, numbered, sampleOf, settings, TestDecoder } from '../loader/helpers.js'

const folders: string[] = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})
function temporary(): string {
  folders.push(mkdtempSync(join(tmpdir(), 'cleft-shards-')))
  return folders.at(-1)!
}

const prepare = (count: number, folder: string, options: Partial<PrepareOptions> = {}) =>
  prepareDataset(numbered(count), folder, { decoder: new TestDecoder(settings), shardSize: 4, ...options })

const shardsIn = (folder: string) => readdirSync(folder).filter((name) => name.startsWith('shard-'))

/** Everything in a folder is what decoding gives. */
async function expectAll(folder: string, count: number, wanted = settings): Promise<void> {
  using prepared = PreparedImages.open(folder)
  expect(prepared.size).toBe(count)
  const { size, bits } = prepared.settings
  for (let row = 0; row < count; row += 1) {
    const image = await prepareImage(`image${row}.png`, wanted)
    torch.scope(() => {
      const found = prepared.view(`image${row}.png`)
      expect([found.image.dtype, found.image.shape]).toEqual([bits === 8 ? 'uint8' : 'uint16', [1, 1, size, size]])
      expect(found.box).toEqual(image.box)
      expect(found.image.toTypedArray()).toEqual(image.padded.pixels)
    })
  }
}

describe('prepared images', () => {
  for (const bits of [8, 16] as const) {
    it(`are read as they were written, ${bits} bits`, async () => {
      const folder = temporary()
      const wanted = { ...settings, bits }
      const report = await prepare(10, folder, { decoder: new TestDecoder(wanted) })
      expect([report.images, report.prepared, report.kept, report.problems.list]).toEqual([10, 10, 0, []])
      expect(shardsIn(folder)).toEqual([0, 1, 2].map((number) => `shard-0000${number}.safetensors`))
      expect(readdirSync(folder).sort()).toEqual(['prepared.json', 'problems.json', ...shardsIn(folder)])
      await expectAll(folder, 10, wanted)
    })
  }

  it('are plain safetensors files', async () => {
    const folder = temporary()
    await prepare(3, folder)
    torch.scope(() => {
      using file = torch.openSafetensors(join(folder, 'shard-00000.safetensors'))
      expect([...file.names].sort()).toEqual(['boxes', 'hashes', 'images', 'rows'])
      expect(file.tensor('images').shape).toEqual([3, 1, 16, 16])
      expect(file.tensor('rows').toArray()).toEqual([0, 1, 2])
      expect(JSON.parse(file.metadata.get('paths')!)).toEqual(['image0.png', 'image1.png', 'image2.png'])
    })
  })

  it('keep warnings, name an image once, and take what a data set gets later', async () => {
    const folder = temporary()
    const samples = ['odd0.png', 'image1.png', 'odd0.png'].map((path, row) => sampleOf(path, row))
    const first = await prepareDataset(datasetOf(samples), folder, { decoder: new TestDecoder(settings) })
    expect([first.images, first.prepared]).toEqual([2, 2])
    const decoder = new TestDecoder(settings)
    const second = await prepare(5, folder, { decoder })
    expect([second.images, second.prepared, second.kept]).toEqual([5, 4, 1])
    expect(decoder.asked).not.toContain('/data/image1.png')
    using prepared = PreparedImages.open(folder)
    expect([prepared.size, prepared.warnings('odd0.png'), prepared.warnings('image1.png')]).toEqual([
      6,
      ['it is odd'],
      [],
    ])
    expect(() => prepared.warnings('image9.png')).toThrow(/expected 'image9.png' among the 6 prepared images/)
  })

  it('list files that failed, try them again, and stop at too many', async () => {
    const folder = temporary()
    const samples = Array.from({ length: 10 }, (_, row) => sampleOf(row === 6 ? 'bad6.png' : `image${row}.png`, row))
    const options = { decoder: new TestDecoder(settings), shardSize: 4, maxProblems: 0.1 }
    const report = await prepareDataset(datasetOf(samples), folder, options)
    expect(report.prepared).toBe(9)
    const listed = () => JSON.parse(readFileSync(join(folder, 'problems.json'), 'utf8')).problems
    expect(listed()).toEqual([{ row: 6, path: 'bad6.png', problem: 'expected an image, but bad6.png is none' }])
    samples[6] = sampleOf('image6.png', 6)
    expect((await prepareDataset(datasetOf(samples), folder, options)).prepared).toBe(1)
    expect(listed()).toEqual([])
    await expectAll(folder, 10)

    const other = temporary()
    samples[8] = sampleOf('bad8.png', 8)
    const strict = prepareDataset(datasetOf(samples), other, { ...options, maxProblems: 0.01 })
    await expect(strict).rejects.toThrow(/expected at most 1 % of 10 to be unusable, but 1 are: row 8, bad8.png/)
    // what was decoded before is there
    using prepared = PreparedImages.open(other)
    expect(prepared.size).toBe(8)
  })

  it('are the same files whatever the order in which decoding ends', async () => {
    const bytes = async (concurrency: number) => {
      const folder = temporary()
      const decoder = Object.assign(new TestDecoder(settings), { concurrency })
      await prepare(11, folder, { decoder })
      expect(decoder.most).toBeLessThanOrEqual(2 * concurrency)
      return shardsIn(folder).map((name) => readFileSync(join(folder, name)))
    }
    expect(await bytes(1)).toEqual(await bytes(5))
  })

  it('tell how far they are', async () => {
    const lines: string[] = []
    const done: number[] = []
    const reporter: Reporter = {
      interactive: false,
      line: (text) => lines.push(text),
      progress: (label, total, unit) => {
        lines.push(`${label} ${total} ${unit}`)
        return { update: (count) => done.push(count), finish: () => lines.push('finished') }
      },
    }
    const folder = temporary()
    await prepare(4, folder)
    await prepare(6, folder, { reporter })
    expect(lines).toEqual(['4 of 6 images are prepared already', 'prepare 6 images', 'finished'])
    expect(done).toEqual([4, 5, 6])
  })
})

describe('a folder of prepared images', () => {
  it('is refused for other settings, another kind, or other files in it', async () => {
    const folder = temporary()
    await prepare(3, folder)
    for (const other of [{ size: 32 }, { bits: 16 }, { windowing: 'dicom' }] as const) {
      await expect(prepare(3, folder, { decoder: new TestDecoder({ ...settings, ...other }) })).rejects.toThrow(
        /to be prepared as table, .*but it is table, 16 pixels, 8 bits, windowing 'published'; give another folder/,
      )
    }
    const kind = prepareDataset(numbered(3, 'embed'), folder, { decoder: new TestDecoder(settings) })
    await expect(kind).rejects.toThrow(/prepared as embed/)
    const full = temporary()
    writeFileSync(join(full, 'thesis.txt'), 'mine')
    await expect(prepare(3, full)).rejects.toThrow(/it holds other files \(thesis.txt\)/)
    expect(readdirSync(full)).toEqual(['thesis.txt'])
    expect(() => PreparedImages.open(full)).toThrow(/expected a folder of prepared images/)
    expect(() => PreparedImages.open(join(full, 'none'))).toThrow(/expected a folder of prepared images/)
    writeFileSync(join(folder, 'prepared.json'), '{"format": "cleft-prepared-9"}')
    expect(() => PreparedImages.open(folder)).toThrow(/cleft-prepared-1/)
    writeFileSync(join(folder, 'prepared.json'), '{')
    await expect(prepare(3, folder)).rejects.toThrow(/cleft-prepared-1/)
  })

  it('that cannot be written is an error', async () => {
    const file = join(temporary(), 'file')
    writeFileSync(file, '')
    await expect(prepare(3, file)).rejects.toThrow(/expected a folder to write prepared images to, but .*file/)
    await expect(prepare(3, join(file, 'below'))).rejects.toThrow(/ENOTDIR|EEXIST/)
    await expect(prepare(3, '/proc/none')).rejects.toThrow(/expected a folder to write prepared images to/)
  })

  it('is written by one process at a time', async () => {
    const folder = temporary()
    const content = { kind: 'table', settings }
    const writer = new ShardWriter(folder, content)
    // the lock of a process that lives: the one that started this one
    writeFileSync(join(folder, 'writing.lock'), `${process.ppid}\n`)
    expect(() => new ShardWriter(folder, content)).toThrow(/expected to be alone in .*process \d+ is preparing/)
    writer.close()
    writeFileSync(join(folder, 'writing.lock'), '999999999\n')
    writeFileSync(join(folder, '.shard-00007.safetensors.999999999.abcdef.tmp'), 'half')
    new ShardWriter(folder, content).close()
    expect(readdirSync(folder)).toEqual(['prepared.json'])
  })

  it('with a damaged shard is refused', async () => {
    const folder = temporary()
    await prepare(8, folder)
    const file = join(folder, 'shard-00001.safetensors')
    const good = readFileSync(file)
    const read = () => {
      using prepared = PreparedImages.open(folder)
      prepared.view('image6.png').image.dispose()
    }
    read()
    const offset = torch.scope(() => {
      using shard = torch.openSafetensors(file)
      return shard.info('images').byteOffset
    })
    // one bit of the pixels of the third image in it
    const flipped = Buffer.from(good)
    flipped[offset + 2 * 256 + 9]! ^= 1
    writeFileSync(file, flipped)
    expect(read).toThrow(/expected the pixels of 'image6.png' .*hash differs; the file is damaged: remove it/)
    await expect(prepare(8, folder)).rejects.toThrow(/hash differs/)
    writeFileSync(file, good)
    truncateSync(file, good.length - 1)
    expect(read).toThrow(/the file is damaged: remove it, and run `cleft prepare` again/)
    await expect(prepare(8, folder)).rejects.toThrow(/the file is damaged/)
    truncateSync(file, 4)
    expect(read).toThrow(/the file is damaged/)
    rmSync(file)
    expect(read).toThrow(/expected 'image6.png' among the 4 prepared images/)
    const report = await prepare(8, folder)
    expect([report.kept, report.prepared]).toEqual([4, 4])
    read()
  })

  it('with a shard of other tensors is refused', async () => {
    const folder = temporary()
    await prepare(2, folder)
    const file = join(folder, 'shard-00000.safetensors')
    const write = (paths: string, boxes: torch.Tensor) =>
      torch.saveSafetensors(
        {
          images: torch.zeros([1, 1, 16, 16], { dtype: 'uint8' }),
          rows: torch.zeros([1], { dtype: 'int64' }),
          hashes: torch.zeros([1, 32], { dtype: 'uint8' }),
          boxes,
        },
        file,
        { metadata: { paths, warnings: '[[]]' } },
      )
    torch.scope(() => write('["a"]', torch.zeros([1, 4])))
    expect(() => PreparedImages.open(folder)).toThrow(
      /expected 'boxes' of int32 \[1,4\] in the shard, but it is float32/,
    )
    torch.scope(() => write('{"a": 1}', torch.zeros([1, 4], { dtype: 'int32' })))
    expect(() => PreparedImages.open(folder)).toThrow(/expected a list 'paths'/)
    torch.scope(() => write('["a", "b"]', torch.zeros([1, 4], { dtype: 'int32' })))
    expect(() => PreparedImages.open(folder)).toThrow(/expected warnings for 2 images/)
  })
})

const child = fileURLToPath(new URL('prepare-child.mjs', import.meta.url))
const wanted = { ...settings, size: 64 }

describe('prepare in a process that ends early', () => {
  const runKilled = async (folder: string, signal: 'SIGKILL' | 'SIGINT', isTime: () => boolean) => {
    const run = spawn(process.execPath, [child, folder, '60'], { stdio: 'ignore' })
    const ended = new Promise<NodeJS.Signals | number | null>((resolve) =>
      run.once('exit', (code, by) => resolve(by ?? code)),
    )
    while (run.exitCode === null && !isTime()) await new Promise((resolve) => setTimeout(resolve, 2))
    run.kill(signal)
    return ended
  }
  const goOn = (folder: string) => {
    const run = spawnSync(process.execPath, [child, folder, '60', '0'], { encoding: 'utf8' })
    expect(run.stderr).toBe('')
    return JSON.parse(run.stdout) as { prepared: number; kept: number }
  }
  const shardsOf = (folder: string) => (existsSync(folder) ? shardsIn(folder).length : 0)

  it('goes on from its last whole shard after SIGKILL, again and again', async () => {
    const folder = join(temporary(), 'out')
    for (const shards of [2, 5]) {
      expect(await runKilled(folder, 'SIGKILL', () => shardsOf(folder) >= shards)).toBe('SIGKILL')
      // readable as it was left
      using prepared = PreparedImages.open(folder)
      expect(prepared.size % 4).toBe(0)
    }
    const { prepared, kept } = goOn(folder)
    expect(prepared + kept).toBe(60)
    expect(kept).toBeGreaterThanOrEqual(20)
    expect(readdirSync(folder).filter((name) => !/^(shard-\d+\.safetensors|.*\.json)$/.test(name))).toEqual([])
    await expectAll(folder, 60, wanted)
  })

  it('keeps what was decoded after Ctrl-C', async () => {
    const folder = join(temporary(), 'out')
    expect(await runKilled(folder, 'SIGINT', () => shardsOf(folder) >= 2)).toBe(130)
    expect(readdirSync(folder)).not.toContain('writing.lock')
    const { prepared, kept } = goOn(folder)
    expect(prepared + kept).toBe(60)
    await expectAll(folder, 60, wanted)
  })

  it('says so where the disk is full, and goes on later', async () => {
    const folder = join(temporary(), 'out')
    mkdirSync(folder)
    // files of 8 blocks (4 KiB) at most: no shard can be written; the signal would end the process
    const limited = spawnSync(
      'sh',
      ['-c', 'trap "" XFSZ; ulimit -f 8; exec "$@"', 'sh', process.execPath, child, folder, '60', '0'],
      {
        encoding: 'utf8',
      },
    )
    expect(limited.stderr).toMatch(/^expected to write '.*shard-00000.safetensors', but writing failed .*EFBIG.*\n$/)
    expect(limited.status).toBe(1)
    expect(shardsIn(folder)).toEqual([])
    expect(goOn(folder)).toEqual({ prepared: 60, kept: 0 })
    await expectAll(folder, 60, wanted)
  })
})
