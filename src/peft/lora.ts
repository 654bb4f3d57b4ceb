import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import type { LoraConfig, Resolved } from './config.js'
import { AdapterLayer, adapterFactory, type Merging, outputShape, withoutItem } from './layer.js'
import {
  adapterInput,
  addLowRank,
  type BaseRows,
  cast,
  forwardRows,
  isPlain,
  orient,
  withoutAutocast,
} from './linear.js'
import type { Target } from './targets.js'
import { patternValue } from './targets.js'

type Tensor = torch.Tensor

/** DoRA's magnitudes, one for each output: [out]. */
class Magnitude extends nn.Module {
  weight: nn.Parameter

  constructor(values: Tensor) {
    super()
    this.weight = new nn.Parameter(values)
  }

  /** Has none: LoraLayer computes. */
  forward(): never {
    throw new TypeError('Magnitude.forward: expected a call of the layer around it, but the magnitudes compute nothing')
  }
}

interface Settings {
  scale: number
  dropout: number
}

/** The norm of each row of W + s B A, [out]; no gradient goes through it (DoRA, section 4.3). */
function rowNorms(weight: Tensor, a: Tensor, b: Tensor, scale: number): Tensor {
  const norms = (): Tensor => torch.addmm(cast(weight, a.dtype), b, a, { alpha: torch.float(scale) }).norm(2, 1)
  return torch.noGrad(() => withoutAutocast(a, () => torch.scope(norms)))
}

/** A linear layer with LoRA or DoRA adapters. Parameters: lora_A.NAME.weight [r, in], lora_B.NAME.weight [out, r]. */
export class LoraLayer extends AdapterLayer {
  readonly kind = 'lora'
  lora_A: nn.ModuleDict<nn.Linear> = new nn.ModuleDict()
  lora_B: nn.ModuleDict<nn.Linear> = new nn.ModuleDict()
  /** Of DoRA adapters: NAME.weight [out]. */
  lora_magnitude_vector: nn.ModuleDict<Magnitude> = new nn.ModuleDict()
  readonly #settings = new Map<string, Settings>()

  addAdapter(name: string, config: Resolved<LoraConfig>, { fullPath }: Pick<Target, 'fullPath'>): void {
    const { inFeatures, outFeatures, weight } = this.linear
    const r = patternValue(fullPath, config.rankPattern, config.r)
    const alpha = patternValue(fullPath, config.alphaPattern, config.alpha)
    const factory = { ...adapterFactory(weight, config.dtype), bias: false }
    // both draw before they are set again: one seed gives peft's values
    const a = new nn.Linear(inFeatures, r, factory)
    const b = new nn.Linear(r, outFeatures, factory)
    if (config.initLoraWeights === 'gaussian') nn.init.normal_(a.weight, 0, 1 / r)
    else nn.init.kaimingUniform_(a.weight, { a: Math.sqrt(5) })
    nn.init.zeros_(b.weight)
    this.lora_A.set(name, a)
    this.lora_B.set(name, b)
    const scale = alpha / (config.rslora ? Math.sqrt(r) : r)
    this.#settings.set(name, { scale, dropout: config.dropout })
    if (!config.dora) return
    torch.scope(() => {
      const norms = rowNorms(orient(this.linear), a.weight, b.weight, scale)
      this.lora_magnitude_vector.set(name, new Magnitude(norms))
    })
  }

  adapterNames(): string[] {
    return [...this.#settings.keys()]
  }

  adapterParameters(name: string): [string, nn.Parameter][] {
    const found: [string, nn.Parameter][] = [
      ['lora_A.weight', this.lora_A.get(name).weight],
      ['lora_B.weight', this.lora_B.get(name).weight],
    ]
    // files have no .weight here
    if (this.lora_magnitude_vector.has(name))
      found.push(['lora_magnitude_vector', this.lora_magnitude_vector.get(name).weight])
    return found
  }

  deleteAdapter(name: string): void {
    for (const [, parameter] of this.adapterParameters(name)) parameter.dispose()
    this.lora_A = withoutItem(this.lora_A, name)
    this.lora_B = withoutItem(this.lora_B, name)
    this.lora_magnitude_vector = withoutItem(this.lora_magnitude_vector, name)
    this.#settings.delete(name)
  }

  private parts(name: string): Settings & { a: nn.Parameter; b: nn.Parameter; magnitude: nn.Parameter | null } {
    const settings = this.#settings.get(name)
    if (settings === undefined)
      throw new RangeError(`LoraLayer: expected an adapter of the layer, but received '${name}'`)
    const magnitude = this.lora_magnitude_vector.has(name) ? this.lora_magnitude_vector.get(name).weight : null
    return { ...settings, a: this.lora_A.get(name).weight, b: this.lora_B.get(name).weight, magnitude }
  }

  protected adapted(input: Tensor, names: readonly string[]): Tensor {
    const { inFeatures, outFeatures } = this.linear
    const rows = input.reshape([-1, inFeatures])
    const single = names.length === 1 ? this.doraAlone(rows, names[0]!) : null
    if (single !== null) return single.reshape(outputShape(input, outFeatures))
    let result = forwardRows(this.beneath, rows)
    const { dtype } = result.rows
    for (const name of names) result = this.addOne(result, rows, name)
    return cast(result.rows, dtype).reshape(outputShape(input, outFeatures))
  }

  /** The output with one more adapter: [N, out]. */
  private addOne(result: BaseRows, rows: Tensor, name: string): BaseRows {
    const { a, b, scale, dropout, magnitude } = this.parts(name)
    const x = adapterInput(rows, a.dtype)
    const drops = this.training && dropout > 0
    const dropped = drops ? torch.dropout(x, dropout, true) : x
    if (magnitude === null) return addLowRank(result, dropped, a, b, scale)
    const { bias } = this.linear
    const factor = magnitude.div(rowNorms(orient(this.linear), a, b, scale))
    // with dropout the layer is run again on what is left of the input
    const direction = drops
      ? nn.functional.linear(dropped, cast(orient(this.linear), x.dtype))
      : bias === null
        ? result.rows
        : result.rows.sub(bias)
    const update = nn.functional.linear(nn.functional.linear(dropped, a), b)
    return { rows: result.rows.add(direction.mul(factor.sub(1))).add(update.mul(factor).mul(scale)), isOwn: true }
  }

  /**
   * DoRA on a plain layer of the adapter's dtype, without dropout, in fewer passes:
   * m / |W + s B A| * (x Wᵀ + s x Aᵀ Bᵀ) plus the bias. Null where that is not so.
   */
  private doraAlone(rows: Tensor, name: string): Tensor | null {
    const { a, b, scale, dropout, magnitude } = this.parts(name)
    if (magnitude === null || (this.training && dropout > 0)) return null
    const { weight, bias } = this.linear
    if (weight.dtype !== a.dtype || rows.dtype !== a.dtype) return null
    if (!isPlain(this.beneath)) return null
    const base = forwardRows(this.beneath, rows, { withBias: false })
    const turned = addLowRank(base, rows, a, b, scale).rows
    const factor = magnitude.div(rowNorms(orient(this.linear), a, b, scale))
    const result = bias === null ? turned.mul(factor) : torch.addcmul(bias, turned, factor)
    return cast(result, base.rows.dtype)
  }

  protected mergeOne(name: string, { weight, bias }: Merging, original: Tensor): Merging {
    const { a, b, scale, magnitude } = this.parts(name)
    const { dtype } = weight
    const [right, left] = [a.to(dtype), b.to(dtype)]
    const sum = torch.addmm(weight, left, right, { alpha: torch.float(scale) })
    if (magnitude === null) return { weight: sum, bias }
    const factor = magnitude.to(dtype).div(rowNorms(original, right, left, scale))
    return { weight: sum.mul(factor.unsqueeze(1)), bias }
  }
}
