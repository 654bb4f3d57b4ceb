import type { AskedClass } from '../data/captions/index.js'
import type { Dataset, DatasetSpec, OpenImages } from '../data/index.js'
import * as torch from '../torch/index.js'
import type { LoadedClassifier } from './loaded-classifier.js'
import { LoadedModel } from './loaded-model.js'
import type { EvaluateOptions, EvaluationTask } from './options.js'
import type { Predictions } from './predictions.js'
import { makeFolder } from './report/folder.js'
import { type ReportInput, type WrittenReport, writeReport } from './report/index.js'
import { type Provenance, type Summary, type SummaryOptions, summarize } from './summary.js'

/*
 * What an evaluation ends with: its numbers, where they come from, and a report of them.
 */

export interface Evaluation {
  readonly summary: Summary
  readonly predictions: Predictions
  /** Null where none was asked for; of several processes that were started by a launcher, the first one's alone. */
  readonly report: WrittenReport | null
}

/** Of the task 'retrieval', which predicts no class. */
export interface RetrievalEvaluation extends Omit<Evaluation, 'predictions'> {
  readonly predictions: null
}

/** How images came to the model. */
function preprocessingOf({ input }: LoadedModel | LoadedClassifier, { source }: OpenImages) {
  const { size, ...settings } = 'prepared' in source ? source.prepared.settings : source.decoder.settings
  return { ...input, padded: size, ...settings }
}

interface Found {
  readonly dataset: Dataset
  readonly spec: DatasetSpec
  readonly images: OpenImages
  readonly prompts: readonly AskedClass[]
  readonly settings: Provenance['settings']
}

export async function provenanceOf(
  model: LoadedModel | LoadedClassifier,
  evaluation: EvaluationTask,
  { dataset, spec, images, prompts, settings }: Found,
  { name, ensemble = 'mean-embedding', seed = 0 }: EvaluateOptions,
): Promise<Provenance> {
  const shown = (texts: readonly string[]) =>
    model instanceof LoadedModel ? texts.map((text) => model.shownText(text)) : texts
  const prefixes = new Set(dataset.samples.map(({ promptPrefix }) => promptPrefix))
  return {
    evaluation,
    name: name ?? model.folder,
    checkpoint: { name: model.folder, sha256: await model.hash() },
    data: { kind: dataset.kind, split: 'split' in spec && spec.split ? spec.split : 'test', hash: dataset.hash },
    prompts: prompts.map(({ name, prompts, negations }) => ({
      name,
      prompts: shown(prompts),
      ...(negations && { negations: shown(negations) }),
    })),
    ensemble: prompts.length > 0 ? ensemble : null,
    preprocessing: preprocessingOf(model, images),
    settings: {
      seed,
      ...settings,
      // before each prompt stands what is known of the image itself
      ...(prompts.length > 0 && !prefixes.has(null) && { promptPrefixes: prefixes.size }),
      torch: torch.info().torchVersion,
      device: model.device,
    },
  }
}

/** Where this process writes the report, made; null: nowhere. */
export function reportFolder({ report }: EvaluateOptions, { isFirst }: torch.distributed.Processes): string | null {
  if (report === undefined || !isFirst) return null
  makeFolder(report)
  return report
}

interface Conclusion {
  readonly provenance: Provenance
  readonly measured: Omit<SummaryOptions, 'provenance' | 'resamples' | 'seed'>
  /** Of the report; null: none is written. */
  readonly folder: string | null
  /** What the report shows beside the numbers. */
  readonly shown: () => Promise<Pick<ReportInput, 'retrieval' | 'maps' | 'embedding'>>
  readonly options: EvaluateOptions
}

/** The summary of what was found, and the report of both. */
export async function conclude<Found extends Predictions | null>(
  predictions: Found,
  { provenance, measured, folder, shown, options }: Conclusion,
): Promise<{ summary: Summary; predictions: Found; report: WrittenReport | null }> {
  const { resamples, seed = 0, images, plainPaths } = options
  const summary = await summarize(predictions, {
    ...measured,
    ...(resamples !== undefined && { resamples }),
    seed,
    provenance,
  })
  if (folder === null) return { summary, predictions, report: null }
  const report = await writeReport(folder, {
    summary,
    predictions,
    ...(await shown()),
    ...(images !== undefined && { images }),
    ...(plainPaths !== undefined && { plainPaths }),
  })
  return { summary, predictions, report }
}
