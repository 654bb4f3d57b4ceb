import { type Dataset, type DatasetSpec, openDataset } from '../data/index.js'
import { ClassLabels, type LabelOptions, type PartOptions } from './class-labels.js'
import { USUAL_BATCH } from './options/shared.js'
import type { RunContext } from './run.js'
import { validationData } from './validation-data.js'

export interface LabelledData {
  readonly labels: ClassLabels
  /** The images that have a label, or the part of them that was asked for. */
  readonly dataset: Dataset
  /** For validation, as many as are looked at; null: there is none. */
  readonly held: Dataset | null
  /** Of training. */
  readonly batchSize: number
}

export interface LabelledOptions extends LabelOptions {
  readonly data: object
  readonly batchSize?: number | undefined
  readonly maxProblems: number
  readonly validation: { readonly split: string; readonly metric: string; readonly maximumImages: number } | null
}

/**
 * The data of a stage that learns labels.
 *
 * @throws RangeError where a class has no example, or a batch is larger than the data
 */
export async function openLabelled(options: LabelledOptions, context: RunContext): Promise<LabelledData> {
  const { data, validation, maxProblems } = options
  // a part of the images that have a label, not of all
  const { fraction, keepSize, balance, ...rest } = data as PartOptions
  const spec = { maxProblems, ...rest } as unknown as DatasetSpec
  const whole = await openDataset(spec)
  const labels = ClassLabels.of(whole, options)
  labels.checkExamples(whole.samples)
  const dataset = labels.labelled(whole, { fraction, keepSize, balance, seed: rest.seed })
  // each process has a batch of its own
  const most = Math.floor(dataset.samples.length / (context.processes?.size ?? 1))
  const { batchSize = Math.min(USUAL_BATCH, most) } = options
  if (batchSize > most) {
    throw new RangeError(
      `batchSize: expected as many images as have a label, ${most} in each process, at most, but received ${batchSize}`,
    )
  }
  const held = await heldOut(spec, options, labels, context)
  if (validation?.metric === 'auc' && held !== null && !hasBothKinds(labels, held)) {
    throw new RangeError(
      "validation.metric: expected images with and without a class for 'auc', but the validation part has none; use 'loss'",
    )
  }
  return { labels, dataset, held, batchSize }
}

async function heldOut(
  spec: DatasetSpec,
  { validation }: LabelledOptions,
  labels: ClassLabels,
  context: RunContext,
): Promise<Dataset | null> {
  const { perClass: _, ...all } = spec as DatasetSpec & { perClass?: number }
  const whole = await validationData(all as DatasetSpec, validation, context)
  if (whole === null) return null
  const dataset = labels.labelled(whole)
  if (dataset.samples.length === 0) {
    context.emit({ type: 'warning', message: 'the run is not validated: no image of the validation part has a label' })
    return null
  }
  return { ...dataset, samples: dataset.samples.slice(0, validation!.maximumImages) }
}

function hasBothKinds(labels: ClassLabels, { samples }: Dataset): boolean {
  const values = samples.map((sample) => labels.valuesOf(sample))
  return labels.classes.some((_, k) => [0, 1].every((kind) => values.some((each) => each[k] === kind)))
}
