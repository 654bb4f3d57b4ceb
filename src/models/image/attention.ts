import * as torch from '../../torch/index.js'
import { choosesForCpu } from '../kernels.js'
import { isPlainLinear, type Layer, normLinear, plainNorm } from './fused.js'

const { nn } = torch
type Tensor = torch.Tensor

/**
 * Queries, keys and values of norm(x), [B, T, D] to [B, heads, T, D / heads] each.
 *
 * Three plain linear layers run as one product with their weights joined, which is faster by a quarter (one product
 * backward in place of three and two sums). Where an adapter or a hook is on one of them, each runs by itself.
 */
export function projectHeads(
  layers: readonly [Layer, Layer, Layer],
  x: Tensor,
  heads: number,
  norm: Layer | null = null,
): Tensor[] {
  const plain = layers.filter(isPlainLinear)
  const joinedNorm = norm === null ? null : plainNorm(norm)
  const input = norm === null || (joinedNorm !== null && plain.length === layers.length) ? x : norm.forward(x)
  if (plain.length !== layers.length) {
    // [B, T, D] to [B, T, heads, D / heads] to [B, heads, T, D / heads]
    return layers.map((layer) => layer.forward(input).unflatten(-1, [heads, -1]).transpose(1, 2))
  }
  const biases = plain.flatMap(({ bias }) => bias ?? [])
  const weight = torch.cat(plain.map((layer) => layer.weight))
  const bias = biases.length === 3 ? torch.cat(biases) : null
  const joined = joinedNorm === null ? torch.linear(input, weight, bias) : normLinear(input, joinedNorm, weight, bias)
  // [B, T, 3 D] to [B, T, 3, heads, D / heads] to 3 times [B, heads, T, D / heads]
  return joined.unflatten(-1, [3, heads, -1]).permute(2, 0, 3, 1, 4).unbind(0)
}

/**
 * softmax(q kᵀ / sqrt(d)) v, each [B, heads, T, d].
 *
 * libtorch's fused kernel, but where maps are asked for, and in bfloat16 on the CPU: there two products and a softmax in
 * float32 take 40 ms where the fused kernel takes 93 (batch 32, 3 heads, 261 x 64, both ways).
 *
 * @param maps gets the attention map [B, heads, T, T]
 */
export function attend(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { dropout = 0, maps }: { dropout?: number; maps?: Tensor[] },
): Tensor {
  const isSlowFused = q.dtype === 'bfloat16' && choosesForCpu(q) && q.size(2) <= 1024
  if (maps === undefined && !isSlowFused) return torch.scaledDotProductAttention(q, k, v, null, dropout)
  const scores = q.mul(1 / Math.sqrt(q.size(-1))).matmul(k.mT)
  const weights = scores.softmax(-1, 'float32').to(v.dtype)
  maps?.push(weights)
  return nn.functional.dropout(weights, dropout).matmul(v)
}

/** [B, heads, T, d] to [B, T, heads * d]. */
export function mergeHeads(attended: Tensor): Tensor {
  return attended.transpose(1, 2).flatten(2)
}
