import type { Logger } from '../models/index.js'
import { trainableParameters } from '../peft/index.js'
import { makeFolders } from '../setup/files.js'
import * as torch from '../torch/index.js'
import {
  checkpointFolder,
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
import { OutOfMemoryError, retryOutOfMemory } from './out-of-memory.js'
import { RandomStream, streamSeed } from './random-stream.js'
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
  /** Of several processes it stops all of them, after the same step. */
  signal?: AbortSignal | undefined
  logger?: Logger | undefined
  /** SHA-256 of the checkpoint that the run begins with (`from`); null where it begins with none. */
  beginning: string | null
  /** Those that train together. Default: this one. */
  processes?: Processes | undefined
}

const { Processes, StoppedError } = torch.distributed
type Processes = torch.distributed.Processes

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/**
 * The run around a stage: steps with their rates, validation, logs, checkpoints, stops.
 *
 * Several processes run the same steps on batches of their own: gradients become their mean while the last backward() of a
 * step runs, with which all parameters stay the same, and so does everything that is decided by them. The first one writes;
 * the checkpoint is of all.
 */
export class Run<Batch extends TaskBatch> {
  readonly #log: StepLog
  readonly #rate: torch.optim.Schedule
  readonly #state: RunState
  readonly #processes: Processes
  /** Made once the processes have the same parameters. */
  #gradients: torch.distributed.GradientMean | null = null
  readonly #started = performance.now()
  #step = 0
  #best: Progress['best'] = null
  #metrics: Record<string, number> = {}
  #saved = -1
  /** Some process was asked to stop. */
  #isStopping = false
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
    this.#processes = context.processes ?? Processes.alone
    const { rank } = this.#processes
    const device = this.#processes.deviceOf(options.device)
    this.#state = {
      task,
      optimizer: makeOptimizer(task, options),
      random: new RandomStream(streamSeed(seed, rank, from === null ? 0 : readProgress(from).step), device),
      scaler: precision === 'float16' ? new torch.optim.GradScaler() : null,
      ema: ema === null ? null : averagesOf(task.model, ema),
    }
    this.#log = new StepLog(steps, options.maxSkipped)
    const { lr, lrMin } = optimizer
    this.#rate = torch.optim.cosineWithWarmup({ lr, lrMin, warmupSteps: warmupOf(options), totalSteps: steps })
    this.#batchState = task.batches.state()
    if (from !== null) this.restore(from)
    this.tellStart(device)
  }

  private restore(folder: string): void {
    const { step, loader, skipped, best, processes } = readProgress(folder)
    const { rank, size } = this.#processes
    restoreState(folder, this.#state, rank)
    this.task.batches.resume(loader, { redivide: processes !== size })
    if (processes !== size && rank === 0) {
      this.context.emit({
        type: 'warning',
        message: `the run goes on with ${countOf(size)} after ${countOf(processes)}: at the same place in the data, but not with the same batches, and with other random numbers`,
      })
    }
    this.#batchState = this.task.batches.state()
    this.#step = step
    this.#log.skipped = skipped
    this.#best = best
    this.#saved = step
  }

  private tellStart(device: string): void {
    const { out, steps, stage } = this.options
    if (this.#processes.isFirst) makeFolders(out)
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
      processes: this.#processes.size,
      torch: torch.info().torchVersion,
    })
  }

  async train(): Promise<TrainResult> {
    const { steps, out, logEvery, validation, stage } = this.options
    const { checkpointEvery = Math.min(1000, Math.max(1, Math.ceil(steps / 20))) } = this.options
    const { task } = this
    const every = validation?.every ?? checkpointEvery
    try {
      await this.shareStart()
      while (this.#step < steps) {
        let asked = performance.now()
        for await (const batch of task.batches) {
          using _ = batch
          this.#log.wait(performance.now() - asked)
          if (!this.#hasShown && task.picture && this.#processes.isFirst)
            this.context.emit(await task.picture(batch, this.#step))
          this.#hasShown = true
          await this.one(batch)
          const isLast = this.#step === steps
          if (this.#step % logEvery === 0 || isLast) this.readLog()
          if (task.validate !== null && (this.#step % every === 0 || isLast)) await this.validateNow(task.validate)
          if (this.#step % checkpointEvery === 0 || isLast) await this.save()
          if (isLast) break
          if (this.#isStopping) {
            throw this.context.signal?.reason ?? new StoppedError('the run was stopped in another process')
          }
          asked = performance.now()
        }
      }
    } catch (error) {
      // a run that is stopped, or does not fit, leaves where it stands; one that fails, where it last was right
      const isStopped = this.#processes.size === 1 ? this.context.signal?.aborted : this.#isStopping
      if ((isStopped || error instanceof OutOfMemoryError) && this.#step > this.#saved) {
        this.readLog()
        await this.save()
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

  /** All processes begin with the first one's parameters, and with the same data. */
  private async shareStart(): Promise<void> {
    const { model, batches } = this.task
    const states = await this.#processes.gather(JSON.stringify([this.#step, batches.state()]))
    const other = states.findIndex((state) => state !== states[0])
    if (other >= 0) {
      throw new Error(
        `expected all processes to begin with the same data at the same place, but that of process 0 is ${states[0]} and that of process ${other} is ${states[other]}; give them the same folders`,
      )
    }
    const trained = model.parameters().filter(({ requiresGrad }) => requiresGrad)
    const averages = this.#state.ema?.stateDict().shadow_params ?? []
    await this.#processes.share([...trained, ...model.buffers(), ...averages])
    this.#gradients = this.#processes.gradientMean(
      model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad),
    )
  }

  /**
   * Lets signals, timers and iterations have their turn, and stops where that was asked for: one process at once, several
   * after the step, when they have told one another.
   */
  private readonly pause = async (): Promise<void> => {
    await turn()
    if (this.#processes.size === 1) this.context.signal?.throwIfAborted()
  }

  private async one(batch: Batch): Promise<void> {
    const { optimizer, random, scaler, ema } = this.#state
    const processes = this.#processes
    const { task } = this
    const gradients = this.#gradients!
    // the gradients of the first are looked at before they are others' too
    const isFirst = this.#step === 0
    optimizer.zeroGrad()
    const step = () =>
      this.undoing(() =>
        task.step(batch, {
          random,
          pause: this.pause,
          lastBackward: (output, gradient) =>
            isFirst ? output.backward(gradient) : gradients.backward(output, gradient),
          ...(scaler && { scaleLoss: (each) => scaler.scale(each) }),
        }),
      )
    // of several processes the others would wait for what this one does twice
    const outcome =
      processes.size > 1
        ? await step()
        : await retryOutOfMemory(step, () => optimizer.zeroGrad(), { model: task.model, optimizer })
    if (isFirst) {
      checkFirstGradients(task.model, { isScaled: scaler !== null })
      gradients.reduce()
    }
    await processes.average([outcome.loss])
    const lr = this.#rate(this.#step)
    for (const [index, group] of optimizer.paramGroups.entries()) group.lr = lr * task.groups[index]!.rateScale
    const { gradientNorm, skipped } = this.update()
    task.afterStep?.(this.#step, skipped)
    ema?.update()
    this.#step += 1
    this.#batchState = task.batches.state()
    const { epoch, samples } = batch
    const told = await processes.gather({
      rows: samples.map(({ row }) => row),
      isStopping: this.context.signal?.aborted === true,
    })
    this.#isStopping = told.some(({ isStopping }) => isStopping)
    const rows = told.flatMap((each) => each.rows)
    this.#log.add({
      ...outcome,
      step: this.#step,
      epoch,
      gradientNorm,
      skipped,
      lr,
      images: rows.length,
      rows,
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
    if (this.#best?.step === this.#step) await this.save()
  }

  /** The first process writes, and the others go on when all is there. */
  private async save(): Promise<void> {
    if (this.#saved === this.#step) return
    const { out, keep } = this.options
    const randoms = await this.randomStates()
    try {
      if (this.#processes.isFirst) {
        const progress = {
          step: this.#step,
          options: this.options,
          beginning: this.context.beginning,
          loader: this.#batchState,
          skipped: this.#log.skipped,
          processes: this.#processes.size,
          best: this.#best,
        }
        saveCheckpoint(out, this.#state, progress, randoms)
      }
    } finally {
      torch.dispose(randoms)
    }
    await this.#processes.meet()
    this.#saved = this.#step
    if (this.#processes.isFirst) pruneCheckpoints(out, keep, this.#best?.step ?? null)
    this.context.emit({ type: 'checkpoint', step: this.#step, folder: checkpointFolder(out, this.#step) })
  }

  /** Of each process the states of its stream. They are the caller's. */
  private async randomStates(): Promise<torch.Tensor[][]> {
    const own = this.#state.random.state()
    if (this.#processes.size === 1) return [own]
    const ranks: torch.Tensor[][] = Array.from({ length: this.#processes.size }, () => [])
    try {
      for (const state of own) {
        const row = torch.keep(torch.scope(() => state.unsqueeze(0)))
        using all = (await this.#processes.gatherRows(row))!
        row.dispose()
        for (const [rank, states] of ranks.entries()) {
          states.push(torch.keep(torch.scope(() => all.select(0, rank).clone())))
        }
      }
    } finally {
      torch.dispose(own)
    }
    return ranks
  }

  close(): Promise<void> {
    const { optimizer, random, scaler, ema } = this.#state
    optimizer.dispose()
    this.#gradients?.[Symbol.dispose]()
    random[Symbol.dispose]()
    scaler?.dispose()
    ema?.dispose()
    return this.task.close()
  }
}

const countOf = (processes: number): string => (processes === 1 ? 'one process' : `${processes} processes`)

/** What is frozen needs none. */
/** Of what trains, and of the statistics of batches that belong to it. */
function averagesOf(model: torch.nn.Module, { decay }: { decay: number }): torch.optim.ExponentialMovingAverage {
  const trained = model.parameters().filter(({ requiresGrad }) => requiresGrad)
  const statistics = model.namedBuffers().flatMap(([name, each]) => (/\brunning_(mean|var)$/.test(name) ? [each] : []))
  return new torch.optim.ExponentialMovingAverage([...trained, ...statistics], { decay })
}

function makeOptimizer({ groups }: Pick<Task, 'groups'>, { optimizer }: FullOptions): RunState['optimizer'] {
  const { lr, betas, eps, momentum, type } = optimizer
  const plain = groups.map(({ params, weightDecay }) => ({ params, weightDecay }))
  if (type === 'sgd') return new torch.optim.SGD(plain, { lr, momentum })
  return new torch.optim.AdamW(plain, { lr, betas, eps })
}
