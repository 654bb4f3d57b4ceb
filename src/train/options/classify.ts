import { z } from 'zod'
import { checkWarmup, count, data, optimizer, patterns, running } from './shared.js'

/*
 * Options of the stages that put a linear layer to the classes in the projection's place: the linear probe (the encoder
 * is frozen) and fine-tuning (it is not). The feature is the pooled one before the projection, not normalised.
 */

const shared = {
  /** A checkpoint, or a model folder. */
  from: z.string().min(1),
  /** Default: what the checkpoint was trained on; `fraction` takes a part of it. */
  data,
  /** 'single': one class an image. 'multi': each finding by itself. Default: by the data. */
  labels: z.enum(['single', 'multi']).optional(),
  /** Of 'multi': which findings. Default: all of the data's. */
  findings: z.array(z.string()).min(1).optional(),
  /** Of 'multi': what uncertain and blank findings count as. */
  uncertain: z.enum(['exclude', 'negative', 'positive']).default('exclude'),
  blank: z.enum(['exclude', 'negative']).default('negative'),
  /** Which split of the same data says how it goes, and by which of its metrics a checkpoint is the best. null: none. */
  validation: z
    .strictObject({
      split: z.enum(['train', 'valid', 'test']).default('valid'),
      metric: z.enum(['loss', 'accuracy', 'auc']).default('loss'),
      every: count.optional(),
      maximumImages: count.default(2_000),
    })
    .nullable()
    .prefault({}),
  batchSize: count.default(72),
  ema: z
    .strictObject({ decay: z.number().min(0).lt(1) })
    .nullable()
    .default(null),
  ...running,
}

/** Options of the optimizer with other defaults than pre-training's. */
const withDefaults = (defaults: object) =>
  z.preprocess((value) => ({ ...defaults, ...(value as object | undefined) }), optimizer).prefault({})

const probeOptions = z.strictObject({
  stage: z.literal('linear-probe'),
  ...shared,
  steps: count.default(2_000),
  optimizer: withDefaults({ lr: 1e-3, weightDecay: 1e-3 }),
})

const fineTuneOptions = z.strictObject({
  stage: z.literal('fine-tune'),
  ...shared,
  /** Images that go through the encoder at once. Default: the batch. */
  microBatch: count.optional(),
  steps: count.default(4_000),
  optimizer: withDefaults({}),
  augment: z.boolean().default(true),
  /** Keep the blocks' inputs only, and compute them again for the gradient. */
  checkpointing: z.boolean().default(false),
  freeze: patterns,
  unfreeze: patterns,
})

export const probeSchema = probeOptions.superRefine(checkWarmup)
export const fineTuneSchema = fineTuneOptions.superRefine(checkWarmup)
export type ProbeOptions = z.input<typeof probeSchema>
export type FullProbeOptions = z.output<typeof probeSchema>
export type FineTuneOptions = z.input<typeof fineTuneSchema>
export type FullFineTuneOptions = z.output<typeof fineTuneSchema>
