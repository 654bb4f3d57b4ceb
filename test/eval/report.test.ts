import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ClassPredictions, Predictions } from '../../src/eval/predictions.js'
import { projectEmbedding } from '../../src/eval/report/embedding.js'
import { html } from '../../src/eval/report/html.js'
import { overlayJpeg } from '../../src/eval/report/images.js'
import { type Embedding, type ReportInput, writeReport } from '../../src/eval/report/index.js'
import { promptTable } from '../../src/eval/report/tables.js'
import { type Summary, type SummaryOptions, summarize } from '../../src/eval/summary.js'
import * as examples from './examples.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-report-'))
afterAll(() => rmSync(folder, { recursive: true }))

let made = 0
async function report(
  predictions: Predictions | null,
  input: Partial<ReportInput> = {},
  options: Partial<SummaryOptions> = {},
  dir = join(folder, String(made++)),
) {
  const summary = await summarize(predictions, { provenance: examples.provenance(), resamples: 20, ...options })
  const written = await writeReport(dir, { summary, predictions, ...input })
  return { dir, summary, written, page: readFileSync(written.html, 'utf8') }
}

function everything(predictions: ClassPredictions): Partial<ReportInput> {
  return {
    retrieval: examples.retrievalExamples,
    maps: examples.mapExamples(predictions.paths.slice(0, 2)),
    embedding: examples.clouds(predictions.labels, predictions.classes),
  }
}

/** Elements that are open when they should not be, or the other way round. */
function unbalanced(page: string): string[] {
  const open: string[] = []
  const wrong: string[] = []
  const body = page.replace(/<!doctype html>/, '').replace(/<style>[\s\S]*?<\/style>/g, '')
  for (const [, end, name] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)(?:\s[^>]*)?>/gi)) {
    if (['meta', 'img', 'br'].includes(name!)) continue
    if (end === '') open.push(name!)
    else if (open.pop() !== name) wrong.push(name!)
  }
  return [...wrong, ...open]
}

/** What images in the page are made of. */
function svgsOf(page: string): string[] {
  return [...page.matchAll(/data:image\/svg\+xml;base64,([^"]+)"/g)].map(([, data]) =>
    Buffer.from(data!, 'base64').toString('utf8'),
  )
}

const full = examples.classPredictions({ samples: 120 })
let whole: Awaited<ReturnType<typeof report>>
beforeAll(async () => {
  whole = await report(full, everything(full), { retrieval: examples.madeUpRetrieval(full.patients) })
})

describe('report.html', () => {
  it('is one file that asks for nothing and runs nothing', () => {
    const { page } = whole
    expect(page).toMatch(/Content-Security-Policy" content="default-src 'none'; img-src data:/)
    expect(page).not.toMatch(/<(script|link|iframe|object|embed|base|form)\b/i)
    const sources = [...page.matchAll(/\b(?:src|href|action|srcset)="([^"]*)"/g)].map(([, target]) => target!)
    expect(sources.length).toBeGreaterThan(20)
    for (const source of sources) expect(source).toMatch(/^(data:image\/(png|jpeg|svg\+xml);base64,|#)/)
    expect(page).not.toMatch(/url\(|@import/)
    for (const svg of svgsOf(page)) expect(svg).not.toMatch(/<script|<image|<foreignObject|href="(?!#)/i)
  })

  it('is well formed and can be read aloud', () => {
    const { page } = whole
    expect(unbalanced(page)).toEqual([])
    expect(page.match(/<h1>/g)).toHaveLength(1)
    const levels = [...page.matchAll(/<h([1-6])/g)].map(([, level]) => Number(level))
    for (const [k, level] of levels.slice(1).entries()) expect(level - levels[k]!).toBeLessThanOrEqual(1)
    expect(page.match(/<table>\s*<caption>[^<]/g)).toHaveLength(page.match(/<table>/g)!.length)
    expect(page).not.toMatch(/<th>|<th class/)
    for (const [image] of page.matchAll(/<img [^>]*>/g)) expect(image).toMatch(/alt="[^"]{10,}"/)
    const targets = [...page.matchAll(/href="#([^"]+)"/g)].map(([, id]) => id!)
    expect(targets.length).toBeGreaterThan(8)
    for (const id of targets) expect(page).toContain(`<h2 id="${id}">`)
    const ids = [...page.matchAll(/\bid="([^"]+)"/g)].map(([, id]) => id!)
    expect(new Set(ids).size).toBe(ids.length)
  })

  it('shows the numbers, prompts and hashes', () => {
    const { page, summary } = whole
    expect(page).toContain(summary.metrics.accuracy!.value!.toFixed(3))
    expect(page).toContain('this is a chest x ray of a patient with consolidation')
    expect(page).toContain('ab'.repeat(32))
    expect(page).toContain('cd'.repeat(32))
    for (const title of [
      'Results',
      'Classes',
      'Confusion matrix',
      'Calibration',
      'Retrieval',
      'Embeddings',
      'Prompts',
    ]) {
      expect(page).toMatch(new RegExp(`<h2[^>]*>${title}</h2>`))
    }
  })

  it('calls several prompts an ensemble, and a negation what it is', () => {
    const { summary } = whole
    const tableOf = (prompts: Summary['provenance']['prompts']) =>
      promptTable({ ...summary, provenance: { ...summary.provenance, prompts } }).markup
    const finding = { name: 'Edema', prompts: ['edema'], negations: ['no edema'] }
    expect(tableOf([finding])).toMatch(/Against its negation/)
    expect(tableOf([finding])).not.toMatch(/combined/)
    expect(tableOf([{ name: 'Edema', prompts: ['edema'] }])).not.toMatch(/combined|negation/)
    expect(tableOf([{ name: 'Edema', prompts: ['edema', 'fluid'] }])).toMatch(/several are combined by mean-embedding/)
  })

  it('names no patient and no path', () => {
    const { dir, written } = whole
    const files = [written.html, written.metrics, written.predictions!]
    for (const file of files) expect(readFileSync(file, 'utf8')).not.toMatch(/patient0\d|CheXpert-v1/)
    expect(readdirSync(dir).sort()).toEqual(['figures', 'metrics.json', 'predictions.csv', 'report.html'])
  })

  it('is the same again, byte for byte', async () => {
    const again = await report(full, everything(full), { retrieval: examples.madeUpRetrieval(full.patients) })
    expect(again.page === whole.page).toBe(true)
    expect(readFileSync(again.written.predictions!, 'utf8')).toBe(readFileSync(whole.written.predictions!, 'utf8'))
  })
})

describe('names that are markup', () => {
  const classes = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(2)>',
    "'+alert(3)+'",
    '</style></table><h1>x',
    '{{datum}} #{alert(4)} \u2028 \u202e \u0000 \ud800',
    '__proto__',
    `${'long '.repeat(1000)}`,
    '&lt;b&gt; &#x27;',
    '',
  ]
  const caption = '<img src=x onerror=alert(5)>'

  it('stay names', async () => {
    const predictions = examples.classPredictions({ samples: 200, classes })
    const [first, second] = examples.retrievalExamples
    const prompts = classes.map((name) => ({ name, prompts: [name, caption] }))
    const attributes = predictions.attributes.map((each) => ({ ...each, view: caption }))
    const { page, written } = await report(
      { ...predictions, attributes },
      {
        retrieval: [
          { ...first!, caption, found: first!.found.map((each) => ({ ...each, caption })) } as typeof first & object,
          { ...second!, caption } as typeof second & object,
        ],
        maps: examples.mapExamples(predictions.paths.slice(0, 1)).map((each) => ({
          ...each,
          truth: [caption],
          maps: each.maps.map((map) => ({ ...map, prompt: caption })),
        })),
        embedding: examples.clouds(predictions.labels, classes),
        plainPaths: true,
      },
      {
        provenance: {
          ...examples.provenance('<script>alert(6)</script>'),
          prompts,
          preprocessing: { [caption]: caption },
          settings: { [caption]: { deep: [caption] } },
        },
      },
    )
    expect(unbalanced(page)).toEqual([])
    expect(page).not.toMatch(/<script|<img src=x|onerror=alert\(\d\)>/i)
    expect(page.match(/<h1>/g)).toHaveLength(1)
    expect(page).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
    // every attribute is quoted and closed: what is left of a tag without them is its name
    for (const [tag] of page.matchAll(/<[a-z][^>]*>/g)) {
      expect(tag.replaceAll(/ [a-z-]+="[^"<>]*"/g, '')).toMatch(/^<[a-z0-9]+>$/)
    }
    const svgs = svgsOf(page)
    expect(svgs.length).toBeGreaterThanOrEqual(5)
    for (const svg of svgs) expect(svg).not.toMatch(/<script|<img|onerror=alert\(\d\)>/i)
    for (const file of written.figures) expect((await sharp(file).metadata()).width).toBeGreaterThan(100)
  })

  it('are escaped wherever they are put', () => {
    const evil = `<&>"'`
    expect(html`<p title="${evil}">${evil}${[evil, html`<b>${1}</b>`, null, false]}</p>`.markup).toBe(
      '<p title="&lt;&amp;&gt;&quot;&#39;">&lt;&amp;&gt;&quot;&#39;&lt;&amp;&gt;&quot;&#39;<b>1</b></p>',
    )
  })
})

describe('figures', () => {
  it('are PNG, and show something', async () => {
    const names = whole.written.figures.map((file) => file.split('/').at(-1)).sort()
    expect(names).toEqual([
      'calibration.png',
      'confusion.png',
      'embedding.png',
      'maps-01.png',
      'maps-02.png',
      'precision-recall.png',
      'retrieval-01.png',
      'retrieval-02.png',
      'roc.png',
      'subgroups.png',
    ])
    for (const file of whole.written.figures) {
      const { format } = await sharp(file).metadata()
      expect(format).toBe('png')
      const { channels } = await sharp(file).stats()
      expect(channels[0]!.stdev).toBeGreaterThan(5)
    }
  })

  it('without images have none of them, also where an earlier report had', async () => {
    const dir = join(folder, 'again')
    cpSync(whole.dir, dir, { recursive: true })
    writeFileSync(join(dir, 'figures', 'mine.png'), 'kept')
    const retrieval = examples.madeUpRetrieval(full.patients)
    const { page, written } = await report(full, { ...everything(full), images: false }, { retrieval }, dir)
    expect(page).not.toContain('image/jpeg')
    expect(page).toContain('Images are left out of this report')
    // captions are no images
    expect(page).toContain('edema pleural effusion')
    const left = readdirSync(join(dir, 'figures'))
    expect(left.filter((name) => /^(maps|retrieval)/.test(name))).toEqual([])
    expect(left).toContain('mine.png')
    expect(written.figures.every((file) => existsSync(file))).toBe(true)
  })

  it('lay a map where it is bright, and leave the image alone where it is lowest', async () => {
    const image = { width: 64, height: 64, pixels: new Uint8Array(64 * 64).fill(100) }
    const values = new Float32Array(16)
    values[5] = 3
    const jpeg = await overlayJpeg(image, { width: 4, height: 4, values })
    const { data } = await sharp(jpeg).raw().toBuffer({ resolveWithObject: true })
    const pixel = (x: number, y: number) => Array.from(data.subarray(3 * (64 * y + x), 3 * (64 * y + x) + 3))
    const [red, green, blue] = pixel(24, 24) as [number, number, number]
    expect(red).toBeGreaterThan(150)
    expect(green).toBeGreaterThan(150)
    expect(blue).toBeLessThan(red - 20)
    for (const value of pixel(60, 60)) expect(Math.abs(value - 100)).toBeLessThan(6)
  })

  it('refuse maps and images of other sizes', async () => {
    const image = { width: 4, height: 4, pixels: new Uint8Array(16) }
    const heat = { width: 2, height: 2, values: new Float32Array(4) }
    await expect(overlayJpeg({ ...image, width: 5 }, heat)).rejects.toThrow(/5 x 4 pixels, but received 16/)
    await expect(overlayJpeg(image, { ...heat, width: 3 })).rejects.toThrow(/3 x 2 values, but received 4/)
    const wrong = { ...heat, values: Float32Array.of(1, Number.NaN, 1, 1) }
    await expect(overlayJpeg(image, wrong)).rejects.toThrow(/finite values, but received NaN/)
    // a map that is the same everywhere covers nothing
    expect(await overlayJpeg(image, heat)).toBeInstanceOf(Buffer)
  })
})

describe('embeddings', () => {
  const labels = Int32Array.from({ length: 90 }, (_, k) => k % 3)
  const clouds = examples.clouds(labels, ['a', 'b', 'c'])

  it('are placed alike with a seed, groups apart', async () => {
    const points = (await projectEmbedding(clouds, 1))!
    expect(await projectEmbedding(clouds, 1)).toEqual(points)
    expect(await projectEmbedding(clouds, 2)).not.toEqual(points)
    const nearest = points.map((point, k) => {
      const distances = points.map((other, j) => (j === k ? 1e9 : Math.hypot(point.x - other.x, point.y - other.y)))
      return points[distances.indexOf(Math.min(...distances))]!.group === point.group
    })
    expect(nearest.filter(Boolean).length).toBeGreaterThan(80)
  })

  it('are none for a handful, and refuse what does not fit', async () => {
    const few: Embedding = { features: new Float32Array(8).fill(1), dimensions: 2, groups: ['a', 'a', 'b', 'b'] }
    expect(await projectEmbedding(few)).toBeNull()
    await expect(projectEmbedding({ ...few, dimensions: 3 })).rejects.toThrow(/4 x 3 features, but received 8/)
    const same: Embedding = { features: new Float32Array(20).fill(1), dimensions: 2, groups: Array(10).fill('a') }
    expect(await projectEmbedding(same)).toHaveLength(10)
  })
})

describe('a report', () => {
  it('of findings, of two classes, of retrieval alone', async () => {
    const findings = await report(examples.findingPredictions({ samples: 100 }))
    expect(findings.page).not.toContain('Confusion matrix')
    expect(findings.page).toContain('Micro AUC')
    const binary = await report(examples.classPredictions({ samples: 60, classes: ['no findings', 'pneumonia'] }))
    expect(binary.page).toContain('\u201cpneumonia\u201d against \u201cno findings\u201d')
    const retrieval = examples.madeUpRetrieval(full.patients)
    const alone = await report(null, { retrieval: examples.retrievalExamples }, { retrieval })
    expect(alone.page).toContain('R@10')
    expect(alone.written.predictions).toBeNull()
    for (const { page } of [findings, binary, alone]) expect(unbalanced(page)).toEqual([])
  })

  it('of a test set with nearly nothing in it', async () => {
    const one = examples.classPredictions({ samples: 1 })
    const { page } = await report(one, { embedding: examples.clouds(one.labels, one.classes) })
    expect(page).toContain('Patients in the test set: 1.')
    expect(unbalanced(page)).toEqual([])
    const scores = await report({ ...examples.findingPredictions({ samples: 30 }), scale: 'score' })
    expect(scores.page).toContain('nothing is called positive')
  })

  it('refuses predictions that the summary is not of', async () => {
    const others = examples.classPredictions({ samples: 119 })
    await expect(writeReport(folder, { summary: whole.summary, predictions: others })).rejects.toThrow(
      /the predictions that the summary is of \(multi-class, 120 images\), but received others/,
    )
  })

  it('that cannot be written leaves the old one whole', async () => {
    const { dir, summary, page } = await report(full)
    const inTheWay = join(dir, 'report.html.part')
    mkdirSync(inTheWay)
    await expect(writeReport(dir, { summary, predictions: full })).rejects.toThrow(/EISDIR/)
    expect(readFileSync(join(dir, 'report.html'), 'utf8')).toBe(page)
    writeFileSync(join(folder, 'a file'), '')
    await expect(writeReport(join(folder, 'a file'), { summary, predictions: full })).rejects.toThrow(
      /expected a folder for a report, but .* cannot be made/,
    )
  })
})
