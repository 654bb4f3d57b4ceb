import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import * as command from '../../src/cli/compare.js'
import { type Comparison, compareRuns } from '../../src/eval/compare.js'
import { type Predictions, reorderClasses, selectRows } from '../../src/eval/predictions.js'
import { writePredictions } from '../../src/eval/predictions-file.js'
import { comparisonInWords, writeComparison } from '../../src/eval/report/comparison.js'
import { type SummaryOptions, summarize } from '../../src/eval/summary.js'
import { chestClasses, classPredictions, findingPredictions, madeUpRetrieval, provenance } from './examples.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-compare-'))
afterAll(() => rmSync(folder, { recursive: true }))

const resamples = 200

/** A run's folder as a report leaves it. */
async function run(
  name: string,
  predictions: Predictions,
  options: Partial<SummaryOptions> & { plainPaths?: boolean } = {},
): Promise<string> {
  const place = join(folder, name)
  mkdirSync(place, { recursive: true })
  const summary = await summarize(predictions, { provenance: provenance(name), resamples: 20, ...options })
  writeFileSync(join(place, 'metrics.json'), JSON.stringify(summary))
  await writePredictions(join(place, 'predictions.csv'), predictions, options)
  return place
}

let weak: string
let strong: string
beforeAll(async () => {
  weak = await run('weak', classPredictions())
  strong = await run('strong', classPredictions({ margin: 4, seed: 9 }))
})

describe('cleft compare', () => {
  it('finds the better run better, on the same resamples', async () => {
    const { runs, differences, images, patients, leftOut } = await compareRuns([weak, strong], { resamples })
    expect([images, leftOut]).toEqual([400, 0])
    expect(patients).toBeGreaterThan(100)
    const { accuracy } = differences[0]!.metrics
    expect(accuracy!.value).toBeCloseTo(runs[1]!.metrics.accuracy!.value! - runs[0]!.metrics.accuracy!.value!, 12)
    expect(accuracy!.low).toBeGreaterThan(0)
    expect(accuracy!.p).toBeLessThan(0.05)
    expect(differences[0]!.metrics.brier!.high).toBeLessThan(0)
    expect(differences[0]!.perClass.map(({ name }) => name)).toEqual(chestClasses)
  })

  it('finds no difference from the same predictions in another order of images and classes', async () => {
    const predictions = classPredictions()
    const order = predictions.paths.map((_, k) => k).reverse()
    const same = await run('same', reorderClasses(selectRows(predictions, order), [4, 3, 2, 1, 0]))
    const { differences } = await compareRuns([weak, same], { resamples })
    for (const each of Object.values(differences[0]!.metrics)) expect(each).toMatchObject({ value: 0, p: 1 })
  })

  it('uses the thresholds that each run has from its validation set', async () => {
    const findings = findingPredictions()
    const validation = findingPredictions({ seed: 3, dataSeed: 4 })
    const apart = { ...validation, patients: validation.patients.map((each) => `v${each}`) }
    const tuned = await run('tuned', findings, { validation: apart, threshold: { sensitivity: 0.95 } })
    const plain = await run('plain', findings)
    const saved = JSON.parse(readFileSync(join(tuned, 'metrics.json'), 'utf8')) as Awaited<ReturnType<typeof summarize>>
    const { runs, differences } = await compareRuns([plain, tuned], { resamples })
    expect(runs[1]!.metrics.f1!.value).toBe(saved.metrics.f1!.value)
    expect(differences[0]!.metrics.f1!.value).not.toBe(0)
    expect(differences[0]!.metrics.auc!.value).toBe(0)
  })

  it('refuses other test sets, and compares what is shared where asked', async () => {
    const predictions = classPredictions()
    const rows = Array.from({ length: 300 }, (_, k) => k)
    const part = await run('part', selectRows(predictions, rows))
    await expect(compareRuns([weak, part])).rejects.toThrow(
      /the same test set, but weak has 400 images.*none in common/,
    )
    const [all, fewer] = [
      await run('all', predictions, { plainPaths: true }),
      await run('fewer', selectRows(predictions, rows), { plainPaths: true }),
    ]
    await expect(compareRuns([all, fewer])).rejects.toThrow(/300 in common; use --shared/)
    const { images, leftOut, differences } = await compareRuns([all, fewer], { shared: true, resamples })
    expect([images, leftOut]).toEqual([300, 100])
    expect(differences[0]!.metrics.accuracy!.value).toBe(0)
  })

  it('refuses in words what cannot be compared', async () => {
    await expect(compareRuns([weak])).rejects.toThrow(/two runs or more to compare, but received 1/)
    await expect(compareRuns([weak, join(weak, '.')])).rejects.toThrow(/a folder comes twice/)
    await expect(compareRuns([weak, join(folder, 'none')])).rejects.toThrow(/expected a metrics.json .* there is none/)
    const findings = await run('findings', findingPredictions())
    await expect(compareRuns([weak, findings])).rejects.toThrow(/same task, but .* multi-class and .* multi-label/)
    const classes = ['a', 'b', 'c', 'd', 'e']
    const others = await run('others', classPredictions({ classes }))
    await expect(compareRuns([weak, others])).rejects.toThrow(/same classes/)
    const labels = classPredictions().labels.map((label, k) => (k === 5 ? (label + 1) % 5 : label))
    const relabelled = await run('relabelled', { ...classPredictions(), labels })
    await expect(compareRuns([weak, relabelled])).rejects.toThrow(/the same labels in all runs/)
    const twice = await run('twice', selectRows(classPredictions(), [0, 0, 1]))
    await expect(compareRuns([twice, weak])).rejects.toThrow(/each image once/)
    const lenient = await run('lenient', findingPredictions(), { uncertain: 'positive' })
    await expect(compareRuns([findings, lenient])).rejects.toThrow(/rule for uncertain/)
    const retrieval = join(folder, 'retrieval')
    mkdirSync(retrieval)
    const alone = { provenance: provenance(), retrieval: madeUpRetrieval(['a', 'b', 'c']), resamples: 10 }
    writeFileSync(join(retrieval, 'metrics.json'), JSON.stringify(await summarize(null, alone)))
    await expect(compareRuns([weak, retrieval])).rejects.toThrow(/retrieval alone/)
    for (const [text, message] of [
      ['{', /expected a metrics.json .* but .*JSON/],
      ['[]', /expected a metrics.json .* the file is wrong/],
      ['{"format": "cleft-metrics-1", "task": "guess"}', /task is wrong/],
    ] as const) {
      writeFileSync(join(retrieval, 'metrics.json'), text)
      await expect(compareRuns([weak, retrieval])).rejects.toThrow(message)
    }
  })

  it('says it in words and in a page', async () => {
    const comparison = await compareRuns([weak, strong], { resamples })
    const words = comparisonInWords(comparison)
    expect(words).toMatch(/^400 images of \d+ patients/)
    expect(words).toMatch(/^Macro AUC +0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) +0\.\d{3}/m)
    expect(words).toMatch(/^B minus A$/m)
    const written = await writeComparison(join(folder, 'side by side'), comparison)
    const page = readFileSync(written.html, 'utf8')
    expect(page).toContain('<h3>B minus A: strong</h3>')
    expect(JSON.parse(readFileSync(written.json, 'utf8'))).toEqual(comparison)
  })

  it('prints one JSON object, and writes a report beside it', async () => {
    const printed: string[] = []
    const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => printed.push(String(text)) > 0)
    const note = vi.spyOn(process.stderr, 'write').mockImplementation(() => true)
    const report = join(folder, 'by command')
    const flags = {
      runs: [weak, strong],
      set: [],
      shared: false,
      resamples,
      seed: 3,
      report,
      json: true,
      _: [],
      $0: '',
    }
    try {
      await command.handler(flags)
    } finally {
      write.mockRestore()
      note.mockRestore()
    }
    const comparison = JSON.parse(printed.join('')) as Comparison
    expect(comparison.intervals).toEqual({ confidence: 0.95, resamples, seed: 3 })
    expect(JSON.parse(readFileSync(join(report, 'compare.json'), 'utf8'))).toEqual(comparison)
  })
})
