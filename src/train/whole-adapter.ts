import type { TextTower } from '../clip/text-tower.js'
import { type AdaptedModel, adapt, RankAllocator } from '../peft/index.js'
import * as torch from '../torch/index.js'
import { adapterConfig, type FullPretrainOptions } from './options/index.js'
import type { Task } from './task.js'

type Options = Pick<FullPretrainOptions, 'peft' | 'steps'>

const ADAPTER = 'adapter.'
const IMPORTANCES = 'importances.'

/** Whether more of an adapter trains than its files have: triplets of AdaLoRA that may come back, what makes a prefix. */
export function trainsMoreThanSaved({ peft }: Options): boolean {
  return peft?.type === 'adalora' || (peft?.type === 'prefix' && peft.projection)
}

/** Puts all of such an adapter on a model that has what the files have, for {@link WholeAdapter} to fill. */
export function makeWhole({ text }: TextTower, { peft, steps }: Options): void {
  const adapted = adapt(text as torch.nn.Module)
  const [name] = adapted.active as [string]
  adapted.removeAdapter(name)
  torch.nn.construct({ initialize: false }, () =>
    torch.scope(() => adapted.addAdapter(adapterConfig(peft!, steps), name)),
  )
}

/** All of such an adapter in a run: what checkpoints keep beside the model, and AdaLoRA at work. */
export class WholeAdapter implements Disposable {
  readonly #adapted: AdaptedModel
  readonly #allocator: RankAllocator | null

  constructor({ text }: TextTower, { peft }: Options) {
    this.#adapted = adapt(text as torch.nn.Module)
    this.#allocator = peft?.type === 'adalora' ? new RankAllocator(this.#adapted) : null
  }

  [Symbol.dispose](): void {
    this.#allocator?.[Symbol.dispose]()
  }

  /** AdaLoRA's part of the loss, []. */
  get regularizer(): (() => torch.Tensor) | undefined {
    const allocator = this.#allocator
    return allocator === null ? undefined : () => allocator.orthogonalLoss()
  }

  /** Moves ranks: to be called after the optimizer's step, the gradients still there. */
  afterStep(step: number, skipped: torch.Tensor): void {
    this.#allocator?.afterBackward(step, skipped)
  }

  readonly extra: NonNullable<Task['extra']> = {
    state: () => {
      const { tensors, masks } = this.#allocator?.state() ?? { tensors: [], masks: {} }
      return {
        tensors: new Map([
          ...[...this.#adapted.adapterParameters()].map(([name, each]) => [ADAPTER + name, each.detach()] as const),
          ...[...tensors].map(([name, each]) => [IMPORTANCES + name, each] as const),
        ]),
        json: { masks },
      }
    },
    load: ({ tensors, json }) => {
      torch.noGrad(() => {
        for (const [name, parameter] of this.#adapted.adapterParameters()) {
          const saved = tensors.get(ADAPTER + name)
          if (saved === undefined) {
            throw new RangeError(`expected ${name} in the state of the adapter, but it is missing; begin a new run`)
          }
          parameter.copy_(saved)
        }
      })
      const importances = [...tensors].filter(([name]) => name.startsWith(IMPORTANCES))
      this.#allocator?.loadState({
        tensors: new Map(importances.map(([name, each]) => [name.slice(IMPORTANCES.length), each])),
        masks: (json as { masks: Record<string, boolean[]> }).masks,
      })
    },
  }
}
