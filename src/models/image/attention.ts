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
  const joined = projectJoined(layers, x, norm)
  if (joined !== null) return splitHeads(joined, heads)
  const input = norm === null ? x : norm.forward(x)
  // [B, T, D] to [B, T, heads, D / heads] to [B, heads, T, D / heads]
  return layers.map((layer) => layer.forward(input).unflatten(-1, [heads, -1]).transpose(1, 2))
}

/** The same before it is split, [B, T, 3 D]; null where each layer runs by itself. */
function projectJoined(layers: readonly Layer[], x: Tensor, norm: Layer | null): Tensor | null {
  const plain = layers.filter(isPlainLinear)
  if (plain.length !== layers.length) return null
  const joinedNorm = norm === null ? null : plainNorm(norm)
  const biases = plain.flatMap(({ bias }) => bias ?? [])
  const weight = torch.cat(plain.map((layer) => layer.weight))
  const bias = biases.length === 3 ? torch.cat(biases) : null
  if (joinedNorm !== null) return normLinear(x, joinedNorm, weight, bias)
  return nn.functional.linear(norm === null ? x : norm.forward(x), weight, bias)
}

/** [B, T, 3 D] to [B, T, 3, heads, D / heads] to 3 times [B, heads, T, D / heads]. */
function splitHeads(joined: Tensor, heads: number): Tensor[] {
  return joined.unflatten(-1, [3, heads, -1]).permute(2, 0, 3, 1, 4).unbind(0)
}

/**
 * Attention of norm(x) to itself, [B, T, D]: {@link projectHeads}, {@link attend} and {@link mergeHeads}. In float32
 * and bfloat16 on the CPU, without maps and dropout, it is native/attention.cpp's.
 */
export function attendSelf(
  layers: readonly [Layer, Layer, Layer],
  x: Tensor,
  heads: number,
  norm: Layer | null,
  options: { dropout?: number; maps?: Tensor[] },
): Tensor {
  const joined = projectJoined(layers, x, norm)
  const isOwn = options.maps === undefined && (options.dropout ?? 0) === 0
  if (isOwn && joined !== null && choosesForCpu(joined) && ['float32', 'bfloat16'].includes(joined.dtype)) {
    return torch.callOperator('cleft::self_attention', joined, heads) as Tensor
  }
  const [q, k, v] = (joined === null ? projectHeads(layers, x, heads, norm) : splitHeads(joined, heads)) as [
    Tensor,
    Tensor,
    Tensor,
  ]
  return mergeHeads(attend(q, k, v, options))
}

/**
 * softmax(q kᵀ / sqrt(d)) v, each [B, heads, T, d].
 *
 * libtorch's fused kernel, but where maps are asked for, and in bfloat16 on the CPU: there two products and a softmax in
 * float32 take 40 ms where the fused kernel takes 93 (batch 32, 3 heads, 261 x 64, both ways).
 *
 * @param maps gets the attention map [B, heads, T, T]
 */
function attend(q: Tensor, k: Tensor, v: Tensor, { dropout = 0, maps }: { dropout?: number; maps?: Tensor[] }): Tensor {
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
