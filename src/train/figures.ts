import type { TextTower } from '../clip/text-tower.js'
import { Random } from '../data/index.js'
import { type ImageEncoder, planText, type TextEncoder } from '../models/index.js'
import * as torch from '../torch/index.js'
import { CaptionTokens } from './caption-tokens.js'
import type { FullPretrainOptions } from './options/index.js'
import type { Towers } from './towers.js'

/*
 * What a step costs, told once before the first. Operations are those of matrix products, convolutions and attention (a
 * multiplication with its addition counts as two); the rest is memory traffic. Memory is an estimate by the tensors that
 * are known to be kept: parameters and what the optimizer has of them exactly, activations by what goes into layers and comes out.
 */

interface Part {
  readonly parameters: number
  readonly trainable: number
}

/** Bytes. */
export interface MemoryPlan {
  readonly weights: number
  readonly gradients: number
  readonly optimizer: number
  /** Moving averages of what trains. */
  readonly averages: number
  /** What the images and texts of a (micro-)batch leave for the way back. */
  readonly activations: number
  /** Of a step and those that are made ready ahead. */
  readonly batches: number
  readonly total: number
}

export interface RunFigures {
  readonly image: Part
  readonly text: Part
  /** Both projections and the temperature. */
  readonly projections: Part
  /** Means over some batches of the data, a step. */
  readonly texts: {
    readonly distinct: number
    /** Tokens that the language model computes. */
    readonly tokens: number
    /** Those of the same texts, each padded to the longest of its batch. */
    readonly paddedTokens: number
    /** Those of the same texts, each padded to the maximal length. */
    readonly maximumTokens: number
  }
  /** Operations a step, forward and backward; what is frozen gets no gradient of its weights. */
  readonly flops: { readonly image: number; readonly text: number; readonly total: number }
  readonly memory: MemoryPlan
}

/** What a forward does. */
export interface Work {
  readonly forward: number
  /** The part of it in matrices that do not train. */
  readonly frozen: number
  /** Numbers that are kept for the way back. */
  readonly kept: number
}

/** Forward, the gradient of what came in, and that of the weights, but for frozen ones. */
const bothWays = ({ forward, frozen }: Work, trains: boolean): number => (trains ? 3 * forward - frozen : forward)

/** Batches whose texts are looked at. */
const BATCHES = 4

/** Batches that the loader holds at a time: the one in use and two ahead. */
const LOADED = 3

/** @param captions the samples'; with `negatives: 'corpus'` the distinct ones */
export async function runFigures(
  { model, tokenizer }: Towers,
  options: FullPretrainOptions,
  captions: readonly (string | null)[],
): Promise<RunFigures> {
  const tokens = new CaptionTokens(tokenizer, model.encoding.maximumLength!)
  const texts = await textWork(model, tokens, drawn(captions, options))
  const image = imageWork(model.image, options)
  const parts = { image: partOf(model.image), text: partOf(model.text!) }
  const whole = partOf(model)
  const { batchSize, microBatch = batchSize } = options
  const imageOnce = bothWays(image, parts.image.trainable > 0) * batchSize
  // a split batch goes through once more, without gradient; a checkpointed one, on its way back
  const again = (microBatch < batchSize ? 1 : 0) + (options.image.checkpointing ? 1 : 0)
  const imageFlops = imageOnce + (parts.image.trainable > 0 ? again * image.forward * batchSize : 0)
  const textTrains = parts.text.trainable > 0
  const textFlops =
    bothWays(texts.work, textTrains) + (textTrains && options.text.checkpointing ? texts.work.forward : 0)
  const activations =
    (parts.image.trainable > 0 ? image.kept * Math.min(microBatch, batchSize) : 0) + (textTrains ? texts.work.kept : 0)
  return {
    ...parts,
    projections: {
      parameters: whole.parameters - parts.image.parameters - parts.text.parameters,
      trainable: whole.trainable - parts.image.trainable - parts.text.trainable,
    },
    texts: texts.counts,
    flops: { image: imageFlops, text: textFlops, total: imageFlops + textFlops },
    memory: memoryPlan(model, activations, options),
  }
}

function partOf(module: torch.nn.Module): Part {
  let [parameters, trainable] = [0, 0]
  for (const [, parameter] of module.namedParameters()) {
    parameters += parameter.numel()
    if (parameter.requiresGrad) trainable += parameter.numel()
  }
  return { parameters, trainable }
}

/** Texts of some steps, as training might draw them; with `negatives: 'corpus'` a step has them all. */
function drawn(captions: readonly (string | null)[], options: FullPretrainOptions): string[][] {
  const { batchSize, seed, negatives } = options
  if (negatives === 'corpus') return [captions.map((each) => each ?? '')]
  const random = new Random(seed)
  return Array.from({ length: BATCHES }, () =>
    Array.from({ length: Math.min(batchSize, captions.length) }, () => captions[random.integer(captions.length)] ?? ''),
  )
}

async function textWork(
  model: TextTower,
  tokens: CaptionTokens,
  batches: readonly (readonly string[])[],
): Promise<{ work: Work; counts: RunFigures['texts'] }> {
  const text = model.text as TextEncoder
  const { matrices, frozen, kept } = matrixSizes(text)
  const isCheckpointed = text.running.checkpointing
  const sums = { distinct: 0, tokens: 0, paddedTokens: 0, maximumTokens: 0 }
  let pairs = 0
  for (const batch of batches) {
    const ids = await tokens.encode(batch)
    const plan = planText(text, ids, model.encoding)
    const padded = planText(text, ids, { ...model.encoding, execution: 'padded' })
    sums.distinct += new Set(batch).size
    sums.tokens += plan.rows * plan.length
    sums.paddedTokens += padded.rows * padded.length
    sums.maximumTokens += batch.length * model.encoding.maximumLength!
    pairs += plan.pairs
  }
  const mean = (sum: number): number => sum / batches.length
  // products of queries with keys, and of weights with values
  const attention = 4 * mean(pairs) * text.width * text.layerCount
  const each = mean(sums.tokens)
  // every layer's input, and the inside of one
  const keptEach = isCheckpointed ? kept / text.layerCount + text.layerCount * text.width : kept
  return {
    work: {
      forward: 2 * matrices * each + attention,
      frozen: 2 * frozen * each,
      kept: keptEach * each,
    },
    counts: {
      distinct: mean(sums.distinct),
      tokens: each,
      paddedTokens: mean(sums.paddedTokens),
      maximumTokens: mean(sums.maximumTokens),
    },
  }
}

/** Of the matrices that every token goes through: elements, those that do not train, and numbers that a token leaves. */
function matrixSizes(model: TextEncoder): { matrices: number; frozen: number; kept: number } {
  const sizes = { matrices: 0, frozen: 0, kept: 0 }
  for (const module of model.modules()) {
    if (module instanceof torch.nn.Embedding) continue
    for (const [name, parameter] of module.ownParameters()) {
      const [rows = 0, columns = 0] = parameter.shape
      // norms keep their input
      if (parameter.ndim === 1 && name === 'weight') sizes.kept += rows
      if (parameter.ndim !== 2) continue
      const elements = parameter.numel()
      sizes.matrices += elements
      // GPT-2 stores (in, out), others (out, in): as often as not the two are alike
      const [outputs, inputs] = module instanceof torch.nn.Linear ? [rows, columns] : [columns, rows]
      sizes.kept += outputs
      if (parameter.requiresGrad) sizes.kept += inputs
      else sizes.frozen += elements
    }
  }
  return sizes
}

const isBlock = (path: string): boolean => /(^|\.)(layers?|blocks|h)\.\d+$/.test(path)
const isInBlock = (path: string): boolean => /(^|\.)(layers?|blocks|h)\.\d+\./.test(path)
const isQuery = (path: string): boolean => /(^|\.)(query|q_proj)$/.test(path)

/** What one image does: counted in a forward of a black one. */
export function imageWork(
  encoder: ImageEncoder,
  options: { imageSize: number; image: { checkpointing: boolean } },
): Work {
  const work = { forward: 0, frozen: 0, kept: 0 }
  const blocks = { kept: 0, inputs: 0, count: 0 }
  const seen = new Set<torch.Tensor>()
  const keep = (path: string, tensor: torch.Tensor) => {
    if (seen.has(tensor)) return
    seen.add(tensor)
    work.kept += tensor.numel()
    if (isInBlock(path)) blocks.kept += tensor.numel()
  }
  const multiply = (flops: number, hasGradient: boolean) => {
    work.forward += flops
    if (!hasGradient) work.frozen += flops
  }
  const trains = encoder.parameters().some(({ requiresGrad }) => requiresGrad)
  const hooks = encoder.namedModules().map(([path, module]) =>
    module.registerForwardHook((_, inputs, output) => {
      const [input] = inputs as readonly unknown[]
      if (!(input instanceof torch.Tensor && output instanceof torch.Tensor)) return
      if (isBlock(path)) {
        blocks.inputs += input.numel()
        blocks.count += 1
      }
      if (module.namedChildren().length > 0) return
      const weight = module.ownParameters().find(([name]) => name === 'weight')?.[1]
      const isMatrix = weight !== undefined && weight.ndim >= 2
      // what came in, for the gradient of the weight; what goes out, for that of what follows
      if (!isMatrix || weight.requiresGrad) keep(path, input)
      if (weight !== undefined) keep(path, output)
      // each output is a product with a row of the weight
      if (isMatrix) multiply((2 * output.numel() * weight.numel()) / weight.size(0), weight.requiresGrad)
      // [B, T, D]: products with keys, and with values, of whose factors each gets a gradient
      if (isQuery(path)) multiply(4 * input.numel() * input.size(1), trains)
    }),
  )
  try {
    withoutTraining(encoder, () => {
      const device = encoder.parameters()[0]!.device as torch.Device
      const pixels = torch.zeros([1, encoder.channels, options.imageSize, options.imageSize], { device })
      encoder.forward(pixels, { generator: new torch.Generator(device), checkpoint: false })
    })
  } finally {
    for (const hook of hooks) hook.remove()
  }
  if (!options.image.checkpointing || blocks.count === 0) return work
  // every block's input, and the inside of one
  return { ...work, kept: work.kept - blocks.kept + blocks.inputs + blocks.kept / blocks.count }
}

/** A forward that changes no statistics and draws nothing, but for the patches that the encoder drops. */
function withoutTraining(encoder: ImageEncoder, forward: () => void): void {
  const before = [...encoder.modules()].map((module) => [module, module.training] as const)
  encoder.eval()
  encoder.training = true
  try {
    torch.scope(() => torch.noGrad(forward))
  } finally {
    for (const [module, training] of before) module.training = training
  }
}

function memoryPlan(model: torch.nn.Module, activations: number, options: FullPretrainOptions): MemoryPlan {
  const { optimizer, ema, batchSize, imageSize, precision } = options
  let [weights, gradients] = [0, 0]
  for (const tensor of model.stateDict().values()) weights += tensor.numel() * tensor.elementSize()
  for (const [, parameter] of model.namedParameters()) {
    if (parameter.requiresGrad) gradients += parameter.numel() * parameter.elementSize()
  }
  const states = optimizer.type === 'adamw' ? 2 : optimizer.momentum > 0 ? 1 : 0
  const plan = {
    weights,
    gradients,
    optimizer: states * gradients,
    averages: ema === null ? 0 : gradients,
    activations: activations * (precision === 'float32' ? 4 : 2),
    batches: LOADED * batchSize * 3 * imageSize ** 2 * 4,
  }
  return { ...plan, total: Object.values(plan).reduce((sum, bytes) => sum + bytes, 0) }
}

function scaled(value: number, units: readonly string[], step: number): string {
  let at = 0
  let left = value
  while (left >= step && at < units.length - 1) {
    left /= step
    at += 1
  }
  return `${left < 100 ? Number(left.toPrecision(3)) : Math.round(left)} ${units[at]}`
}

const operations = (value: number): string => scaled(value, ['FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP'], 1000)
const size = (bytes: number): string => scaled(bytes, ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'], 1024)
const whole = (value: number): string => Math.round(value).toLocaleString('en-US')

/** The figures in a few lines. */
export function describeFigures({ image, text, projections, texts, flops, memory }: RunFigures): string[] {
  const trains = [image, text, projections].reduce((sum, each) => sum + each.trainable, 0)
  const all = [image, text, projections].reduce((sum, each) => sum + each.parameters, 0)
  return [
    `trains ${whole(trains)} of ${whole(all)} parameters: image ${whole(image.trainable)}, text ${whole(text.trainable)}, projections ${whole(projections.trainable)}`,
    `a step: ${whole(texts.distinct)} distinct captions, ${whole(texts.tokens)} tokens of text (${whole(texts.paddedTokens)} padded to the longest, ${whole(texts.maximumTokens)} to the maximum), ${operations(flops.total)} (image ${operations(flops.image)}, text ${operations(flops.text)})`,
    `memory, an estimate: ${size(memory.total)} (weights ${size(memory.weights)}, gradients ${size(memory.gradients)}, optimizer ${size(memory.optimizer)}, averages ${size(memory.averages)}, activations ${size(memory.activations)}, batches ${size(memory.batches)})`,
  ]
}
