import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { readJsonObject, writeJson } from '../models/index.js'
import * as torch from '../torch/index.js'
import type { RandomStream } from './random-stream.js'
import type { Task } from './task.js'

/*
 * Checkpoints of a run: OUT/checkpoints/step-00000100/. Each is a model folder (config.json, trainable.safetensors,
 * tokenizer.json) and what it takes to go on exactly: training.json and optimizer.safetensors. It is written beside and
 * renamed, so that what has the name is whole; the last good one is never touched before the next one is.
 */

export const TRAINING = 'training.json'
const OPTIMIZER = 'optimizer.safetensors'
const FORMAT = 'cleft-checkpoint'
const PART = '.part'

type AnyOptimizer = torch.optim.AdamW | torch.optim.SGD

/** Everything of a run that changes. */
export interface RunState {
  task: Pick<Task, 'model' | 'saveModel' | 'extra'>
  optimizer: AnyOptimizer
  random: RandomStream
  scaler: torch.optim.GradScaler | null
  ema: torch.optim.ExponentialMovingAverage | null
}

/** What training.json has beside the state of tensors. */
export interface Progress {
  /** Steps done. */
  step: number
  /** The options of the run, with their defaults. */
  options: unknown
  /** SHA-256 of the checkpoint that it began with (`from`); null of a run that began with none. */
  beginning: string | null
  /** Where the loader goes on. */
  loader: unknown
  /** Steps left out so far for a gradient that was not finite. */
  skipped: number
  /** How many trained together. */
  processes: number
  /** The best value so far of what the run is judged by, and its step. */
  best: { step: number; value: number } | null
}

interface TrainingFile extends Progress {
  format: string
  version: 1
  optimizer: { groups: unknown[]; numbers: Record<string, number> }
  scaler: unknown
  emaUpdates: number | null
  /** Of the stage. */
  extra: unknown
}

export const checkpointName = (step: number): string => `step-${String(step).padStart(8, '0')}`
export const checkpointFolder = (out: string, step: number): string => join(out, 'checkpoints', checkpointName(step))

/** Steps of the whole checkpoints of a run, the latest last. */
export function checkpointSteps(out: string): number[] {
  const folder = join(out, 'checkpoints')
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .flatMap((name) => {
      const step = /^step-(\d+)$/.exec(name)?.[1]
      return step !== undefined && existsSync(join(folder, name, TRAINING)) ? [Number(step)] : []
    })
    .sort((a, b) => a - b)
}

/** Names of the random states of a process. The first one's are those of a run with one process. */
const randomPrefix = (rank: number): string => (rank === 0 ? 'random' : `random-of-${rank}`)

/**
 * Writes a checkpoint and gives its folder.
 *
 * @param randoms of each process, what its stream's state() gave
 * @throws where it cannot be written (a full disk, a folder that is read-only): what was there stays whole
 */
export function saveCheckpoint(
  out: string,
  state: RunState,
  progress: Progress,
  randoms: readonly (readonly torch.Tensor[])[],
): string {
  const folder = checkpointFolder(out, progress.step)
  const part = `${folder}${PART}`
  try {
    rmSync(part, { recursive: true, force: true })
    mkdirSync(part, { recursive: true })
    torch.scope(() => {
      const { tensors, numbers, groups } = optimizerTensors(state.optimizer)
      const { ema } = state
      if (ema === null) state.task.saveModel(part)
      else {
        // the model is the one that was validated; training goes on from what was averaged
        ema.averaged(() => {
          state.task.saveModel(part)
          for (const [index, each] of (ema.stateDict().collected_params ?? []).entries())
            tensors.set(`trained.${index}`, each.clone())
        })
      }
      for (const [rank, states] of randoms.entries()) {
        for (const [index, each] of states.entries()) tensors.set(`${randomPrefix(rank)}.${index}`, each)
      }
      const extra = state.task.extra?.state()
      // a stage with more than its model may save less of that than is averaged
      if (extra !== undefined)
        for (const [index, each] of (ema?.averages ?? []).entries()) tensors.set(`ema.${index}`, each)
      for (const [name, tensor] of extra?.tensors ?? []) tensors.set(`extra.${name}`, tensor)
      torch.saveSafetensors(tensors, join(part, OPTIMIZER))
      const file: TrainingFile = {
        format: FORMAT,
        version: 1,
        ...progress,
        optimizer: { groups, numbers },
        scaler: state.scaler?.stateDict() ?? null,
        emaUpdates: ema?.numUpdates ?? null,
        extra: extra?.json ?? null,
      }
      writeJson(join(part, TRAINING), file)
    })
    rmSync(folder, { recursive: true, force: true })
    renameSync(part, folder)
  } catch (error) {
    rmSync(part, { recursive: true, force: true })
    throw error
  }
  return folder
}

/** Moments and the like by the parameters' numbers: tensors for the one file, numbers for the other. */
function optimizerTensors(optimizer: AnyOptimizer) {
  const { state, param_groups: groups } = optimizer.stateDict()
  const tensors = new Map<string, torch.Tensor>()
  const numbers: Record<string, number> = {}
  for (const [index, values] of state) {
    for (const [name, value] of Object.entries(values)) {
      if (typeof value === 'number') numbers[`${index}.${name}`] = value
      else if (value !== undefined) tensors.set(`state.${index}.${name}`, value)
    }
  }
  return { tensors, numbers, groups }
}

/** What training.json of a checkpoint says. @throws where it is none of ours */
export function readProgress(folder: string): Progress {
  const path = join(folder, TRAINING)
  const file = readJsonObject(path) as unknown as TrainingFile
  if (file.format !== FORMAT || file.version !== 1 || !Number.isSafeInteger(file.step)) {
    throw new TypeError(
      `expected '${path}' to be of a checkpoint of ours, version 1, but it is not; give another folder`,
    )
  }
  const { step, options, beginning, loader, skipped, best, processes = 1 } = file
  return { step, options, beginning, loader, skipped, best, processes }
}

/**
 * Puts optimizer, random numbers, scaler and averages where a checkpoint has them. The model is read by loadModel. A process
 * more than there were keeps its random numbers.
 *
 * @throws where they are of another model or optimizer
 */
export function restoreState(folder: string, { task, optimizer, random, scaler, ema }: RunState, rank: number): void {
  const file = readJsonObject(join(folder, TRAINING)) as unknown as TrainingFile
  using tensors = torch.openSafetensors(join(folder, OPTIMIZER))
  torch.scope(() => {
    const state = new Map<number, Record<string, torch.Tensor | number>>()
    const put = (index: string, name: string, value: torch.Tensor | number) => {
      state.set(Number(index), { ...state.get(Number(index)), [name]: value })
    }
    for (const name of tensors.names) {
      const [kind, index = '', ...rest] = name.split('.')
      if (kind === 'state') put(index, rest.join('.'), tensors.tensor(name))
    }
    for (const [key, value] of Object.entries(file.optimizer.numbers)) {
      const [index = '', ...rest] = key.split('.')
      put(index, rest.join('.'), value)
    }
    optimizer.loadStateDict({ state, param_groups: file.optimizer.groups } as never)
    const list = (prefix: string) =>
      tensors.names
        .filter((name) => name.startsWith(`${prefix}.`))
        .sort((a, b) => Number(a.slice(prefix.length + 1)) - Number(b.slice(prefix.length + 1)))
        .map((name) => tensors.tensor(name))
    if (task.extra !== undefined) {
      const own = tensors.names.filter((name) => name.startsWith('extra.'))
      task.extra.load({
        tensors: new Map(own.map((name) => [name.slice('extra.'.length), tensors.tensor(name)])),
        json: file.extra,
      })
    }
    const states = list(randomPrefix(rank))
    if (rank === 0 || states.length > 0) random.restore(states.map((each) => each.clone()))
    if (scaler !== null && file.scaler !== null) scaler.loadStateDict(file.scaler as never)
    if (ema !== null) {
      // the averages are the parameters of the model that was loaded, if they are not there by themselves
      const [own, trained] = [list('ema'), list('trained')]
      const averages = own.length === 0 ? ema.averages : own
      const { decay } = ema.stateDict()
      ema.loadStateDict({ decay, num_updates: file.emaUpdates, shadow_params: averages, collected_params: trained })
      ema.restore()
    }
  })
}

/** Takes away all but the latest checkpoints and the best, and what a kill left half written. */
export function pruneCheckpoints(out: string, keep: number, best: number | null): void {
  const steps = checkpointSteps(out)
  for (const step of steps.slice(0, Math.max(0, steps.length - keep))) {
    if (step !== best) rmSync(checkpointFolder(out, step), { recursive: true, force: true })
  }
  const folder = join(out, 'checkpoints')
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    if (name.endsWith(PART)) rmSync(join(folder, name), { recursive: true, force: true })
  }
}
