import type { Logger } from '../models/index.js'
import { trainableParameters } from '../peft/index.js'
import { makeFolders } from '../setup/files.js'
import * as torch from '../torch/index.js'
import {
  checkpointFolder,
  checkpointSteps,
  type Progress,
  pruneCheckpoints,
  type RunState,
  readProgress,
  restoreState,
  saveCheckpoint,
} from './checkpoint.js'
import type { TrainEvent } from './events.js'
import { checkFirstGradients } from './first-step.js'
import { type FullOptions, warmupOf } from './options/index.js'
import { RandomStream } from './random-stream.js'
import { StepLog } from './step-log.js'
import type { Task, TaskBatch } from './task.js'

/** What a run ends with. */
export interface TrainResult {
  readonly stage: FullOptions['stage']
  readonly out: string
  /** The folder of the last checkpoint. */
  readonly checkpoint: string
  /** The folder of the best one, where the run was validated. */
  readonly best: string | null
  readonly steps: number
  readonly seconds: number
  /** Mean loss since the log before, and what validation found last. */
  readonly metrics: Readonly<Record<string, number>>
}

export interface RunContext {
  emit: (event: TrainEvent) => void
  signal?: AbortSignal | undefined
  logger?: Logger | undefined
  /** SHA-256 of the checkpoint that the run begins with (`from`); null where it begins with none. */
  beginning: string | null
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** The run around a stage: steps with their rates, validation, logs, checkpoints, stops. */
export class Run<Batch extends TaskBatch> {
  readonly #log: StepLog
  readonly #rate: torch.optim.Schedule
  readonly #state: RunState
  readonly #started = performance.now()
  #step = 0
  #best: Progress['best'] = null
  #metrics: Record<string, number> = {}
  #saved = -1
  #hasShown = false
  /** Where the data stood after the last whole step. */
  #batchState: unknown

  /**
   * @param task its resources are the run's
   * @param from the checkpoint that the run goes on from; the task's model is that of it
   */
  constructor(
    private readonly task: Task<Batch>,
    private readonly options: FullOptions,
    private readonly context: RunContext,
    from: string | null,
  ) {
    const { steps, optimizer, seed, precision, ema } = options
    const device = torch.deviceOf(options.device)
    this.#state = {
      task,
      optimizer: makeOptimizer(task, options),
      random: new RandomStream(seed + 1, device),
      scaler: precision === 'float16' ? new torch.optim.GradScaler() : null,
      ema: ema === null ? null : new torch.optim.ExponentialMovingAverage(task.model.parameters(), ema),
    }
    this.#log = new StepLog(steps, options.maxSkipped)
    const { lr, lrMin } = optimizer
    this.#rate = torch.optim.cosineWithWarmup({ lr, lrMin, warmupSteps: warmupOf(options), totalSteps: steps })
    this.#batchState = task.batches.state()
    if (from !== null) this.restore(from)
    this.tellStart(device)
  }

  private restore(folder: string): void {
    const { step, loader, skipped, best } = readProgress(folder)
    restoreState(folder, this.#state)
    this.task.batches.resume(loader)
    this.#batchState = this.task.batches.state()
    this.#step = step
    this.#log.skipped = skipped
    this.#best = best
    this.#saved = step
  }

  private tellStart(device: string): void {
    const { out, steps, stage } = this.options
    makeFolders(out)
    const { total, trainable } = trainableParameters(this.task.model)
    this.context.emit({
      type: 'start',
      stage,
      out,
      step: this.#step,
      steps,
      ...this.task.start,
      parameters: total,
      trainable,
      device,
      threads: torch.getNumThreads(),
      torch: torch.info().torchVersion,
    })
  }

  async train(): Promise<TrainResult> {
    const { steps, out, logEvery, validation, stage } = this.options
    const { checkpointEvery = Math.min(1000, Math.max(1, Math.ceil(steps / 20))) } = this.options
    const { task } = this
    const every = validation?.every ?? checkpointEvery
    try {
      while (this.#step < steps) {
        let asked = performance.now()
        for await (const batch of task.batches) {
          using _ = batch
          this.#log.wait(performance.now() - asked)
          if (!this.#hasShown && task.picture) this.context.emit(await task.picture(batch, this.#step))
          this.#hasShown = true
          await this.one(batch)
          const isLast = this.#step === steps
          if (this.#step % logEvery === 0 || isLast) this.readLog()
          if (task.validate !== null && (this.#step % every === 0 || isLast)) await this.validateNow(task.validate)
          if (this.#step % checkpointEvery === 0 || isLast) this.save()
          if (isLast) break
          asked = performance.now()
        }
      }
    } catch (error) {
      // a run that is stopped leaves where it stands; one that fails, where it last was right
      if (this.context.signal?.aborted && this.#step > this.#saved) {
        this.readLog()
        this.save()
      }
      throw error
    }
    return {
      stage,
      out,
      checkpoint: checkpointFolder(out, this.#saved),
      best: this.#best === null ? null : checkpointFolder(out, this.#best.step),
      steps,
      seconds: (performance.now() - this.#started) / 1000,
      metrics: this.#metrics,
    }
  }

  /** Lets signals, timers and iterations have their turn, and stops where that was asked for. */
  private readonly pause = async (): Promise<void> => {
    await turn()
    this.context.signal?.throwIfAborted()
  }

  private async one(batch: Batch): Promise<void> {
    const { optimizer, random, scaler, ema } = this.#state
    const { task } = this
    optimizer.zeroGrad()
    const outcome = await this.undoing(() =>
      task.step(batch, {
        random,
        pause: this.pause,
        ...(scaler && { scaleLoss: (each) => scaler.scale(each) }),
      }),
    )
    if (this.#step === 0) checkFirstGradients(task.model, { isScaled: scaler !== null })
    const lr = this.#rate(this.#step)
    for (const [index, group] of optimizer.paramGroups.entries()) group.lr = lr * task.groups[index]!.rateScale
    const { gradientNorm, skipped } = this.update()
    task.afterStep?.(this.#step, skipped)
    ema?.update()
    this.#step += 1
    this.#batchState = task.batches.state()
    const { epoch, samples } = batch
    this.#log.add({
      ...outcome,
      step: this.#step,
      epoch,
      gradientNorm,
      skipped,
      lr,
      images: samples.length,
      rows: samples.map(({ row }) => row),
    })
  }

  /** The optimizer's step, left out on the device where a gradient is not finite. */
  private update(): { gradientNorm: torch.Tensor; skipped: torch.Tensor } {
    const { optimizer, scaler } = this.#state
    const { clipNorm } = this.options.optimizer
    return torch.scope(() => {
      scaler?.unscale_(optimizer)
      const parameters = [...optimizer.parameters()]
      const gradientNorm = torch.noGrad(() =>
        clipNorm === null
          ? torch.optim.getTotalNorm(parameters.flatMap(({ grad }) => grad ?? []))
          : torch.optim.clipGradNorm_(parameters, clipNorm),
      )
      const skipped = torch.optim.stepIfFinite(optimizer)
      scaler?.update()
      return torch.keep({ gradientNorm, skipped })
    })
  }

  /** Runs what a stop may interrupt: random numbers and running statistics are then as before it. */
  private async undoing<Result>(work: () => Promise<Result>): Promise<Result> {
    const { random, task } = this.#state
    const states = random.state()
    const buffers = task.model.namedBuffers().map(([, buffer]) => [buffer, torch.noGrad(() => buffer.clone())] as const)
    try {
      return await work()
    } catch (error) {
      random.restore(states)
      torch.noGrad(() => {
        for (const [buffer, before] of buffers) buffer.copy_(before)
      })
      throw error
    } finally {
      torch.dispose([states, buffers.map(([, before]) => before)])
    }
  }

  private readLog(): void {
    if (this.#log.isEmpty) return
    const { skipped, event } = this.#log.read(this.task.logScale)
    for (const each of skipped) this.context.emit(each)
    if (event === null) return
    this.#metrics = { ...this.#metrics, trainLoss: event.loss, trainAccuracy: event.accuracy }
    this.context.emit(event)
  }

  private async validateNow(validate: NonNullable<Task['validate']>): Promise<void> {
    const { ema } = this.#state
    const { metric, better } = this.task.judgedBy
    ema?.store()
    ema?.copyTo()
    const metrics = await validate(this.pause).finally(() => ema?.restore())
    this.#metrics = { ...this.#metrics, ...metrics }
    const value = metrics[metric]!
    const before = this.#best?.value
    if (before === undefined || (better === 'lower' ? value < before : value > before)) {
      this.#best = { step: this.#step, value }
    }
    this.context.emit({ type: 'validation', step: this.#step, metrics })
    // the best is kept, so it must be there
    if (this.#best?.step === this.#step) this.save()
  }

  private save(): void {
    if (this.#saved === this.#step) return
    const { out, keep } = this.options
    const folder = saveCheckpoint(out, this.#state, {
      step: this.#step,
      options: this.options,
      beginning: this.context.beginning,
      loader: this.#batchState,
      skipped: this.#log.skipped,
      best: this.#best,
    })
    this.#saved = this.#step
    pruneCheckpoints(out, keep, this.#best?.step ?? null)
    this.context.emit({ type: 'checkpoint', step: this.#step, folder })
  }

  close(): Promise<void> {
    const { optimizer, random, scaler, ema } = this.#state
    optimizer.dispose()
    random[Symbol.dispose]()
    scaler?.dispose()
    ema?.dispose()
    return this.task.close()
  }
}

/** What a run may change when it goes on; everything else would be another run. */
const mayChange = new Set(['out', 'resume', 'logEvery', 'checkpointEvery', 'keep', 'workers', 'prepared', 'device'])

/**
 * The checkpoint that the run goes on from, or null for a new one.
 *
 * @param beginning SHA-256 of what the run begins with
 * @throws where there is none, it is another run's, or what the run began with has changed
 */
export function latestCheckpoint(options: FullOptions, beginning: string | null): string | null {
  const step = checkpointSteps(options.out).at(-1)
  if (!options.resume) {
    if (step === undefined) return null
    throw new Error(
      `out: expected a folder without a run, but '${options.out}' has one of ${step} steps; go on with it (resume: true), or choose another`,
    )
  }
  if (step === undefined) return null
  const folder = checkpointFolder(options.out, step)
  const progress = readProgress(folder)
  const before = progress.options as Record<string, unknown>
  const now = options as unknown as Record<string, unknown>
  const different = Object.keys(now).filter(
    (name) => !mayChange.has(name) && JSON.stringify(now[name]) !== JSON.stringify(before[name]),
  )
  if (different.length > 0) {
    throw new Error(
      `resume: expected the options that the run began with, but ${different.join(', ')} are others; leave them, or begin a new run in another folder`,
    )
  }
  if (progress.beginning !== beginning) {
    const { from } = options as { from?: string }
    throw new Error(
      `resume: expected the checkpoint that the run began with, but '${from}' was changed since; put it back, or begin a new run in another folder`,
    )
  }
  return folder
}

function makeOptimizer({ groups }: Pick<Task, 'groups'>, { optimizer }: FullOptions): RunState['optimizer'] {
  const { lr, betas, eps, momentum, type } = optimizer
  const plain = groups.map(({ params, weightDecay }) => ({ params, weightDecay }))
  if (type === 'sgd') return new torch.optim.SGD(plain, { lr, momentum })
  return new torch.optim.AdamW(plain, { lr, betas, eps })
}
