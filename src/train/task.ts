import type * as torch from '../torch/index.js'
import type { ImageEvent, StartEvent } from './events.js'
import type { RateGroup } from './parameter-groups.js'
import type { RandomStream } from './random-stream.js'

/*
 * What a stage is to the run around it (run.ts): what trains, on which batches, and how one batch becomes gradients. Steps,
 * rates, checkpoints, logs and stops are the run's, and the same for every stage.
 */

export interface TaskBatch extends Disposable {
  readonly epoch: number
  /** Of its images, for the log. */
  readonly samples: readonly { readonly row: number }[]
}

/** Batches of one epoch after another; an iteration ends with the epoch. `DataLoader` is one. */
export interface Batches<Batch> extends AsyncIterable<Batch> {
  /** Where they stand: the batch that comes next. As JSON in checkpoints. */
  state(): unknown
  /**
   * @param options.redivide the state may be of batches of another size, or of another number of processes
   * @throws where the state is of other data
   */
  resume(state: unknown, options?: { redivide?: boolean }): void
}

export interface StepTools {
  /** The run's random numbers: everything that draws goes through it. Each process has its own. */
  readonly random: RandomStream
  /** What the loss is multiplied with for backward(); none outside of float16. */
  readonly scaleLoss?: (loss: torch.Tensor) => torch.Tensor
  /** Called between micro-batches: gives the event loop its turn, and throws to stop where there is one process. */
  readonly pause: () => Promise<void>
  /**
   * The backward() that ends a step, for each step once: of several processes it makes the gradients their mean. Those before
   * it are plain ones.
   *
   * @param gradient the output's, where that is no single value
   */
  readonly lastBackward: (output: torch.Tensor, gradient?: torch.Tensor) => void
}

/** What a step leaves on the device. The tensors are the run's. */
export interface StepOutcome {
  /** []; of several processes, the mean of theirs is the joined batch's. */
  readonly loss: torch.Tensor
  /** In percent; waits for the device, so it is asked for late. */
  readonly accuracy: () => number
  /** What accuracy() reads. */
  readonly held: readonly torch.Tensor[]
}

export interface Task<Batch extends TaskBatch = TaskBatch> {
  /** Everything that changes: what trains, and the running statistics of its layers. */
  readonly model: torch.nn.Module
  readonly groups: readonly RateGroup[]
  readonly batches: Batches<Batch>
  /** ln of the temperature, where the stage has one. */
  readonly logScale: torch.Tensor | null
  readonly start: Pick<StartEvent, 'images' | 'captions' | 'figures'>
  /**
   * Forward and backward: gradients are added to the parameters'. Of several processes, their mean is that of the joined
   * batch.
   */
  step(batch: Batch, tools: StepTools): Promise<StepOutcome>
  /**
   * After each step of the optimizer, the gradients still there.
   *
   * @param step counted from 0
   * @param skipped [], 1 where the optimizer left the step out
   */
  afterStep?(step: number, skipped: torch.Tensor): void
  /** How the model does on what it does not learn from. Null: it is not asked. */
  readonly validate: ((pause: () => Promise<void>) => Promise<Record<string, number>>) | null
  /** What one of its metrics is the run's best by, and whether less of it is better. */
  readonly judgedBy: { readonly metric: string; readonly better: 'lower' | 'higher' }
  /** Writes the model into a checkpoint's folder. */
  saveModel(folder: string): void
  /** What training sees, to look at once. */
  picture?(batch: Batch, step: number): Promise<ImageEvent>
  /** More than parameters that checkpoints keep: tensors by name, and what goes into JSON. */
  readonly extra?: {
    state(): { tensors: ReadonlyMap<string, torch.Tensor>; json: unknown }
    load(state: { tensors: ReadonlyMap<string, torch.Tensor>; json: unknown }): void
  }
  close(): Promise<void>
}
