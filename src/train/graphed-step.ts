import { contrastiveLoss, lossTarget, type TargetOptions } from '../clip/loss.js'
import type { TextTower, TokenSequences } from '../clip/text-tower.js'
import { imageFeature } from '../clip/two-tower.js'
import { type EncodeTextOptions, encodeUploaded, type TextEncoder, uploadTexts } from '../models/text/index.js'
import * as torch from '../torch/index.js'
import type { StepResult } from './contrastive-step.js'
import type { FullPretrainOptions } from './options/index.js'
import { inPrecision } from './precision.js'
import type { RandomStream } from './random-stream.js'

type Tensor = torch.Tensor

/** Lengths of rows that texts are padded to, at most. */
const BUCKETS = 4

/** Texts of a run are padded to multiples of so many tokens: four lengths at most, each a multiple of eight. */
export function bucketOf(maximumLength: number): number {
  return 8 * Math.ceil(maximumLength / (8 * BUCKETS))
}

interface Surroundings {
  readonly device: string
  readonly processes: number
  readonly model: Pick<TextTower, 'encoding'>
}

/**
 * Why a step of a run cannot be a CUDA graph; null where nothing is known against it. A graph has fixed shapes, launches
 * what was launched once, and never waits.
 */
export function whyNoGraph(options: FullPretrainOptions, { device, processes, model }: Surroundings): string | null {
  const { negatives, batchSize, microBatch = batchSize, precision, peft, image, text } = options
  const { execution = 'auto' } = model.encoding
  if (!device.startsWith('cuda')) return `expected a GPU, but the run is on ${device}`
  if (processes > 1) return `expected one process, but ${processes} gather their features in the middle of a step`
  if (precision === 'float16')
    return 'expected bfloat16 or float32, but the factor of a float16 loss changes on the way'
  if (negatives === 'corpus') return "expected the batch's captions alone, but negatives: 'corpus' shares prefixes"
  if (execution === 'tree' || execution === 'packed') {
    return `expected padded texts, but text.execution '${execution}' has other shapes at each step`
  }
  if (microBatch < batchSize) return `expected a whole batch, but microBatch ${microBatch} runs its parts one by one`
  const checkpointed = [image.checkpointing && 'image', text.checkpointing && 'text'].filter(Boolean)
  if (checkpointed.length > 0) {
    return `expected no checkpointing, whose layers put random states back in the middle of a step, but ${checkpointed.join(' and ')} have it`
  }
  if (peft?.type === 'adalora') return 'expected fixed ranks, but those of AdaLoRA change'
  return null
}

export interface GraphedBatch extends Pick<TargetOptions, 'targets' | 'captions'> {
  /** [B, 3, H, W], on the model's device. */
  readonly pixels: Tensor
  readonly texts: TokenSequences
}

interface GraphedOptions {
  readonly precision: FullPretrainOptions['precision']
  /** Told once why steps run as they are. */
  readonly onFallback: (reason: string) => void
}

/** contrastiveStep() of a whole batch whose texts are padded to a few lengths, replayed as a CUDA graph where it can be. */
export class GraphedContrastiveStep implements Disposable {
  readonly #graphed: InstanceType<typeof torch.cuda.GraphedStep>
  /** What the step is called with beside tensors: the same for all tensors of one shape. */
  #call: { names: readonly string[]; sizes: { rows: number; length: number; count: number } } | null = null

  constructor(
    private readonly model: TextTower,
    private readonly options: GraphedOptions,
  ) {
    this.#graphed = new torch.cuda.GraphedStep((inputs) => this.compute(inputs), {
      parameters: model.parameters().filter(({ requiresGrad }) => requiresGrad),
      onFallback: options.onFallback,
    })
  }

  /** Forward and backward; gradients are none before. The results are the caller's. */
  run({ pixels, texts, ...targets }: GraphedBatch, random: RandomStream): StepResult {
    const { model } = this
    return torch.scope(() => {
      const { tensors, layout: _, ...sizes } = uploadTexts(model.text as TextEncoder, texts, encodingOf(model))
      const target = lossTarget(pixels.size(0), targets, { device: pixels.device, dtype: 'float32' })
      const inputs = { pixels, target, ...tensors }
      this.#call = { names: Object.keys(inputs), sizes }
      const [loss, scores] = random.run(() => this.#graphed.run(Object.values(inputs)))
      // the next replay writes over what a graph gave
      return torch.keep(torch.noGrad(() => ({ loss: loss!.clone(), scores: scores!.clone() })))
    })
  }

  private compute(values: readonly Tensor[]): readonly Tensor[] {
    const { model } = this
    const { names, sizes } = this.#call!
    const inputs: Record<string, Tensor> = Object.fromEntries(names.map((name, index) => [name, values[index]!]))
    const { pixels, target, ...tensors } = inputs
    return torch.scope(() => {
      const { loss, scores } = inPrecision(this.options.precision, pixels!.device as torch.Device, () =>
        torch.scope(() => {
          const image = model.projectImage(imageFeature(model.image, pixels!, model.imagePooling))
          const uploaded = { ...sizes, layout: null, tensors }
          const text = model.projectText(encodeUploaded(model.text as TextEncoder, uploaded, encodingOf(model)))
          return contrastiveLoss(image, text, model.logit_scale, { target: target! })
        }),
      )
      inPrecision(this.options.precision, pixels!.device as torch.Device, () => loss.backward())
      return [loss.detach(), scores.detach()]
    })
  }

  /** How many lengths of texts are recorded. */
  get recorded(): number {
    return this.#graphed.recorded
  }

  [Symbol.dispose](): void {
    this.#graphed.dispose()
  }
}

/** How texts are encoded in a graph: padded to one of a few lengths. */
function encodingOf({ encoding }: TextTower): EncodeTextOptions {
  return { ...encoding, execution: 'padded', padTo: bucketOf(encoding.maximumLength!) }
}
