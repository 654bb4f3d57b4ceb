import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import { AdapterLayer, adapterFactory, type Merging, ParameterDict } from './layer.js'
import { cast } from './linear.js'

type Tensor = torch.Tensor

/**
 * A linear layer with IA3 factors. Parameters: ia3_l.NAME, [out, 1] on the output, [1, in] on a feed-forward's input.
 */
export class Ia3Layer extends AdapterLayer {
  readonly kind = 'ia3'
  ia3_l = new ParameterDict()

  constructor(
    base: nn.Layer,
    /** Whether the factors are on the input. */
    readonly isFeedforward: boolean,
  ) {
    super(base)
  }

  addAdapter(name: string, dtype: torch.DType | null): void {
    const { inFeatures, outFeatures, weight } = this.linear
    const shape = this.isFeedforward ? [1, inFeatures] : [outFeatures, 1]
    torch.scope(() => {
      this.ia3_l.set(name, nn.init.ones_(new nn.Parameter(torch.empty(shape, adapterFactory(weight, dtype)))))
    })
  }

  adapterNames(): string[] {
    return this.ia3_l.ownParameters().map(([name]) => name)
  }

  adapterParameters(name: string): [string, nn.Parameter][] {
    return [['ia3_l', this.ia3_l.get(name)]]
  }

  deleteAdapter(name: string): void {
    this.ia3_l.get(name).dispose()
    this.ia3_l.delete(name)
  }

  /** The product of the active factors: [in] or [out]. */
  private factors(names: readonly string[]): Tensor {
    const [first, ...others] = names.map((name) => this.ia3_l.get(name).flatten())
    return others.reduce((product, each) => product.mul(each), first!)
  }

  protected adapted(input: Tensor, names: readonly string[]): Tensor {
    const factors = this.factors(names)
    if (this.isFeedforward) return this.beneath.forward(cast(input.mul(factors), input.dtype))
    const result = this.beneath.forward(input)
    return cast(result.mul(factors), result.dtype)
  }

  protected mergeOne(name: string, { weight, bias }: Merging): Merging {
    // [1, in] multiplies columns, [out, 1] rows
    const factors = this.ia3_l.get(name).to(weight.dtype)
    return {
      weight: weight.mul(factors),
      bias: bias === null || this.isFeedforward ? bias : bias.mul(factors.flatten()),
    }
  }
}
