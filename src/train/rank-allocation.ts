import type { TextTower } from '../clip/text-tower.js'
import { type AdaptedModel, adapt, RankAllocator } from '../peft/index.js'
import * as torch from '../torch/index.js'
import type { Task } from './task.js'

const TRIPLETS = 'triplets.'
const IMPORTANCES = 'importances.'

/**
 * AdaLoRA in a run: ranks move after each step, and its loss is added to the run's.
 *
 * A checkpoint's model has the kept triplets alone. The rest may come back, so that they are kept beside it.
 */
export class RankAllocation implements Disposable {
  readonly #adapted: AdaptedModel
  readonly #allocator: RankAllocator

  /** Of a model whose text encoder has an AdaLoRA adapter, with all its triplets. */
  constructor({ text }: TextTower) {
    this.#adapted = adapt(text as torch.nn.Module)
    this.#allocator = new RankAllocator(this.#adapted)
  }

  /** [] */
  readonly regularizer = (): torch.Tensor => this.#allocator.orthogonalLoss()

  afterStep(step: number, skipped: torch.Tensor): void {
    this.#allocator.afterBackward(step, skipped)
  }

  [Symbol.dispose](): void {
    this.#allocator[Symbol.dispose]()
  }

  /** What checkpoints keep of it. */
  readonly extra: NonNullable<Task['extra']> = {
    state: () => {
      const { tensors, masks } = this.#allocator.state()
      return {
        tensors: new Map([
          ...[...this.#adapted.adapterParameters()].map(([name, each]) => [TRIPLETS + name, each.detach()] as const),
          ...[...tensors].map(([name, each]) => [IMPORTANCES + name, each] as const),
        ]),
        json: { masks },
      }
    },
    load: ({ tensors, json }) => {
      torch.noGrad(() => {
        for (const [name, parameter] of this.#adapted.adapterParameters()) {
          const saved = tensors.get(TRIPLETS + name)
          if (saved === undefined)
            throw new RangeError(`expected ${name} among the state of AdaLoRA, but it is missing`)
          parameter.copy_(saved)
        }
      })
      const importances = [...tensors].filter(([name]) => name.startsWith(IMPORTANCES))
      this.#allocator.loadState({
        tensors: new Map(importances.map(([name, each]) => [name.slice(IMPORTANCES.length), each])),
        masks: (json as { masks: Record<string, boolean[]> }).masks,
      })
    },
  }
}
