import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import type { AdapterKind } from './config.js'
import { type LinearView, linearOf } from './linear.js'

type Tensor = torch.Tensor

/** Parameters by name: what a ModuleDict is for modules. */
export class ParameterDict extends nn.Module {
  has(name: string): boolean {
    return this.ownParameters().some(([each]) => each === name)
  }

  get(name: string): nn.Parameter {
    const found = this.ownParameters().find(([each]) => each === name)
    if (found === undefined) {
      throw new RangeError(
        `ParameterDict.get: expected one of [${this.ownParameters().map(([each]) => each)}], but received '${name}'`,
      )
    }
    return found[1]
  }

  set(name: string, parameter: nn.Parameter): this {
    this.registerParameter(name, parameter)
    return this
  }

  delete(name: string): void {
    Reflect.deleteProperty(this, name)
  }

  /** A ParameterDict has none. */
  forward(): never {
    throw new TypeError(
      'ParameterDict.forward: expected a use of one of the parameters, but the dictionary itself computes nothing',
    )
  }
}

/** A ModuleDict without one of its items. */
export function withoutItem<Item extends nn.Module>(items: nn.ModuleDict<Item>, name: string): nn.ModuleDict<Item> {
  return new nn.ModuleDict([...items].filter(([each]) => each !== name))
}

/** A linear layer's values while adapters are merged into them. */
export interface Merging {
  /** [out, in] */
  weight: Tensor
  /** [out] */
  bias: Tensor | null
}

export interface LayerMerge {
  /** The largest difference between what is stored now and the same sum in float64. */
  error: number
  /** The largest change of a weight. */
  change: number
}

interface Merged {
  /** The values before, and the values after while adapters are switched off: each for one of the parameters. */
  swapped: Map<nn.Parameter, Tensor> | null
}

/**
 * A layer with adapters of one kind around it, in the layer's place. Its parts are named as in Python's peft:
 * `base_layer` is what was there (another kind's AdapterLayer, perhaps), beside it are a dictionary of the adapters'
 * parameters for each of the kind's names (`lora_A.default.weight`).
 *
 * Maps an input [..., in] to [..., out].
 */
export abstract class AdapterLayer extends nn.Module {
  abstract readonly kind: AdapterKind
  base_layer: nn.Layer
  #active: readonly string[] = []
  #isEnabled = true
  #merged: Merged | null = null

  constructor(base: nn.Layer) {
    super()
    this.base_layer = base
  }

  /** The layer below all adapters. */
  get innermost(): nn.Layer {
    return this.base_layer instanceof AdapterLayer ? this.base_layer.innermost : this.base_layer
  }

  /** The next layer below that does something. */
  protected get beneath(): nn.Layer {
    const below = this.base_layer
    return below instanceof AdapterLayer && below.isIdle ? below.beneath : below
  }

  private get isIdle(): boolean {
    return !this.#isEnabled || this.#merged !== null || this.#active.length === 0
  }

  /** The linear layer below all adapters. */
  protected get linear(): LinearView {
    const found = linearOf(this.innermost)
    if (found === null)
      throw new TypeError(
        `${this.constructor.name}: expected a linear layer, but it is around a ${this.innermost.constructor.name}`,
      )
    return found
  }

  /** Names of the adapters on this layer. */
  abstract adapterNames(): string[]

  /** Parameters of one adapter, by their names in files: 'lora_A.weight'. */
  abstract adapterParameters(name: string): [string, nn.Parameter][]

  /** Takes an adapter off and frees it. */
  abstract deleteAdapter(name: string): void

  /** The output with adapters, which are on this layer all. */
  protected abstract adapted(input: Tensor, names: readonly string[]): Tensor

  /**
   * Values with one more adapter merged in.
   *
   * @param values of the layer with the adapters merged before, in float32 or float64
   * @param original the layer's own weight [out, in] in that dtype
   */
  protected abstract mergeOne(name: string, values: Merging, original: Tensor): Merging

  /** Which adapters take part, in this order. */
  activate(names: readonly string[]): void {
    const present = new Set(this.adapterNames())
    this.#active = names.filter((name) => present.has(name))
  }

  get isMerged(): boolean {
    return this.#merged !== null
  }

  /** Switches adapters off, the merged ones too, and on again. */
  setEnabled(enabled: boolean): void {
    if (enabled === this.#isEnabled) return
    if (this.#merged !== null) {
      if (this.#merged.swapped === null) {
        throw new TypeError(
          'withoutAdapters: expected the original weights, but adapters were merged with keepOriginal: false',
        )
      }
      for (const [parameter, values] of this.#merged.swapped) {
        const current = torch.keep(parameter.detach())
        parameter.data = values
        values.dispose()
        this.#merged.swapped.set(parameter, current)
      }
    }
    this.#isEnabled = enabled
  }

  forward(input: Tensor): Tensor {
    return this.isIdle ? this.base_layer.forward(input) : this.adapted(input, this.#active)
  }

  /**
   * Puts the active adapters into the layer's weight and bias: computed in float32, stored in the layer's dtype.
   *
   * @param keepOriginal hold on to the values before, so that unmerge() gives them back exactly
   */
  merge(keepOriginal: boolean): LayerMerge | null {
    const names = this.#active
    if (this.#merged !== null || names.length === 0) return null
    const { weight, bias, isTransposed } = this.linear
    return torch.noGrad(() =>
      torch.scope(() => {
        const compute = (dtype: torch.DType): Merging => {
          const original = (isTransposed ? weight.t() : weight).to(dtype)
          let values: Merging = { weight: original, bias: bias?.to(dtype) ?? null }
          for (const name of names) values = this.mergeOne(name, values, original)
          return { ...values, weight: isTransposed ? values.weight.t() : values.weight }
        }
        const found = compute(weight.dtype === 'float64' ? 'float64' : 'float32')
        const exact = compute('float64')
        const pairs = [[weight, found.weight, exact.weight] as const]
        if (bias !== null && found.bias !== null && exact.bias !== null) pairs.push([bias, found.bias, exact.bias])
        if (!pairs.every(([, values]) => values.isfinite().all().item())) {
          throw new RangeError(
            `merge: expected finite weights, but the adapter ${names.join(', ')} has values that are not`,
          )
        }
        const swapped = new Map<nn.Parameter, Tensor>()
        let [error, change] = [0, 0]
        for (const [parameter, values, truth] of pairs) {
          const before = parameter.detach()
          const stored = values.to(parameter.dtype).contiguous()
          const largest = (a: Tensor, b: Tensor) => (a.numel() === 0 ? 0 : a.to('float64').sub(b).abs().max().item())
          error = Math.max(error, largest(stored, truth))
          change = Math.max(change, largest(before, truth))
          parameter.data = stored
          if (keepOriginal) swapped.set(parameter, torch.keep(before))
        }
        this.#merged = { swapped: keepOriginal ? swapped : null }
        return { error, change }
      }),
    )
  }

  /** Puts the values before merge() back, exactly. */
  unmerge(): boolean {
    if (this.#merged === null) return false
    const { swapped } = this.#merged
    if (swapped === null) {
      throw new TypeError('unmerge: expected the original weights, but adapters were merged with keepOriginal: false')
    }
    for (const [parameter, before] of swapped) {
      if (this.#isEnabled) parameter.data = before
      before.dispose()
    }
    this.#merged = null
    return true
  }

  /** Makes merge() final: the values before are let go of. */
  keepMerged(): void {
    for (const before of this.#merged?.swapped?.values() ?? []) before.dispose()
    this.#merged = null
  }

  override dispose(): void {
    super.dispose()
    for (const before of this.#merged?.swapped?.values() ?? []) before.dispose()
  }
}

/** The output's shape for an input's: its last dimension is another. */
export function outputShape(input: Tensor, outFeatures: number): number[] {
  return [...input.shape.slice(0, -1), outFeatures]
}

/**
 * An adapter's parameters stand where the layer's do; float32 unless the layer is float64 or the config says otherwise.
 */
export function adapterFactory(
  weight: Tensor,
  dtype: torch.DType | null,
): { device: torch.Device; dtype: torch.DType } {
  return { device: weight.device as torch.Device, dtype: dtype ?? (weight.dtype === 'float64' ? 'float64' : 'float32') }
}
