import { type DatasetSpec, DecoderPool, openDataset, PreparedImages } from '../data/index.js'
import type { Logger } from '../models/index.js'
import * as torch from '../torch/index.js'
import { type Ensemble, type LoadedModel, load } from './loaded-model.js'
import type { Predictions } from './predictions.js'
import { type WrittenReport, writeReport } from './report/index.js'
import { retrievalRanks } from './retrieval.js'
import { type Summary, summarize } from './summary.js'
import { zeroShot } from './zero-shot.js'

export interface EvaluateOptions {
  /** A checkpoint, or a model folder. */
  from: string
  task: 'zero-shot'
  /** The test set; where it says no split, its test part. */
  data: DatasetSpec
  /** Default: 'mean-embedding'. */
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
  if (task !== 'zero-shot') {
    throw new RangeError(`evaluate: expected the task 'zero-shot', but received '${String(task)}'`)
  }
  using model = await load(from, { device, ...(logger && { logger }) })
  return await evaluateModel(model, options)
}

async function evaluateModel(model: LoadedModel, options: EvaluateOptions): Promise<Evaluation> {
  const { ensemble = 'mean-embedding', prepared, workers, batchSize, signal, onProgress, resamples, seed = 0 } = options
  const spec = withSplit(options.data)
  const dataset = await openDataset(spec)
  const decoder = prepared === undefined ? new DecoderPool(workers === undefined ? {} : { workers }) : null
  try {
    const { predictions, embeddings, unreadable } = await zeroShot(model, dataset, {
      ensemble,
      ...(decoder && { decoder }),
      ...(prepared !== undefined && { prepared: PreparedImages.open(prepared) }),
      ...(batchSize !== undefined && { batchSize }),
      ...(signal && { signal }),
      ...(onProgress && { onProgress }),
    })
    const captioned = await captionsOf(model, dataset.samples, predictions, embeddings)
    const summary = await summarize(predictions, {
      ...(captioned && { retrieval: captioned }),
      ...(resamples !== undefined && { resamples }),
      seed,
      provenance: {
        evaluation: 'zero-shot',
        name: options.name ?? model.folder,
        checkpoint: { name: model.folder, sha256: await model.hash() },
        data: { kind: dataset.kind, split: 'split' in spec && spec.split ? spec.split : 'test', hash: dataset.hash },
        prompts: dataset.classes,
        ensemble,
        preprocessing: { ...model.input, padded: 256, windowing: 'published' },
        settings: { seed, unreadable, torch: torch.info().torchVersion, device: model.device },
      },
    })
    const report = options.report === undefined ? null : await write(options, summary, predictions, embeddings)
    embeddings.dispose()
    return { summary, predictions, report }
  } finally {
    await decoder?.close()
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
  const { classes, labels } = predictions
  const embedding = {
    features: embeddings.toTypedArray() as Float32Array,
    dimensions: embeddings.size(1),
    groups: Array.from(labels, (label) => classes[label]!),
  }
  return writeReport(report!, { summary, predictions, embedding, images, plainPaths })
}
