import { join } from 'node:path'
import { classificationLoss } from '../clip/classifier.js'
import { TRAINABLE } from '../clip/model-files.js'
import type { ImagePooling } from '../clip/two-tower.js'
import { imagesOf, type Resize } from '../data/index.js'
import type { ImageEncoder } from '../models/index.js'
import { sha256OfFile } from '../setup/files.js'
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
const FROZEN_BATCH = 64

interface FeatureStage extends Pick<Task, 'model' | 'logScale' | 'saveModel'> {
  /** A part of the model. */
  readonly encoder: ImageEncoder
  readonly pooling: ImagePooling
  readonly input: { readonly size: number; readonly resize: Resize }
  readonly device: torch.Device
  readonly data: LabelledData
  /** Distinct texts; null where the stage has none. */
  readonly captions: number | null
  /** [B, width] to the classes' logits, [B, C]. */
  readonly classify: (features: torch.Tensor) => torch.Tensor
}

/** The model is the caller's until the task is made, and the task's then. */
export async function featureTask(
  stage: FeatureStage,
  options: FullProbeOptions | FullPromptOptions,
  context: RunContext,
): Promise<Task<FeatureBatch>> {
  const { model, device, data, classify, logScale, captions, saveModel } = stage
  const { labels } = data
  const { batchSize, seed, precision } = options
  const tables = await featuresOf(stage, options, context)
  const [table, held] = tables
  try {
    return {
      model,
      groups: parameterGroups(model, options.optimizer),
      batches: new FeatureBatches(table!, { batchSize, seed, device }),
      logScale,
      start: { images: table!.samples.length, captions, figures: null },
      async step(batch, { random, pause, scaleLoss }) {
        await pause()
        return torch.scope(() => {
          const { targets, count } = labels.targetsOf(batch.samples, device)
          const logits = random.run(() => inPrecision(precision, device, () => classify(batch.features)))
          const loss = classificationLoss(logits, targets).div(Math.max(1, count))
          ;(scaleLoss?.(loss) ?? loss).backward()
          return outcomeOf(loss.detach(), logits.detach(), targets)
        })
      },
      validate:
        held === undefined
          ? null
          : async () =>
              torch.scope(() =>
                torch.noGrad(() =>
                  classMetrics(classify(held.gather([...held.samples.keys()], device)), labels, held.samples),
                ),
              ),
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

/** Of the training images, and of those for validation where there are some. */
async function featuresOf(
  { encoder, pooling, input, device, data: { dataset, held } }: FeatureStage,
  options: FullProbeOptions | FullPromptOptions,
  { emit, signal }: RunContext,
): Promise<FeatureTable[]> {
  const encoderHash = await sha256OfFile(join(options.from, TRAINABLE))
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
