import { type AskedClass, askedClasses, askedFindings, promptOf } from '../data/captions/index.js'
import type { ClassPrompt, Dataset, Sample } from '../data/index.js'
import * as torch from '../torch/index.js'
import { encodeDataset } from './encode-dataset.js'
import type { EncodeOptions } from './evaluation-loader.js'
import { type EncodedPrompts, type Ensemble, type LoadedModel, scoresOf } from './loaded-model.js'
import type { Predictions } from './predictions.js'

export interface ZeroShotOptions extends EncodeOptions {
  /**
   * 'single': one class an image. 'multi': each finding by itself, its prompt against its negation. Default: 'single' where
   * images are of classes.
   */
  labels?: 'single' | 'multi'
  /** Default: 'mean-embedding'. */
  ensemble?: Ensemble
}

export interface ZeroShotResult {
  /** What stands for each class or finding; none for a trained head. */
  prompts: readonly AskedClass[]
  predictions: Predictions
  /** Those of the predictions, in their order. */
  samples: readonly Sample[]
  /** [N, D] float32 on the CPU, in the predictions' order; the caller's. */
  embeddings: torch.Tensor
  /** Files that could not be read. */
  unreadable: number
}

/** Whether a data set is asked for several findings an image, each by itself. */
export function isMultiLabel({ samples }: Dataset, labels?: ZeroShotOptions['labels']): boolean {
  return labels === undefined ? samples.every(({ label }) => label === null) : labels === 'multi'
}

/**
 * Classifies a data set's images by the class prompts, as published: no training, one score a class (cosine x temperature).
 * A prefix of an image's own (EMBED) stands before each prompt. Of several findings each is asked for by two prompts, it and
 * its negation; its score is the difference, the log-odds of the two: a cosine alone has no zero point.
 *
 * @throws RangeError where the data set has no image of one class, or none with findings, or prompts that the model cannot
 * tell apart
 */
export async function zeroShot(
  model: LoadedModel,
  dataset: Dataset,
  { labels, ensemble = 'mean-embedding', ...options }: ZeroShotOptions = {},
): Promise<ZeroShotResult> {
  const isMulti = isMultiLabel(dataset, labels)
  const asked = isMulti ? askedFindings(dataset) : askedClasses(dataset)
  const labelled = dataset.samples.filter(({ label, findings }) => (isMulti ? findings : label) !== null)
  if (labelled.length === 0) {
    const wanted = isMulti ? 'with findings' : `that are of one of ${asked.map(({ name }) => name).join(', ')}`
    throw new RangeError(`zeroShot: expected images ${wanted}, but there are none`)
  }
  // before the work
  for (const prefix of new Set(labelled.map(({ promptPrefix }) => promptPrefix))) {
    await model.checkPrompts(promptsOf(asked, prefix))
  }
  const { samples, embeddings, unreadable } = await encodeDataset(model, dataset, labelled, options)
  try {
    const shared = {
      classes: asked.map(({ name }) => name),
      scale: 'logit' as const,
      scores: await scores(model, samples, embeddings, asked, ensemble),
      patients: samples.map(({ patient }) => patient),
      attributes: samples.map(({ attributes }) => attributes),
      paths: samples.map(({ path }) => path),
    }
    const predictions: Predictions = isMulti
      ? { ...shared, task: 'multi-label', labels: findingLabels(dataset, asked, samples) }
      : {
          ...shared,
          task: asked.length === 2 ? 'binary' : 'multi-class',
          labels: Int32Array.from(samples, ({ label }) => label!),
        }
    return { prompts: asked, predictions, samples, embeddings, unreadable }
  } catch (error) {
    embeddings.dispose()
    throw error
  }
}

function findingLabels({ findings }: Dataset, asked: readonly AskedClass[], samples: readonly Sample[]): Int8Array {
  const columns = asked.map(({ name }) => findings.indexOf(name))
  return Int8Array.from(samples.flatMap((sample) => columns.map((column) => sample.findings![column]!)))
}

/** The prompts of classes, and then the negations of findings, for images with a prefix. */
export function promptsOf(asked: readonly AskedClass[], prefix: string | null): ClassPrompt[] {
  const prefixed = (prompts: readonly string[]) => prompts.map((each) => promptOf(prefix, each))
  return [
    ...asked.map(({ name, prompts }) => ({ name, prompts: prefixed(prompts) })),
    ...asked.flatMap(({ name, negations }) =>
      negations === undefined ? [] : [{ name: `no ${name}`, prompts: prefixed(negations) }],
    ),
  ]
}

/**
 * One score a class or finding: [N, classes], the scope's.
 *
 * @param image [N, D]
 * @param encoded of {@link promptsOf}
 */
export function askedScores(
  model: LoadedModel,
  image: torch.Tensor,
  encoded: EncodedPrompts,
  asked: readonly AskedClass[],
  ensemble: Ensemble,
): torch.Tensor {
  const all = scoresOf(model, image, encoded, ensemble)
  const count = asked.length
  return all.size(1) === count ? all : all.narrow(1, 0, count).sub(all.narrow(1, count, count))
}

/** [N, classes], row by row. Prefixes are few, and one for most data sets: each is encoded with all prompts once. */
async function scores(
  model: LoadedModel,
  samples: readonly Sample[],
  embeddings: torch.Tensor,
  asked: readonly AskedClass[],
  ensemble: Ensemble,
): Promise<Float32Array> {
  const C = asked.length
  const all = new Float32Array(samples.length * C)
  const groups = new Map<string | null, number[]>()
  for (const [row, { promptPrefix }] of samples.entries()) {
    const known = groups.get(promptPrefix)
    if (known) known.push(row)
    else groups.set(promptPrefix, [row])
  }
  for (const [prefix, rows] of groups) {
    using encoded = await model.encodePrompts(promptsOf(asked, prefix))
    const found = torch.scope(() =>
      torch.noGrad(() => {
        const own = embeddings.indexSelect(0, torch.tensor(rows, { dtype: 'int64' })).to(model.device)
        return askedScores(model, own, encoded, asked, ensemble).toTypedArray() as Float32Array
      }),
    )
    for (const [k, row] of rows.entries()) all.set(found.subarray(k * C, (k + 1) * C), row * C)
    await new Promise(setImmediate)
  }
  return all
}
