import { z } from 'zod'

/*
 * What a user says of a run of any stage, checked before anything is loaded. Rates are a step's.
 */

export const count = z.number().int().positive()
const seed = z.number().int().min(0)
/** Of parameter names, `*` standing for anything. */
export const patterns = z.array(z.string().min(1)).default([])

/** The published recipe's of pre-training; other stages have defaults of their own. */
export const optimizer = z.strictObject({
  type: z.enum(['adamw', 'sgd']).default('adamw'),
  lr: z.number().positive().default(4e-5),
  lrMin: z.number().min(0).default(1e-8),
  /** Default: a tenth of the steps, 4,000 at most; in prompt tuning a quarter, 100 at most. */
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

/** Options of the optimizer with other defaults than pre-training's. */
export const optimizerWith = (defaults: object) =>
  z.preprocess((value) => ({ ...defaults, ...(value as object | undefined) }), optimizer).prefault({})

/** Which split of the same data says how a run goes, and by which of its metrics a checkpoint is the best. null: none. */
export const validationBy = <const Others extends readonly string[]>(...others: Others) =>
  z
    .strictObject({
      split: z.enum(['train', 'valid', 'test']).default('valid'),
      metric: z.enum(['loss', ...others]).default('loss'),
      every: count.optional(),
      maximumImages: count.default(2_000),
    })
    .nullable()
    .prefault({})

/** What of the labels is learned, by the stages that learn them. */
export const labelling = {
  /** 'single': one class an image. 'multi': each finding by itself. Default: by the data. */
  labels: z.enum(['single', 'multi']).optional(),
  /** Of 'multi': which findings. Default: all of the data's. */
  findings: z.array(z.string()).min(1).optional(),
  /** Of 'multi': what uncertain and blank findings count as. */
  uncertain: z.enum(['exclude', 'negative', 'positive']).default('exclude'),
  blank: z.enum(['exclude', 'negative']).default('negative'),
}

/** Images of a step, as published. */
export const USUAL_BATCH = 72

export const data = z.looseObject({ kind: z.string(), root: z.string().min(1) })

export const running = {
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
  /**
   * Processes of this machine that train together; the batch is each one's. Default: those that torchrun or Slurm started,
   * else one.
   */
  processes: count.optional(),
  /** How long processes wait for one another, in seconds: then one has ended or hangs, and the run stops. */
  timeout: z.number().positive().default(600),
  /** Moving averages of what trains (and of batch statistics): the model that is validated, and that checkpoints hold. */
  ema: z
    .strictObject({ decay: z.number().min(0).lt(1) })
    .nullable()
    .default(null),
}

interface WarmupOptions {
  readonly stage: string
  readonly steps: number
  readonly optimizer: { readonly warmupSteps?: number | undefined; readonly warmupFraction?: number | undefined }
}

/** Refuses a warm-up that contradicts itself or is longer than the run. */
export function checkWarmup(
  { steps, optimizer: { warmupSteps, warmupFraction } }: WarmupOptions,
  context: z.RefinementCtx,
): void {
  const refuse = (message: string) => {
    context.addIssue({ code: 'custom', path: ['optimizer', 'warmupSteps'], message })
  }
  if (warmupSteps === undefined) return
  if (warmupFraction !== undefined) refuse('expected one of warmupSteps and warmupFraction, but received both')
  if (warmupSteps > steps) refuse(`expected the ${steps} steps of the run at most, but received ${warmupSteps}`)
}

/** Steps in which the rate rises. */
export function warmupOf({ stage, steps, optimizer }: WarmupOptions): number {
  const { warmupSteps, warmupFraction } = optimizer
  if (warmupFraction !== undefined) return Math.floor(warmupFraction * steps)
  if (warmupSteps !== undefined) return warmupSteps
  return stage === 'prompt' ? Math.min(100, Math.floor(steps / 4)) : Math.min(4000, Math.floor(steps / 10))
}

/** One sentence of what zod found. */
export function describeIssues(error: z.ZodError): string {
  return error.issues
    .slice(0, 5)
    .map(({ path, message }) => `${path.length === 0 ? 'the options' : path.join('.')}: ${message}`)
    .join('; ')
}
