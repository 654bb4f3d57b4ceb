import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const script = fileURLToPath(new URL('../scripts/real/main.mjs', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'cleft-real-'))
const [images, table] = [join(folder, 'images'), join(folder, 'table.csv')]
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Bright and dark squares of 60 patients, two of each: the second is not in the table. */
beforeAll(async () => {
  const rows = ['file,findings,who']
  for (const [label, shade] of [
    ['Bright', 200],
    ['Dark', 50],
  ] as const) {
    mkdirSync(join(images, label), { recursive: true })
    for (let patient = 0; patient < 30; patient += 1) {
      const number = String(1000 * shade + patient).padStart(8, '0')
      for (const view of ['000', '001']) {
        const name = `${number}_${view}.png`
        const gray = shade + patient
        const background = { r: gray, g: gray, b: gray }
        const picture = sharp({ create: { width: 40, height: 40, channels: 3, background } })
        await picture.png().toFile(join(images, label, name))
        if (view === '000') rows.push(`${name},${label}_Finding|Other,${Number(number)}`)
      }
    }
  }
  writeFileSync(table, `${rows.join('\n')}\n`)
})

const columns = ['--image-column', 'file', '--findings-column', 'findings', '--patient-column', 'who']
const short = [
  'batchSize=16',
  'imageSize=32',
  'oversample=1',
  'validation=null',
  'checkpointEvery=3600',
  'optimizer.warmupSteps=2',
]
const given = ['--images', images, '--table', table, '--lm', 'cleft-report-lm', ...columns]

/** Runs the command; a line of its standard error that `interruptAt` fits stops it, as Ctrl-C does. */
async function real(options: readonly string[], interruptAt?: RegExp) {
  const child = spawn(process.execPath, [script, ...options], { env: { ...process.env, OMP_NUM_THREADS: '1' } })
  let [stdout, stderr] = ['', '']
  let interrupted = false
  child.stdout.on('data', (chunk) => {
    stdout += String(chunk)
  })
  child.stderr.on('data', (chunk) => {
    stderr += String(chunk)
    if (interrupted || interruptAt?.test(stderr) !== true) return
    interrupted = true
    child.kill('SIGINT')
  })
  const status = await new Promise((done) => {
    child.once('close', done)
  })
  return { status, stdout, stderr }
}

const sets = (steps: number) => [...short, `steps=${steps}`].flatMap((each) => ['--set', each])

describe('npm run real', () => {
  it('tests each patient of the folds once, by stage, and goes on where it was stopped', async () => {
    const out = join(folder, 'out')
    const options = [...given, ...sets(30), '--folds', '0..1', '--stages', 'linear-probe', '--out', out]
    const stopped = await real(options, /^step 10 of 30/m)
    expect(stopped, stopped.stderr).toMatchObject({ status: 130, stdout: '' })
    expect(stopped.stderr).toMatch(/stopping, with a checkpoint.*\n(.*\n)*stopped; the same command goes on/)

    const first = await real(options)
    expect(first, first.stderr).toMatchObject({ status: 0 })
    expect(first.stderr).toContain('120 images of Bright, Dark; 60 are in the table')
    expect(first.stderr).toMatch(/pretrain: goes on after step \d+ of 30/)
    const file = join(out, 'results.json')
    const { folds, all } = JSON.parse(readFileSync(file, 'utf8'))
    const stages = ['zero-shot', 'linear-probe']
    expect(folds.map(({ fold, stage }: { fold: number; stage: string }) => [fold, stage])).toEqual(
      [0, 1].flatMap((fold) => stages.map((stage) => [fold, stage])),
    )
    const listed = [0, 1].map((fold) =>
      readFileSync(join(out, `fold-${fold}`, 'data', 'test.txt'), 'utf8')
        .trim()
        .split('\n'),
    )
    expect(new Set(listed.flat()).size).toBe(listed.flat().length)
    for (const row of all) {
      // two images of each patient
      expect(row).toMatchObject({ folds: 2, images: 2 * listed.flat().length, patients: listed.flat().length })
      expect(row.accuracy.low).toBeLessThanOrEqual(row.accuracy.value)
      expect(row.accuracy.high).toBeGreaterThanOrEqual(row.accuracy.value)
      expect(first.stdout).toContain(row.accuracy.value.toFixed(3))
    }
    for (const { report } of folds) expect(existsSync(report)).toBe(true)

    const again = await real(options)
    expect(again, again.stderr).toMatchObject({ status: 0, stdout: first.stdout })
    expect(again.stderr).not.toMatch(/^step /m)
  }, 120_000)

  it('refuses what it cannot do in one line', async () => {
    const wrong = [
      [['--folds', '7'], /^--folds: expected folds from 0 to 4, .* but received '7'$/m],
      [['--stages', 'probe'], /^--stages: expected some of prompt, linear-probe, fine-tune, but received 'probe'$/m],
      [['--image-column', 'name'], /^--table: expected a column 'name' in .*, but it has file, findings, who; /m],
    ] as const
    for (const [options, message] of wrong) {
      const replaced = given.filter((_, at) => !(options[0] === given[at] || options[0] === given[at - 1]))
      const { status, stdout, stderr } = await real([...replaced, ...options, '--out', join(folder, 'none')])
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
      expect(stderr).toMatch(message)
    }
  })
})
