/*
 * Attention of the text models: who sees whom, and the products.
 *
 * Vaswani et al. 2017, Attention is all you need, arXiv 1706.03762. Grouped queries: Ainslie et al. 2023, arXiv 2305.13245.
 */
import * as torch from '../../torch/index.js'
import { choosesForCpu } from '../kernels.js'
import type { InputSizes, KeyValue, RunningOptions, TextInput } from './encoder.js'
import { type AttentionPart, seenKeys, tokensOf } from './layout.js'

type Tensor = torch.Tensor

/** A part of a row with its tensors: see AttentionPart. */
interface ReadyPart {
  start: number
  rows: number
  length: number
  /** int64 [n], or null where there is none. */
  before: Tensor | null
  /** Added to the scores, [1, 1, length, keys]; null where all is seen. */
  mask: Tensor | null
}

/** Who sees whom, made once for all layers. */
export interface Visibility {
  /** For texts in rows of their own: added to the scores, [B or 1, H or 1, S, K]; null where all is seen. */
  mask: Tensor | null
  /** The mask is the causal one, and no more: kernels have a shorter way for it. */
  isCausal: boolean
  /** For one row of several texts. */
  parts: readonly ReadyPart[] | null
}

/** The tensors that a layer's attention reads beside its input, which activation checkpointing must keep. */
export function tensorsOf({ mask, parts }: Visibility): Tensor[] {
  const inParts = (parts ?? []).flatMap((part) => [part.before, part.mask])
  return [mask, ...inParts].filter((each): each is Tensor => each !== null)
}

/** The same visibility over other handles of its tensors, in the order of tensorsOf(). */
export function withTensors(visibility: Visibility, tensors: readonly Tensor[]): Visibility {
  let next = 0
  const replaced = (tensor: Tensor | null): Tensor | null => (tensor === null ? null : (tensors[next++] as Tensor))
  const mask = replaced(visibility.mask)
  const parts =
    visibility.parts?.map((part) => ({ ...part, before: replaced(part.before), mask: replaced(part.mask) })) ?? null
  return { ...visibility, mask, parts }
}

/** Finite, so that a token which sees nothing gets some numbers, and not NaN, which would reach every gradient. */
const LOWEST: Readonly<Partial<Record<torch.DType, number>>> = {
  float64: -Number.MAX_VALUE,
  bfloat16: -3.3895313892515355e38,
  float16: -65504,
}

/** 0 where seen, the lowest number elsewhere. */
function additive(seen: Tensor, dtype: torch.DType): Tensor {
  const lowest = LOWEST[dtype] ?? -3.4028234663852886e38
  return torch.zeros(seen.shape, { dtype, device: seen.device as torch.Device }).maskedFill_(seen.logicalNot(), lowest)
}

function partMask(part: AttentionPart, prefixLength: number, dtype: torch.DType, device: torch.Device): Tensor | null {
  if (part.seen === 'all') return null
  const keys = prefixLength + part.before.length + part.length
  const seen = torch.fromTypedArray(seenKeys(part, prefixLength), [1, 1, part.length, keys], { device }).to('bool')
  return additive(seen, dtype)
}

/** The causal mask of a row behind a prefix: bool [1, 1, S, n + S]. */
function causalMask(length: number, prefixLength: number, device: torch.Device): Tensor {
  const all = torch.ones([length, prefixLength + length], { dtype: 'bool', device })
  // query s sees the prefix and the keys up to its own
  return all.tril(prefixLength).view([1, 1, length, prefixLength + length])
}

const describe = (mask: Tensor): string => `${mask.dtype} of shape [${mask.shape.join(', ')}]`

/** A padding mask [B, S] as bool [B, 1, 1, n + S]: a prefix is always seen. */
function paddingMask(mask: Tensor, { batch, length, prefixLength }: InputSizes, name: string): Tensor {
  if (mask.shape[0] !== batch || mask.shape[1] !== length) {
    throw new RangeError(
      `${name}: expected an attentionMask of shape [${batch}, ${length}], but received ${describe(mask)}`,
    )
  }
  const seen = mask.ne(0).view([batch, 1, 1, length])
  if (prefixLength === 0) return seen
  return torch.cat(
    [torch.ones([batch, 1, 1, prefixLength], { dtype: 'bool', device: mask.device as torch.Device }), seen],
    -1,
  )
}

/** A mask that says everything, as something to add: [B or 1, H or 1, S, K]. */
function fullMask(
  given: Tensor,
  { batch, length, prefixLength }: InputSizes,
  dtype: torch.DType,
  name: string,
): Tensor {
  const mask = given.ndim === 3 ? given.unsqueeze(1) : given
  const keys = prefixLength + length
  const [rows, , queries, seen] = mask.shape
  if (
    mask.ndim !== 4 ||
    !(rows === 1 || rows === batch) ||
    !(queries === 1 || queries === length) ||
    !(seen === keys || seen === length)
  ) {
    throw new RangeError(
      `${name}: expected an attentionMask [${batch}, ${length}], or one broadcastable to [${batch}, heads, ${length}, ${keys}], but received ${describe(given)}`,
    )
  }
  if (mask.dtype !== 'bool' && !mask.isFloatingPoint()) {
    throw new TypeError(
      `${name}: expected a full attentionMask to be bool (true where seen) or float (added to the scores), but received ${describe(given)}`,
    )
  }
  const summand = mask.dtype === 'bool' ? additive(mask, dtype) : mask.dtype === dtype ? mask : mask.to(dtype)
  if (seen === keys) return summand
  const [b = 1, h = 1, q = 1] = summand.shape
  return torch.cat([torch.zeros([b, h, q, prefixLength], { dtype, device: mask.device as torch.Device }), summand], -1)
}

/** Who sees whom in an input. Made outside of the layers, so that checkpointing does not make it again. */
export function visibilityOf(
  name: string,
  input: TextInput,
  sizes: InputSizes,
  seesRight: boolean,
  like: Tensor,
): Visibility {
  const { batch, length, prefixLength } = sizes
  const device = like.device as torch.Device
  const kind = like.device.split(':')[0] as torch.Device
  const dtype = torch.isAutocastEnabled(kind) ? torch.getAutocastDtype(kind) : like.dtype
  const { layout, attentionMask } = input
  if (layout !== undefined) {
    if (attentionMask !== undefined || batch !== 1 || tokensOf(layout) !== length) {
      throw new RangeError(
        `${name}: expected a layout for one row of ${tokensOf(layout)} tokens without attentionMask, but received shape [${batch}, ${length}]${attentionMask === undefined ? '' : ' and an attentionMask'}`,
      )
    }
    let start = 0
    const parts = layout.parts.map((part): ReadyPart => {
      const { rows, length: tokens } = part
      const before =
        part.before.length === 0
          ? null
          : torch.fromTypedArray(BigInt64Array.from(part.before, BigInt), [part.before.length], { device })
      const ready = { start, rows, length: tokens, before, mask: partMask(part, prefixLength, dtype, device) }
      start += rows * tokens
      return ready
    })
    return { mask: null, isCausal: false, parts }
  }
  if (attentionMask !== undefined && attentionMask.ndim !== 2) {
    return { mask: fullMask(attentionMask, sizes, dtype, name), isCausal: false, parts: null }
  }
  const padding = attentionMask === undefined ? null : paddingMask(attentionMask, sizes, name)
  if (seesRight) return { mask: padding === null ? null : additive(padding, dtype), isCausal: false, parts: null }
  const causal = causalMask(length, prefixLength, device)
  const isCausal = padding === null && prefixLength === 0
  return { mask: additive(padding === null ? causal : causal.logicalAnd(padding), dtype), isCausal, parts: null }
}

export interface AttentionOptions {
  scale: number
  visibility: Visibility
  prefix: KeyValue | null
  dropout: number
  training: boolean
  running: RunningOptions
  wantWeights: boolean
}

export interface Attended {
  /** [B, S, heads x headWidth] */
  output: Tensor
  /** [B, heads, S, K], where asked for */
  weights: Tensor | null
}

/**
 * Attention of queries [B, S, heads, headWidth] to keys and values [B, S, keyValueHeads, headWidth], each of which serves
 * heads / keyValueHeads queries that follow each other.
 */
export function attend(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): Attended {
  const { visibility, prefix, wantWeights } = options
  const { mask, isCausal, parts } = visibility
  if (parts === null)
    return attendRows(query, withPrefix(key, prefix?.key), withPrefix(value, prefix?.value), mask, isCausal, options)
  if (wantWeights)
    throw new RangeError(
      'outputAttentions: expected texts in rows of their own, but received a layout; run them padded',
    )
  const [, , heads = 1, headWidth = 1] = query.shape
  const outputs = parts.map(({ start, rows, length, before, mask: partMask }) => {
    // [1, T, H, d] to [rows, length, H, d]
    const own = (x: Tensor): Tensor =>
      rows * length === x.shape[1] && rows === 1
        ? x
        : x.narrow(1, start, rows * length).reshape([rows, length, x.shape[2] ?? 1, headWidth])
    const keys = (x: Tensor): Tensor => (before === null ? own(x) : torch.cat([x.indexSelect(1, before), own(x)], 1))
    const { output } = attendRows(
      own(query),
      withPrefix(keys(key), prefix?.key),
      withPrefix(keys(value), prefix?.value),
      partMask,
      false,
      options,
    )
    // [rows, length, H d] to [1, rows x length, H d]
    return output.reshape([1, rows * length, heads * headWidth])
  })
  return { output: outputs.length === 1 ? (outputs[0] as Tensor) : torch.cat(outputs, 1), weights: null }
}

/** Keys or values [B, S, H, d] behind those of a prefix [B or 1, H, n, d]: [B, n + S, H, d]. */
function withPrefix(own: Tensor, prefix: Tensor | undefined): Tensor {
  if (prefix === undefined) return own
  const [batch = 1, , heads = 1, headWidth = 1] = own.shape
  const first = prefix.dtype === own.dtype ? prefix : prefix.to(own.dtype)
  return torch.cat([first.transpose(1, 2).expand([batch, prefix.shape[2] ?? 0, heads, headWidth]), own], 1)
}

/** Scores beyond which the fused kernels, which never hold them, are taken on a CPU: 64 MiB in float32. */
const FEW_SCORES = 2 ** 24

function attendRows(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  mask: Tensor | null,
  isCausal: boolean,
  options: AttentionOptions,
): Attended {
  const { scale, dropout, training, running, wantWeights } = options
  const [batch = 1, length = 1, heads = 1, headWidth = 1] = query.shape
  const [, keys = 1, keyHeads = 1] = key.shape
  const rate = training && running.ownDropout ? dropout : 0
  // libtorch's fused CPU kernel takes 1.3 to 20 times as long as two products and a softmax on texts of these lengths
  const isPlain = wantWeights || (choosesForCpu(query) && batch * heads * length * keys <= FEW_SCORES)
  return torch.scope(() => {
    if (isPlain) return plainAttention(query, key, value, mask, scale, rate, wantWeights)
    const perHead = (x: Tensor): Tensor => {
      const each = x.transpose(1, 2)
      if (keyHeads === heads) return each
      // [B, Hk, K, d] to [B, H, K, d]: each key serves the queries of its group
      return each
        .unsqueeze(2)
        .expand([batch, keyHeads, heads / keyHeads, keys, headWidth])
        .reshape([batch, heads, keys, headWidth])
    }
    const q = query.transpose(1, 2)
    const output = torch.scaledDotProductAttention(q, perHead(key), perHead(value), {
      attnMask: isCausal || mask === null ? null : mask.dtype === q.dtype ? mask : mask.to(q.dtype),
      dropoutP: rate,
      isCausal,
      scale,
    })
    // [B, H, S, d] to [B, S, H d]
    return { output: output.transpose(1, 2).reshape([batch, length, heads * headWidth]), weights: null }
  })
}

function plainAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  mask: Tensor | null,
  scale: number,
  rate: number,
  wantWeights: boolean,
): Attended {
  const [batch = 1, length = 1, heads = 1, d = 1] = query.shape
  const [, keys = 1, keyHeads = 1] = key.shape
  const group = heads / keyHeads
  // [B, S, H, d] to [B Hk, group S, d]: the queries of a group are rows of one product, so keys are not repeated
  const q = query
    .mul(scale)
    .view([batch, length, keyHeads, group, d])
    .permute([0, 2, 3, 1, 4])
    .reshape([batch * keyHeads, group * length, d])
  const k = key.transpose(1, 2).reshape([batch * keyHeads, keys, d])
  const v = value.transpose(1, 2).reshape([batch * keyHeads, keys, d])
  let scores: Tensor
  if (mask !== null && group === 1 && mask.shape[0] === 1 && mask.shape[1] === 1 && mask.dtype === q.dtype) {
    // [1, 1, S, K] + [B H, S, K]
    scores = mask.squeeze(0).baddbmm(q, k.transpose(1, 2)).view([batch, heads, length, keys])
  } else {
    // [B Hk, group S, K] to [B, H, S, K]
    scores = q.bmm(k.transpose(1, 2)).view([batch, heads, length, keys])
    if (mask !== null) scores = scores.add(mask)
  }
  let weights = scores.softmax(-1)
  if (weights.dtype !== v.dtype) weights = weights.to(v.dtype)
  const kept = rate > 0 ? torch.dropout(weights, rate, true) : weights
  const summed = kept.view([batch * keyHeads, group * length, keys]).bmm(v)
  // [B Hk, group S, d] to [B, S, H d]
  const output = summed
    .view([batch, heads, length, d])
    .transpose(1, 2)
    .reshape([batch, length, heads * d])
  return { output, weights: wantWeights ? weights : null }
}
