import type { Logger } from '../models/index.js'
import { mergeOptions } from './config-file.js'
import type { TrainEvent } from './events.js'
import { Job } from './job.js'
import { RunFiles } from './log/run-files.js'
import { describeIssues, type FullPretrainOptions, type PretrainOptions, pretrainSchema } from './options.js'
import { pretrain, type TrainResult } from './pretrain.js'
import { readRecipe } from './recipes.js'

/** The options of a recipe, and what goes over them. */
export interface RecipeOptions extends Partial<Omit<PretrainOptions, 'data' | 'out'>> {
  /** One of {@link listRecipes}. */
  recipe: string
  /** At least where it is. */
  data: { root: string } & Readonly<Record<string, unknown>>
  out: string
}

export type TrainOptions = PretrainOptions | RecipeOptions

/** What is not part of a run's configuration. */
export interface TrainContext {
  /** Stops the run at the next micro-batch, with a checkpoint to go on from. */
  signal?: AbortSignal
  /** Where models tell what they do not know. Default: the console. */
  logger?: Logger
}

/**
 * Trains. In the run's folder it leaves config.json (the options with their defaults, to run it again), events.jsonl, files
 * for TensorBoard in tensorboard/, and checkpoints/. What it returns can be awaited for the result, and iterated for its events while it runs.
 *
 * @example
 * const job = train({ stage: 'pretrain', data: { kind: 'chexpert', root }, image: 'dinov2_vitb14_reg', text: 'biomedlm', out: 'runs/a' })
 * for await (const event of job) if (event.type === 'step') console.log(event.step, event.loss)
 * const { checkpoint } = await job
 * @throws RangeError (when awaited or iterated) for options that do not fit, before anything is loaded
 */
export function train(options: TrainOptions, context: TrainContext = {}): Job<TrainEvent, TrainResult> {
  return new Job(async (emit) => {
    const full = parseOptions(options)
    context.signal?.throwIfAborted()
    const files = await RunFiles.prepare(full)
    const tell = (event: TrainEvent) => {
      files.write(event)
      emit(event)
    }
    return pretrain(full, { ...context, emit: tell }).finally(() => files.close())
  })
}

/** Options with their recipe's and their defaults. */
export function parseOptions(options: TrainOptions): FullPretrainOptions {
  const { recipe, ...own } = options as Partial<RecipeOptions>
  const parsed = pretrainSchema.safeParse(recipe === undefined ? own : mergeOptions(readRecipe(recipe).options, own))
  if (parsed.success) return parsed.data
  throw new RangeError(`train: expected options of a run, but ${describeIssues(parsed.error)}`)
}
