import type { Dataset, Sample } from '../data/index.js'
import * as torch from '../torch/index.js'
import { type EncodeOptions, encodeAll, evaluationLoader } from './evaluation-loader.js'
import type { LoadedClassifier } from './loaded-classifier.js'
import type { Predictions } from './predictions.js'
import type { ZeroShotResult } from './zero-shot.js'

export type ClassifyOptions = EncodeOptions
/** `embeddings` are the pooled features, [N, width]. */
export type ClassifyResult = ZeroShotResult

/**
 * Classifies a data set's images by a trained head: one score a class or finding, on the scale of logits.
 *
 * @throws RangeError where the data set has other classes, or no image with a label
 */
export async function classify(
  model: LoadedClassifier,
  dataset: Dataset,
  options: ClassifyOptions = {},
): Promise<ClassifyResult> {
  const isSingle = model.model.task === 'single'
  const columns = isSingle ? classColumns(model, dataset) : null
  const findings = isSingle ? null : findingColumns(model, dataset)
  const samples = dataset.samples.filter((sample) => (isSingle ? sample.label : sample.findings) !== null)
  if (samples.length === 0) {
    throw new RangeError(
      `classify: expected images with ${isSingle ? 'a class' : 'findings'} of ${model.classes.join(', ')}, but there are none`,
    )
  }
  const loader = evaluationLoader(model, dataset, samples, options)
  const encode = (pixels: torch.Tensor) => {
    const { features, logits } = model.classifyPixels(pixels)
    return [features, logits]
  }
  const { samples: chosen, tensors, unreadable } = await encodeAll(loader, encode, options)
  const [embeddings, logits] = tensors as [torch.Tensor, torch.Tensor]
  using _ = logits
  const scores = torch.scope(() => {
    // in the order of the data set's classes
    const own = columns === null ? logits : logits.indexSelect(1, torch.tensor(columns, { dtype: 'int64' }))
    return own.toTypedArray() as Float32Array
  })
  return {
    prompts: [],
    samples: chosen,
    embeddings,
    predictions: predictionsOf(model, chosen, scores, {
      classes: isSingle ? dataset.classes.map(({ name }) => name) : model.classes,
      findings,
    }),
    unreadable,
  }
}

/** Where the data set's classes are among the model's. */
function classColumns({ classes: own, folder }: LoadedClassifier, { classes, kind }: Dataset): number[] {
  const columns = classes.map(({ name }) => own.indexOf(name))
  if (columns.length === own.length && columns.every((column) => column >= 0)) return columns
  throw new RangeError(
    `evaluate: expected data of the classes that '${folder}' was trained on, ${own.join(', ')}, but ${kind} has ${classes.map(({ name }) => name).join(', ') || 'none'}`,
  )
}

/** Where the model's findings are among the data set's. */
function findingColumns({ classes: own, folder }: LoadedClassifier, { findings, kind }: Dataset): number[] {
  const columns = own.map((name) => findings.indexOf(name))
  if (columns.every((column) => column >= 0)) return columns
  throw new RangeError(
    `evaluate: expected data with the findings that '${folder}' was trained on, ${own.join(', ')}, but ${kind} has ${findings.join(', ') || 'none'}`,
  )
}

function predictionsOf(
  { model }: LoadedClassifier,
  samples: readonly Sample[],
  scores: Float32Array,
  { classes, findings }: { classes: readonly string[]; findings: readonly number[] | null },
): Predictions {
  const shared = {
    classes,
    scale: 'logit' as const,
    scores,
    patients: samples.map(({ patient }) => patient),
    attributes: samples.map(({ attributes }) => attributes),
    paths: samples.map(({ path }) => path),
  }
  if (findings !== null) {
    const labels = Int8Array.from(samples.flatMap((sample) => findings.map((column) => sample.findings![column]!)))
    return { ...shared, task: 'multi-label', labels }
  }
  return {
    ...shared,
    task: model.classes.length === 2 ? 'binary' : 'multi-class',
    labels: Int32Array.from(samples, ({ label }) => label!),
  }
}
