import * as torch from '../../torch/index.js'
import { costOf } from './cost.js'
import { checkIds, isAdapted, type KeyValue, type TextEncoder } from './encoder.js'
import {
  computedLength,
  type Execution,
  type PlanRequest,
  type Pooling,
  planPacked,
  planPadded,
  planTree,
  type TextPlan,
} from './plan.js'
import type { TextItem } from './prefix-tree.js'

type Tensor = torch.Tensor

export interface EncodeTextOptions {
  pool: Pooling
  /**
   * What runs. 'padded': each text in a row of its own. 'packed': each distinct text once, without padding. 'tree': each
   * distinct prefix once, for models that do not see to the right. 'auto' (the default): the cheapest, by an estimate.
   */
  execution?: Execution | 'auto'
  /** A text has as many tokens at most; one that has fewer has padding. Default: as many as the model has positions for. */
  maximumLength?: number
  /** The token of padding. Needed for 'first-pad', and for empty texts. */
  padToken?: number
  /** Padded rows: to the longest of the batch (the default), to the next multiple of a number of tokens, or to maximumLength. */
  padTo?: 'longest' | 'maximum' | number
  /** Learned vectors before each text, [n, width]: a soft prompt. */
  promptEmbeddings?: Tensor
  /** Keys and values before each text in each layer, [1, keyValueHeads, n, headWidth] each: prefix tuning. */
  prefix?: readonly KeyValue[]
}

const plans: Readonly<Record<Execution, (request: PlanRequest) => TextPlan>> = {
  padded: planPadded,
  packed: planPacked,
  tree: planTree,
}

/** What encodeText is going to run for a batch: to look at, and to count. */
export function planText(
  model: TextEncoder,
  sequences: readonly (readonly number[])[],
  options: EncodeTextOptions,
): TextPlan {
  return torch.scope(() => {
    const [inner, given] = unwrap(model, options)
    return planInner(inner, sequences, given)
  })
}

/** The model below prefix and prompt adapters, and options with what those put before each text. */
function unwrap(model: TextEncoder, options: EncodeTextOptions): [TextEncoder, EncodeTextOptions] {
  if (!isAdapted(model)) return [model, options]
  const virtual = model.virtualTokens()
  const { prefix, embeddings } = virtual ?? { prefix: null, embeddings: null }
  if (
    (prefix !== null && options.prefix !== undefined) ||
    (embeddings !== null && options.promptEmbeddings !== undefined)
  ) {
    throw new TypeError(
      'encodeText: expected a prefix or prompt either in the options or by an adapter, but received both; leave one out',
    )
  }
  const before = { prefix: prefix ?? options.prefix, promptEmbeddings: embeddings ?? options.promptEmbeddings }
  return unwrap(model.model, { ...options, ...before })
}

function planInner(
  model: TextEncoder,
  sequences: readonly (readonly number[])[],
  options: EncodeTextOptions,
): TextPlan {
  const { pool, execution = 'auto', padTo = 'longest', promptEmbeddings, prefix = [] } = options
  if (sequences.length === 0)
    throw new RangeError('encodeText: expected at least one text, but received an empty batch')
  const promptLength = promptEmbeddings?.shape[0] ?? 0
  const room = model.maximumPositions - promptLength - (prefix[0]?.key.shape[2] ?? 0)
  if (options.maximumLength !== undefined && options.maximumLength > room) {
    throw new RangeError(
      `encodeText: expected a maximumLength of ${room} at most, for which the model has positions, but received ${options.maximumLength}`,
    )
  }
  const limit = options.maximumLength ?? room
  const items = itemsOf(model, sequences, options, promptLength, limit)
  if (padTo === 'maximum' && options.maximumLength === undefined) {
    throw new TypeError("encodeText: expected a maximumLength with padTo: 'maximum', but received none; give one")
  }
  const rowLength =
    padTo === 'longest' ? undefined : promptLength + Math.min(limit, roundedLength(items, padTo, promptLength))
  const { seesRight } = model
  const request = { items, pool, padToken: options.padToken ?? 0, seesRight, promptLength, rowLength }
  if (execution !== 'auto') {
    if (!Object.hasOwn(plans, execution)) {
      throw new RangeError(
        `encodeText: expected execution 'auto', 'padded', 'packed' or 'tree', but received '${execution}'`,
      )
    }
    if (execution === 'tree' && seesRight) {
      throw new RangeError(
        `encodeText: expected a model whose tokens see those before them alone for execution 'tree', but ${model.modelType} sees to the right; use 'packed'`,
      )
    }
    return plans[execution](request)
  }
  // with dropout of the model's own each text is drawn for itself
  if (model.training && model.running.ownDropout) return planPadded(request)
  const candidates = [planPadded(request), planPacked(request), ...(seesRight ? [] : [planTree(request)])]
  return candidates.reduce((best, each) => (costOf(each, model) < costOf(best, model) ? each : best))
}

/** Without the prompt's. */
function roundedLength(items: readonly TextItem[], padTo: 'maximum' | number, promptLength: number): number {
  if (padTo === 'maximum') return Number.POSITIVE_INFINITY
  if (!(Number.isInteger(padTo) && padTo > 0)) {
    throw new RangeError(`encodeText: expected padTo 'longest', 'maximum' or a number of tokens, but received ${padTo}`)
  }
  const longest = Math.max(...items.map(computedLength)) - promptLength
  return Math.ceil(longest / padTo) * padTo
}

function itemsOf(
  model: TextEncoder,
  sequences: readonly (readonly number[])[],
  { pool, padToken }: EncodeTextOptions,
  promptLength: number,
  limit: number,
): TextItem[] {
  if (padToken !== undefined) checkIds([padToken], model.vocabularySize, 'encodeText: padToken')
  const needPad = (why: string): number => {
    if (padToken !== undefined) return padToken
    throw new TypeError(`encodeText: expected a padToken for ${why}, but received none; give the tokenizer's`)
  }
  const prompt = Array.from({ length: promptLength }, (_, index) => -1 - index)
  return sequences.map((ids, index) => {
    if (ids.length > limit) {
      throw new RangeError(
        `encodeText: expected at most ${limit} tokens, but text ${index} has ${ids.length}; truncate it in the tokenizer`,
      )
    }
    checkIds(ids, model.vocabularySize, `encodeText: text ${index}`)
    // an empty text is a padding token that sees itself
    const own = ids.length === 0 ? [needPad('an empty text')] : ids
    const hasPad = pool === 'first-pad' && ids.length > 0 && ids.length < limit
    if (hasPad) needPad("pool 'first-pad'")
    return { tokens: [...prompt, ...own], hasPad }
  })
}

/**
 * The features of texts, [texts, width], from their token ids.
 *
 * All executions give the same features and gradients (to float32's rounding): how much is computed differs. A causal
 * model's state at a token depends on the tokens before it alone, so texts that begin in the same way share that part of
 * the work. A text without tokens counts as one padding token that sees itself.
 *
 * With dropout (of adapters in training mode) texts and prefixes that are computed once share what is dropped: the masks
 * are drawn for each token that is computed, not for each text of the batch. Dropout of the model's own (running.ownDropout)
 * makes 'auto' choose 'padded', where each text draws its own.
 */
export function encodeText(
  model: TextEncoder,
  sequences: readonly (readonly number[])[],
  options: EncodeTextOptions,
): Tensor {
  return torch.scope(() => {
    const [inner, given] = unwrap(model, options)
    return runInner(inner, planInner(inner, sequences, given), given)
  })
}

/** Runs what planText made. */
export function runPlan(model: TextEncoder, plan: TextPlan, options: EncodeTextOptions): Tensor {
  return torch.scope(() => {
    const [inner, given] = unwrap(model, options)
    return runInner(inner, plan, given)
  })
}

function runInner(model: TextEncoder, plan: TextPlan, options: EncodeTextOptions): Tensor {
  return torch.scope(() => {
    const { tensors, ...sizes } = uploadInner(model, plan, options)
    return runUploaded(model, { ...sizes, tensors }, options)
  })
}

/**
 * A batch of texts as it is computed, on the model's device. Of padded rows all tensors have the same shapes whatever the
 * texts are, at one number and one length of rows: what a CUDA graph wants.
 */
export interface UploadedTexts extends Pick<TextPlan, 'rows' | 'length' | 'layout'> {
  /** Texts that are computed. */
  readonly count: number
  /** By what they are. The caller's (or the scope's). */
  readonly tensors: Readonly<Partial<Record<TensorName, Tensor>>>
}

type TensorName =
  /** int64 [rows, length]; with prompt vectors those of words alone, [N]. */
  | 'tokens'
  /** int64 [rows x length]: which of the prompt vectors and the words each token is. */
  | 'order'
  /** int64 [1, length of a row, or of all]. */
  | 'positions'
  /** int64 [rows, 1]: tokens of each row that are seen. */
  | 'seen'
  /** int64 [N]: the tokens whose states are read. */
  | 'pooled'
  /** float64 [N, 1] and int64 [N], of a mean: each token's part of it, and whose. */
  | 'shares'
  | 'owners'
  /** int64 [texts]: which text that was computed each is. */
  | 'textOf'

/** Puts a batch of texts on the model's device: what {@link encodeText} does before it computes. */
export function uploadTexts(
  model: TextEncoder,
  sequences: readonly (readonly number[])[],
  options: EncodeTextOptions,
): UploadedTexts {
  return torch.scope(() => {
    const [inner, given] = unwrap(model, options)
    const { tensors, ...sizes } = uploadInner(inner, planInner(inner, sequences, given), given)
    return { ...sizes, tensors: torch.keep(tensors) }
  })
}

/** {@link encodeText} of what uploadTexts put there with the same options. */
export function encodeUploaded(model: TextEncoder, texts: UploadedTexts, options: EncodeTextOptions): Tensor {
  return torch.scope(() => {
    const [inner, given] = unwrap(model, options)
    return runUploaded(inner, texts, given)
  })
}

function uploadInner(
  model: TextEncoder,
  plan: TextPlan,
  { pool, promptEmbeddings, prefix }: EncodeTextOptions,
): UploadedTexts {
  checkPrompt(model, promptEmbeddings)
  checkPrefix(prefix)
  const { rows, length, layout, seenLengths, pooled, textOf, tokens } = plan
  const device = model.wordEmbeddings().weight.device as torch.Device
  const whole = (values: readonly number[], shape: readonly number[] = [values.length]): Tensor =>
    torch.fromTypedArray(BigInt64Array.from(values, BigInt), shape, { device })
  const prefixLength = prefix?.[0]?.key.shape[2] ?? 0
  const needsMask = seenLengths !== null && (model.seesRight || pool === 'first-pad')
  const isInOrder = pooled.length === textOf.length && textOf.every((text, index) => text === index)
  const tensors: Partial<Record<TensorName, Tensor>> = {
    ...(promptEmbeddings === undefined
      ? { tokens: whole(tokens, [rows, length]) }
      : {
          tokens: whole(tokens.filter((token) => token >= 0)),
          order: whole(orderOf(tokens, promptEmbeddings.size(0))),
        }),
    positions: whole(
      plan.positions.map((each) => prefixLength + each),
      [1, plan.positions.length],
    ),
    ...(needsMask && { seen: whole(seenLengths, [rows, 1]) }),
    pooled: whole(pooled.flat()),
    ...(pool === 'mean' && {
      shares: torch
        .tensor(
          pooled.flatMap((tokens) => tokens.map(() => 1 / tokens.length)),
          { device, dtype: 'float64' },
        )
        .unsqueeze(1),
      owners: whole(pooled.flatMap((tokens, text) => tokens.map(() => text))),
    }),
    ...(!isInOrder && { textOf: whole(textOf) }),
  }
  return { rows, length, layout, count: pooled.length, tensors }
}

function runUploaded(
  model: TextEncoder,
  { rows, length, layout, count, tensors }: UploadedTexts,
  { promptEmbeddings, prefix }: EncodeTextOptions,
): Tensor {
  return torch.scope(() => {
    const { tokens, order, positions: positionIds, seen, pooled, shares, owners, textOf } = tensors
    const device = pooled!.device as torch.Device
    // [rows, 1] and [length] to [rows, length]; tokens before a text's last do not see what is after it in causal models
    const attentionMask = seen === undefined ? undefined : torch.arange(length, { device }).lt(seen)
    const words =
      promptEmbeddings === undefined
        ? { inputIds: tokens! }
        : { inputEmbeddings: withPrompt(model, promptEmbeddings, tokens!, order!).view([rows, length, model.width]) }
    const input = { ...words, positionIds, attentionMask, layout: layout ?? undefined, prefix }
    let features: Tensor
    if (shares === undefined) {
      features = model.forward({ ...input, outputTokens: pooled! }).lastHidden
    } else {
      // [rows, length, D] to [rows length, D]
      const hidden = model.forward(input).lastHidden.flatten(0, 1)
      const parts = hidden.indexSelect(0, pooled!).mul(shares.to(hidden.dtype))
      features = hidden.newZeros([count, model.width]).indexAdd(0, owners!, parts)
    }
    return textOf === undefined ? features : features.indexSelect(0, textOf)
  })
}

function checkPrompt(model: TextEncoder, prompt: Tensor | undefined): void {
  if (prompt === undefined || (prompt.ndim === 2 && prompt.shape[1] === model.width)) return
  throw new RangeError(
    `encodeText: expected promptEmbeddings of shape [n, ${model.width}], but received [${prompt.shape.join(', ')}]`,
  )
}

function checkPrefix(prefix: readonly KeyValue[] | undefined): void {
  const wrong = prefix?.find(({ key }) => key.shape[0] !== 1)
  if (wrong === undefined) return
  throw new RangeError(
    `encodeText: expected one prefix for all texts, [1, heads, n, width], but received [${wrong.key.shape.join(', ')}]; call the model itself for several`,
  )
}

/** Where tokens are among prompt vectors and then words: -1 - k stands for the k-th prompt vector. */
function orderOf(tokens: readonly number[], promptLength: number): number[] {
  let next = promptLength
  return tokens.map((token) => {
    if (token < 0) return -1 - token
    next += 1
    return next - 1
  })
}

/** The embeddings [rows x length, D] of prompt vectors and words in their order. */
function withPrompt(model: TextEncoder, prompt: Tensor, words: Tensor, order: Tensor): Tensor {
  const embedded = model.wordEmbeddings().forward(words)
  return torch.cat([prompt.to(embedded.dtype), embedded], 0).indexSelect(0, order)
}
