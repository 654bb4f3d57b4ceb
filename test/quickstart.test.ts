import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const script = fileURLToPath(new URL('../scripts/quickstart.mjs', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'cleft-quickstart-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** On next to nothing: what it writes is looked at, not what was learned. */
const tiny = ['--patients', '40', '--per-class', '3', '--stage', 'zero-shot']
const short = ['--set', 'steps=2', '--set', 'batchSize=8', '--set', 'validation=null']

function quickstart(...options: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...options], {
    encoding: 'utf8',
    env: { ...process.env, OMP_NUM_THREADS: '1' },
  })
  return { status, stdout, stderr }
}

describe('the quickstart', () => {
  it('leaves a summary beside its report, and does nothing twice', () => {
    const options = ['--out', join(folder, 'whole'), ...tiny, ...short]
    const first = quickstart(...options)
    expect(first, first.stderr).toMatchObject({ status: 0 })
    const [report, summary] = ['report', 'summary'].map(
      (name) => new RegExp(`^${name}: +(.+)$`, 'm').exec(first.stdout)?.[1] ?? '',
    )
    expect(existsSync(report!)).toBe(true)
    const { runs } = JSON.parse(readFileSync(summary!, 'utf8'))
    expect(runs.map(({ method, stage }: { method: string; stage: string }) => [method, stage])).toEqual([
      ['cleft', 'zero-shot'],
      ['clip-bert', 'zero-shot'],
    ])
    for (const run of runs) {
      const { accuracy, accuracy95, auc, trainable, seconds, peakMiB, name } = run
      expect(first.stdout).toContain(name)
      expect(accuracy95[0]).toBeLessThanOrEqual(accuracy)
      expect(accuracy95[1]).toBeGreaterThanOrEqual(accuracy)
      expect(auc).toBeGreaterThan(0)
      expect(trainable).toBeGreaterThan(100_000)
      expect(seconds).toBeGreaterThan(0)
      expect(peakMiB).toBeGreaterThan(50)
    }
    // the language model of CLEFT does not train
    expect(runs[0].trainable).toBeLessThan(runs[1].trainable)

    const commands = Object.values(JSON.parse(readFileSync(join(folder, 'whole', 'commands.json'), 'utf8')))
    // also of those that start threads
    for (const { peakMiB } of commands as { peakMiB: number }[]) expect(peakMiB).toBeGreaterThan(50)

    const again = quickstart(...options)
    expect(again.status).toBe(0)
    expect(again.stderr.match(/was done before/g)).toHaveLength(8)
    expect(JSON.parse(readFileSync(summary!, 'utf8')).runs).toEqual(runs)
  }, 120_000)

  it('ends where a command fails, with its one line', () => {
    const { status, stdout, stderr } = quickstart('--data', join(folder, 'nothing'), '--out', join(folder, 'failed'))
    expect(status).toBe(1)
    expect(stdout).toBe('')
    expect(stderr).toMatch(/^cleft: expected the folder of a data set/m)
  })
})
