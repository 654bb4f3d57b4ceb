import { z } from 'zod'
import type { AdapterConfig } from '../peft/index.js'

/*
 * What a user says of a run, checked before anything is loaded. Defaults are the published recipe's (Du et al., MICCAI
 * 2024; github.com/XYPB/CLEFT), but where the method page names another. Lengths are in tokens, rates a step.
 */

const count = z.number().int().positive()
const seed = z.number().int().min(0)
const patterns = z.array(z.string().min(1)).default([])

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
  /** A folder with tokenizer.json, or the file. Default: the model's. */
  tokenizer: z.string().optional(),
  /** Default: 'first-pad'; 'cls' for BERT. */
  pooling: z.enum(['first-pad', 'last-token', 'cls', 'mean']).optional(),
  projection: projection.default({ kind: 'linear', hiddenWidth: 2048 }),
  /** Default: 64, or as many as the model has positions for beside virtual tokens. */
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

const optimizer = z.strictObject({
  type: z.enum(['adamw', 'sgd']).default('adamw'),
  lr: z.number().positive().default(4e-5),
  lrMin: z.number().min(0).default(1e-8),
  /** Default: a tenth of the steps, 4,000 at most. */
  warmupSteps: z.number().int().min(0).optional(),
  /** The part of the steps, in place of warmupSteps. */
  warmupFraction: z.number().min(0).max(1).optional(),
  /** Of matrices; vectors and scalars do not decay. */
  weightDecay: z.number().min(0).default(0.1),
  betas: z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)]).default([0.9, 0.999]),
  eps: z.number().positive().default(1e-8),
  momentum: z.number().min(0).lt(1).default(0.9),
  /** Gradients are scaled down to this norm. Default: never. */
  clipNorm: z.number().positive().nullable().default(null),
  /** The rates of the image encoder's layers fall by this factor from its end to its beginning. */
  layerDecay: z.number().positive().max(1).default(1),
})

const data = z.looseObject({ kind: z.string(), root: z.string().min(1) })

const running = {
  /** Folder of the run: configuration, logs, checkpoints. */
  out: z.string().min(1),
  seed: seed.default(0),
  device: z.string().default('auto'),
  precision: z.enum(['float32', 'bfloat16', 'float16']).default('float32'),
  /** Read and write checkpoints from where the folder stands. */
  resume: z.boolean().default(false),
  logEvery: count.default(10),
  /** Default: a twentieth of the steps, 1,000 at most. */
  checkpointEvery: count.optional(),
  /** Latest checkpoints that stay. */
  keep: count.default(2),
  /** Steps in a row with a gradient that is not finite, after which the run stops. */
  maxSkipped: count.default(10),
  /** The fraction of the images that may be unreadable. */
  maxProblems: z.number().min(0).max(1).default(0.01),
  /** Threads that read images. Default: one a core. */
  workers: z.number().int().min(0).optional(),
  /** A folder that `cleft prepare` made. */
  prepared: z.string().optional(),
}

const pretrainOptions = z.strictObject({
  stage: z.literal('pretrain'),
  data,
  /** Which split says how it goes: 'valid' of the same data. null: none. */
  validation: z
    .strictObject({ every: count.optional(), maximumImages: count.default(2_000) })
    .nullable()
    .default({ maximumImages: 2_000 }),
  image: orName(imageTower),
  text: orName(textTower),
  peft: peftSchema.nullable().default({ type: 'lora', r: 8, alpha: 32, dropout: 0.1, rslora: false, dora: false }),
  embeddingWidth: count.default(512),
  batchSize: count.default(72),
  /** Images that go through the encoder at once; the loss sees the whole batch. Default: the batch. */
  microBatch: count.optional(),
  steps: count.default(40_000),
  optimizer: optimizer.prefault({}),
  targets: z.enum(['identity', 'same-caption']).default('same-caption'),
  augment: z.boolean().default(true),
  resize: z.enum(['published', 'crop']).default('published'),
  imageSize: count.default(224),
  ema: z
    .strictObject({ decay: z.number().min(0).lt(1) })
    .nullable()
    .default(null),
  freeze: patterns,
  unfreeze: patterns,
  ...running,
})

export const pretrainSchema = pretrainOptions.superRefine(
  ({ steps, optimizer: { warmupSteps, warmupFraction } }, context) => {
    const refuse = (message: string) => {
      context.addIssue({ code: 'custom', path: ['optimizer', 'warmupSteps'], message })
    }
    if (warmupSteps === undefined) return
    if (warmupFraction !== undefined) refuse('expected one of warmupSteps and warmupFraction, but received both')
    if (warmupSteps > steps) refuse(`expected the ${steps} steps of the run at most, but received ${warmupSteps}`)
  },
)

/** Steps in which the rate rises. */
export function warmupOf({ steps, optimizer }: Pick<FullPretrainOptions, 'steps' | 'optimizer'>): number {
  const { warmupSteps, warmupFraction } = optimizer
  if (warmupFraction !== undefined) return Math.floor(warmupFraction * steps)
  return warmupSteps ?? Math.min(4000, Math.floor(steps / 10))
}

export type PretrainOptions = z.input<typeof pretrainSchema>
export type FullPretrainOptions = z.output<typeof pretrainSchema>

/** One sentence of what zod found. */
export function describeIssues(error: z.ZodError): string {
  return error.issues
    .slice(0, 5)
    .map(({ path, message }) => `${path.length === 0 ? 'the options' : path.join('.')}: ${message}`)
    .join('; ')
}
