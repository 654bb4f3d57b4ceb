import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Config } from '../../../src/models/config.js'
import {
  buildTextModel,
  Conv1D,
  GPT2Model,
  LlamaModel,
  lowerMatrices,
  readLlamaConfig,
  type TextEncoder,
} from '../../../src/models/text/index.js'
import { rotate, rotations } from '../../../src/models/text/rope.js'
import * as torch from '../../../src/torch/index.js'
import { relative } from './cases.js'
import { smallModel } from './small.js'

let scope: torch.Scope
beforeEach(() => {
  scope = new torch.Scope()
})
afterEach(() => {
  scope.dispose()
})

const ids = [
  [3, 4, 5, 6, 7],
  [8, 9, 10, 11, 12],
]
const quiet = { warn: () => {} }

/** -infinity where a token comes later. */
function causal(length: number): torch.Tensor {
  return torch
    .zeros([length, length])
    .maskedFill(torch.ones([length, length], { dtype: 'bool' }).triu(1), Number.NEGATIVE_INFINITY)
}

describe.each(['gpt2', 'llama'] as const)('%s', (name) => {
  let model: TextEncoder
  beforeEach(() => {
    model = smallModel(name)
  })
  afterEach(() => {
    model.dispose()
  })

  it('takes ids as arrays and as a tensor, and embeddings', () => {
    scope.run(() => {
      const wanted = model.forward({ inputIds: ids }).lastHidden
      const tensor = torch.tensor(ids, { dtype: 'int64' })
      expect(model.forward({ inputIds: tensor }).lastHidden.equal(wanted)).toBe(true)
      const inputEmbeddings = model.wordEmbeddings().forward(tensor)
      expect(model.forward({ inputEmbeddings }).lastHidden.equal(wanted)).toBe(true)
    })
  })

  it('takes any mask', () => {
    scope.run(() => {
      const wanted = model.forward({ inputIds: ids }).lastHidden
      const additive = causal(5)
      for (const attentionMask of [
        additive.view([1, 1, 5, 5]),
        additive.expand([2, 4, 5, 5]),
        additive.expand([2, 5, 5]),
        additive.eq(0).view([1, 1, 5, 5]),
        torch.ones([2, 5], { dtype: 'int64' }),
      ]) {
        expect(relative(model.forward({ inputIds: ids, attentionMask }).lastHidden, wanted)).toBeLessThan(1e-6)
      }
      // a token that nobody sees makes no difference to the others
      const hidden = additive.clone()
      hidden.setAt(['...', 1], Number.NEGATIVE_INFINITY)
      hidden.setAt([1, 1], 0)
      const attentionMask = hidden.view([1, 1, 5, 5])
      const one = model.forward({ inputIds: ids, attentionMask }).lastHidden
      const changed = ids.map((row) => row.with(1, 30))
      const other = model.forward({ inputIds: changed, attentionMask }).lastHidden
      expect(one.at('...', torch.slice(2, 5), ':').equal(other.at('...', torch.slice(2, 5), ':'))).toBe(true)
      expect(one.at(0, 1).equal(other.at(0, 1))).toBe(false)
    })
  })

  it('gives the same behind a prefix as behind the tokens whose keys and values it holds', () => {
    scope.run(() => {
      const attentions = model.forward({ inputIds: ids, outputAttentions: true }).attentions!
      expect(attentions[0]!.shape).toEqual([2, 4, 5, 5])
      expect(attentions[0]!.sum(-1).allclose(torch.ones([2, 4, 5]))).toBe(true)
      const shape = [1, model.keyValueHeads, 3, model.headWidth]
      const prefix = Array.from({ length: model.layerCount }, () => ({
        key: torch.randn(shape),
        value: torch.randn(shape),
      }))
      const wanted = model.forward({ inputIds: ids, prefix }).lastHidden
      expect(wanted.shape).toEqual([2, 5, 32])
      // a mask of the text alone is filled up: the prefix is seen by all
      const attentionMask = causal(5).view([1, 1, 5, 5])
      expect(relative(model.forward({ inputIds: ids, prefix, attentionMask }).lastHidden, wanted)).toBeLessThan(1e-6)
      const positionIds = torch.arange(3, 8).unsqueeze(0)
      expect(model.forward({ inputIds: ids, prefix, positionIds }).lastHidden.equal(wanted)).toBe(true)
      const moved = model.forward({ inputIds: ids, prefix, positionIds: positionIds.add(1) }).lastHidden
      expect(relative(moved, wanted)).toBeGreaterThan(1e-3)
    })
  })

  it('gives numbers, and gradients, where a text is all padding', () => {
    scope.run(() => {
      const attentionMask = torch.tensor([
        [1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
      ])
      const inputEmbeddings = torch.randn([2, 5, 32]).requiresGrad_()
      const hidden = model.forward({ inputEmbeddings, attentionMask }).lastHidden
      hidden.sum().backward()
      expect(hidden.isfinite().all().item()).toBe(1)
      expect(inputEmbeddings.grad!.isfinite().all().item()).toBe(1)
    })
  })

  it('has dropout of its own only where it is told to', () => {
    scope.run(() => {
      const dropping = smallModel(
        name,
        name === 'llama' ? { attention_dropout: 0.5 } : { attn_pdrop: 0.5, resid_pdrop: 0.5 },
      )
      const wanted = dropping.forward({ inputIds: ids }).lastHidden
      dropping.train()
      expect(dropping.forward({ inputIds: ids }).lastHidden.equal(wanted)).toBe(true)
      dropping.running.ownDropout = true
      expect(dropping.forward({ inputIds: ids }).lastHidden.equal(wanted)).toBe(false)
      dropping.eval()
      expect(dropping.forward({ inputIds: ids }).lastHidden.equal(wanted)).toBe(true)
      dropping.dispose()
    })
  })

  it('runs in bfloat16, and with its matrices alone in bfloat16 under autocast', () => {
    scope.run(() => {
      const wanted = model.forward({ inputIds: ids }).lastHidden
      lowerMatrices(model, 'bfloat16')
      expect(model.wordEmbeddings().weight.dtype).toBe('float32')
      const mixed = torch.autocast({ dtype: 'bfloat16' }, () => model.forward({ inputIds: ids }).lastHidden)
      expect(relative(mixed.float(), wanted)).toBeLessThan(0.05)
      model.to('bfloat16')
      const low = model.forward({ inputIds: ids }).lastHidden
      expect(low.dtype).toBe('bfloat16')
      expect(relative(low.float(), wanted)).toBeLessThan(0.1)
    })
  })

  it('frees all but its output', () => {
    scope.run(() => {
      const before = torch.memory.counters().live
      const { lastHidden } = model.forward({ inputIds: ids })
      expect(torch.memory.counters().live - before).toBe(1)
      lastHidden.dispose()
    })
  })

  it('says what is wrong', () => {
    scope.run(() => {
      const forward = (input: Parameters<TextEncoder['forward']>[0]) => () => model.forward(input)
      expect(forward({})).toThrow('expected either inputIds or inputEmbeddings, but received neither')
      expect(forward({ inputIds: [[1, 61]] })).toThrow(
        'row 0: expected token ids from 0 to 60, but received 61 at position 1',
      )
      expect(forward({ inputIds: torch.tensor([[1, 61]], { dtype: 'int64' }) })).toThrow(
        'token ids from 0 to 60, but received 61',
      )
      expect(forward({ inputIds: torch.tensor([[-3]], { dtype: 'int64' }) })).toThrow('received -3')
      expect(forward({ inputIds: torch.tensor([[1.5]]) })).toThrow(
        'expected whole token ids (int64), but received float32',
      )
      expect(forward({ inputIds: [[1], [1, 2]] })).toThrow('expected rows of one length, but received 1 and 2 ids')
      expect(forward({ inputIds: [] })).toThrow(
        'expected at least one text of at least one token, but received shape [0, 0]',
      )
      expect(forward({ inputIds: [new Array(41).fill(1)] })).toThrow(
        'expected at most 40 positions, but received 41 tokens',
      )
      expect(forward({ inputIds: ids, positionIds: torch.arange(38, 43).unsqueeze(0) })).toThrow(
        'position ids below 40, but received 42',
      )
      expect(forward({ inputIds: ids, attentionMask: torch.ones([2, 4]) })).toThrow(
        'expected an attentionMask of shape [2, 5]',
      )
      expect(forward({ inputIds: ids, attentionMask: torch.ones([2, 1, 5, 5], { dtype: 'int64' }) })).toThrow(
        'bool (true where seen) or float',
      )
      expect(forward({ inputIds: ids, prefix: [] })).not.toThrow()
      const key = torch.zeros([1, 7, 2, 3])
      expect(forward({ inputIds: ids, prefix: [{ key, value: key }] })).toThrow(
        'a prefix for each of 3 layers, but received 1',
      )
      const wrong = [1, 2, 3].map(() => ({ key, value: key }))
      expect(forward({ inputIds: ids, prefix: wrong })).toThrow('in layer 0, but received [1, 7, 2, 3]')
    })
  })
})

describe('config.json', () => {
  const build = (values: Readonly<Record<string, unknown>>) => () =>
    torch.nn.onMeta(() => buildTextModel(new Config(values, quiet)))

  it('makes models of any published size without memory', () => {
    const biomedlm = build({
      model_type: 'gpt2',
      n_embd: 2560,
      n_layer: 32,
      n_head: 20,
      vocab_size: 28896,
      n_positions: 1024,
    })()
    expect(biomedlm).toBeInstanceOf(GPT2Model)
    const parameters = biomedlm.parameters().reduce((sum, each) => sum + each.numel(), 0)
    // 32 layers of 12 D^2 + 13 D, words, positions, the last norm
    expect(parameters).toBe(32 * (12 * 2560 ** 2 + 13 * 2560) + (28896 + 1024 + 2) * 2560)
    expect(biomedlm.getSubmodule('h.0.attn.c_attn')).toBeInstanceOf(Conv1D)
    const meditron = build({ model_type: 'llama', vocab_size: 32017, max_position_embeddings: 2048 })()
    expect(meditron).toBeInstanceOf(LlamaModel)
    expect(meditron.getSubmodule('layers.31.self_attn.q_proj')).toBeInstanceOf(torch.nn.Linear)
    const bert = build({ model_type: 'bert', keep_layers: 6 })()
    expect(bert.layerCount).toBe(6)
    expect(bert.getSubmodule('encoder.layer.0.attention.self.query')).toBeInstanceOf(torch.nn.Linear)
  })

  it('refuses what is not built, and says so', () => {
    expect(build({ model_type: 'opt' })).toThrow(/expected model_type gpt2, llama, bert, but received 'opt'/)
    expect(build({ model_type: 'gpt2', n_head: 7 })).toThrow('n_embd to be a multiple of 7 heads, but received 768')
    expect(build({ model_type: 'gpt2', activation_function: 'mish' })).toThrow("config.json says 'mish'")
    expect(build({ model_type: 'gpt2', add_cross_attention: true })).toThrow(
      "expected 'add_cross_attention' to be false",
    )
    expect(build({ model_type: 'llama', num_key_value_heads: 5 })).toThrow('multiple of 5 key and value heads')
    expect(build({ model_type: 'llama', rope_scaling: { type: 'longrope', factor: 2 } })).toThrow(
      "received 'longrope', which is not supported",
    )
    expect(build({ model_type: 'bert', position_embedding_type: 'relative_key' })).toThrow(
      "expected 'position_embedding_type' to be",
    )
    expect(build({ model_type: 'bert', keep_layers: 13 })).toThrow('expected to keep 1 to 12 layers, but received 13')
  })
})

describe('rotary positions', () => {
  const frequencies = (values: Readonly<Record<string, unknown>>): Float32Array =>
    readLlamaConfig(
      new Config({ hidden_size: 32, num_attention_heads: 4, max_position_embeddings: 64, ...values }, quiet),
    ).rope.frequencies

  // transformers 5.23, ROPE_INIT_FUNCTIONS, head_dim 8, base 10,000
  const wanted: Readonly<Record<string, readonly number[]>> = {
    '{"rope_type": "default"}': [1.0, 0.10000000149011612, 0.009999999776482582, 0.0010000000474974513],
    '{"rope_type": "linear", "factor": 4}': [0.25, 0.02500000037252903, 0.0024999999441206455, 0.0002500000118743628],
    '{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 32}':
      [1.0, 0.012500000186264515, 0.0012499999720603228, 0.0001250000059371814],
    '{"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 32}': [
      1.0, 0.02500000037252903, 0.0024999999441206455, 0.0002500000118743628,
    ],
    '{"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16, "beta_fast": 4, "truncate": false}': [
      1.0, 0.02500000037252903, 0.0024999999441206455, 0.0002500000118743628,
    ],
    '{"rope_type": "dynamic", "factor": 2}': [1.0, 0.10000000149011612, 0.009999999776482582, 0.0010000000474974513],
  }

  it.each(Object.keys(wanted))('has the frequencies of transformers, %s', (key) => {
    const found = frequencies({ rope_parameters: JSON.parse(key) as object })
    expect([...found].map((each, index) => Math.abs(each / wanted[key]![index]! - 1) < 3e-7)).toEqual([
      true,
      true,
      true,
      true,
    ])
    expect(
      readLlamaConfig(
        new Config(
          {
            hidden_size: 32,
            num_attention_heads: 4,
            max_position_embeddings: 64,
            rope_theta: 10000,
            rope_scaling: JSON.parse(key) as object,
          },
          quiet,
        ),
      ).rope.frequencies,
    ).toEqual(found)
  })

  it('turn pairs by position times frequency', () => {
    scope.run(() => {
      const rope = { frequencies: Float32Array.from([1, 0.1]), scale: 1 }
      const [cosine, sine] = rotations(rope, torch.tensor([[0, 3]], { dtype: 'int64' }), 'float32')
      const turned = rotate(torch.tensor([1, 2, 3, 4]).expand([1, 2, 1, 4]), cosine, sine)
      const values = turned.flatten().toArray() as number[]
      expect(values.slice(0, 4)).toEqual([1, 2, 3, 4])
      expect(values[4]).toBeCloseTo(Math.cos(3) - 3 * Math.sin(3), 5)
      expect(values[6]).toBeCloseTo(3 * Math.cos(3) + Math.sin(3), 5)
      expect(values[5]).toBeCloseTo(2 * Math.cos(0.3) - 4 * Math.sin(0.3), 5)
    })
  })
})
