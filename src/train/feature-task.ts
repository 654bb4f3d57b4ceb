import { join } from 'node:path'
import { classificationLoss } from '../clip/classifier.js'
import type { ImagePooling } from '../clip/two-tower.js'
import { imagesOf, type Resize, type Sample } from '../data/index.js'
import type { ImageEncoder } from '../models/index.js'
import * as torch from '../torch/index.js'
import { classMetrics, outcomeOf } from './class-metrics.js'
import { type FeatureBatch, FeatureBatches } from './feature-batches.js'
import { cachedFeatures, type FeatureTable } from './feature-cache.js'
import type { LabelledData } from './labelled-data.js'
import type { FullProbeOptions, FullPromptOptions } from './options/index.js'
import { parameterGroups } from './parameter-groups.js'
import { inPrecision } from './precision.js'
import type { RunContext } from './run.js'
import type { Task } from './task.js'
import { judgedBy } from './validation-data.js'

/*
 * A stage that learns labels from the features of a frozen image encoder: computed once, without augmentation.
 */

/** In a run's folder. */
const FEATURES = 'features'
/** Images that go through a frozen encoder at once. */
export const FROZEN_BATCH = 64

interface FeatureStage extends Pick<Task, 'model' | 'logScale' | 'saveModel'> {
  /** A part of the model. */
  readonly encoder: ImageEncoder
  readonly pooling: ImagePooling
  readonly input: { readonly size: number; readonly resize: Resize; readonly oversample: number }
  readonly device: torch.Device
  readonly data: LabelledData
  /** Distinct texts; null where the stage has none. */
  readonly captions: number | null
  /** [B, width] of B samples to the classes' logits, [B, C]. */
  readonly classify: (features: torch.Tensor, samples: readonly Sample[]) => torch.Tensor
}

/** The model is the caller's until the task is made, and the task's then. */
export async function featureTask(
  stage: FeatureStage,
  options: FullProbeOptions | FullPromptOptions,
  context: RunContext,
): Promise<Task<FeatureBatch>> {
  const { model, device, data, classify, logScale, captions, saveModel } = stage
  const { labels } = data
  const { seed, precision } = options
  const tables = await featuresOf(stage, options, context)
  const [table, held] = tables
  const { batchSize = Math.min(data.batchSize, table!.samples.length) } = options
  try {
    return {
      model,
      groups: parameterGroups(model, options.optimizer),
      batches: new FeatureBatches(table!, { batchSize, seed, device }),
      logScale,
      start: { images: table!.samples.length, captions, figures: null },
      async step(batch, { random, pause, scaleLoss, lastBackward }) {
        await pause()
        return torch.scope(() => {
          const { targets, count } = labels.targetsOf(batch.samples, device)
          const logits = random.run(() => inPrecision(precision, device, () => classify(batch.features, batch.samples)))
          const loss = classificationLoss(logits, targets).div(Math.max(1, count))
          lastBackward(scaleLoss?.(loss) ?? loss)
          return outcomeOf(loss.detach(), logits.detach(), targets)
        })
      },
      validate: held === undefined ? null : (pause) => validateFeatures(stage, held, precision, pause),
      judgedBy: judgedBy(options.validation),
      saveModel,
      async close() {
        for (const each of tables) each[Symbol.dispose]()
        model.dispose()
      },
    }
  } catch (error) {
    for (const each of tables) each[Symbol.dispose]()
    throw error
  }
}

/** Prefixes whose texts are encoded at once. */
const PREFIXES = 32

/** Images that have a prefix in common go together, so that its texts are encoded once. */
async function validateFeatures(
  { device, classify, data: { labels } }: FeatureStage,
  held: FeatureTable,
  precision: FullPromptOptions['precision'],
  pause: () => Promise<void>,
): Promise<Record<string, number>> {
  const prefixes = [...new Set(held.samples.map(({ promptPrefix }) => promptPrefix))]
  using scope = new torch.Scope()
  const logits: torch.Tensor[] = []
  const order: number[] = []
  for (let start = 0; start < prefixes.length; start += PREFIXES) {
    const some = new Set(prefixes.slice(start, start + PREFIXES))
    const rows = [...held.samples.keys()].filter((row) => some.has(held.samples[row]!.promptPrefix))
    const samples = rows.map((row) => held.samples[row]!)
    const own = () => inPrecision(precision, device, () => classify(held.gather(rows, device), samples))
    logits.push(scope.run(() => torch.scope(() => torch.noGrad(own))))
    order.push(...rows)
    await pause()
  }
  const samples = order.map((row) => held.samples[row]!)
  return scope.run(() => classMetrics(torch.cat(logits, 0), labels, samples))
}

/** Of the training images, and of those for validation where there are some. */
async function featuresOf(
  { encoder, pooling, input, device, data: { dataset, held } }: FeatureStage,
  options: FullProbeOptions | FullPromptOptions,
  { emit, signal, beginning }: RunContext,
): Promise<FeatureTable[]> {
  // a frozen encoder is that of the beginning
  const encoderHash = beginning!
  const images = imagesOf(options)
  const tables: FeatureTable[] = []
  try {
    for (const each of held === null ? [dataset] : [dataset, held]) {
      tables.push(
        await cachedFeatures({
          encoder,
          encoderHash,
          pooling,
          dataset: each,
          loader: {
            ...images.source,
            ...input,
            batchSize: FROZEN_BATCH,
            device,
            maxProblems: options.maxProblems,
            ...(signal && { signal }),
          },
          folder: join(options.out, FEATURES),
          onProgress: (images, total) => emit({ type: 'progress', what: 'features', images, total }),
        }),
      )
    }
    return tables
  } catch (error) {
    for (const each of tables) each[Symbol.dispose]()
    throw error
  } finally {
    await images.close()
  }
}
