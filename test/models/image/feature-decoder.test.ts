import { describe, expect, it } from 'vitest'
import type { Vit } from '../../../src/models/image/index.js'
import { sinePositions } from '../../../src/models/image/positions.js'
import { buildModel, readNamedConfig } from '../../../src/models/index.js'
import * as torch from '../../../src/torch/index.js'
import { readRecipe } from '../../../src/train/recipes.js'
import { inScope } from '../../torch/helpers.js'
import { expectClose, numbersOf } from '../reference.js'

const small = {
  model_type: 'vit',
  hidden_size: 12,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  intermediate_size: 16,
  patch_size: 4,
  image_size: 12,
  feature_decoder: { layers: 2, heads: 6 },
}
const build = async (config: object) => (await buildModel(config as never)) as unknown as Vit
const pixelsOf = (width = 12) => torch.randn([2, 3, 12, width], { generator: new torch.Generator().manualSeed(3) })

describe("the feature decoder of the published baseline's image encoder", () => {
  it('has as many parameters as the published one, of the recipe', async () => {
    const { image } = readRecipe('clip-bert-published').options as {
      image: { model: string; decoder: object; pooling: string }
    }
    expect(image).toMatchObject({ decoder: { layers: 2, heads: 6 }, pooling: 'mean-patches' })
    const config = readNamedConfig(image.model)
    const count = async (given: object) => {
      const model = (await buildModel(given as never, { device: 'meta' })) as unknown as Vit
      const sum = model.parameters().reduce((all, each) => all + each.numel(), 0)
      model.dispose()
      return sum
    }
    const width = 768
    const linear = (from: number, to: number) => from * to + to
    const block = 4 * linear(width, width) + linear(width, 4 * width) + linear(4 * width, width) + 4 * width
    const decoder = linear(width, width) + 2 * block + 2 * width
    expect(decoder).toBe(14_767_872)
    expect(await count({ ...config, feature_decoder: image.decoder })).toBe((await count(config)) + decoder)
  })

  it('has the places of patches as MAE has them', () => {
    inScope(() => {
      const found = numbersOf(sinePositions([2, 3], torch.zeros([1, 7, 8])))
      const naive = [new Array<number>(8).fill(0)]
      for (const [row, column] of [0, 1].flatMap((y) => [0, 1, 2].map((x) => [y, x] as const))) {
        const half = (at: number) => [
          ...[1, 0.01].map((rate) => Math.sin(at * rate)),
          ...[1, 0.01].map((rate) => Math.cos(at * rate)),
        ]
        naive.push([...half(column), ...half(row)])
      }
      for (const [at, value] of naive.flat().entries()) expect(found[at]).toBeCloseTo(value, 6)
      expect(() => sinePositions([1, 1], torch.zeros([1, 2, 6]))).toThrow(/a width that 4 divides, but received 6/)
    })
  })

  it('is a linear layer, places, blocks and a norm behind the encoder', async () => {
    const model = (await build(small)).eval()
    const plain = (await build({ ...small, feature_decoder: undefined })).eval()
    inScope(() =>
      torch.noGrad(() => {
        plain.loadStateDict(new Map([...model.stateDict()].filter(([name]) => !name.startsWith('feature_decoder'))))
        const { feature_decoder: decoder } = model
        const encoded = plain.forward(pixelsOf()).hidden
        const placed = decoder!.embed.forward(encoded).add(sinePositions([3, 3], encoded))
        const byHand = decoder!.norm.forward([...decoder!.layer].reduce((x, each) => each.forward(x), placed))
        const { normed, pooled, prenorm } = model.forward(pixelsOf())
        expectClose(normed.all, byHand, { atol: 1e-6, rtol: 1e-5 })
        expectClose(pooled, byHand.narrow(1, 1, 9).mean(1), { atol: 1e-6, rtol: 1e-5 })
        expectClose(prenorm.all, plain.forward(pixelsOf()).prenorm.all, { atol: 0, rtol: 0 })
        // another grid too
        expect(model.forward(pixelsOf(20)).normed.patches.shape).toEqual([2, 15, 12])
      }),
    )
  })

  it('gets gradients everywhere, with the encoder, also under checkpointing', async () => {
    const model = (await build(small)).train()
    for (const checkpoint of [false, true]) {
      model.zeroGrad()
      torch.scope(() => model.forward(pixelsOf(), { checkpoint }).normed.patches.mean(1).square().sum().backward())
      const without = model.namedParameters().filter(([, { grad }]) => grad === null || !grad.isfinite().all().item())
      expect(without.map(([name]) => name)).toEqual([])
    }
  })

  it('takes no part of the patches, and no heads that do not fit', async () => {
    const model = (await build(small)).train()
    expect(() => model.forward(pixelsOf(), { maskRatio: 0.5 })).toThrow(/maskRatio 0, since it needs the whole grid/)
    await expect(build({ ...small, feature_decoder: { heads: 5 } })).rejects.toThrow(/a width that 5 heads divide/)
    await expect(build({ ...small, feature_decoder: { layers: 0 } })).rejects.toThrow(
      /feature_decoder: expected 'layers'/,
    )
  })
})
