import type { FullOptions } from '../options/index.js'
import type { Measured } from './measure.js'

/*
 * The memory of a training step before there is one: both towers are measured on the CPU with two and three of their layers,
 * a few images, and the texts that a batch has (see probe.ts), and what a run keeps beside them is counted.
 */

/** Bytes, at the step's peak. */
export interface StepMemory {
  readonly weights: number
  readonly optimizer: number
  /** Moving averages of what trains. */
  readonly averages: number
  readonly gradients: number
  /** Copies of weights in the precision that is computed in, and the like. */
  readonly caches: number
  /** What images and texts leave for the way back, and what a layer works with. */
  readonly activations: number
  /** The step's images. Those that are read ahead become tensors of the device when it is their turn. */
  readonly batches: number
  readonly total: number
}

/** How a batch goes through. */
export interface Shape {
  readonly batchSize: number
  readonly microBatch: number
  readonly checkpointing: boolean
}

export interface Suggestion extends Shape {
  readonly total: number
  readonly why: string
}

export interface Plan {
  /** Whose kernels were planned with. */
  readonly device: 'cpu' | 'cuda'
  readonly shape: Shape
  /** Of the texts of a step: tokens that the language model computes. */
  readonly tokens: number
  readonly memory: StepMemory
  /** What the device has, where that is known. */
  readonly available: number | null
  /** Bytes at the peak before the first step, where the features of a frozen encoder are computed once; else null. */
  readonly features: number | null
  readonly fits: boolean | null
  readonly suggestions: readonly Suggestion[]
  /** What was assumed. */
  readonly notes: readonly string[]
}

/** The part that has to stay free: the allocator's rounding, kernels' workspaces. */
const MARGIN = 0.92
export interface PlanOptions {
  /** Bytes that the device has. */
  readonly available: number | null
  readonly device: 'cpu' | 'cuda'
}

/** What of a run's options its step takes memory by. */
export interface PlannedOptions extends Pick<FullOptions, 'optimizer' | 'ema'> {
  readonly shape: Shape
  /** The option by which the image encoder keeps its blocks' inputs alone; null: the stage has none. */
  readonly checkpointing: string | null
  /** Whether a batch may go through in parts. */
  readonly splits: boolean
}

/** A plan out of what was measured. */
export function planOf(
  measured: Measured,
  options: PlannedOptions,
  { available, device, notes }: PlanOptions & { notes: readonly string[] },
): Plan {
  const { shape } = options
  const memory = stepMemory(measured, options, shape)
  const { features } = measured
  return {
    device,
    shape,
    tokens: Math.round(measured.tokens(shape.batchSize)),
    memory,
    features,
    available,
    fits: available === null ? null : Math.max(memory.total, features ?? 0) <= available * MARGIN,
    suggestions: available === null ? [] : suggest(measured, options, shape, available * MARGIN),
    notes,
  }
}

/** What a step takes in some shape. */
export function stepMemory(measured: Measured, options: PlannedOptions, shape: Shape): StepMemory {
  const { batchSize, microBatch, checkpointing } = shape
  const { optimizer, ema } = options
  const [image, text] = [measured.image(microBatch, checkpointing), measured.text(batchSize)]
  const gradients = image.trainable + text.trainable
  const isSplit = microBatch < batchSize
  const scores = measured.scores(batchSize)
  // the text goes back first; the images of an unsplit batch wait meanwhile
  const begin = [
    { activations: (isSplit ? 0 : image.kept) + text.peak + scores, gradients: 0 },
    { activations: image.peak, gradients: isSplit ? gradients : text.trainable },
    // the end of the backward: all gradients, and little more than a layer's work
    { activations: Math.max(image.peak - image.kept, 0), gradients },
  ]
  const most = begin.reduce((a, b) => (b.activations + b.gradients > a.activations + a.gradients ? b : a))
  const states = optimizer.type === 'adamw' ? 2 : optimizer.momentum > 0 ? 1 : 0
  const parts = {
    weights: image.trainable + image.frozen + text.trainable + text.frozen,
    optimizer: states * gradients,
    averages: ema === null ? 0 : gradients,
    gradients: most.gradients,
    caches: image.caches + text.caches,
    activations: most.activations,
    batches: measured.batch(batchSize),
  }
  return { ...parts, total: Object.values(parts).reduce((sum, bytes) => sum + bytes, 0) }
}

/** The largest of ascending sizes for which something holds, where it holds for all below; 0 for none. */
function largest(limit: number, fits: (size: number) => boolean): number {
  let [low, high] = [0, 1]
  while (high <= limit && fits(high)) [low, high] = [high, high * 2]
  high = Math.min(high, limit + 1)
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (fits(middle)) low = middle
    else high = middle
  }
  return low
}

function suggest(measured: Measured, options: PlannedOptions, given: Shape, available: number): Suggestion[] {
  const { checkpointing: option, splits } = options
  const total = (shape: Shape) => stepMemory(measured, options, shape).total
  const found: Suggestion[] = []
  const add = (shape: Shape, why: string) => {
    if (shape.batchSize > 0 && shape.microBatch > 0) found.push({ ...shape, total: total(shape), why })
  }
  const whole = (checkpointing: boolean) =>
    largest(8192, (batchSize) => total({ batchSize, microBatch: batchSize, checkpointing }) <= available)
  const plain = whole(false)
  add({ batchSize: plain, microBatch: plain, checkpointing: false }, 'the largest batch in one piece')
  if (option !== null) {
    const again = whole(true)
    add({ batchSize: again, microBatch: again, checkpointing: true }, `the largest with ${option}, a third slower`)
  }
  if (plain >= given.batchSize || !splits) return found
  for (const checkpointing of option === null ? [false] : [false, true]) {
    const limit = largest(
      given.batchSize - 1,
      (each) => total({ batchSize: given.batchSize, microBatch: each, checkpointing }) <= available,
    )
    if (limit === 0) continue
    // parts of one size
    const microBatch = Math.ceil(given.batchSize / Math.ceil(given.batchSize / limit))
    const how = checkpointing ? ` with ${option}` : ''
    add({ ...given, microBatch, checkpointing }, `the batch as it is, accumulated in parts (microBatch)${how}`)
    break
  }
  return found
}
