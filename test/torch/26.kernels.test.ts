import { describe, expect, it } from 'vitest'
import { runProgram } from './helpers.js'

/*
 * native/kernels.hpp: each instruction set that the processor has, and libtorch's kernels in their place. A process of its
 * own for each, for libtorch chooses once.
 */
describe('kernels of our own', () => {
  it.each([
    ['the widest vectors', { CLEFT_PRODUCTS: 'own' }],
    ['AVX2', { CLEFT_PRODUCTS: 'own', ATEN_CPU_CAPABILITY: 'avx2' }],
    ["libtorch's products", { CLEFT_PRODUCTS: 'libtorch' }],
    ['no vectors', { CLEFT_PRODUCTS: 'own', ATEN_CPU_CAPABILITY: 'default' }],
  ])('compute in float32 what libtorch computes in float64, with %s', (_, own) => {
    const environment = { ...process.env, ...own }
    const found: Record<string, number[]> = JSON.parse(runProgram('kernels.mjs', [], { environment }))
    const names = Object.keys(found)
    expect(names.length).toBeGreaterThan(80)
    // [name, greatest difference of the result and of each gradient]; NaN is no number below the bound
    const wrong = Object.entries(found).filter(([name, differences]) => {
      // scores around 100 are rounded as such, before exp()
      const bound = name.endsWith('large scores') ? 1e-4 : name.endsWith('in bfloat16') ? 2e-2 : 1e-5
      return !differences.every((each) => each < bound)
    })
    expect(wrong).toEqual([])
  })

  it('compute the same bits again', () => {
    const environment = { ...process.env, CLEFT_PRODUCTS: 'own' }
    const [one, two] = [0, 1].map(() => runProgram('kernels.mjs', [], { environment }))
    expect(one).toBe(two)
  })
})
