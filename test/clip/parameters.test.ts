import { expect, it } from 'vitest'
import { parameterTable } from '../../src/clip/parameters.js'

const { rows, claims } = await parameterTable()
const row = (model: string, tower: string) => rows.find((each) => each.model === model && each.tower === tower)!

it('counts what the published models have, without memory for them', () => {
  expect(row('cleft (lora)', 'text').total - row('cleft (lora)', 'text').trainable).toBe(2_594_247_680)
  // r (in + out) of c_attn in each of 32 layers
  expect(row('cleft (lora)', 'text').trainable).toBe(32 * 8 * (2560 + 3 * 2560))
  expect(row('cleft (ia3)', 'text').trainable).toBe(32 * (3 * 2560 + 4 * 2560))
  expect(row('cleft (prefix)', 'text').trainable).toBe(20 * 2 * 32 * 2560)
  expect(row('cleft (lora)', 'text-projection').trainable).toBe(2560 * 512 + 512)
  expect(row('clip-bert (12 layers)', 'text')).toMatchObject({ total: 108_310_272, trainable: 108_310_272 })
  expect(row('cleft (lora)', 'image').bytes).toBe(4 * row('cleft (lora)', 'image').total)
})

it('puts the paper beside what was counted', () => {
  expect(claims.map(({ paper }) => paper)).toEqual([-0.39, 0.04, -0.39, 0.04])
  // with the published code's 6 layers of BERT
  expect(claims[2]!.found).toBeCloseTo(-0.403, 3)
  expect(claims[3]!.found).toBeCloseTo(0.0398, 4)
})

it('takes one adapter', async () => {
  const found = await parameterTable({ adapters: ['none'] })
  expect(found.rows.filter(({ model, tower }) => model === 'cleft (none)' && tower === 'text')).toMatchObject([
    { trainable: 0 },
  ])
  expect(found.claims[0]!.found).toBeNull()
})
