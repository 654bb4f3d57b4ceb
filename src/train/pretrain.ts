import { mkdirSync } from 'node:fs'
import {
  type Batch,
  DataLoader,
  type DatasetSpec,
  DecoderPool,
  type LoaderState,
  openDataset,
  PreparedImages,
} from '../data/index.js'
import type { Logger } from '../models/index.js'
import { trainableParameters } from '../peft/index.js'
import * as torch from '../torch/index.js'
import { CaptionTokens } from './caption-tokens.js'
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
import { contrastiveStep } from './contrastive-step.js'
import type { TrainEvent } from './events.js'
import { runFigures } from './figures.js'
import { checkFirstGradients } from './first-step.js'
import { inputPicture } from './log/pictures.js'
import { type FullPretrainOptions, warmupOf } from './options.js'
import { parameterGroups, type RateGroup } from './parameter-groups.js'
import { RandomStream } from './random-stream.js'
import { StepLog } from './step-log.js'
import { buildTowers, resumeTowers, type Towers } from './towers.js'
import { validate } from './validate.js'

/** What a run ends with. */
export interface TrainResult {
  readonly stage: 'pretrain'
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

/** What the run is judged by: the validation split's loss. */
const JUDGED_BY = 'loss'

export interface RunContext {
  emit: (event: TrainEvent) => void
  signal?: AbortSignal | undefined
  logger?: Logger | undefined
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Contrastive pre-training of both towers (Du et al., MICCAI 2024, section 2). */
export async function pretrain(options: FullPretrainOptions, context: RunContext): Promise<TrainResult> {
  const run = await Pretraining.open(options, context)
  try {
    return await run.train()
  } finally {
    await run.close()
  }
}

function deviceOf(name: string): torch.Device {
  if (name !== 'auto') return name as torch.Device
  return torch.info().cudaAvailable ? 'cuda' : 'cpu'
}

class Pretraining {
  readonly #log: StepLog
  readonly #warmup: torch.optim.Schedule
  readonly #started = performance.now()
  #best: Progress['best'] = null
  #metrics: Record<string, number> = {}
  #saved = -1
  #hasShown = false
  /** Where the data stood after the last whole step. */
  #loaderState: LoaderState

  private constructor(
    private readonly options: FullPretrainOptions,
    private readonly context: RunContext,
    private readonly towers: Towers,
    private readonly state: RunState,
    private readonly groups: readonly RateGroup[],
    private readonly loader: DataLoader,
    private readonly validation: DataLoader | null,
    private readonly decoder: DecoderPool | undefined,
    private step: number,
  ) {
    const { steps, optimizer } = options
    const { lr, lrMin } = optimizer
    this.#loaderState = loader.state()
    this.#log = new StepLog(steps, options.maxSkipped)
    this.#warmup = torch.optim.cosineWithWarmup({ lr, lrMin, warmupSteps: warmupOf(options), totalSteps: steps })
  }

  static async open(options: FullPretrainOptions, context: RunContext): Promise<Pretraining> {
    const { out, data, batchSize, seed, imageSize, resize, augment } = options
    const device = deviceOf(options.device)
    const from = latestCheckpoint(options)
    const spec = { maxProblems: options.maxProblems, ...data } as unknown as DatasetSpec
    const dataset = await openDataset(spec)
    const decoder = options.prepared === undefined ? new DecoderPool({ workers: options.workers }) : undefined
    const shared = {
      ...(decoder === undefined ? { prepared: PreparedImages.open(options.prepared!) } : { decoder }),
      batchSize,
      seed,
      resize,
      size: imageSize,
      channels: 3 as const,
      device,
      maxProblems: options.maxProblems,
      signal: context.signal,
    }
    const loader = new DataLoader(dataset, { ...shared, training: true, augment })
    const validation = options.validation === null ? null : await validationLoader(spec, shared, context)
    mkdirSync(out, { recursive: true })
    const towers = await (from === null
      ? seeded(seed, () => buildTowers(options, device, context.logger))
      : resumeTowers(from, options, device, context.logger))
    const groups = parameterGroups(towers.model, options.optimizer)
    const state: RunState = {
      model: towers.model,
      optimizer: makeOptimizer(groups, options),
      random: new RandomStream(seed + 1, device),
      scaler: options.precision === 'float16' ? new torch.optim.GradScaler() : null,
      ema:
        options.ema === null ? null : new torch.optim.ExponentialMovingAverage(towers.model.parameters(), options.ema),
    }
    const run = new Pretraining(options, context, towers, state, groups, loader, validation, decoder, 0)
    if (from !== null) run.restore(from)
    const { total, trainable } = trainableParameters(towers.model)
    context.emit({
      type: 'start',
      out,
      step: run.step,
      steps: options.steps,
      images: dataset.samples.length,
      captions: new Set(dataset.samples.map(({ caption }) => caption)).size,
      parameters: total,
      trainable,
      figures: await runFigures(
        towers,
        options,
        dataset.samples.map(({ caption }) => caption),
      ),
      device,
      threads: torch.getNumThreads(),
      torch: torch.info().torchVersion,
    })
    return run
  }

  private restore(folder: string): void {
    const { step, loader, skipped, best } = readProgress(folder)
    restoreState(folder, this.state)
    this.loader.resume(loader as LoaderState)
    this.#loaderState = this.loader.state()
    this.step = step
    this.#log.skipped = skipped
    this.#best = best
    this.#saved = step
  }

  async train(): Promise<TrainResult> {
    const { steps, out, logEvery, validation } = this.options
    const { checkpointEvery = Math.min(1000, Math.max(1, Math.ceil(steps / 20))) } = this.options
    const tokens = new CaptionTokens(this.towers.tokenizer, this.state.model.encoding.maximumLength!)
    const every = validation?.every ?? checkpointEvery
    try {
      while (this.step < steps) {
        let asked = performance.now()
        for await (const batch of this.loader) {
          using _ = batch
          this.#log.wait(performance.now() - asked)
          if (!this.#hasShown) this.context.emit(await inputPicture(batch, this.step))
          this.#hasShown = true
          await this.one(batch, tokens)
          const isLast = this.step === steps
          if (this.step % logEvery === 0 || isLast) this.readLog()
          if (this.validation !== null && (this.step % every === 0 || isLast)) await this.validateNow(tokens)
          if (this.step % checkpointEvery === 0 || isLast) this.save()
          if (isLast) break
          asked = performance.now()
        }
      }
    } catch (error) {
      // a run that is stopped leaves where it stands; one that fails, where it last was right
      if (this.context.signal?.aborted && this.step > this.#saved) {
        this.readLog()
        this.save()
      }
      throw error
    }
    return {
      stage: 'pretrain',
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

  private async one(batch: Batch, tokens: CaptionTokens): Promise<void> {
    const { model, optimizer, random, scaler, ema } = this.state
    const { microBatch, precision, targets, optimizer: settings } = this.options
    const captions = batch.captions.map((each) => each ?? '')
    const texts = await tokens.encode(captions)
    optimizer.zeroGrad()
    const { loss, scores } = await this.undoing(() =>
      contrastiveStep(
        model,
        { pixels: batch.pixels, texts, targets, captions },
        {
          random,
          microBatch,
          precision,
          pause: this.pause,
          ...(scaler && { scaleLoss: (each) => scaler.scale(each) }),
        },
      ),
    )
    if (this.step === 0) checkFirstGradients(model)
    const lr = this.#warmup(this.step)
    for (const [index, group] of optimizer.paramGroups.entries()) group.lr = lr * this.groups[index]!.rateScale
    const { gradientNorm, skipped } = torch.scope(() => {
      scaler?.unscale_(optimizer)
      const parameters = [...optimizer.parameters()]
      const norm = torch.noGrad(() =>
        settings.clipNorm === null
          ? torch.optim.getTotalNorm(parameters.flatMap(({ grad }) => grad ?? []))
          : torch.optim.clipGradNorm_(parameters, settings.clipNorm),
      )
      const found = torch.optim.stepIfFinite(optimizer)
      scaler?.update()
      return torch.keep({ gradientNorm: norm, skipped: found })
    })
    model.clampLogScale()
    ema?.update()
    this.step += 1
    this.#loaderState = this.loader.state()
    const { epoch, samples } = batch
    const record = { step: this.step, epoch, loss, scores, targets: { targets, captions }, gradientNorm, skipped, lr }
    this.#log.add({ ...record, images: samples.length, rows: samples.map(({ row }) => row) })
  }

  /** Runs what a stop may interrupt: random numbers and running statistics are then as before it. */
  private async undoing<Result>(work: () => Promise<Result>): Promise<Result> {
    const { model, random } = this.state
    const states = random.state()
    const buffers = model.namedBuffers().map(([, buffer]) => [buffer, torch.noGrad(() => buffer.clone())] as const)
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
    const { skipped, event } = this.#log.read(this.state.model.logit_scale)
    for (const each of skipped) this.context.emit(each)
    if (event === null) return
    this.#metrics = { ...this.#metrics, trainLoss: event.loss, trainAccuracy: event.accuracy }
    this.context.emit(event)
  }

  private async validateNow(tokens: CaptionTokens): Promise<void> {
    const { targets, validation } = this.options
    const { model, ema } = this.state
    const maximumImages = validation!.maximumImages
    const work = () => validate(model, this.validation!, tokens, { targets, maximumImages, pause: this.pause })
    ema?.store()
    ema?.copyTo()
    const metrics = await work().finally(() => ema?.restore())
    this.#metrics = { ...this.#metrics, ...metrics }
    const value = metrics[JUDGED_BY]!
    if (this.#best === null || value < this.#best.value) this.#best = { step: this.step, value }
    this.context.emit({ type: 'validation', step: this.step, metrics })
    // the best is kept, so it must be there
    if (this.#best.step === this.step) this.save()
  }

  private save(): void {
    if (this.#saved === this.step) return
    const { out, keep } = this.options
    const folder = saveCheckpoint(
      out,
      this.state,
      {
        step: this.step,
        options: this.options,
        loader: this.#loaderState,
        skipped: this.#log.skipped,
        best: this.#best,
      },
      this.towers.files,
    )
    this.#saved = this.step
    pruneCheckpoints(out, keep, this.#best?.step ?? null)
    this.context.emit({ type: 'checkpoint', step: this.step, folder })
  }

  async close(): Promise<void> {
    await this.decoder?.close()
    const { model, optimizer, random, scaler, ema } = this.state
    optimizer.dispose()
    random[Symbol.dispose]()
    scaler?.dispose()
    ema?.dispose()
    model.dispose()
  }
}

/** Rates that a checkpoint does not depend on may change; everything else would be another run. */
const mayChange = new Set(['out', 'resume', 'logEvery', 'checkpointEvery', 'keep', 'workers', 'prepared', 'device'])

/** The checkpoint that the run goes on from, or null for a new one. @throws where there is none, or it is another run's */
function latestCheckpoint(options: FullPretrainOptions): string | null {
  const step = checkpointSteps(options.out).at(-1)
  if (!options.resume) {
    if (step === undefined) return null
    throw new Error(
      `out: expected a folder without a run, but '${options.out}' has one of ${step} steps; go on with it (resume: true), or choose another`,
    )
  }
  if (step === undefined) return null
  const folder = checkpointFolder(options.out, step)
  const before = readProgress(folder).options as Record<string, unknown>
  const now = options as unknown as Record<string, unknown>
  const different = Object.keys(now).filter(
    (name) => !mayChange.has(name) && JSON.stringify(now[name]) !== JSON.stringify(before[name]),
  )
  if (different.length > 0) {
    throw new Error(
      `resume: expected the options that the run began with, but ${different.join(', ')} are others; leave them, or begin a new run in another folder`,
    )
  }
  return folder
}

function makeOptimizer(
  groups: readonly RateGroup[],
  { optimizer: settings }: FullPretrainOptions,
): RunState['optimizer'] {
  const { lr, betas, eps, momentum, type } = settings
  const plain = groups.map(({ params, weightDecay }) => ({ params, weightDecay }))
  if (type === 'sgd') return new torch.optim.SGD(plain, { lr, momentum })
  return new torch.optim.AdamW(plain, { lr, betas, eps })
}

/** The data set's own validation part. Null where it has none, with a warning. */
async function validationLoader(
  spec: DatasetSpec,
  shared: Omit<ConstructorParameters<typeof DataLoader>[1], 'training'>,
  { emit }: RunContext,
): Promise<DataLoader | null> {
  try {
    const dataset = await openDataset({ ...spec, split: 'valid', fraction: 1 } as DatasetSpec)
    return new DataLoader(dataset, {
      ...shared,
      batchSize: Math.min(shared.batchSize, dataset.samples.length),
      training: false,
    })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    emit({ type: 'warning', message: `the run is not validated: ${reason}` })
    return null
  }
}

/** Runs asynchronous work that draws from the default generators, which are then as they were. */
async function seeded<Result>(seed: number, work: () => Promise<Result>): Promise<Result> {
  const before = torch.keep(torch.getRngState())
  torch.manualSeed(seed)
  try {
    return await work()
  } finally {
    torch.setRngState(before)
    before.dispose()
  }
}
