import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { TRAINABLE } from '../clip/model-files.js'
import type { Logger } from '../models/index.js'
import { messageOf } from '../setup/errors.js'
import { sha256OfFile } from '../setup/files.js'
import * as torch from '../torch/index.js'
import { fineTuneTask, linearProbeTask } from './classify.js'
import { mergeOptions } from './config-file.js'
import type { TrainEvent } from './events.js'
import { inherited } from './inherited.js'
import { Job } from './job.js'
import { launchTraining } from './launch.js'
import { RunFiles } from './log/run-files.js'
import {
  describeIssues,
  type FineTuneOptions,
  type FullOptions,
  optionsSchema,
  type PretrainOptions,
  type ProbeOptions,
  type PromptOptions,
} from './options/index.js'
import { pretrainTask } from './pretrain.js'
import { promptTask } from './prompt.js'
import { readRecipe } from './recipes.js'
import { checkTogether, latestCheckpoint } from './resume.js'
import { Run, type RunContext, type TrainResult } from './run.js'
import type { Task, TaskBatch } from './task.js'

const { Processes, startsProcesses } = torch.distributed
type Processes = torch.distributed.Processes

/** The options of a recipe, and what goes over them. */
export interface RecipeOptions extends Partial<Omit<PretrainOptions, 'data' | 'out'>> {
  /** One of {@link listRecipes}. */
  recipe: string
  /** At least where it is. */
  data: { root: string } & Readonly<Record<string, unknown>>
  out: string
}

/** Without `data` and `out` a stage goes by the checkpoint that it begins with: its data, and a folder beside it in the run's. */
type Inheriting<Options extends { data: unknown; out: string }> = Omit<Options, 'data' | 'out'> &
  Partial<Pick<Options, 'out'>> & { data?: Partial<Options['data']> }

export type TrainOptions =
  | PretrainOptions
  | RecipeOptions
  | Inheriting<PromptOptions>
  | Inheriting<ProbeOptions>
  | Inheriting<FineTuneOptions>

/** What is not part of a run's configuration. */
export interface TrainContext {
  /** Stops the run at the next micro-batch, with a checkpoint to go on from; of several processes, all after the step. */
  signal?: AbortSignal
  /** Where models tell what they do not know. Default: the console. */
  logger?: Logger
}

/**
 * Trains, together with the other processes where torchrun or Slurm started several, or where `processes` asks for some of
 * this machine. In the run's folder it leaves config.json (the options with their defaults, to run it again), events.jsonl, files
 * for TensorBoard in tensorboard/, and checkpoints/. What it returns can be awaited for the result, and iterated for its events while it runs.
 *
 * @example
 * const job = train({ stage: 'pretrain', data: { kind: 'chexpert', root }, image: 'dinov2_vitb14_reg', text: 'biomedlm', out: 'runs/a' })
 * for await (const event of job) if (event.type === 'step') console.log(event.step, event.loss)
 * const { checkpoint } = await job
 * const tuned = await train({ stage: 'prompt', from: checkpoint, contextLength: 30 })
 * @throws RangeError (when awaited or iterated) for options that do not fit, before anything is loaded
 */
export function train(options: TrainOptions, context: TrainContext = {}): Job<TrainEvent, TrainResult> {
  return new Job(async (emit) => {
    const full = parseOptions(options)
    context.signal?.throwIfAborted()
    if (startsProcesses(full.processes)) {
      refuseStage(full, full.processes!)
      return await launchTraining(full, { ...context, emit })
    }
    const processes = await Processes.join({ device: full.device, timeout: 1000 * full.timeout })
    refuseStage(full, processes.size)
    // the others tell their events too, but nothing is written of them
    const files = processes.isFirst ? await RunFiles.prepare(full) : null
    const tell = (event: TrainEvent) => {
      files?.write(event)
      emit(event)
    }
    try {
      return await runStage(full, { ...context, beginning: await beginningOf(full), emit: tell, processes })
    } catch (error) {
      if (processes.size > 1) await processes.fail(messageOf(error))
      throw error
    } finally {
      files?.close()
    }
  })
}

/** @throws RangeError for several processes where features are computed once */
function refuseStage(options: FullOptions, size: number): void {
  const { stage } = options
  const isQuick = stage === 'linear-probe' || (stage === 'prompt' && options.objective === 'classification')
  if (size === 1 || !isQuick) return
  throw new RangeError(
    `processes: expected one for the stage '${stage}', but there are ${size}; it is quick, since it trains on features that are computed once: run it by itself`,
  )
}

async function runStage(options: FullOptions, context: RunContext & { processes: Processes }): Promise<TrainResult> {
  const { processes } = context
  const from = latestCheckpoint(options, context.beginning, processes.size)
  await checkTogether(options, from, processes)
  // of several processes each would stop in another place: the run stops them together
  const own = processes.size === 1 ? context : { ...context, signal: undefined }
  const task = (await taskOf(options, own, from)) as Task<TaskBatch>
  let run: Run<TaskBatch> | null = null
  try {
    run = new Run(task, options, context, from)
    return await run.train()
  } finally {
    await (run === null ? task.close() : run.close())
  }
}

/** SHA-256 of what the stage begins with. What is no checkpoint is told where it is read. */
async function beginningOf(options: FullOptions): Promise<string | null> {
  if (options.stage === 'pretrain') return null
  const path = join(options.from, TRAINABLE)
  return existsSync(path) ? await sha256OfFile(path) : null
}

async function taskOf(options: FullOptions, context: RunContext, from: string | null): Promise<unknown> {
  if (options.stage === 'pretrain') return pretrainTask(options, context, from)
  if (options.stage === 'linear-probe') return linearProbeTask(options, context, from)
  if (options.stage === 'fine-tune') return fineTuneTask(options, context, from)
  return promptTask(options, context, from)
}

/** Options with their recipe's, their checkpoint's and their defaults. */
export function parseOptions(options: TrainOptions): FullOptions {
  const { recipe, ...own } = options as Partial<RecipeOptions>
  const merged = recipe === undefined ? own : mergeOptions(readRecipe(recipe).options, own)
  const parsed = optionsSchema.safeParse(inherited(merged))
  if (parsed.success) return parsed.data
  throw new RangeError(`train: expected options of a run, but ${describeIssues(parsed.error)}`)
}
