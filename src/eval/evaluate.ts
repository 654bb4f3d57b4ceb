import { type Dataset, imagesOf, openDataset } from '../data/index.js'
import { messageOf } from '../setup/errors.js'
import * as torch from '../torch/index.js'
import { classify } from './classify.js'
import { encodeDataset } from './encode-dataset.js'
import { conclude, type Evaluation, provenanceOf, type RetrievalEvaluation, reportFolder } from './evaluation.js'
import { thresholdData, withSplit } from './evaluation-data.js'
import { type ExampleSource, grayImages, type ImageReader, mapExamples, retrievalExamples } from './examples.js'
import { launchEvaluation } from './launch.js'
import { LoadedClassifier } from './loaded-classifier.js'
import { LoadedModel, load } from './loaded-model.js'
import { checkOptions, checkUsed, type EvaluateOptions, type EvaluationTask } from './options.js'
import type { Predictions } from './predictions.js'
import { retrievalRanks } from './retrieval.js'
import { isMultiLabel, type ZeroShotResult, zeroShot } from './zero-shot.js'

const { Processes, startsProcesses } = torch.distributed
type Processes = torch.distributed.Processes

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

/** Images and what else a loader needs beside its data set. The images are to be closed. */
function loadingOf(options: EvaluateOptions) {
  const { batchSize, signal } = options
  const { maxProblems } = options.data
  const images = imagesOf(options)
  const source = {
    ...images.source,
    ...(batchSize !== undefined && { batchSize }),
    ...(maxProblems !== undefined && { maxProblems }),
    ...(signal && { signal }),
  }
  return { images, source }
}

async function evaluateModel(
  model: LoadedModel | LoadedClassifier,
  task: EvaluationTask,
  options: EvaluateOptions,
  processes: Processes,
): Promise<Evaluation> {
  const { ensemble, labels, onProgress, uncertain, blank } = options
  const spec = withSplit(options.data)
  const dataset = await openDataset(spec)
  const isClassifier = model instanceof LoadedClassifier
  const isMulti = isClassifier ? model.model.task === 'multi' : isMultiLabel(dataset, labels)
  checkUsed(options, isClassifier ? 'head' : 'prompts', isMulti)
  const isLabelled = (sample: Dataset['samples'][number]) => (isMulti ? sample.findings : sample.label) !== null
  const { dataset: held, notes } = await thresholdData(spec, dataset, isLabelled, options)
  // refused before the work, not after it
  const folder = reportFolder(options, processes)
  const { images, source } = loadingOf(options)
  const predict = (own: Dataset, part: 'thresholds' | 'test'): Promise<ZeroShotResult> => {
    const tell = onProgress && ((done: number, total: number) => onProgress(done, total, part))
    const shared = { ...source, processes, ...(tell && { onProgress: tell }) }
    if (isClassifier) return classify(model, own, shared)
    return zeroShot(model, own, { ...shared, ...(labels && { labels }), ...(ensemble && { ensemble }) })
  }
  try {
    const validation = held && (await predictAlone(() => predict(held, 'thresholds')))
    const result = await predict(dataset, 'test')
    const { predictions, embeddings, unreadable, prompts } = result
    using _ = embeddings
    const captioned = isClassifier ? null : await captionsOf(model, result)
    using __ = captioned?.text
    const settings = { unreadable, ...(held && { validation: held.hash }) }
    return await conclude(predictions, {
      provenance: await provenanceOf(model, task, { dataset, spec, images, prompts, settings }, options),
      measured: {
        ...(captioned && { retrieval: captioned.ranks }),
        ...(validation && { validation }),
        ...(uncertain !== undefined && { uncertain }),
        ...(blank !== undefined && { blank }),
        notes,
      },
      folder,
      shown: async () => ({
        embedding: embeddingOf(embeddings, groupsOf(predictions)),
        ...(await examplesOf(model, result, captioned?.text ?? null, { dataset, ...source }, options)),
      }),
      options,
    })
  } finally {
    await images.close()
  }
}

/** Captions by images and images by captions, of everything in the test set that has one. */
async function evaluateRetrieval(
  model: LoadedModel,
  options: EvaluateOptions,
  processes: Processes,
): Promise<RetrievalEvaluation> {
  const { onProgress } = options
  checkUsed(options, 'retrieval', true)
  const spec = withSplit(options.data)
  const dataset = await openDataset(spec)
  const captioned = dataset.samples.filter(({ caption }) => caption !== null)
  if (captioned.length === 0) {
    throw new RangeError(`evaluate: expected images with captions for 'retrieval', but '${dataset.root}' has none`)
  }
  const folder = reportFolder(options, processes)
  const { images, source } = loadingOf(options)
  const tell = onProgress && ((done: number, total: number) => onProgress(done, total, 'test'))
  try {
    const shared = { ...source, processes, ...(tell && { onProgress: tell }) }
    const encoded = await encodeDataset(model, dataset, captioned, shared)
    using _ = encoded.embeddings
    const { ranks, text } = (await captionsOf(model, encoded))!
    using __ = text
    const settings = { unreadable: encoded.unreadable }
    return await conclude(null, {
      provenance: await provenanceOf(model, 'retrieval', { dataset, spec, images, prompts: [], settings }, options),
      measured: { retrieval: ranks },
      folder,
      shown: async () => ({
        retrieval: await retrievalExamples(encoded, text, shownImages(model, { dataset, ...source }, options)),
      }),
      options,
    })
  } finally {
    await images.close()
  }
}

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
  options: EvaluateOptions,
) {
  const { images = true, ensemble = 'mean-embedding' } = options
  return {
    ...(text !== null && { retrieval: await retrievalExamples(result, text, shownImages(model, source, options)) }),
    ...(images && { maps: await mapExamples(model, result, source, ensemble) }),
  }
}

/** Reads images for a report; null where they may not be in it. */
const shownImages = (
  model: LoadedModel | LoadedClassifier,
  source: ExampleSource,
  { images = true }: EvaluateOptions,
): ImageReader | null => (images ? (samples) => grayImages(model, samples, source) : null)

/** The predictions, without the embeddings. */
async function predictAlone(predict: () => Promise<ZeroShotResult>): Promise<Predictions> {
  const { predictions, embeddings } = await predict()
  embeddings.dispose()
  return predictions
}

/** Retrieval among the captions of the test images, where all have one; `text` is theirs, [N, D], the caller's. */
async function captionsOf(model: LoadedModel, { samples, embeddings }: Pick<ZeroShotResult, 'samples' | 'embeddings'>) {
  if (samples.some(({ caption }) => caption === null)) return null
  const captions = samples.map(({ caption }) => caption!)
  const patients = samples.map(({ patient }) => patient)
  const distinct = [...new Set(captions)]
  const rows = new Map(distinct.map((text, row) => [text, row]))
  using encoded = await model.encodeText(distinct)
  const text = torch.scope(() => {
    const index = torch.tensor(
      captions.map((caption) => rows.get(caption)!),
      { dtype: 'int64' },
    )
    return encoded.cpu().indexSelect(0, index)
  })
  try {
    return { ranks: retrievalRanks(embeddings, text, { captions, patients }), text }
  } catch (error) {
    text.dispose()
    throw error
  }
}

/** A name for each image: its class; of findings the one that it has. */
function groupsOf({ task, classes, labels, paths }: Predictions): string[] {
  if (task !== 'multi-label') return Array.from(labels, (label) => classes[label]!)
  return paths.map((_, row) => {
    const found = classes.filter((_, k) => labels[row * classes.length + k] === 1)
    return found.length > 1 ? 'several' : (found[0] ?? 'none')
  })
}
