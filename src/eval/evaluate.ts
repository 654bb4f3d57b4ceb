import { wordsAfterContext } from '../clip/context.js'
import { type ClassPrompt, type Dataset, type DatasetSpec, imagesOf, openDataset } from '../data/index.js'
import { messageOf } from '../setup/errors.js'
import * as torch from '../torch/index.js'
import { classify } from './classify.js'
import { encodeDataset } from './encode-dataset.js'
import { type ExampleSource, mapExamples, retrievalExamples } from './examples.js'
import { launchEvaluation } from './launch.js'
import { LoadedClassifier } from './loaded-classifier.js'
import { LoadedModel, load } from './loaded-model.js'
import { checkOptions, type EvaluateOptions, type EvaluationTask } from './options.js'
import type { Predictions } from './predictions.js'
import { makeFolder } from './report/folder.js'
import { type WrittenReport, writeReport } from './report/index.js'
import { retrievalRanks } from './retrieval.js'
import { type Provenance, type Summary, summarize } from './summary.js'
import { type ZeroShotResult, zeroShot } from './zero-shot.js'

const { Processes, startsProcesses } = torch.distributed
type Processes = torch.distributed.Processes

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

/**
 * Evaluates a model on a test set: of several processes each encodes a part of the images, and all get what one process
 * would find; the first writes the report.
 *
 * @throws RangeError where model, data and task do not go together
 */
export async function evaluate(options: EvaluateOptions & { task: 'retrieval' }): Promise<RetrievalEvaluation>
export async function evaluate(
  options: EvaluateOptions & { task?: Exclude<EvaluationTask, 'retrieval'> },
): Promise<Evaluation>
export async function evaluate(options: EvaluateOptions): Promise<Evaluation | RetrievalEvaluation>
export async function evaluate(options: EvaluateOptions): Promise<Evaluation | RetrievalEvaluation> {
  checkOptions(options)
  if (startsProcesses(options.processes)) return await launchEvaluation(options)
  const { device = 'cpu', timeout } = options
  const processes = await Processes.join({ device, ...(timeout !== undefined && { timeout: 1000 * timeout }) })
  if (processes.size === 1) return await evaluateIn(processes, options)
  try {
    // a signal would stop each of them in another place
    const { signal: _, ...own } = options
    return await evaluateIn(processes, own)
  } catch (error) {
    await processes.fail(messageOf(error))
    throw error
  }
}

async function evaluateIn(processes: Processes, options: EvaluateOptions): Promise<Evaluation | RetrievalEvaluation> {
  const { from, task, logger } = options
  const device = processes.deviceOf(options.device ?? 'cpu')
  using model = await load<LoadedModel | LoadedClassifier>(from, { device, ...(logger && { logger }) })
  const own = model instanceof LoadedClassifier ? model.stage : 'zero-shot'
  if (task === 'retrieval' && model instanceof LoadedModel) return await evaluateRetrieval(model, options, processes)
  if (task !== undefined && task !== own) {
    const stage = task === 'zero-shot' || task === 'retrieval' ? 'pretrain or prompt' : task
    throw new RangeError(
      `evaluate: expected a checkpoint of the stage ${stage} for the task '${task}', but '${from}' is one for '${own}'; give another, or leave the task out`,
    )
  }
  return await evaluateModel(model, own, options, processes)
}

/** What a loader needs beside its data set; to be closed. */
function loadingOf(options: EvaluateOptions) {
  const { batchSize, signal } = options
  const { source, close } = imagesOf(options)
  return { source: { ...source, ...(batchSize !== undefined && { batchSize }), ...(signal && { signal }) }, close }
}

async function provenanceOf(
  model: LoadedModel | LoadedClassifier,
  evaluation: EvaluationTask,
  {
    dataset,
    spec,
    prompts,
    settings,
  }: {
    dataset: Dataset
    spec: DatasetSpec
    prompts: readonly ClassPrompt[]
    settings: Provenance['settings']
  },
  { name, ensemble = 'mean-embedding', seed = 0 }: EvaluateOptions,
): Promise<Provenance> {
  const context = model instanceof LoadedModel ? model.contextLength : 0
  return {
    evaluation,
    name: name ?? model.folder,
    checkpoint: { name: model.folder, sha256: await model.hash() },
    data: { kind: dataset.kind, split: 'split' in spec && spec.split ? spec.split : 'test', hash: dataset.hash },
    prompts: prompts.map((each) => ({
      name: each.name,
      prompts:
        context === 0
          ? each.prompts
          : each.prompts.map((text) => `[${context} learned vectors]${wordsAfterContext(text)}`),
    })),
    ensemble: prompts.length > 0 ? ensemble : null,
    preprocessing: { ...model.input, padded: 256, windowing: 'published' },
    settings: { seed, ...settings, torch: torch.info().torchVersion, device: model.device },
  }
}

async function evaluateModel(
  model: LoadedModel | LoadedClassifier,
  task: EvaluationTask,
  options: EvaluateOptions,
  processes: Processes,
): Promise<Evaluation> {
  const { ensemble, labels, onProgress, resamples, seed = 0, uncertain, blank } = options
  const spec = withSplit(options.data)
  const dataset = await openDataset(spec)
  // refused before the work, not after it
  const folder = reportFolder(options, processes)
  const { source, close } = loadingOf(options)
  const predict = (own: Dataset, tell?: typeof onProgress): Promise<ZeroShotResult> => {
    const shared = { ...source, processes, ...(tell && { onProgress: tell }) }
    if (model instanceof LoadedClassifier) return classify(model, own, shared)
    return zeroShot(model, own, { ...shared, ...(labels && { labels }), ...(ensemble && { ensemble }) })
  }
  try {
    const result = await predict(dataset, onProgress)
    const { predictions, embeddings, unreadable, prompts } = result
    const captioned = model instanceof LoadedClassifier ? null : await captionsOf(model, result)
    const held = await validationData(spec, predictions.task === 'multi-label', options)
    const validation = held && (await predictAlone(predict, held))
    const summary = await summarize(predictions, {
      ...(captioned && { retrieval: captioned.ranks }),
      ...(validation && { validation }),
      ...(resamples !== undefined && { resamples }),
      ...(uncertain !== undefined && { uncertain }),
      ...(blank !== undefined && { blank }),
      seed,
      provenance: await provenanceOf(
        model,
        task,
        { dataset, spec, prompts, settings: { unreadable, ...(held && { validation: held.hash }) } },
        options,
      ),
    })
    const report =
      folder === null
        ? null
        : await writeReport(folder, {
            summary,
            predictions,
            embedding: embeddingOf(embeddings, groupsOf(predictions)),
            ...(await examplesOf(model, result, captioned?.text ?? null, { dataset, ...source }, options)),
            ...writing(options),
          })
    captioned?.text.dispose()
    embeddings.dispose()
    return { summary, predictions, report }
  } finally {
    await close()
  }
}

/** Captions by images and images by captions, of everything in the test set that has one. */
async function evaluateRetrieval(
  model: LoadedModel,
  options: EvaluateOptions,
  processes: Processes,
): Promise<RetrievalEvaluation> {
  const { onProgress, resamples, seed = 0 } = options
  const spec = withSplit(options.data)
  const dataset = await openDataset(spec)
  const folder = reportFolder(options, processes)
  const { source, close } = loadingOf(options)
  try {
    const captioned = dataset.samples.filter(({ caption }) => caption !== null)
    if (captioned.length === 0) {
      throw new RangeError(`evaluate: expected images with captions for 'retrieval', but '${dataset.root}' has none`)
    }
    const shared = { ...source, processes, ...(onProgress && { onProgress }) }
    const encoded = await encodeDataset(model, dataset, captioned, shared)
    const { ranks, text } = (await captionsOf(model, encoded))!
    const summary = await summarize(null, {
      retrieval: ranks,
      ...(resamples !== undefined && { resamples }),
      seed,
      provenance: await provenanceOf(
        model,
        'retrieval',
        { dataset, spec, prompts: [], settings: { unreadable: encoded.unreadable } },
        options,
      ),
    })
    const report =
      folder === null
        ? null
        : await writeReport(folder, {
            summary,
            predictions: null,
            retrieval: await retrievalExamples(model, encoded, text, { dataset, ...source }),
            ...writing(options),
          })
    torch.dispose([text, encoded.embeddings])
    return { summary, predictions: null, report }
  } finally {
    await close()
  }
}

/** Where this process writes the report, made; null: nowhere. */
function reportFolder({ report }: EvaluateOptions, { isFirst }: Processes): string | null {
  if (report === undefined || !isFirst) return null
  makeFolder(report)
  return report
}

const writing = ({ images, plainPaths }: EvaluateOptions) => ({
  ...(images !== undefined && { images }),
  ...(plainPaths !== undefined && { plainPaths }),
})

const embeddingOf = (embeddings: torch.Tensor, groups: readonly string[]) => ({
  features: embeddings.toTypedArray() as Float32Array,
  dimensions: embeddings.size(1),
  groups,
})

/** What a report shows of single images; without images only what was retrieved. */
async function examplesOf(
  model: LoadedModel | LoadedClassifier,
  result: ZeroShotResult,
  text: torch.Tensor | null,
  source: ExampleSource,
  { images = true }: EvaluateOptions,
) {
  const isCaptioned = model instanceof LoadedModel && text !== null
  return {
    ...(isCaptioned && { retrieval: await retrievalExamples(model, result, text, source) }),
    ...(images && { maps: await mapExamples(model, result, source) }),
  }
}

/** The predictions, without the embeddings. */
async function predictAlone(
  predict: (dataset: Dataset) => Promise<ZeroShotResult>,
  dataset: Dataset,
): Promise<Predictions> {
  const { predictions, embeddings } = await predict(dataset)
  embeddings.dispose()
  return predictions
}

/** Where thresholds come from; null where there is nothing. */
async function validationData(
  spec: DatasetSpec,
  isMulti: boolean,
  { validation }: EvaluateOptions,
): Promise<Dataset | null> {
  if (validation === null) return null
  if (validation !== undefined) return await openDataset(withSplit(validation, 'valid'))
  if (spec.kind === 'chexpert-5x200' || spec.split !== 'test') return null
  try {
    const dataset = await openDataset({ ...spec, split: 'valid' })
    const isLabelled = dataset.samples.some(({ label, findings }) => (isMulti ? findings : label) !== null)
    return isLabelled ? dataset : null
  } catch {
    // no such part: decisions are then by the highest score
    return null
  }
}

function withSplit(spec: DatasetSpec, split: 'test' | 'valid' = 'test'): DatasetSpec {
  if (spec.kind === 'chexpert-5x200' || spec.split !== undefined) return spec
  return { ...spec, split }
}

/** Retrieval among the captions of the test images, where all have one; `text` is theirs, [N, D], the caller's. */
async function captionsOf(model: LoadedModel, { samples, embeddings }: Pick<ZeroShotResult, 'samples' | 'embeddings'>) {
  if (samples.some(({ caption }) => caption === null)) return null
  const captions = samples.map(({ caption }) => caption!)
  const patients = samples.map(({ patient }) => patient)
  const distinct = [...new Set(captions)]
  const rows = new Map(distinct.map((text, row) => [text, row]))
  const encoded = await model.encodeText(distinct)
  const text = torch.scope(() => {
    const index = torch.tensor(
      captions.map((caption) => rows.get(caption)!),
      { dtype: 'int64' },
    )
    return encoded.cpu().indexSelect(0, index)
  })
  encoded.dispose()
  return { ranks: retrievalRanks(embeddings, text, { captions, patients }), text }
}

/** A name for each image: its class; of findings the one that it has. */
function groupsOf({ task, classes, labels, paths }: Predictions): string[] {
  if (task !== 'multi-label') return Array.from(labels, (label) => classes[label]!)
  return paths.map((_, row) => {
    const found = classes.filter((_, k) => labels[row * classes.length + k] === 1)
    return found.length > 1 ? 'several' : (found[0] ?? 'none')
  })
}
