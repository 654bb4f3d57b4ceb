import type { TextEncoder } from '../../../src/models/text/index.js'
import { buildTextModel } from '../../../src/models/text/load.js'
import * as torch from '../../../src/torch/index.js'

const configs = {
  gpt2: {
    model_type: 'gpt2',
    n_embd: 32,
    n_layer: 3,
    n_head: 4,
    vocab_size: 61,
    n_positions: 40,
    scale_attn_by_inverse_layer_idx: true,
  },
  llama: {
    ...{
      model_type: 'llama',
      hidden_size: 32,
      num_hidden_layers: 3,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      vocab_size: 61,
    },
    ...{ max_position_embeddings: 40, intermediate_size: 48, head_dim: 12, rope_theta: 500, attention_bias: true },
  },
  bert: {
    ...{
      model_type: 'bert',
      hidden_size: 32,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      vocab_size: 61,
      intermediate_size: 48,
    },
    ...{ max_position_embeddings: 40 },
  },
} as const

export type SmallModel = keyof typeof configs

/** A small model with random values everywhere, frozen and in eval mode. */
export function smallModel(name: SmallModel, changes: Readonly<Record<string, unknown>> = {}): TextEncoder {
  torch.manualSeed(7)
  const model = buildTextModel({ ...configs[name], ...changes })
  torch.noGrad(() =>
    torch.scope(() => {
      for (const [each, parameter] of model.namedParameters()) {
        parameter.normal_(0, 0.15)
        if (/(ln_\w+|norm|LayerNorm)\.weight$/i.test(each)) parameter.add_(1)
      }
    }),
  )
  return model.requiresGrad_(false).eval() as TextEncoder
}

/** Captions made of few phrases: whole texts and long beginnings repeat. One is empty, one is as long as can be. */
export function captions(count: number, maximum: number): number[][] {
  let state = 12345
  const random = (below: number): number => {
    state = (state * 1103515245 + 12345) % 2147483648
    return Math.floor((state / 2147483648) * below)
  }
  const findings = [[9, 10], [11], [12, 13, 14], [9, 15], [5]]
  const texts = Array.from({ length: count }, () => {
    const own = findings.filter(() => random(3) === 0).flat()
    return [3, 4, 5, 6, ...own].slice(0, maximum)
  })
  texts[1] = []
  texts[2] = Array.from({ length: maximum }, (_, index) => 3 + (index % 50))
  return texts
}
