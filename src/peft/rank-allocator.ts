import * as torch from '../torch/index.js'
import { AdaLoraLayer, type Triplets } from './adalora.js'
import type { AdaLoraConfig, Resolved } from './config.js'
import { adapterLayers, headPrefixOf } from './host.js'
import type { AdaptedModel } from './model.js'

type Tensor = torch.Tensor
type Part = keyof Triplets

/** How much each element of a tensor matters, over the steps. */
interface Importance {
  /** |value * gradient|, smoothed. */
  mean: Tensor
  /** How far |value * gradient| is from that, smoothed. */
  deviation: Tensor
}

interface Module {
  path: string
  triplets: Triplets
  importances: Record<Part, Importance>
  /** bool [r, 1]: which triplets are kept. */
  mask: Tensor | null
}

/** What the allocator is at, for an exact resume. */
export interface AllocatorState {
  /** Smoothed importances by path, part and kind: 'h.0.attn.c_attn.e.mean'; empty once ranks rest. */
  tensors: Map<string, Tensor>
  /** Which triplets are kept, by path. */
  masks: Record<string, boolean[]>
}

const parts: readonly Part[] = ['a', 'b', 'e']

/**
 * AdaLoRA at work in training (Zhang et al. 2023, arXiv 2303.10512, algorithm 1): moves ranks to where they matter.
 *
 * Budget: all ranks up to step tinit, then a cubic fall to targetR * modules at totalStep - tfinal; between, every
 * deltaT steps, the triplets of the lowest scores get E = 0 (they may come back). After that the last mask is applied
 * at each step.
 *
 * @example
 * const adalora = new RankAllocator(adapted)
 * const loss = task(adapted.forward(input)).add(adalora.orthogonalLoss())
 * loss.backward(); adamw.step(); adalora.afterBackward(step); adamw.zeroGrad()
 */
export class RankAllocator implements Disposable {
  readonly #adapted: AdaptedModel
  readonly #name: string
  readonly #config: Resolved<AdaLoraConfig>
  readonly #modules: Module[]
  readonly #initialBudget: number
  readonly #targetBudget: number

  constructor(adapted: AdaptedModel, name = 'default') {
    const { config } = adapted.adapter(name)
    if (config.kind !== 'adalora') {
      throw new TypeError(`RankAllocator: expected an adalora adapter, but '${name}' is of kind ${config.kind}`)
    }
    this.#adapted = adapted
    this.#name = name
    this.#config = config
    this.#modules = adapterLayers(adapted.model).flatMap(([path, layer]) =>
      layer instanceof AdaLoraLayer && layer.adapterNames().includes(name)
        ? [makeModule(path, layer.triplets(name))]
        : [],
    )
    const cut = this.#modules.find(({ triplets }) => triplets.e.shape[0] !== config.initR)
    if (cut !== undefined) {
      throw new RangeError(
        `RankAllocator: expected initR ${config.initR} triplets in each module, but ${cut.path} has ${cut.triplets.e.shape[0]}; a saved adapter's are cut, so go on from a checkpoint of the training`,
      )
    }
    this.#initialBudget = config.initR * this.#modules.length
    this.#targetBudget = config.targetR * this.#modules.length
  }

  /** How many triplets there may be at a step, and whether they are chosen at it. */
  budget(step: number): { budget: number; chooses: boolean } {
    const { tinit, tfinal, totalStep, deltaT } = this.#config
    if (step <= tinit) return { budget: this.#initialBudget, chooses: false }
    const last = totalStep - tfinal
    if (step > last) return { budget: this.#targetBudget, chooses: true }
    const left = 1 - (step - tinit) / (last - tinit)
    const budget = Math.trunc((this.#initialBudget - this.#targetBudget) * left ** 3 + this.#targetBudget)
    return { budget, chooses: step % deltaT === 0 || step === last }
  }

  /**
   * To be called at every step, after backward() and the optimizer's step, before the gradients are let go of.
   *
   * @param step of the training, the same count as `totalStep`'s
   * @param skipped [], not 0 where the optimizer left the step out: its gradients say nothing of importance
   */
  afterBackward(step: number, skipped: Tensor | null = null): void {
    const last = this.#config.totalStep - this.#config.tfinal
    torch.noGrad(() =>
      torch.scope(() => {
        if (step < last) for (const module of this.#modules) this.updateImportance(module, skipped)
        const { budget, chooses } = this.budget(step)
        if (step <= last && chooses) this.choose(budget)
        if (step === last) for (const module of this.#modules) forget(module)
        if (step > last) applyMasks(this.#modules)
      }),
    )
  }

  private updateImportance({ path, triplets, importances }: Module, skipped: Tensor | null): void {
    const { beta1, beta2 } = this.#config
    for (const part of parts) {
      const parameter = triplets[part]
      const { grad } = parameter
      if (grad === null) {
        throw new TypeError(
          `RankAllocator.afterBackward: expected gradients, but lora_${part.toUpperCase()} of ${path} has none; call it after backward() and before zeroGrad()`,
        )
      }
      const { mean, deviation } = importances[part]
      const current = parameter.mul(grad).abs_()
      const newMean = mean.mul(beta1).add_(current, { alpha: 1 - beta1 })
      const newDeviation = deviation.mul(beta2).add_(current.sub_(newMean).abs_(), { alpha: 1 - beta2 })
      const isLeftOut = skipped?.ne(0)
      mean.copy_(isLeftOut === undefined ? newMean : torch.where(isLeftOut, mean, newMean))
      deviation.copy_(isLeftOut === undefined ? newDeviation : torch.where(isLeftOut, deviation, newDeviation))
    }
  }

  /** Sets E to zero in all but the `budget` triplets of the highest scores; more where scores are equal. */
  private choose(budget: number): void {
    const scores = this.#modules.map(({ importances }) => {
      const each = (part: Part): Tensor => importances[part].mean.mul(importances[part].deviation)
      return each('e').view([-1]).add(each('a').mean(1)).add(each('b').mean(0))
    })
    const dropped = this.#initialBudget - budget
    const threshold = dropped > 0 ? torch.cat(scores).kthvalue(dropped).values : null
    for (const [index, module] of this.#modules.entries()) {
      const score = scores[index]!
      const mask = (threshold === null ? torch.onesLike(score, { dtype: 'bool' }) : score.gt(threshold)).unsqueeze(1)
      module.mask?.dispose()
      module.mask = torch.keep(mask)
    }
    applyMasks(this.#modules)
    this.#adapted.setRankPattern(this.#name, () => this.rankPattern())
  }

  /**
   * Which triplets are kept, by the path of `lora_E` with the head's prefix, as adapter_config.json has it; null
   * before any choice.
   */
  rankPattern(): Record<string, boolean[]> | null {
    const prefix = headPrefixOf(this.#adapted.model)
    const kept = this.#modules.flatMap(({ path, mask }): [string, boolean[]][] =>
      mask === null ? [] : [[`${prefix}${path}.lora_E`, booleans(mask)]],
    )
    return kept.length === 0 ? null : Object.fromEntries(kept)
  }

  /**
   * The loss that keeps the rows of A and the columns of B orthogonal: orthRegWeight times the mean of |A Aᵀ - I| and
   * |Bᵀ B - I| (Frobenius) over all A and B. To be added to the task's. No dimension.
   */
  orthogonalLoss(): Tensor {
    return torch.scope(() => {
      const groups = new Map<string, Tensor[]>()
      for (const { triplets } of this.#modules) {
        for (const rows of [triplets.a, triplets.b.t()]) {
          const key = rows.shape.join(' ')
          groups.set(key, [...(groups.get(key) ?? []), rows])
        }
      }
      const norms = [...groups.values()].map((group) => {
        const all = torch.stack(group)
        const identity = torch.eye(all.shape[1]!, { dtype: all.dtype, device: all.device as torch.Device })
        return all.bmm(all.mT).sub(identity).flatten(1).norm(2, 1)
      })
      return torch.cat(norms).mean().mul(torch.float(this.#config.orthRegWeight))
    })
  }

  [Symbol.dispose](): void {
    torch.dispose(
      this.#modules.map(({ importances, mask }) => [parts.map((part) => Object.values(importances[part])), mask]),
    )
  }

  /** What a checkpoint of the training holds beside the parameters. The tensors share memory with the allocator. */
  state(): AllocatorState {
    const tensors = this.#modules.flatMap(({ path, importances }) =>
      parts.flatMap((part) =>
        (['mean', 'deviation'] as const).map((kind): [string, Tensor] => [
          `${path}.${part}.${kind}`,
          importances[part][kind],
        ]),
      ),
    )
    const masks = this.#modules.flatMap(({ path, mask }): [string, boolean[]][] =>
      mask === null ? [] : [[path, booleans(mask)]],
    )
    return { tensors: new Map(tensors), masks: Object.fromEntries(masks) }
  }

  /** Takes state() back. */
  loadState({ tensors, masks }: AllocatorState): void {
    const own = this.state().tensors
    for (const [name, tensor] of own) {
      const given = tensors.get(name)
      if (given === undefined || given.shape.join() !== tensor.shape.join()) {
        throw new RangeError(
          `RankAllocator.loadState: expected ${name} of shape [${tensor.shape}], but received ${given === undefined ? 'none' : `[${given.shape}]`}; is it another adapter's?`,
        )
      }
    }
    torch.noGrad(() => {
      for (const [name, tensor] of own) tensor.copy_(tensors.get(name)!)
    })
    for (const module of this.#modules) {
      const kept = masks[module.path]
      module.mask?.dispose()
      const device = module.triplets.e.device as torch.Device
      module.mask =
        kept === undefined
          ? null
          : torch.keep(
              torch.scope(() =>
                torch.tensor(
                  kept.map((each) => [each]),
                  { dtype: 'bool', device },
                ),
              ),
            )
    }
    if (Object.keys(masks).length > 0) this.#adapted.setRankPattern(this.#name, () => this.rankPattern())
  }
}

function makeModule(path: string, triplets: Triplets): Module {
  const zeros = (part: Part): Importance => ({
    mean: torch.keep(torch.zerosLike(triplets[part]).detach()),
    deviation: torch.keep(torch.zerosLike(triplets[part]).detach()),
  })
  return { path, triplets, importances: { a: zeros('a'), b: zeros('b'), e: zeros('e') }, mask: null }
}

const booleans = (mask: Tensor): boolean[] => Array.from(mask.toTypedArray() as Uint8Array, Boolean)

/** After the last choice scores rest. */
function forget({ importances }: Module): void {
  for (const part of parts) {
    importances[part].mean.zero_()
    importances[part].deviation.zero_()
  }
}

function applyMasks(modules: readonly Module[]): void {
  for (const { triplets, mask } of modules) if (mask !== null) triplets.e.maskedFill_(mask.logicalNot(), 0)
}
