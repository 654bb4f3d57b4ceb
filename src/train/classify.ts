import { Classifier, type ClassTargets, classificationLoss } from '../clip/classifier.js'
import {
  type EncoderParts,
  isClassifierFolder,
  loadClassifier,
  loadImageEncoder,
  saveClassifier,
} from '../clip/classifier-files.js'
import { type Batch, DataLoader, imagesOf, type OpenImages } from '../data/index.js'
import * as torch from '../torch/index.js'
import type { ClassLabels } from './class-labels.js'
import { classMetrics, outcomeOf } from './class-metrics.js'
import { refuseOwnBatchNorm, refuseSplitBatchNorm } from './contrastive-step.js'
import type { FeatureBatch } from './feature-batches.js'
import { featureTask } from './feature-task.js'
import { type LabelledData, openLabelled } from './labelled-data.js'
import { inputPicture } from './log/pictures.js'
import type { FullFineTuneOptions, FullProbeOptions } from './options/index.js'
import { applyFreezing, ownMemory, parameterGroups } from './parameter-groups.js'
import { inPrecision } from './precision.js'
import { seeded } from './random-stream.js'
import type { RunContext } from './run.js'
import type { StepOutcome, StepTools, Task } from './task.js'
import { freezeUnusedOfImage } from './towers.js'
import { judgedBy } from './validation-data.js'

/*
 * Linear probe and fine-tuning: a linear layer to the classes on the pooled feature before the projection.
 */

const { Processes } = torch.distributed
type Processes = torch.distributed.Processes

type Options = FullProbeOptions | FullFineTuneOptions

/** What both stages begin with. Nothing of the run's folder is touched. */
interface Beginning extends LabelledData {
  readonly device: torch.Device
  readonly model: Classifier
  readonly parts: Omit<EncoderParts, 'encoder'>
}

async function begin(options: Options, context: RunContext, from: string | null): Promise<Beginning> {
  const device = (context.processes ?? Processes.alone).deviceOf(options.device)
  const data = await openLabelled(options, context)
  const { model, ...parts } = await modelOf(options, data.labels, device, context, from)
  ownMemory(model)
  return { device, ...data, model, parts }
}

async function modelOf(
  { from: start, seed, stage }: Options,
  { classes, task }: ClassLabels,
  device: torch.Device,
  { logger }: RunContext,
  from: string | null,
) {
  if (from !== null) return await loadClassifier(from, { device, logger })
  if (stage === 'fine-tune' && isClassifierFolder(start)) return await probed(start, { classes, task }, device, logger)
  const { encoder, ...parts } = await loadImageEncoder(start, { device, logger })
  // the head's weights depend on the seed alone
  const model = await seeded(seed, async () =>
    torch.nn.construct({ device }, () =>
      torch.scope(() => new Classifier({ image: encoder, classes, task, pooling: parts.pooling })),
    ),
  )
  return { model, ...parts }
}

/**
 * A linear probe, whose encoder and layer are fine-tuned both: gradients through a layer that knows nothing yet distort
 * the features (Kumar et al., ICLR 2022, arXiv 2202.10054).
 */
async function probed(
  start: string,
  { classes, task }: Pick<ClassLabels, 'classes' | 'task'>,
  device: torch.Device,
  logger: RunContext['logger'],
) {
  const found = await loadClassifier(start, { device, logger })
  const { model } = found
  const isOfThese = model.task === task && JSON.stringify(model.classes) === JSON.stringify(classes)
  if (found.stage === 'linear-probe' && isOfThese) return found
  const what = `a ${found.stage} of ${model.classes.join(', ')} (${model.task})`
  model.dispose()
  throw new TypeError(
    `from: expected a checkpoint of pre-training, or a linear probe of ${classes.join(', ')} (${task}), but '${start}' is ${what}; give the one that it began with`,
  )
}

/**
 * A linear layer on the features of a frozen encoder, which are computed once and without augmentation.
 *
 * @param from the checkpoint that it goes on from
 */
export async function linearProbeTask(
  options: FullProbeOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<FeatureBatch>> {
  const { model, device, parts, ...data } = await begin(options, context, from)
  try {
    model.eval()
    model.image.requiresGrad_(false)
    return await featureTask(
      {
        model,
        encoder: model.image,
        pooling: parts.pooling,
        input: parts.input,
        device,
        data,
        captions: null,
        logScale: null,
        classify: (features) => model.classify(features),
        saveModel: (folder) => saveClassifier(folder, model, { ...parts, stage: options.stage }),
      },
      options,
      context,
    )
  } catch (error) {
    model.dispose()
    throw error
  }
}

/**
 * All of the image encoder and a linear layer on it.
 *
 * @param from the checkpoint that it goes on from
 */
export async function fineTuneTask(
  options: FullFineTuneOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<Batch>> {
  const { model, device, labels, dataset, held, batchSize, parts } = await begin(options, context, from)
  const { microBatch = batchSize, seed, augment } = options
  const { processes = Processes.alone } = context
  let images: OpenImages | null = null
  const close = async () => {
    await images?.close()
    model.dispose()
  }
  try {
    images = imagesOf(options)
    model.image.checkpointing = options.checkpointing
    freezeUnusedOfImage(model.image, parts.pooling)
    applyFreezing(model, options)
    model.train()
    if (microBatch < batchSize) refuseSplitBatchNorm(model)
    if (processes.size > 1) refuseOwnBatchNorm(model)
    const shared = {
      ...images.source,
      ...parts.input,
      seed,
      channels: 3 as const,
      device,
      maxProblems: options.maxProblems,
      signal: context.signal,
      rank: processes.rank,
      worldSize: processes.size,
    }
    const heldBatches =
      held && new DataLoader(held, { ...shared, batchSize: Math.min(microBatch, held.samples.length), training: false })
    return {
      model,
      groups: parameterGroups(model, options.optimizer),
      batches: new DataLoader(dataset, { ...shared, batchSize, training: true, augment }),
      logScale: null,
      start: { images: dataset.samples.length, captions: null, figures: null },
      step: (batch, tools) =>
        classificationStep(model, labels, batch, { ...tools, microBatch, device, options, processes }),
      validate: heldBatches && ((pause) => validateClassifier(model, labels, heldBatches, { pause, processes })),
      judgedBy: judgedBy(options.validation),
      saveModel: (folder) => saveClassifier(folder, model, { ...parts, stage: options.stage }),
      picture: (batch, step) =>
        inputPicture({ ...batch, captions: batch.samples.map((sample) => namesOf(sample, labels)) }, step),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

const namesOf = (sample: Batch['samples'][number], labels: ClassLabels): string =>
  labels.classes.filter((_, k) => labels.valuesOf(sample)[k] === 1).join(', ')

interface ClassificationStep extends StepTools {
  readonly microBatch: number
  readonly device: torch.Device
  readonly options: Pick<FullFineTuneOptions, 'precision'>
  readonly processes: Processes
}

/** Forward and backward of one batch, some images at a time: the gradients are those of the batch's mean loss. */
async function classificationStep(
  model: Classifier,
  labels: ClassLabels,
  { pixels, samples }: Batch,
  { random, pause, lastBackward, scaleLoss, microBatch, device, options, processes }: ClassificationStep,
): Promise<StepOutcome> {
  using scope = new torch.Scope()
  const { targets, count: own } = scope.run(() => labels.targetsOf(samples, device))
  // the mean of the processes' losses is then the mean over all that is counted in the joined batch
  const count = (await processes.gather(own)).reduce((sum, each) => sum + each, 0) / processes.size
  const [losses, all]: [torch.Tensor[], torch.Tensor[]] = [[], []]
  for (let start = 0; start < samples.length; start += microBatch) {
    if (start > 0) await pause()
    const size = Math.min(microBatch, samples.length - start)
    scope.run(() => {
      const [loss, logits] = torch.scope(() => {
        const own = mapTargets(targets, (each) => each.narrow(0, start, size))
        // what a layer leaves is freed as soon as the backward has passed it
        const logits = random.run(() =>
          torch.scope(() => inPrecision(options.precision, device, () => model.forward(pixels.narrow(0, start, size)))),
        )
        const loss = classificationLoss(logits, own).div(Math.max(1 / processes.size, count))
        const scaled = scaleLoss?.(loss) ?? loss
        random.run(() => (start + size < samples.length ? scaled.backward() : lastBackward(scaled)))
        return [loss.detach(), logits.detach()] as const
      })
      losses.push(loss)
      all.push(logits)
    })
  }
  await pause()
  return scope.run(() => outcomeOf(torch.stack(losses).sum(), torch.cat(all, 0), targets))
}

function mapTargets(targets: ClassTargets, map: (tensor: torch.Tensor) => torch.Tensor): ClassTargets {
  if (targets.task === 'single') return { task: 'single', labels: map(targets.labels) }
  return { task: 'multi', values: map(targets.values), counted: map(targets.counted) }
}

async function validateClassifier(
  model: Classifier,
  labels: ClassLabels,
  batches: DataLoader,
  { pause, processes }: { pause: () => Promise<void>; processes: Processes },
): Promise<Record<string, number>> {
  using scope = new torch.Scope()
  const logits: torch.Tensor[] = []
  const indices: number[] = []
  model.eval()
  try {
    for await (const batch of batches) {
      using _ = batch
      logits.push(scope.run(() => torch.noGrad(() => torch.scope(() => model.forward(batch.pixels)))))
      indices.push(...batch.indices)
      await pause()
    }
  } finally {
    model.train()
  }
  const own = logits.length === 0 ? null : scope.run(() => torch.cat(logits, 0))
  const all = await processes.gatherInOrder(indices, own)
  if (all === null) throw new Error('expected images for validation that can be read, but there are none')
  const { numbers, rows } = all
  using _ = rows
  return classMetrics(
    rows,
    labels,
    numbers.map((index) => batches.dataset.samples[index]!),
  )
}
