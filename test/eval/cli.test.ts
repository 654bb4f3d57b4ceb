import { rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import yargs, { type CommandModule } from 'yargs'
import * as compareCommand from '../../src/cli/compare.js'
import * as evalCommand from '../../src/cli/eval.js'
import * as predictCommand from '../../src/cli/predict.js'
import { TextTower } from '../../src/clip/text-tower.js'
import { openDataset } from '../../src/data/index.js'
import type { Comparison } from '../../src/eval/compare.js'
import type { Summary } from '../../src/eval/summary.js'
import { train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from '../train/tiny.js'

let data: Tiny
let from: string
beforeAll(async () => {
  data = await tiny(20)
  from = (await train({ ...tinyRun(data, 'run'), steps: 2 })).checkpoint
}, 120_000)
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))
afterEach(() => {
  vi.restoreAllMocks()
  process.exitCode = undefined
})

/** What a command writes on standard output, as it is typed. */
async function told(command: object, ...words: string[]): Promise<string> {
  let text = ''
  const out = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    text += String(chunk)
    return true
  })
  const error = vi.spyOn(process.stderr, 'write').mockImplementation(() => true)
  try {
    await yargs(words)
      .command(command as CommandModule)
      .fail((message, error: Error | undefined) => {
        throw error ?? new Error(message)
      })
      .strict()
      .parseAsync()
    return text
  } finally {
    for (const each of [out, error]) each.mockRestore()
  }
}

function file(name: string, options: object): string {
  const path = join(data.folder, name)
  writeFileSync(path, JSON.stringify(options))
  return path
}

describe('cleft eval', () => {
  const options = () => ({ from, data: { ...data.data, split: 'all' }, resamples: 5, workers: 1, images: false })

  it('takes its options from a file, settings over them, and flags over all', async () => {
    const config = file('eval.json', { ...options(), name: 'by file', seed: 1 })
    const report = join(data.folder, 'by-file')
    const words = [config, '--set', 'seed=2', '--set', 'name=by setting', '--report', report, '--seed', '3', '--json']
    const summary = JSON.parse(await told(evalCommand, 'eval', ...words)) as Summary
    expect(summary.provenance.name).toBe('by setting')
    expect(summary.intervals).toMatchObject({ resamples: 5, seed: 3 })
    expect(JSON.parse(await readFile(join(report, 'metrics.json'), 'utf8'))).toEqual(summary)
    expect(await readFile(join(report, 'report.html'), 'utf8')).not.toMatch(/image\/jpeg/)
    await told(evalCommand, 'eval', config, '--report', report, '--images')
    expect(await readFile(join(report, 'report.html'), 'utf8')).toMatch(/image\/jpeg/)
    await expect(told(evalCommand, 'eval', config, '--kind', 'chexpert')).rejects.toThrow(/--kind, --spec/)
    await expect(told(evalCommand, 'eval', config, '--set', 'reports=a')).rejects.toThrow(/reports/)
  })

  it('takes how many images may be unusable, beside a file too', async () => {
    const { root } = data.data
    const { samples } = await openDataset({ ...data.data, split: 'all' })
    const paths = samples.slice(0, 10).map(({ path }, k) => `${path},${k % 2},p${k}`)
    writeFileSync(join(root, 'few.csv'), ['path,label,patient', ...paths, 'no/such.jpg,1,p', ''].join('\n'))
    const columns = { path: 'path', label: 'label', patient: 'patient' }
    const few = { kind: 'table', root, table: 'few.csv', split: 'all', columns, prompts: { 0: ['no'], 1: ['edema'] } }
    const config = file('few.json', { ...options(), data: few })
    await expect(told(evalCommand, 'eval', config)).rejects.toThrow(/such\.jpg|unusable|unreadable|1 of/)
    const summary = JSON.parse(await told(evalCommand, 'eval', config, '--max-problems', '0.2', '--json')) as Summary
    expect(summary.images).toBe(10)
    expect(summary.provenance.settings.unreadable).toBe(1)
  })
})

describe('cleft compare', () => {
  it('takes its runs and options from a file, settings over them, and flags over all', async () => {
    const runs = ['a', 'b'].map((name) => join(data.folder, name))
    for (const run of runs) {
      const words = [from, data.data.root, '--spec', JSON.stringify({ split: 'all', holdout: null }), '--report', run]
      await told(evalCommand, 'eval', ...words, '--resamples', '5', '--no-images')
    }
    const config = file('compare.json', { runs, resamples: 7, seed: 1 })
    const compared = async (...words: string[]) =>
      JSON.parse(await told(compareCommand, 'compare', ...words, '--json')) as Comparison
    expect((await compared(config)).intervals).toMatchObject({ resamples: 7, seed: 1 })
    const own = await compared(config, '--set', 'resamples=8', '--seed', '2')
    expect(own.intervals).toMatchObject({ resamples: 8, seed: 2 })
    expect(own).toEqual(await compared(...runs, '--resamples', '8', '--seed', '2'))
    const yaml = join(data.folder, 'compare.yaml')
    writeFileSync(yaml, `runs: [${runs.join(', ')}]\nresamples: 9\n`)
    expect((await compared(yaml)).intervals.resamples).toBe(9)
    await expect(compared(config, '--set', 'resample=8')).rejects.toThrow(/compare: expected .*resample/)
    await expect(compared(...runs, '--set', 'resamples=8')).rejects.toThrow(/--set: expected a file/)
    await expect(compared(file('one.json', { runs: runs.slice(1) }))).rejects.toThrow(/two runs or more/)
  })
})

describe('cleft predict', () => {
  it('reads its prompts once for all files', async () => {
    const { samples, root } = await openDataset({ ...data.data, split: 'all' })
    const files = samples.slice(0, 3).map(({ path }) => join(root, path))
    const prompts = ['edema', 'no finding'].flatMap((each) => ['--prompts', each])
    const encode = vi.spyOn(TextTower.prototype, 'encodeText')
    const lines = (await told(predictCommand, 'predict', from, ...files, ...prompts, '--json')).trim().split('\n')
    expect(lines.map((line) => (JSON.parse(line) as { file: string }).file)).toEqual(files)
    expect(encode).toHaveBeenCalledTimes(1)
  })
})
