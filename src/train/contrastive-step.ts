import { type CorpusOptions, contrastiveLoss, corpusLoss, type TargetOptions } from '../clip/loss.js'
import type { TextTower, TokenSequences } from '../clip/text-tower.js'
import { imageFeature } from '../clip/two-tower.js'
import type { ImageForwardOptions } from '../models/image/index.js'
import * as torch from '../torch/index.js'
import { inPrecision } from './precision.js'
import type { RandomStream } from './random-stream.js'

const { Processes } = torch.distributed
type Processes = torch.distributed.Processes
type Tensor = torch.Tensor

export interface ContrastiveBatch extends TargetOptions {
  /** [B, 3, H, W], normalised, on the model's device. */
  pixels: Tensor
  /** Each image's, or with `corpus` this process' part of all texts that there are, each once. */
  texts: TokenSequences
  /** Image to text is against all texts. */
  corpus?: (Pick<CorpusOptions, 'owners' | 'logShares'> & { readonly join?: (features: Tensor) => Tensor }) | null
}

export interface StepOptions {
  /** Images that go through the encoder at once. Default: all. */
  microBatch?: number
  /** 'float32', or what autocast computes in. Default: 'float32'. */
  precision?: 'float32' | 'bfloat16' | 'float16'
  /** What the loss is multiplied with for backward(). Default: nothing. */
  scaleLoss?: (loss: Tensor) => Tensor
  /** What is added to the loss: of the adapters. Default: nothing. */
  regularizer?: (() => Tensor) | undefined
  forward?: ImageForwardOptions
  random: RandomStream
  /** Those whose batches are one. Targets, captions and owners are then of the joined batch. Default: this one. */
  processes?: Processes
  /** Of several processes, whether images and captions compete with their own process' alone; targets are of that. */
  isLocal?: boolean
  /** Called between micro-batches: gives the event loop its turn, and may throw to stop. */
  pause?: () => Promise<void>
  /** The backward() after which no other comes. Default: a plain one. */
  lastBackward?: (output: Tensor, gradient?: Tensor) => void
}

export interface StepResult {
  /** [] */
  loss: Tensor
  /** [B, B], B over all processes unless the step is local. */
  scores: Tensor
}

/**
 * Forward and backward of one batch; the gradients are added to the parameters'. The results are the caller's.
 *
 * A batch that is split still has the loss of the whole: the features of all micro-batches are computed first without
 * gradient, then the loss and its gradient at the features, then each micro-batch again with it, dropping what it dropped
 * before (gradient caching: Gao et al. 2021, arXiv 2101.06983). Projections see the whole batch, so that their BatchNorm
 * does too. The gradients are those of the unsplit batch.
 *
 * Of several processes each encodes its own images and texts; their features are gathered before the projections, and every
 * process has the loss of the joined batch. The mean of the gradients over the processes is then that of one process with
 * the joined batch: taking it is left to `lastBackward`.
 *
 * @throws TypeError for a split batch and an encoder with BatchNorm in it, whose statistics would be those of a part
 */
export async function contrastiveStep(
  model: TextTower,
  batch: ContrastiveBatch,
  options: StepOptions,
): Promise<StepResult> {
  const { random, pause = async () => {}, microBatch = batch.pixels.size(0), forward } = options
  const { lastBackward = (output: Tensor, gradient?: Tensor) => output.backward(gradient) } = options
  const scaled = (loss: Tensor) => options.scaleLoss?.(loss) ?? loss
  const total = batch.pixels.size(0)
  if (microBatch < total) refuseSplitBatchNorm(model)
  if ((options.processes?.size ?? 1) > 1) refuseOwnBatchNorm(model)
  using scope = new torch.Scope()
  // only what is returned lives on: what a layer leaves is freed as soon as the backward has passed it
  const run = <T>(work: () => T): T => scope.run(() => random.run(() => torch.scope(() => cast(model, options, work))))
  const feature = (start: number) =>
    imageFeature(
      model.image,
      batch.pixels.narrow(0, start, Math.min(microBatch, total - start)),
      model.imagePooling,
      forward,
    )
  const starts = Array.from({ length: Math.ceil(total / microBatch) }, (_, k) => k * microBatch)

  if (starts.length === 1) {
    const result = run(() => lossOf(model, feature(0), batch, options))
    await pause()
    run(() => lastBackward(scaled(result.loss)))
    return torch.keep({ loss: result.loss.detach(), scores: result.scores.detach() })
  }

  const parts: Tensor[] = []
  const before: Tensor[][] = []
  for (const start of starts) {
    before.push(scope.run(() => random.state()))
    parts.push(run(() => torch.noGrad(() => feature(start))))
    await pause()
  }
  const trains = model.image.parameters().some(({ requiresGrad }) => requiresGrad)
  const features = scope.run(() => torch.cat(parts, 0).requiresGrad_(trains))
  const result = run(() => lossOf(model, features, batch, options))
  await pause()
  // a frozen encoder has no gradient to go through it for
  run(() => (trains ? scaled(result.loss).backward() : lastBackward(scaled(result.loss))))
  if (!trains) return torch.keep({ loss: result.loss.detach(), scores: result.scores.detach() })
  const after = scope.run(() => random.state())
  for (const [index, start] of starts.entries()) {
    await pause()
    random.restore(before[index]!)
    run(() => {
      const again = feature(start)
      const gradient = features.grad!.narrow(0, start, again.size(0)).to(again.dtype)
      if (index === starts.length - 1) lastBackward(again, gradient)
      else again.backward(gradient)
    })
  }
  random.restore(after)
  return torch.keep({ loss: result.loss.detach(), scores: result.scores.detach() })
}

function lossOf(
  model: TextTower,
  feature: Tensor,
  { texts, corpus, ...targets }: ContrastiveBatch,
  { regularizer, processes = Processes.alone, isLocal = false }: StepOptions,
): StepResult {
  // before the projections, so that BatchNorm in them has the statistics of the joined batch
  let image = model.projectImage(processes.gatherFeatures(feature))
  const features = torch.scope(() => model.textFeature(texts))
  let text = model.projectText(corpus ? (corpus.join?.(features) ?? features) : processes.gatherFeatures(features))
  if (isLocal) [image, text] = [processes.ownRows(image), processes.ownRows(text)]
  const { loss, scores } = corpus
    ? corpusLoss(image, text, model.logit_scale, { ...targets, ...corpus })
    : contrastiveLoss(image, text, model.logit_scale, targets)
  return { loss: regularizer === undefined ? loss : loss.add(regularizer()), scores }
}

function cast<T>(model: TextTower, { precision = 'float32' }: StepOptions, work: () => T): T {
  return inPrecision(precision, model.logit_scale.device as torch.Device, work)
}

interface ImageModel {
  readonly image: torch.nn.Module
}

const batchNormOf = ({ image }: ImageModel): string | undefined =>
  image.namedModules().find(([, each]) => each instanceof torch.nn.BatchNorm2d && each.training)?.[0]

/** @throws TypeError where a split batch would give BatchNorm the statistics of a part */
export function refuseSplitBatchNorm(model: ImageModel): void {
  const found = batchNormOf(model)
  if (found === undefined) return
  throw new TypeError(
    `microBatch: expected an image encoder without BatchNorm for a split batch, but it has ${found}, whose statistics would be those of a part; use a batch that fits, or an encoder without`,
  )
}

/** @throws TypeError where several processes would give BatchNorm each its own statistics */
export function refuseOwnBatchNorm(model: ImageModel): void {
  const found = batchNormOf(model)
  if (found === undefined) return
  throw new TypeError(
    `processes: expected an image encoder without BatchNorm for several processes, but it has ${found}, whose statistics would be each process' own; use one process, or an encoder without`,
  )
}
