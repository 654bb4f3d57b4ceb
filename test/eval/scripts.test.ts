import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writePhantoms } from '../../src/data/phantoms/index.js'
import { packageRoot } from '../../src/setup/paths.js'
import { train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from '../train/tiny.js'

let pretraining: Tiny
let from: string
const folder = mkdtempSync(join(tmpdir(), 'cleft-scripts-'))
const roots = {
  chexpert: join(folder, 'chexpert', 'CheXpert-v1.0-small'),
  rsna: join(folder, 'rsna'),
  embed: join(folder, 'embed'),
}

beforeAll(async () => {
  pretraining = await tiny(20, 1, 400)
  const text = { model: pretraining.language, maximumLength: 300 }
  from = (await train({ ...tinyRun(pretraining, 'run'), text, steps: 2 })).checkpoint
  await writePhantoms({ kind: 'chexpert', out: join(folder, 'chexpert'), patients: 60, fiveWay: 6, seed: 4 })
  await writePhantoms({ kind: 'rsna', out: roots.rsna, patients: 40, seed: 4 })
  await writePhantoms({ kind: 'embed', out: roots.embed, patients: 40, seed: 2 })
}, 180_000)
afterAll(() => {
  for (const each of [folder, pretraining.folder]) rmSync(each, { recursive: true, force: true })
})

function run(script: string, root: string, ...parameters: string[]) {
  const out = join(folder, 'evaluations')
  return spawnSync(
    process.execPath,
    [
      join(packageRoot(), 'scripts', 'eval', `${script}.mjs`),
      '--from',
      from,
      '--data',
      root,
      '--out',
      out,
      ...parameters,
    ],
    { encoding: 'utf8' },
  )
}

const short = ['--fraction', '1', '--steps', '3', '--batch-size', '4']

describe('the scripts of the published evaluations, on phantoms', () => {
  it.each([
    ['chexpert-zero-shot', roots.chexpert, ['--per-class', '2'], 1],
    ['chexpert-linear-probe', roots.chexpert, ['--per-class', '2', ...short], 1],
    ['chexpert-fine-tune', roots.chexpert, ['--per-class', '2', ...short], 1],
    ['rsna', roots.rsna, short, 3],
    ['embed-density', roots.embed, ['--per-class', '2', '--task', 'zero-shot'], 1],
  ] as const)(
    '%s',
    (script, root, parameters, count) => {
      const { status, stderr, stdout } = run(script, root, ...parameters)
      expect(`${status} ${status === 0 ? '' : stderr}`).toBe('0 ')
      const { rows } = JSON.parse(readFileSync(join(folder, 'evaluations', script, 'results.json'), 'utf8'))
      expect(rows.length).toBe(count)
      // of so few images some intervals are not defined
      expect(stdout).not.toMatch(/undefined|null|NaN/)
      for (const { accuracy, report } of rows) {
        expect(accuracy.value).toBeGreaterThanOrEqual(0)
        expect(existsSync(join(report, 'report.html'))).toBe(true)
      }
    },
    120_000,
  )

  it('go on where they were stopped', () => {
    const again = run('chexpert-linear-probe', roots.chexpert, '--per-class', '2', ...short)
    expect(again.status).toBe(0)
    expect(again.stderr).toMatch(/goes on after step 3 of 3/)
  })

  it('say in one line what is wrong', () => {
    // of so few phantoms none has the rarer assessments
    const few = run('embed-birads', roots.embed)
    expect(few.status).toBe(1)
    expect(few.stderr).toMatch(/^expected 200 images of the class .*; ask for fewer\n$/)
    const { status, stderr } = run('chexpert-zero-shot', join(folder, 'nowhere'))
    expect(status).toBe(1)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })
})
