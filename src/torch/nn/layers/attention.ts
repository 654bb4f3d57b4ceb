import * as ops from '../../ops.generated.js'
import type { Tensor } from '../../tensor.js'
import { emptyParameter, type FactoryOptions } from '../construct.js'
import { dropout } from '../functional.js'
import { xavierUniform_, zeros_ } from '../init.js'
import { Module } from '../module.js'
import type { Parameter } from '../parameter.js'
import { Linear } from './linear.js'

export interface MultiheadAttentionOptions extends FactoryOptions {
  /** The probability of dropping attention weights while training. Default: 0. */
  dropout?: number
  /** Whether projections have a bias. Default: true. */
  bias?: boolean
  /** The width of keys. Default: null, embedDim. */
  kdim?: number | null
  /** The width of values. Default: null, embedDim. */
  vdim?: number | null
  /** Whether inputs are [N, L, E] (true) or [L, N, E]. Default: false, as in PyTorch. */
  batchFirst?: boolean
}

export interface AttentionOptions {
  /** Keys that no query sees: bool [N, S] with true for those, or a float summand. Default: null. */
  keyPaddingMask?: Tensor | null
  /** Give the attention weights too. False is faster. Default: true, as in PyTorch. */
  needWeights?: boolean
  /** What a query does not see: bool [L, S] or [N * numHeads, L, S] with true for that, or a float summand. Default: null. */
  attnMask?: Tensor | null
  /** Weights averaged over heads. Default: true. */
  averageAttnWeights?: boolean
  /** A query sees the keys up to its own position. With attnMask it is the hint that the mask says the same. Default: false. */
  isCausal?: boolean
}

/** A mask as summand of scores: 0, and -Infinity where nothing is to be seen. */
function asSummand(mask: Tensor, scores: Tensor): Tensor {
  return mask.dtype === 'bool'
    ? ops.zerosLike(mask, { dtype: scores.dtype }).maskedFill(mask, Number.NEGATIVE_INFINITY)
    : mask.to(scores.dtype)
}

/**
 * Attention with several heads (Vaswani et al. 2017): torch.nn.MultiheadAttention. Parameters: in_proj_weight [3E, E], or
 * q_proj_weight, k_proj_weight and v_proj_weight where kdim or vdim differ; in_proj_bias [3E]; out_proj.weight [E, E],
 * out_proj.bias [E]. There is no add_bias_kv or add_zero_attn.
 */
export class MultiheadAttention extends Module {
  q_proj_weight: Parameter | null
  k_proj_weight: Parameter | null
  v_proj_weight: Parameter | null
  in_proj_weight: Parameter | null
  in_proj_bias: Parameter | null
  out_proj: Linear
  readonly dropout: number
  readonly batchFirst: boolean

  constructor(
    readonly embedDim: number,
    readonly numHeads: number,
    {
      dropout = 0,
      bias = true,
      kdim = null,
      vdim = null,
      batchFirst = false,
      ...factory
    }: MultiheadAttentionOptions = {},
  ) {
    super()
    if (!(numHeads > 0 && embedDim % numHeads === 0)) {
      throw new RangeError(
        `MultiheadAttention: expected embedDim to be a multiple of ${numHeads} heads, but received ${embedDim}`,
      )
    }
    const isPacked = (kdim ?? embedDim) === embedDim && (vdim ?? embedDim) === embedDim
    const weight = (width: number) => (isPacked ? null : emptyParameter([embedDim, width], factory))
    this.dropout = dropout
    this.batchFirst = batchFirst
    this.q_proj_weight = weight(embedDim)
    this.k_proj_weight = weight(kdim ?? embedDim)
    this.v_proj_weight = weight(vdim ?? embedDim)
    this.in_proj_weight = isPacked ? emptyParameter([3 * embedDim, embedDim], factory) : null
    this.in_proj_bias = bias ? emptyParameter([3 * embedDim], factory) : null
    this.out_proj = new Linear(embedDim, embedDim, { bias, ...factory })
    this.resetParameters()
  }

  resetParameters(): void {
    for (const weight of [this.in_proj_weight, this.q_proj_weight, this.k_proj_weight, this.v_proj_weight]) {
      if (weight !== null) xavierUniform_(weight)
    }
    for (const bias of [this.in_proj_bias, this.out_proj.bias]) if (bias !== null) zeros_(bias)
  }

  /**
   * @param query [N, L, E] with batchFirst, else [L, N, E]; or [L, E]
   * @param key [N, S, kdim], [S, N, kdim] or [S, kdim]
   * @param value as key, with vdim
   * @returns the output of query's shape, and the weights [N, L, S] (or [N, numHeads, L, S]), or null without needWeights
   */
  forward(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions = {}): [Tensor, Tensor | null] {
    const { needWeights = true, averageAttnWeights = true } = options
    const isBatched = query.ndim === 3
    if (query.ndim !== key.ndim || key.ndim !== value.ndim || (!isBatched && query.ndim !== 2)) {
      throw new RangeError(
        `MultiheadAttention: expected query, key and value of 3 (or 2) dimensions each, but received shapes [${query.shape}], [${key.shape}] and [${value.shape}]`,
      )
    }
    const [q, k, v] = this.project(query, key, value).map((each) => {
      const batched = isBatched ? (this.batchFirst ? each : each.transpose(0, 1)) : each.unsqueeze(0)
      return batched.unflatten(-1, [this.numHeads, -1]).transpose(1, 2)
    }) as [Tensor, Tensor, Tensor]
    const { attended, weights } = this.attend(q, k, v, options, needWeights)
    const merged = attended.transpose(1, 2).flatten(-2)
    const output = this.out_proj.forward(
      isBatched ? (this.batchFirst ? merged : merged.transpose(0, 1)) : merged.squeeze(0),
    )
    if (weights === null) return [output, null]
    const shown = averageAttnWeights ? weights.mean(1) : weights
    return [output, isBatched ? shown : shown.squeeze(0)]
  }

  /** Queries, keys and values [..., E], by one product where they come from one tensor. */
  private project(query: Tensor, key: Tensor, value: Tensor): Tensor[] {
    const { in_proj_weight: packed, in_proj_bias: bias, embedDim } = this
    if (packed !== null && query === key && key === value) return ops.linear(query, packed, bias).chunk(3, -1)
    if (packed !== null && key === value) {
      const [queryWeight, restWeight] = packed.splitWithSizes([embedDim, 2 * embedDim]) as [Tensor, Tensor]
      const [queryBias = null, restBias = null] = bias?.splitWithSizes([embedDim, 2 * embedDim]) ?? []
      return [ops.linear(query, queryWeight, queryBias), ...ops.linear(key, restWeight, restBias).chunk(2, -1)]
    }
    const weights = packed?.chunk(3) ?? [this.q_proj_weight, this.k_proj_weight, this.v_proj_weight]
    const biases = bias?.chunk(3) ?? []
    return [query, key, value].map((each, index) => ops.linear(each, weights[index] as Tensor, biases[index] ?? null))
  }

  private attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    { keyPaddingMask = null, attnMask = null, isCausal = false }: AttentionOptions,
    needWeights: boolean,
  ): { attended: Tensor; weights: Tensor | null } {
    const dropoutP = this.training ? this.dropout : 0
    if (isCausal && keyPaddingMask === null && !needWeights) {
      return { attended: ops.scaledDotProductAttention(q, k, v, null, dropoutP, true), weights: null }
    }
    const mask = this.mergeMasks(q, k, keyPaddingMask, attnMask, isCausal)
    if (!needWeights) return { attended: ops.scaledDotProductAttention(q, k, v, mask, dropoutP), weights: null }
    const scores = q.mul(Math.sqrt(1 / q.size(-1))).matmul(k.mT)
    const weights = dropout((mask === null ? scores : scores.add(mask)).softmax(-1), dropoutP)
    return { attended: weights.matmul(v), weights }
  }

  private mergeMasks(
    q: Tensor,
    k: Tensor,
    keyPaddingMask: Tensor | null,
    attnMask: Tensor | null,
    isCausal: boolean,
  ): Tensor | null {
    const [batch, heads, queries] = q.shape as [number, number, number]
    const keys = k.size(2)
    const summands: Tensor[] = []
    const add = (name: string, mask: Tensor, shape: readonly number[], view: readonly number[]): void => {
      if (mask.shape.join() !== shape.join()) {
        throw new RangeError(`MultiheadAttention: expected ${name} of shape [${shape}], but received [${mask.shape}]`)
      }
      summands.push(asSummand(mask, q).reshape(view))
    }
    if (attnMask !== null && attnMask.ndim === 3) {
      add('attnMask', attnMask, [batch * heads, queries, keys], [batch, heads, queries, keys])
    } else if (attnMask !== null) {
      add('attnMask', attnMask, [queries, keys], [queries, keys])
    } else if (isCausal) {
      const ones = ops.ones([queries, keys], { dtype: 'bool', device: q.device as 'cpu' })
      add('attnMask', ones.triu(1), [queries, keys], [queries, keys])
    }
    if (keyPaddingMask !== null) {
      const padding = keyPaddingMask.ndim === 1 ? keyPaddingMask.unsqueeze(0) : keyPaddingMask
      add('keyPaddingMask', padding, [batch, keys], [batch, 1, 1, keys])
    }
    return summands.length === 0 ? null : summands.reduce((sum, each) => sum.add(each))
  }
}
