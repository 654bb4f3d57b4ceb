import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { writeRecord, writeWhole } from '../../setup/files.js'
import { checkPredictions, type Predictions } from '../predictions.js'
import { Identifiers, writePredictions } from '../predictions-file.js'
import type { Summary } from '../summary.js'
import type { Embedding } from './embedding.js'
import { type MapExample, mapLegend, type RetrievalExample, showMaps, showRetrieval } from './examples.js'
import {
  calibrationFigure,
  confusionFigure,
  embeddingFigure,
  type Figure,
  precisionRecallFigure,
  rocFigure,
  subgroupFigure,
} from './figures.js'
import { makeFolder } from './folder.js'
import { type Html, html } from './html.js'
import { dataUri, svgToPng } from './images.js'
import { figure, renderPage, type Section } from './page.js'
import {
  classTables,
  methodText,
  overallTable,
  promptTable,
  provenanceTable,
  retrievalTable,
  subgroupTables,
} from './tables.js'

export type { Embedding } from './embedding.js'
export type { ImageToTextExample, MapExample, RetrievalExample, TextToImageExample } from './examples.js'
export type { Heat } from './images.js'

export interface ReportInput {
  readonly summary: Summary
  /** Null for a retrieval alone. */
  readonly predictions: Predictions | null
  readonly retrieval?: readonly RetrievalExample[]
  readonly maps?: readonly MapExample[]
  readonly embedding?: Embedding
  /** False: no X-ray is in anything that is written. Default: true. */
  readonly images?: boolean
  /** Paths of images as they are in predictions.csv and beside maps. Default: false, hashed. */
  readonly plainPaths?: boolean
}

export interface WrittenReport {
  readonly html: string
  readonly metrics: string
  readonly predictions: string | null
  /** PNG files. */
  readonly figures: readonly string[]
}

/**
 * Writes report.html (one file, which asks for nothing from anywhere), metrics.json, predictions.csv and the figures as PNG
 * in figures/. Each is written beside its place and renamed; figures of an earlier report in the same folder go.
 *
 * @throws Error where the folder cannot be written to, RangeError where the parts do not go together
 */
export async function writeReport(dir: string, input: ReportInput): Promise<WrittenReport> {
  const { summary, predictions, plainPaths = false } = input
  if (predictions) checkFit(summary, predictions)
  const pngs = new Map<string, Buffer>()
  const sections = await sectionsOf(input, pngs)
  const page = renderPage({
    title: `${summary.provenance.name}: ${summary.provenance.evaluation}`,
    lead: html`${summary.provenance.data.kind}, ${summary.provenance.data.split}: ${summary.images.toLocaleString('en-US')} images of ${summary.patients.toLocaleString('en-US')} patients`,
    notes: summary.warnings,
    sections,
    footer: html`<p>Patients${plainPaths ? '' : ' and images'} are named by keyed hashes in the files beside this one. Made by cleft, research software: not a medical device, and not for decisions about patients.</p>`,
  })
  const folder = join(dir, 'figures')
  prepareFolder(folder)
  const written = {
    html: join(dir, 'report.html'),
    metrics: join(dir, 'metrics.json'),
    predictions: predictions ? join(dir, 'predictions.csv') : null,
    figures: [...pngs.keys()].map((name) => join(folder, name)),
  }
  for (const [name, png] of pngs) writeWhole(join(folder, name), png)
  if (predictions) await writePredictions(written.predictions!, predictions, { plainPaths })
  writeRecord(written.metrics, summary)
  writeWhole(written.html, page)
  return written
}

function checkFit(summary: Summary, predictions: Predictions): void {
  checkPredictions(predictions)
  const same =
    summary.images === predictions.paths.length && summary.classes.join('\n') === predictions.classes.join('\n')
  if (!same || summary.task !== predictions.task) {
    throw new RangeError(
      `report: expected the predictions that the summary is of (${summary.task}, ${summary.images} images), but received others (${predictions.task}, ${predictions.paths.length} images)`,
    )
  }
}

/** Old figures must not stay beside a new report: they may show images that this one leaves out. */
function prepareFolder(folder: string): void {
  makeFolder(folder)
  for (const name of readdirSync(folder)) {
    if (/^(roc|precision-recall|confusion|calibration|subgroups|embedding|retrieval-\d+|maps-\d+)\.png$/.test(name)) {
      rmSync(join(folder, name))
    }
  }
}

async function sectionsOf(input: ReportInput, pngs: Map<string, Buffer>): Promise<Section[]> {
  const { summary, predictions, embedding } = input
  const draw = async (made: Promise<Figure | null>): Promise<Html | null> => {
    const found = await made
    if (found === null) return null
    pngs.set(found.file, await svgToPng(found.svg))
    return figure(dataUri(found.svg, 'image/svg+xml'), found.alternative, found.caption)
  }
  const section = (id: string, title: string, ...parts: (Html | null)[]): Section[] => {
    const shown = parts.filter((part) => part !== null && part.markup !== '')
    return shown.length === 0 ? [] : [{ id, title, body: html`${shown}` }]
  }
  const classes = predictions
    ? [
        ...section('results', 'Results', overallTable(summary)),
        ...section('classes', summary.task === 'multi-label' ? 'Findings' : 'Classes', classTables(summary)),
        ...section(
          'curves',
          'ROC and precision-recall curves',
          html`<div class="beside">${await draw(rocFigure(summary, predictions))}
${await draw(precisionRecallFigure(summary, predictions))}</div>`,
        ),
        ...section('confusion', 'Confusion matrix', await draw(confusionFigure(summary))),
        ...section('calibration', 'Calibration', await draw(calibrationFigure(summary))),
        ...section(
          'subgroups',
          'Sex, age and view',
          ...(summary.subgroups.length > 0
            ? [await draw(subgroupFigure(summary)), subgroupTables(summary)]
            : [html`<p>The data has neither sex, age nor view.</p>`]),
        ),
      ]
    : []
  return [
    ...classes,
    ...section(
      'retrieval',
      'Retrieval',
      summary.retrieval && retrievalTable(summary),
      ...(await retrievalParts(input, pngs)),
    ),
    ...section('maps', 'What the scores depend on', ...(await mapParts(input, pngs))),
    ...section('embedding', 'Embeddings', embedding ? await draw(embeddingFigure(embedding, summary)) : null),
    ...section('prompts', 'Prompts', summary.provenance.prompts.length > 0 ? promptTable(summary) : null),
    ...section('methods', 'How the numbers were made', methodText(summary), provenanceTable(summary)),
  ]
}

const numbered = (name: string, k: number) => `${name}-${String(k + 1).padStart(2, '0')}.png`

const leftOut = html`<p class="soft">Images are left out of this report.</p>`

async function retrievalParts(
  { retrieval = [], images = true }: ReportInput,
  pngs: Map<string, Buffer>,
): Promise<Html[]> {
  if (retrieval.length === 0) return []
  const parts: Html[] = images ? [] : [leftOut]
  for (const [k, example] of retrieval.entries()) {
    const { body, png } = await showRetrieval(example, images)
    if (png) pngs.set(numbered('retrieval', k), png)
    parts.push(body)
  }
  return parts
}

async function mapParts(
  { maps = [], images = true, predictions, plainPaths }: ReportInput,
  pngs: Map<string, Buffer>,
): Promise<Html[]> {
  if (maps.length === 0) return []
  if (!images) return [leftOut]
  const identifiers = new Identifiers(predictions?.paths ?? [], predictions?.patients ?? [])
  const parts: Html[] = [await mapLegend()]
  for (const [k, example] of maps.entries()) {
    const name = plainPaths ? example.path : `Image ${identifiers.image(example.path)}`
    const { body, png } = await showMaps(example, name)
    if (png) pngs.set(numbered('maps', k), png)
    parts.push(body)
  }
  return parts
}
