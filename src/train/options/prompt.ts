import { z } from 'zod'
import { checkWarmup, count, data, labelling, optimizerWith, running, validationBy } from './shared.js'

/*
 * Options of prompt tuning. Defaults are the paper's (Du et al., MICCAI 2024, section 2.3) and the published command's.
 */

const promptOptions = z.strictObject({
  stage: z.literal('prompt'),
  /** A checkpoint of pre-training, or a model folder. */
  from: z.string().min(1),
  /** Default: what the checkpoint was trained on. Texts are read without the template that the context stands for. */
  data,
  /** Learned vectors before the labels' words. */
  contextLength: count.default(30),
  /** 'caption': from the words of "this is a chest x ray of a patient with ", over and over; 'random': N(0, 1). */
  init: z.enum(['caption', 'random']).default('caption'),
  /**
   * 'classification' (the paper): both encoders are frozen, the classes' scores against the label. 'contrastive' (the
   * published code): pre-training goes on, with the image encoder, on captions.
   */
  objective: z.enum(['classification', 'contrastive']).default('classification'),
  /** Of 'multi' each finding against its negation. */
  ...labelling,
  validation: validationBy('accuracy', 'auc'),
  /** Default: 72; for classification all images where a small part has fewer. */
  batchSize: count.optional(),
  /** Of the contrastive objective: images that go through the encoder at once. Default: the batch. */
  microBatch: count.optional(),
  steps: count.default(8_000),
  /** Its warm-up by default: 100 steps, or a quarter of a shorter run. */
  optimizer: optimizerWith({ type: 'sgd', lr: 1e-4, momentum: 0.9, weightDecay: 1e-3 }),
  /** Of the contrastive objective. */
  targets: z.enum(['identity', 'same-caption']).default('same-caption'),
  augment: z.boolean().default(true),
  ...running,
})

export const promptSchema = promptOptions.superRefine(checkWarmup)
export type PromptOptions = z.input<typeof promptSchema>
export type FullPromptOptions = z.output<typeof promptSchema>
