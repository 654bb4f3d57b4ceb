import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../../src/models/config.js'
import { freeze, unfreeze } from '../../../src/models/freeze.js'
import {
  type Dinov2,
  dropPatches,
  type ImageEncoder,
  imageEncoderFromPretrained,
} from '../../../src/models/image/index.js'
import { buildModel } from '../../../src/models/pretrained.js'
import * as torch from '../../../src/torch/index.js'
import { inScope } from '../../torch/helpers.js'
import { expectClose, numbersOf, referenceCase } from '../reference.js'

const { nn } = torch
const exact = { atol: 0, rtol: 0 }
const small: JsonObject = {
  model_type: 'dinov2_with_registers',
  hidden_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  image_size: 28,
  patch_size: 7,
}

async function build(config: JsonObject): Promise<ImageEncoder> {
  torch.manualSeed(3)
  return (await buildModel(config)) as ImageEncoder
}

const pixelsOf = (height = 28, width = 28, batch = 2) =>
  torch.randn([batch, 3, height, width], { generator: new torch.Generator().manualSeed(9) })

describe('attention maps', () => {
  it.each(['dinov2', 'vit', 'clip-vit'])(
    'of %s add up to 1, and the tokens are those of the fused kernel',
    async (name) => {
      using encoder = await imageEncoderFromPretrained(referenceCase(name).model)
      inScope(() => {
        const pixels = referenceCase(name).tensor('in.pixel_values')
        const fused = encoder.forward(pixels, { hiddenStates: true })
        const shown = encoder.forward(pixels, { attentions: true, hiddenStates: true })
        expectClose(shown.hidden, fused.hidden, { atol: 1e-5, rtol: 1e-5 })
        const count = fused.hidden.size(1)
        expect(shown.attentions).toHaveLength(fused.hiddenStates!.length - 1)
        expect(fused.attentions).toBeNull()
        for (const map of shown.attentions!) {
          expect(map.shape).toEqual([2, 4, count, count])
          expectClose(map.sum(-1), torch.ones([2, 4, count]), { atol: 1e-5, rtol: 0 })
        }
        expectClose(fused.hiddenStates!.at(-1)!, fused.prenorm.all, exact)
      })
    },
  )

  it('in bfloat16 on the CPU are near those of float32', async () => {
    using encoder = await build(small)
    inScope(() => {
      const pixels = pixelsOf()
      const wanted = encoder.forward(pixels).hidden
      const found = torch.autocast({ device: 'cpu' }, () => encoder.forward(pixels).hidden)
      expectClose(found.float(), wanted, { atol: 0.06, rtol: 0.06 })
    })
  })
})

describe('tokens', () => {
  it('are the class token, registers and patches', async () => {
    using encoder = await build(small)
    inScope(() => {
      const { prenorm, normed, pooled, grid, hidden } = encoder.forward(pixelsOf(28, 42))
      expect(grid).toEqual([4, 6])
      expect(hidden.shape).toEqual([2, 29, 16])
      expect(normed.registers.shape).toEqual([2, 4, 16])
      expect(prenorm.patches.shape).toEqual([2, 24, 16])
      expectClose(pooled, hidden.select(1, 0), exact)
      expectClose(normed.patches, hidden.narrow(1, 5, 24), exact)
    })
  })

  it('without the final norm are refused where it is needed', async () => {
    using encoder = await build(small)
    inScope(() => {
      const features = encoder.forward(pixelsOf(), { norm: false })
      expectClose(features.prenorm.all, encoder.forward(pixelsOf()).prenorm.all, exact)
      expect(() => features.pooled).toThrow(/pooled: expected forward\(\) with the final norm/)
    })
  })

  it('come from images of a fitting size alone', async () => {
    using encoder = await build(small)
    inScope(() => {
      expect(() => encoder.forward(torch.zeros([1, 3, 30, 28]))).toThrow(/multiples of 7 and 7, but received 30 x 28/)
      expect(() => encoder.forward(torch.zeros([1, 1, 28, 28]))).toThrow(
        /\[B, 3, H, W\], but received float32 \[1,1,28,28\]/,
      )
      expect(() => encoder.forward(torch.zeros([0, 3, 28, 28]))).toThrow(/batch is empty/)
    })
  })
})

describe('patch dropping', () => {
  it('keeps floor(S (1 - r)) patches of each image as they are', () => {
    inScope(() => {
      const patches = torch
        .arange(0, 2 * 10 * 3)
        .float()
        .view([2, 10, 3])
      const { patches: found, kept } = dropPatches(patches, 4, new torch.Generator().manualSeed(5))
      expect(found.shape).toEqual([2, 4, 3])
      const rows = kept!.toArray() as number[][]
      expect(rows[0]).not.toEqual(rows[1])
      for (const [image, row] of rows.entries()) {
        expect([...new Set(row)].sort((a, b) => a - b)).toEqual(row)
        for (const [slot, patch] of row.entries()) {
          expect(numbersOf(found.at(image, slot))).toEqual(numbersOf(patches.at(image, patch)))
        }
      }
    })
  })

  it('is for training, and lets every patch train in turn', async () => {
    using encoder = await build(small)
    inScope(() => {
      encoder.maskRatio = 0.9
      expect(encoder.eval().forward(pixelsOf()).keptPatches).toBeNull()
      encoder.train()
      // 16 patches, one in ten
      const features = encoder.forward(pixelsOf())
      expect(features.prenorm.all.shape).toEqual([2, 1 + 4 + 1, 16])
      expect(encoder.forward(pixelsOf(), { maskRatio: 0.5 }).keptPatches!.shape).toEqual([2, 8])
      const [a, b] = [1, 1].map((seed) =>
        encoder.forward(pixelsOf(), { maskRatio: 0.5, generator: new torch.Generator().manualSeed(seed) }),
      )
      expectClose(a!.hidden, b!.hidden, exact)
      a!.hidden.sum().backward()
      expect(encoder.namedParameters().filter(([, p]) => p.requiresGrad && p.grad === null)).toEqual([])
      expect(() => encoder.forward(pixelsOf(), { maskRatio: 1 })).toThrow(/maskRatio from 0 to below 1/)
    })
  })

  it('is refused by encoders that need the whole grid', async () => {
    using swin = await imageEncoderFromPretrained(referenceCase('swin').model)
    inScope(() => {
      expect(() => swin.train().forward(torch.zeros([1, 3, 64, 64]), { maskRatio: 0.5 })).toThrow(/maskRatio 0, since/)
    })
  })
})

describe('position embeddings', () => {
  it('are computed once while they are frozen, and again when they change', async () => {
    using encoder = (await build(small)) as Dinov2
    inScope(() => {
      const pixels = pixelsOf(14, 21)
      const trained = encoder.forward(pixels).hidden
      expect(encoder.namedBuffers()).toEqual([])
      encoder.requiresGrad_(false)
      expectClose(encoder.forward(pixels).hidden, trained, exact)
      const cached = encoder.embeddings.namedBuffers()[0]![1]
      expect(cached.shape).toEqual([1, 7, 16])
      encoder.forward(pixels)
      expect(encoder.embeddings.namedBuffers()[0]![1]).toBe(cached)
      expect(encoder.stateDict().has('embeddings.resized_positions')).toBe(false)
      torch.noGrad(() => encoder.embeddings.position_embeddings.mul_(50))
      const changed = encoder.forward(pixels).hidden
      expect(changed.sub(trained).abs().max().item()).toBeGreaterThan(1e-3)
      // the same after assigned weights, whose version starts anew
      encoder.loadStateDict(
        { ...Object.fromEntries(encoder.stateDict()), 'embeddings.position_embeddings': torch.zeros([1, 17, 16]) },
        { assign: true },
      )
      encoder.forward(pixels)
      expect(encoder.embeddings.namedBuffers()[0]![1].abs().max().item()).toBe(0)
    })
  })

  it('make no tensor at each step', async () => {
    using encoder = await build(small)
    encoder.requiresGrad_(false)
    const step = () => torch.scope(() => void encoder.forward(pixelsOf(14, 21)))
    step()
    const before = torch.memory.counters().live
    step()
    torch.scope(() => void encoder.forward(pixelsOf(21, 14)))
    step()
    expect(torch.memory.counters().live).toBe(before)
  })
})

describe('stochastic depth', () => {
  it('drops whole branches while training', async () => {
    using encoder = await build({ ...small, drop_path_rate: 0.5 })
    inScope(() => {
      const pixels = pixelsOf(28, 28, 1)
      torch.manualSeed(1)
      const values = new Set(
        Array.from({ length: 12 }, () => encoder.forward(pixels).prenorm.all.abs().sum().item().toFixed(4)),
      )
      expect(values.size).toBeGreaterThan(2)
      encoder.eval()
      expectClose(encoder.forward(pixels).hidden, encoder.forward(pixels).hidden, exact)
    })
  })

  it('draws the same branches again where blocks are checkpointed', async () => {
    using encoder = await build({ ...small, drop_path_rate: 0.5 })
    inScope(() => {
      const pixels = pixelsOf()
      const gradients = [false, true].map((checkpoint) => {
        torch.manualSeed(4)
        encoder.zeroGrad()
        encoder.forward(pixels, { checkpoint }).hidden.square().sum().backward()
        return encoder.namedParameters().map(([, { grad }]) => grad?.clone() ?? null)
      })
      for (const [k, wanted] of gradients[0]!.entries()) {
        if (wanted !== null) expectClose(gradients[1]![k]!, wanted, { atol: 1e-6, rtol: 1e-4 })
      }
    })
  })
})

describe('a layer in place of a projection', () => {
  class Twice extends nn.Module {
    constructor(public inner: torch.nn.Linear) {
      super()
    }

    forward(x: torch.Tensor): torch.Tensor {
      return this.inner.forward(x).mul(2)
    }
  }

  it('is used, though plain ones run as one product', async () => {
    using encoder = await build(small)
    inScope(() => {
      const pixels = pixelsOf()
      const name = 'encoder.layer.0.attention.attention.query'
      const plain = encoder.getSubmodule(name) as torch.nn.Linear
      const before = encoder.forward(pixels).hidden
      encoder.setSubmodule(name, new Twice(plain))
      const twice = encoder.forward(pixels).hidden
      expect(twice.sub(before).abs().max().item()).toBeGreaterThan(1e-6)
      encoder.setSubmodule(name, plain)
      let calls = 0
      const hook = plain.registerForwardHook(() => {
        calls += 1
      })
      expectClose(encoder.forward(pixels).hidden, before, { atol: 1e-5, rtol: 1e-5 })
      expect(calls).toBe(1)
      hook.remove()
      torch.noGrad(() => {
        plain.weight.mul_(2)
        plain.bias!.mul_(2)
      })
      expectClose(encoder.forward(pixels).hidden, twice, { atol: 1e-5, rtol: 1e-5 })
    })
  })
})

describe('a frozen model', () => {
  class Holder extends nn.Module {
    head = new nn.Dropout(0.5)
    constructor(public encoder: ImageEncoder) {
      super()
    }

    forward(): never {
      throw new Error('none')
    }
  }

  it('stays in evaluation mode where what holds it trains, and takes no gradient', async () => {
    using encoder = await build({ ...small, hidden_dropout_prob: 0.5 })
    inScope(() => {
      const holder = new Holder(freeze(encoder)).train()
      expect([holder.training, holder.head.training, encoder.training]).toEqual([true, true, false])
      expect(encoder.parameters().some((p) => p.requiresGrad)).toBe(false)
      const pixels = pixelsOf()
      expectClose(encoder.forward(pixels).hidden, encoder.forward(pixels).hidden, exact)
      expect(encoder.forward(pixels).hidden.requiresGrad).toBe(false)
      unfreeze(encoder).train()
      expect(encoder.training).toBe(true)
      expect(encoder.forward(pixels).hidden.sub(encoder.forward(pixels).hidden).abs().max().item()).toBeGreaterThan(
        0.01,
      )
    })
  })

  it('keeps its own dropout where asked, as the published code does', async () => {
    using encoder = await build({ ...small, hidden_dropout_prob: 0.5 })
    inScope(() => {
      new Holder(freeze(encoder, { ownDropout: true })).train()
      expect(encoder.training).toBe(true)
      expect(encoder.parameters().some((p) => p.requiresGrad)).toBe(false)
    })
  })
})
