import { type Dataset, type DatasetSpec, DecoderPool, openDataset, PreparedImages } from '../data/index.js'
import type { Logger } from '../models/index.js'
import * as torch from '../torch/index.js'
import { classify } from './classify.js'
import { LoadedClassifier } from './loaded-classifier.js'
import { type Ensemble, type LoadedModel, load } from './loaded-model.js'
import type { LabelRules, Predictions } from './predictions.js'
import { type WrittenReport, writeReport } from './report/index.js'
import { retrievalRanks } from './retrieval.js'
import { type Summary, summarize } from './summary.js'
import { type ZeroShotResult, zeroShot } from './zero-shot.js'

/** 'zero-shot': by the class prompts. The others: by the head that such a stage trained. */
export const evaluationTasks = ['zero-shot', 'linear-probe', 'fine-tune'] as const
export type EvaluationTask = (typeof evaluationTasks)[number]

/** Label rules are of several labels. */
export interface EvaluateOptions extends LabelRules {
  /** A checkpoint, or a model folder. */
  from: string
  /** Default: what the checkpoint was trained for; 'zero-shot' of one with both towers. */
  task?: EvaluationTask
  /** The test set; where it says no split, its test part. */
  data: DatasetSpec
  /**
   * Of a trained head: where decision thresholds come from. Default: the validation part of the same data, where it has
   * one. null: nowhere.
   */
  validation?: DatasetSpec | null
  /** Of class prompts. Default: 'mean-embedding'. */
  ensemble?: Ensemble
  /** A folder for report.html, metrics.json, predictions.csv and figures. Default: none is written. */
  report?: string
  /** Whether images may be in the report. Default: true. */
  images?: boolean
  /** Paths of images as they are in what is written, not hashed. Default: false. */
  plainPaths?: boolean
  /** In headings. Default: the checkpoint's folder. */
  name?: string
  /** A folder that `cleft prepare` made. Default: images are decoded. */
  prepared?: string
  workers?: number
  batchSize?: number
  /** Of the bootstrap. Default: 2,000. */
  resamples?: number
  seed?: number
  device?: torch.Device
  signal?: AbortSignal
  /** How many images are done, of all. */
  onProgress?: (images: number, total: number) => void
  logger?: Logger
}

export interface Evaluation {
  readonly summary: Summary
  readonly predictions: Predictions
  /** Null where none was asked for. */
  readonly report: WrittenReport | null
}

/**
 * Evaluates a model on a test set.
 *
 * @throws RangeError where model, data and task do not go together
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { from, task, device = 'cpu', logger } = options
  if (task !== undefined && !evaluationTasks.includes(task)) {
    throw new RangeError(
      `evaluate: expected a task of ${evaluationTasks.map((each) => `'${each}'`).join(', ')}, but received '${String(task)}'`,
    )
  }
  using model = await load<LoadedModel | LoadedClassifier>(from, { device, ...(logger && { logger }) })
  const own = model instanceof LoadedClassifier ? model.stage : 'zero-shot'
  if (task !== undefined && task !== own) {
    throw new RangeError(
      `evaluate: expected a checkpoint for the task '${task}', but '${from}' is one for '${own}'; train that stage on it, or leave the task out`,
    )
  }
  return await evaluateModel(model, own, options)
}

async function evaluateModel(
  model: LoadedModel | LoadedClassifier,
  task: EvaluationTask,
  options: EvaluateOptions,
): Promise<Evaluation> {
  const { ensemble = 'mean-embedding', prepared, workers, batchSize, signal, onProgress, resamples, seed = 0 } = options
  const { uncertain, blank } = options
  const spec = withSplit(options.data)
  const dataset = await openDataset(spec)
  const decoder = prepared === undefined ? new DecoderPool(workers === undefined ? {} : { workers }) : null
  const images = prepared === undefined ? null : PreparedImages.open(prepared)
  const predict = (own: Dataset, tell?: typeof onProgress): Promise<ZeroShotResult> => {
    const shared = {
      ...(decoder && { decoder }),
      ...(images && { prepared: images }),
      ...(batchSize !== undefined && { batchSize }),
      ...(signal && { signal }),
      ...(tell && { onProgress: tell }),
    }
    return model instanceof LoadedClassifier
      ? classify(model, own, shared)
      : zeroShot(model, own, { ...shared, ensemble })
  }
  try {
    const { predictions, embeddings, unreadable } = await predict(dataset, onProgress)
    const captioned =
      model instanceof LoadedClassifier ? null : await captionsOf(model, dataset.samples, predictions, embeddings)
    const held = model instanceof LoadedClassifier ? await validationData(model, spec, options) : null
    const validation = held && (await predictAlone(predict, held))
    const summary = await summarize(predictions, {
      ...(captioned && { retrieval: captioned }),
      ...(validation && { validation }),
      ...(resamples !== undefined && { resamples }),
      ...(uncertain !== undefined && { uncertain }),
      ...(blank !== undefined && { blank }),
      seed,
      provenance: {
        evaluation: task,
        name: options.name ?? model.folder,
        checkpoint: { name: model.folder, sha256: await model.hash() },
        data: { kind: dataset.kind, split: 'split' in spec && spec.split ? spec.split : 'test', hash: dataset.hash },
        prompts: task === 'zero-shot' ? dataset.classes : [],
        ensemble: task === 'zero-shot' ? ensemble : null,
        preprocessing: { ...model.input, padded: 256, windowing: 'published' },
        settings: {
          seed,
          unreadable,
          ...(held && { validation: held.hash }),
          torch: torch.info().torchVersion,
          device: model.device,
        },
      },
    })
    const report = options.report === undefined ? null : await write(options, summary, predictions, embeddings)
    embeddings.dispose()
    return { summary, predictions, report }
  } finally {
    await decoder?.close()
    images?.[Symbol.dispose]()
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
  { model }: LoadedClassifier,
  spec: DatasetSpec,
  { validation }: EvaluateOptions,
): Promise<Dataset | null> {
  if (validation === null) return null
  if (validation !== undefined) return await openDataset(validation)
  if (spec.kind === 'chexpert-5x200' || spec.split !== 'test') return null
  try {
    const dataset = await openDataset({ ...spec, split: 'valid' })
    const isLabelled = dataset.samples.some(
      ({ label, findings }) => (model.task === 'single' ? label : findings) !== null,
    )
    return isLabelled ? dataset : null
  } catch {
    // no such part: decisions are then by the highest score
    return null
  }
}

function withSplit(spec: DatasetSpec): DatasetSpec {
  if (spec.kind === 'chexpert-5x200' || spec.split !== undefined) return spec
  return { ...spec, split: 'test' }
}

/** Retrieval among the captions of the test images, where they have any. */
async function captionsOf(
  model: LoadedModel,
  samples: readonly { path: string; caption: string | null }[],
  { paths, patients }: Predictions,
  embeddings: torch.Tensor,
) {
  const captionOf = new Map(samples.map(({ path, caption }) => [path, caption]))
  const captions = paths.map((path) => captionOf.get(path) ?? null)
  if (captions.some((each) => each === null)) return null
  const texts = captions as string[]
  const distinct = [...new Set(texts)]
  const rows = new Map(distinct.map((text, row) => [text, row]))
  const encoded = await model.encodeText(distinct)
  return torch.scope(() => {
    const index = torch.tensor(
      texts.map((text) => rows.get(text)!),
      { dtype: 'int64' },
    )
    const ranks = retrievalRanks(embeddings, encoded.to('cpu').indexSelect(0, index), { captions: texts, patients })
    encoded.dispose()
    return ranks
  })
}

async function write(
  { report, images, plainPaths }: EvaluateOptions,
  summary: Summary,
  predictions: Predictions,
  embeddings: torch.Tensor,
): Promise<WrittenReport> {
  const embedding = {
    features: embeddings.toTypedArray() as Float32Array,
    dimensions: embeddings.size(1),
    groups: groupsOf(predictions),
  }
  return writeReport(report!, { summary, predictions, embedding, images, plainPaths })
}

/** A name for each image: its class; of findings the one that it has. */
function groupsOf({ task, classes, labels, paths }: Predictions): string[] {
  if (task !== 'multi-label') return Array.from(labels, (label) => classes[label]!)
  return paths.map((_, row) => {
    const found = classes.filter((_, k) => labels[row * classes.length + k] === 1)
    return found.length > 1 ? 'several' : (found[0] ?? 'none')
  })
}
