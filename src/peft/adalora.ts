import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import type { AdaLoraConfig, Resolved } from './config.js'
import { AdapterLayer, adapterFactory, type Merging, outputShape, ParameterDict } from './layer.js'
import { adapterInput, addLowRank, cast, forwardRows } from './linear.js'

type Tensor = torch.Tensor

interface Settings {
  scale: number
  dropout: number
}

/** The three tensors of an AdaLoRA update, B diag(E) A. */
export interface Triplets {
  /** [r, in] */
  a: nn.Parameter
  /** [out, r] */
  b: nn.Parameter
  /** [r, 1] */
  e: nn.Parameter
}

/** A linear layer with AdaLoRA adapters. Parameters: lora_A.NAME [r, in], lora_B.NAME [out, r], lora_E.NAME [r, 1]. */
export class AdaLoraLayer extends AdapterLayer {
  readonly kind = 'adalora'
  lora_A = new ParameterDict()
  lora_B = new ParameterDict()
  lora_E = new ParameterDict()
  readonly #settings = new Map<string, Settings>()

  /** @param rank of the tensors, where it is not `initR`: a saved adapter's are cut. The scale stays. */
  addAdapter(name: string, config: Resolved<AdaLoraConfig>, rank = config.initR): void {
    const { inFeatures, outFeatures, weight } = this.linear
    const factory = adapterFactory(weight, config.dtype)
    torch.scope(() => {
      const make = (shape: readonly number[]): nn.Parameter => new nn.Parameter(torch.empty(shape, factory))
      this.lora_A.set(name, nn.init.normal_(make([rank, inFeatures]), 0, 0.02))
      this.lora_B.set(name, nn.init.normal_(make([outFeatures, rank]), 0, 0.02))
      this.lora_E.set(name, nn.init.zeros_(make([rank, 1])))
    })
    const alpha = config.alpha > 0 ? config.alpha : config.initR
    this.#settings.set(name, { scale: alpha / (config.initR + 1e-5), dropout: config.dropout })
  }

  adapterNames(): string[] {
    return [...this.#settings.keys()]
  }

  adapterParameters(name: string): [string, nn.Parameter][] {
    const { a, b, e } = this.triplets(name)
    return [
      ['lora_A', a],
      ['lora_B', b],
      ['lora_E', e],
    ]
  }

  triplets(name: string): Triplets {
    return { a: this.lora_A.get(name), b: this.lora_B.get(name), e: this.lora_E.get(name) }
  }

  deleteAdapter(name: string): void {
    for (const [, parameter] of this.adapterParameters(name)) parameter.dispose()
    for (const items of [this.lora_A, this.lora_B, this.lora_E]) items.delete(name)
    this.#settings.delete(name)
  }

  private settings(name: string): Settings {
    const found = this.#settings.get(name)
    if (found === undefined)
      throw new RangeError(`AdaLoraLayer: expected an adapter of the layer, but received '${name}'`)
    return found
  }

  protected adapted(input: Tensor, names: readonly string[]): Tensor {
    const { inFeatures, outFeatures } = this.linear
    const rows = input.reshape([-1, inFeatures])
    let result = forwardRows(this.beneath, rows)
    const { dtype } = result.rows
    for (const name of names) {
      const { a, b, e } = this.triplets(name)
      const { scale, dropout } = this.settings(name)
      const x = adapterInput(rows, a.dtype)
      const dropped = this.training && dropout > 0 ? torch.dropout(x, dropout, true) : x
      result = addLowRank(result, dropped, a.mul(e), b, scale)
    }
    return cast(result.rows, dtype).reshape(outputShape(input, outFeatures))
  }

  protected mergeOne(name: string, { weight, bias }: Merging): Merging {
    const { a, b, e } = this.triplets(name)
    const { dtype } = weight
    const right = a.to(dtype).mul(e.to(dtype))
    return { weight: torch.addmm(weight, b.to(dtype), right, { alpha: torch.float(this.settings(name).scale) }), bias }
  }
}
