import * as torch from '../../torch/index.js'

type Tensor = torch.Tensor

/** The largest differences of what was computed from what was expected. */
export interface Errors {
  /** max |a - b| */
  abs: number
  /** max |a - b| over max |b|, tensor by tensor; over the tolerance for a tensor that is zero but for rounding */
  rel: number
}

/** Collects how far results are from a case's, and whether all are within its tolerance. */
export class Comparison {
  readonly outputs: Errors = { abs: 0, rel: 0 }
  readonly gradients: Errors = { abs: 0, rel: 0 }
  /** What is not as expected, in words. */
  readonly problems: string[] = []
  #count = 0

  constructor(
    private readonly rtol: number,
    private readonly atol: number,
  ) {}

  /** How many tensors and values were compared. */
  get count(): number {
    return this.#count
  }

  output(name: string, found: Tensor | number, expected: Tensor): void {
    this.compare(
      this.outputs,
      name,
      typeof found === 'number' ? torch.tensor(found, { dtype: 'float64' }) : found,
      expected,
    )
  }

  gradient(name: string, found: Tensor | null, expected: Tensor): void {
    if (found === null) this.problems.push(`${name}: expected a gradient, but there is none`)
    else this.compare(this.gradients, name, found, expected)
  }

  /** Things that are equal or not, such as token ids. */
  equal(name: string, isEqual: boolean): void {
    this.#count += 1
    if (!isEqual) this.problems.push(`${name}: differs`)
  }

  private compare(errors: Errors, name: string, found: Tensor, expected: Tensor): void {
    this.#count += 1
    if (found.shape.join() !== expected.shape.join()) {
      this.problems.push(`${name}: expected shape [${expected.shape}], but received [${found.shape}]`)
      return
    }
    if (expected.numel() === 0) return
    const { abs, rel, excess } = torch.scope(() =>
      torch.noGrad(() => {
        const wanted = expected.double()
        const difference = found.double().sub(wanted).abs()
        const size = wanted.abs()
        const largest = difference.max().item()
        return {
          abs: largest,
          rel: largest / Math.max(size.max().item(), this.atol, Number.MIN_VALUE),
          excess: difference.sub(size.mul(this.rtol).add(this.atol)).max().item(),
        }
      }),
    )
    errors.abs = worse(errors.abs, abs)
    errors.rel = worse(errors.rel, rel)
    // NaN is no agreement
    if (!(excess <= 0)) this.problems.push(`${name}: off by ${abs.toExponential(2)}`)
  }
}

/** The larger, or NaN where one is NaN. */
function worse(a: number, b: number): number {
  return Number.isNaN(a) || Number.isNaN(b) ? Number.NaN : Math.max(a, b)
}
