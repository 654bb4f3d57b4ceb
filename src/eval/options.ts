import { z } from 'zod'
import type { DatasetSpec } from '../data/index.js'
import type { Logger } from '../models/index.js'
import type * as torch from '../torch/index.js'
import type { Ensemble } from './loaded-model.js'
import type { LabelRules } from './predictions.js'

/*
 * What a user says of an evaluation.
 */

/**
 * 'zero-shot': by the class prompts. 'retrieval': captions and images of the test set by one another, alone. The others: by
 * the head that such a stage trained.
 */
export const evaluationTasks = ['zero-shot', 'retrieval', 'linear-probe', 'fine-tune'] as const
export type EvaluationTask = (typeof evaluationTasks)[number]

export type EvaluationPart = 'thresholds' | 'test'

/** Label rules are of several labels. */
export interface EvaluateOptions extends LabelRules {
  /** A checkpoint, or a model folder. */
  from: string
  /** Default: what the checkpoint was trained for; 'zero-shot' of one with both towers. */
  task?: EvaluationTask
  /** The test set; where it says no split, its test part. */
  data: DatasetSpec
  /**
   * Where decision thresholds come from; its split is 'valid' where it says none. Default: the validation part of the same data, where it has one with labels.
   * null: nowhere.
   */
  validation?: DatasetSpec | null
  /** Of class prompts: one class an image, or each finding against its negation. Default: by the data. */
  labels?: 'single' | 'multi'
  /** Of class prompts. Default: 'mean-embedding'. */
  ensemble?: Ensemble
  /** A folder for report.html, metrics.json, predictions.csv and figures. Default: none is written. */
  report?: string
  /** Whether images may be in the report. Default: true. */
  images?: boolean
  /** Paths of images as they are in what is written, not hashed. Default: false. */
  plainPaths?: boolean
  /** In headings. Default: the checkpoint's folder. */
  name?: string
  /** A folder that `cleft prepare` made. Default: images are decoded. */
  prepared?: string
  workers?: number
  batchSize?: number
  /** Of the bootstrap. Default: 2,000. */
  resamples?: number
  seed?: number
  /** Processes of this machine that share the images. Default: those that torchrun or Slurm started, else one. */
  processes?: number
  /** How long processes wait for one another, in seconds. Default: 600. */
  timeout?: number
  /** Default: 'cpu'; 'auto': a GPU where there is one. */
  device?: torch.Device | 'auto'
  signal?: AbortSignal
  /** How many images are done, of all: of those that thresholds come from, and then of the test set. */
  onProgress?: (images: number, total: number, part: EvaluationPart) => void
  logger?: Logger
}

const count = z.number().int().positive()
const data = z.looseObject({ kind: z.string(), root: z.string() })
const known = z.strictObject({
  from: z.string().min(1),
  task: z.enum(evaluationTasks).optional(),
  data,
  validation: data.nullish(),
  labels: z.enum(['single', 'multi']).optional(),
  uncertain: z.enum(['exclude', 'negative', 'positive']).optional(),
  blank: z.enum(['exclude', 'negative']).optional(),
  ensemble: z.enum(['mean-embedding', 'mean-logit', 'max-logit']).optional(),
  report: z.string().optional(),
  images: z.boolean().optional(),
  plainPaths: z.boolean().optional(),
  name: z.string().optional(),
  prepared: z.string().optional(),
  workers: z.number().int().min(0).optional(),
  batchSize: count.optional(),
  resamples: count.optional(),
  seed: z.number().int().min(0).optional(),
  processes: count.optional(),
  timeout: z.number().positive().optional(),
  device: z.string().optional(),
  signal: z.unknown().optional(),
  onProgress: z.unknown().optional(),
  logger: z.unknown().optional(),
})

/** @throws RangeError for an option that is unknown, or not of its kind */
export function checkOptions(options: EvaluateOptions): void {
  const parsed = known.safeParse(options)
  if (parsed.success) return
  const [issue] = parsed.error.issues
  throw new RangeError(
    `evaluate: expected options that fit, but ${issue!.path.join('.') || 'the options'}: ${issue!.message}`,
  )
}

/** What reads a checkpoint: the class prompts, captions alone, or a head that was trained. */
export type Reading = 'prompts' | 'retrieval' | 'head'

const unused: Readonly<Record<Reading, readonly (keyof EvaluateOptions)[]>> = {
  prompts: [],
  retrieval: ['labels', 'ensemble', 'uncertain', 'blank', 'validation'],
  head: ['labels', 'ensemble'],
}
const words: Readonly<Record<Reading, string>> = {
  prompts: 'class prompts',
  retrieval: "the task 'retrieval', which decides nothing by classes",
  head: 'a checkpoint with a trained head, which has classes of its own and no prompts',
}

/** @throws RangeError for an option that what is evaluated does not use */
export function checkUsed(options: EvaluateOptions, reading: Reading, isMulti: boolean): void {
  const refuse = (names: readonly (keyof EvaluateOptions)[], what: string) => {
    const given = names.filter((name) => options[name] != null)
    if (given.length === 0) return
    throw new RangeError(`evaluate: expected no ${given.join(', ')} with ${what}; leave it out`)
  }
  refuse(unused[reading], words[reading])
  if (!isMulti) refuse(['uncertain', 'blank'], 'one class an image, which is never uncertain or blank')
}
