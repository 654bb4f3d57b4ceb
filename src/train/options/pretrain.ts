import { z } from 'zod'
import { RESIZES } from '../../data/index.js'
import type { AdapterConfig } from '../../peft/index.js'
import { checkWarmup, count, data, optimizer, patterns, running, validationBy } from './shared.js'

/*
 * Options of pre-training. Defaults are the published recipe's (Du et al., MICCAI
 * 2024; github.com/XYPB/CLEFT), but where the method page names another. Lengths are in tokens, rates a step.
 */

/** Adapters, by peft's names in camel case. `alpha` of LoRA: updates are multiplied by alpha / r. */
const targets = { targetModules: z.union([z.string(), z.array(z.string())]).optional() }
export const peftSchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('lora'),
    r: count.default(8),
    alpha: z.number().positive().default(32),
    dropout: z.number().min(0).lt(1).default(0.1),
    rslora: z.boolean().default(false),
    dora: z.boolean().default(false),
    ...targets,
  }),
  z.strictObject({ type: z.literal('ia3'), feedforwardModules: z.array(z.string()).optional(), ...targets }),
  z.strictObject({ type: z.literal('prefix'), tokens: count.default(20), projection: z.boolean().default(false) }),
  z.strictObject({ type: z.literal('prompt'), tokens: count.default(20) }),
  z.strictObject({
    type: z.literal('adalora'),
    targetR: count.default(8),
    initR: count.default(12),
    tinit: z.number().int().min(0).default(500),
    tfinal: z.number().int().min(0).default(1500),
    alpha: z.number().positive().default(8),
    dropout: z.number().min(0).lt(1).default(0),
    ...targets,
  }),
])
export type PeftOptions = z.input<typeof peftSchema>

/** The adapter as src/peft has it. AdaLoRA plans its ranks over all steps. */
export function adapterConfig(options: z.output<typeof peftSchema>, steps: number): AdapterConfig {
  if (options.type === 'prefix') {
    return { kind: 'prefix', numVirtualTokens: options.tokens, prefixProjection: options.projection }
  }
  if (options.type === 'prompt') return { kind: 'prompt', numVirtualTokens: options.tokens }
  const { type, ...rest } = options
  if (type === 'adalora') return { kind: type, ...rest, totalStep: steps } as AdapterConfig
  return { kind: type, ...rest } as AdapterConfig
}

const projection = z.strictObject({
  kind: z.enum(['linear', 'mlp']).default('linear'),
  hiddenWidth: count.default(2048),
})

const configJson = z.record(z.string(), z.unknown())

const imageTower = z.strictObject({
  /** A preset, the hub's owner/name, a folder; or what config.json says, for a model from scratch. */
  model: z.union([z.string().min(1), configJson]),
  /** Start from the published weights. Default: true for a name, false for a config. */
  pretrained: z.boolean().optional(),
  pooling: z.enum(['mean-prenorm', 'cls', 'mean-patches', 'pooled']).default('mean-prenorm'),
  projection: projection.default({ kind: 'linear', hiddenWidth: 2048 }),
  /**
   * Of a plain ViT: a decoder of random weights behind it, whose patches are the features, as in the published CLIP-BERT
   * baseline. Use pooling 'mean-patches'. Default: null, none.
   */
  decoder: z
    .strictObject({ layers: count.default(2), heads: count.default(6) })
    .nullable()
    .default(null),
  /** The part of the patches that is dropped in training (FLIP). */
  maskRatio: z.number().min(0).lt(1).default(0),
  /** Keep the blocks' inputs only, and compute them again for the gradient. */
  checkpointing: z.boolean().default(false),
  /** Not trained at all. */
  frozen: z.boolean().default(false),
})

const textTower = z.strictObject({
  model: z.union([z.string().min(1), configJson]),
  pretrained: z.boolean().optional(),
  /** A folder with tokenizer.json, the file, or the name of the model whose tokenizer it is. Default: the model's. */
  tokenizer: z.string().optional(),
  /** Default: 'first-pad'; 'cls' for BERT. */
  pooling: z.enum(['first-pad', 'last-token', 'cls', 'mean']).optional(),
  projection: projection.default({ kind: 'linear', hiddenWidth: 2048 }),
  /** Default: by the data, as published (src/train/text-length.ts), or as many as the model has positions for beside virtual tokens. */
  maximumLength: count.optional(),
  /** Of BERT: the first layers alone. */
  layers: count.optional(),
  /** 'auto' takes the cheapest. */
  execution: z.enum(['auto', 'padded', 'packed', 'tree']).default('auto'),
  /** The frozen model's own dropout is on, as in the published code. */
  ownDropout: z.boolean().default(false),
  checkpointing: z.boolean().default(false),
})

const orName = <Schema extends z.ZodType>(schema: Schema) =>
  z.preprocess((value) => (typeof value === 'string' ? { model: value } : value), schema)

const pretrainOptions = z.strictObject({
  stage: z.literal('pretrain'),
  data,
  validation: validationBy('accuracy1', 'accuracy5'),
  image: orName(imageTower),
  text: orName(textTower),
  peft: peftSchema.nullable().default({ type: 'lora', r: 8, alpha: 32, dropout: 0.1, rslora: false, dora: false }),
  embeddingWidth: count.default(512),
  /** Of each process. */
  batchSize: count.default(72),
  /** Images that go through the encoder at once; the loss sees the whole batch. Default: the batch. */
  microBatch: count.optional(),
  steps: count.default(40_000),
  optimizer: optimizer.prefault({}),
  targets: z.enum(['identity', 'same-caption']).default('same-caption'),
  /**
   * What an image's caption competes with. 'local': the captions of this process' batch. 'global': those of all processes.
   * 'corpus': every distinct caption of the training set, at every step; an image still competes within the batch.
   */
  negatives: z.enum(['global', 'local', 'corpus']).default('global'),
  /** Of 'corpus': scores get + ln of the caption's share of the training set, so that frequent ones are not pushed away. */
  priors: z.boolean().default(false),
  /** Of 'corpus': distinct captions, above which it is refused. */
  maximumCaptions: count.default(4_000),
  augment: z.boolean().default(true),
  /** What of an image is stretched to the input: Otsu's box ('published'), cropped ('crop'), or all of it ('whole'). */
  resize: z.enum(RESIZES).default('published'),
  imageSize: count.default(224),
  /** Images are made at so many times that side, and averaged: the augmentation is coarse on small images. */
  oversample: count.max(8).default(1),
  freeze: patterns,
  unfreeze: patterns,
  /**
   * On a GPU: forward and backward are recorded as CUDA graphs, one for each of a few lengths to which texts are padded, and
   * replayed. It is for steps that are short beside the launching of their kernels: padded texts share nothing. Where it
   * cannot be done the run goes on without, and warns with the reason. Not yet tried on a GPU.
   */
  cudaGraph: z.boolean().default(false),
  ...running,
})

export const pretrainSchema = pretrainOptions.superRefine((options, context) => {
  checkWarmup(options, context)
  const { negatives, priors, peft, steps, image } = options
  const refuse = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message })
  if (priors && negatives !== 'corpus') {
    refuse(['priors'], `expected negatives: 'corpus', whose captions have shares, but received '${negatives}'`)
  }
  if (image.decoder !== null && !['mean-patches', 'pooled'].includes(image.pooling)) {
    refuse(
      ['image', 'pooling'],
      `expected 'mean-patches' with a decoder, whose they are, but received '${image.pooling}'`,
    )
  }
  if (image.decoder !== null && image.maskRatio > 0) {
    refuse(
      ['image', 'maskRatio'],
      `expected 0 with a decoder, which needs all patches, but received ${image.maskRatio}`,
    )
  }
  if (peft?.type === 'adalora' && peft.tinit + peft.tfinal >= steps) {
    refuse(
      ['peft', 'tinit'],
      `expected tinit + tfinal below the ${steps} steps of the run, so that ranks have time to shrink, but received ${peft.tinit} + ${peft.tfinal}`,
    )
  }
  if (peft?.type === 'adalora' && peft.targetR > peft.initR) {
    refuse(['peft', 'targetR'], `expected initR ${peft.initR} at most, but received ${peft.targetR}`)
  }
})

export type PretrainOptions = z.input<typeof pretrainSchema>
export type FullPretrainOptions = z.output<typeof pretrainSchema>
