import { z } from 'zod'
import { checkWarmup, count, data, labelling, optimizerWith, patterns, running, validationBy } from './shared.js'

/*
 * Options of the stages that put a linear layer to the classes in the projection's place: the linear probe (the encoder
 * is frozen) and fine-tuning (it is not). The feature is the pooled one before the projection, not normalised.
 */

const shared = {
  /**
   * A checkpoint, or a model folder. Fine-tuning takes a linear probe of the same classes too, and begins with its layer.
   */
  from: z.string().min(1),
  /**
   * Default: what the checkpoint was trained on. `fraction` takes a part of its labelled images (the first of each class
   * among them), `balance` draws every class as often.
   */
  data,
  ...labelling,
  validation: validationBy('accuracy', 'auc'),
  /** Default: 72, or all images where a small part has fewer. */
  batchSize: count.optional(),
  ...running,
}

const probeOptions = z.strictObject({
  stage: z.literal('linear-probe'),
  ...shared,
  steps: count.default(2_000),
  optimizer: optimizerWith({ lr: 1e-3, weightDecay: 1e-3 }),
})

const fineTuneOptions = z.strictObject({
  stage: z.literal('fine-tune'),
  ...shared,
  /** Images that go through the encoder at once. Default: the batch. */
  microBatch: count.optional(),
  steps: count.default(4_000),
  optimizer: optimizerWith({}),
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
