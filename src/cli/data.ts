import { writeFile } from 'node:fs/promises'
import type { ArgumentsCamelCase, Argv } from 'yargs'
import { type DatasetSpec, openDataset } from '../data/datasets/index.js'
import { type DatasetSummary, missingFiles, summarize } from '../data/datasets/summary.js'
import { describeProblem, type Problem } from '../data/problems.js'
import type { Dataset } from '../data/sample.js'
import { SPLIT_NAMES } from '../data/split.js'
import { messageOf } from '../setup/errors.js'
import { terminalReporter } from '../setup/report.js'
import { type DatasetOptions, datasetOptions, datasetSpecOf } from './dataset-spec.js'

export const command = 'data <folder>'
export const describe =
  'Count what a data set holds: rows, splits, labels and how they co-occur, captions, missing files'

interface Options extends DatasetOptions {
  files: boolean
  sheet: string | undefined
  json: boolean
}

export function builder(yargs: Argv): Argv<Options> {
  return datasetOptions(yargs)
    .option('files', { type: 'boolean', default: true, describe: 'look whether every image is there' })
    .option('sheet', { type: 'string', describe: 'a PNG of examples with their captions' })
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object' }) as Argv<Options>
}

/** A part of the split, or why there is none. */
type Part = { readonly images: number; readonly patients: number; readonly hash: string } | { readonly missing: string }

async function partsOf(spec: DatasetSpec): Promise<Record<string, Part>> {
  const parts: Record<string, Part> = {}
  if (spec.kind === 'chexpert-5x200') return parts
  for (const split of SPLIT_NAMES) {
    try {
      const { samples, hash } = await openDataset({ ...spec, split })
      parts[split] = { images: samples.length, patients: new Set(samples.map(({ patient }) => patient)).size, hash }
    } catch (error) {
      parts[split] = { missing: messageOf(error) }
    }
  }
  return parts
}

const number = (value: number) => value.toLocaleString('en-US')

const SHOWN = 10

function list(title: string, problems: readonly Problem[]): string[] {
  if (problems.length === 0) return []
  const shown = problems.slice(0, SHOWN).map((problem) => `  ${describeProblem(problem)}`)
  const more = problems.length > SHOWN ? [`  and ${number(problems.length - SHOWN)} more`] : []
  return [`${title}: ${number(problems.length)}`, ...shown, ...more]
}

/** A square of counts with short column heads. */
function matrix(counts: DatasetSummary['cooccurrence']): string[] {
  const names = Object.keys(counts)
  if (names.length === 0) return []
  const width = Math.max(...names.map((name) => name.length))
  const head = `${''.padEnd(width)}${names.map((_, index) => String(index + 1).padStart(9)).join('')}`
  const rows = names.map((name) => {
    const cells = names.map((other) => number(counts[name]![other]!).padStart(9)).join('')
    return `${name.padEnd(width)}${cells}`
  })
  return ['both positive:', head, ...rows]
}

function text(summary: DatasetSummary, parts: Record<string, Part>, missing: readonly Problem[] | null): string {
  const { captions } = summary
  const counts = (of: Readonly<Record<string, number>>) =>
    Object.entries(of)
      .map(([name, value]) => `${name} ${number(value)}`)
      .join(', ')
  return [
    `${summary.kind}, ${number(summary.images)} images of ${number(summary.patients)} patients, ${summary.hash}`,
    `views: ${counts(summary.views)}`,
    ...Object.entries(parts).map(([name, part]) =>
      'missing' in part
        ? `${name}: ${part.missing}`
        : `${name}: ${number(part.images)} images of ${number(part.patients)} patients`,
    ),
    ...(Object.keys(summary.classes).length > 0 ? [`images of one class: ${counts(summary.classes)}`] : []),
    ...Object.entries(summary.findings).map(
      ([name, { positive, negative, uncertain, blank }]) =>
        `${name}: ${number(positive)} positive, ${number(negative)} negative, ${number(uncertain)} uncertain, ${number(blank)} not mentioned`,
    ),
    ...matrix(summary.cooccurrence),
    ...(captions === null
      ? ['captions: none']
      : [
          `captions: ${number(captions.distinct)} different, ${captions.words.min} to ${captions.words.max} words, ${captions.words.mean.toFixed(1)} in the mean`,
          ...captions.frequent.map(([caption, times]) => `  ${number(times)}: ${caption}`),
        ]),
    ...summary.notes,
    ...list('unusable rows', summary.problems),
    ...(missing === null
      ? []
      : missing.length === 0
        ? ['every image is there']
        : list('missing or empty files', missing)),
  ].join('\n')
}

async function writeSheet(dataset: Dataset, path: string, onWarning: (warning: string) => void): Promise<void> {
  const { exampleSheet } = await import('../data/example-sheet.js')
  await writeFile(path, await exampleSheet(dataset, { onWarning }))
}

export async function handler(options: ArgumentsCamelCase<Options>): Promise<void> {
  const spec = datasetSpecOf(options)
  const dataset = await openDataset(spec)
  const reporter = terminalReporter()
  const missing = options.files
    ? await missingFiles(dataset, reporter.progress('files', dataset.samples.length, 'files'))
    : null
  if (options.sheet !== undefined) await writeSheet(dataset, options.sheet, (line) => reporter.line(line))
  const parts = await partsOf(spec)
  const summary = summarize(dataset)
  const found = options.json ? JSON.stringify({ ...summary, splits: parts, missing }) : text(summary, parts, missing)
  process.stdout.write(`${found}\n`)
}
