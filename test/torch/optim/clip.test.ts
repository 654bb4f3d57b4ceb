import { describe, expect, test } from 'vitest'
import { optim, parameter, seeded, tensorOf, torch, valuesOf } from './helpers.js'

function withGradients(): { params: torch.Tensor[]; gradients: number[] } {
  const random = seeded(11)
  const params = [[4, 3], [5], [2]].map((shape) =>
    parameter(new Array(shape.reduce((a, b) => a * b, 1)).fill(0), shape),
  )
  const gradients: number[] = []
  torch.scope(() => {
    // the last one is without a gradient
    for (const each of params.slice(0, 2)) {
      const values = Array.from({ length: each.numel() }, () => Math.fround(random() * 10 - 5))
      gradients.push(...values)
      each.grad = tensorOf(values, each.shape)
    }
  })
  return { params, gradients }
}

const gradientsOf = (params: readonly torch.Tensor[]) =>
  torch.scope(() => params.slice(0, 2).flatMap((each) => valuesOf(each.grad!)))

const norms: [number, (values: readonly number[]) => number][] = [
  [2, (values) => Math.sqrt(values.reduce((sum, each) => sum + each * each, 0))],
  [1, (values) => values.reduce((sum, each) => sum + Math.abs(each), 0)],
  [3, (values) => Math.cbrt(values.reduce((sum, each) => sum + Math.abs(each) ** 3, 0))],
  [Infinity, (values) => Math.max(...values.map(Math.abs))],
]

describe.each([true, false])('foreach %s', (foreach) => {
  test.each(norms)('clipGradNorm_ by the norm of order %s', (normType, norm) => {
    for (const maxNorm of [1, 1e6]) {
      const { params, gradients } = withGradients()
      const before = torch.memory.counters().live
      const total = optim.clipGradNorm_(params, maxNorm, { normType, foreach })
      expect(total.item()).toBeCloseTo(norm(gradients), 3)
      const factor = Math.min(1, maxNorm / (total.item() + 1e-6))
      for (const [index, value] of gradientsOf(params).entries())
        expect(value).toBeCloseTo(gradients[index]! * factor, 5)
      total.dispose()
      expect(torch.memory.counters().live).toBe(before)
      torch.dispose(params)
    }
  })

  test('clipGradValue_', () => {
    const { params, gradients } = withGradients()
    optim.clipGradValue_(params, 1.5, { foreach })
    expect(gradientsOf(params)).toEqual(gradients.map((each) => Math.max(-1.5, Math.min(1.5, each))))
    torch.dispose(params)
  })

  test('a norm that is not finite', () => {
    const { params } = withGradients()
    torch.scope(() => {
      params[1]!.grad = torch.full([5], Infinity)
      const before = gradientsOf(params)
      expect(() => optim.clipGradNorm_(params, 1, { errorIfNonfinite: true, foreach })).toThrow(
        /expected a finite norm/,
      )
      expect(gradientsOf(params)).toEqual(before)
      expect(optim.clipGradNorm_(params, 1, { foreach }).item()).toBe(Infinity)
    })
    torch.dispose(params)
  })
})

test('several dtypes, no gradients, one tensor, bad limits', () => {
  torch.scope(() => {
    const a = torch.zeros([2]).requiresGrad_()
    const b = torch.zeros([2], { dtype: 'float64' }).requiresGrad_()
    expect(optim.clipGradNorm_([a, b], 1).item()).toBe(0)
    a.grad = torch.tensor([3, 0])
    b.grad = torch.tensor([0, 4], { dtype: 'float64' })
    expect(optim.clipGradNorm_([a, b], 1).item()).toBeCloseTo(5, 6)
    expect(valuesOf(a.grad!)[0]).toBeCloseTo(0.6, 6)
    expect(valuesOf(b.grad!)[1]).toBeCloseTo(0.8, 6)
    expect(optim.clipGradNorm_(a, 10).item()).toBeCloseTo(0.6, 6)
    expect(optim.getTotalNorm(torch.tensor([3, 4])).item()).toBe(5)
    expect(() => optim.clipGradNorm_([a], NaN)).toThrow(RangeError)
    expect(() => optim.clipGradValue_([a], -1)).toThrow(RangeError)
  })
})
