import * as torch from '../../torch/index.js'
import { costOf } from './cost.js'
import { checkIds, isAdapted, type KeyValue, type TextEncoder } from './encoder.js'
import {
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
  /** Padded rows: to the longest of the batch (the default), or to maximumLength. */
  padTo?: 'longest' | 'maximum'
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
  const rowLength = padTo === 'maximum' ? promptLength + limit : undefined
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

function runInner(model: TextEncoder, plan: TextPlan, { pool, promptEmbeddings, prefix }: EncodeTextOptions): Tensor {
  const { rows, length, layout, seenLengths, pooled, textOf } = plan
  checkPrompt(model, promptEmbeddings)
  checkPrefix(prefix)
  return torch.scope(() => {
    const device = model.wordEmbeddings().weight.device as torch.Device
    const whole = (values: readonly number[], shape: readonly number[] = [values.length]): Tensor =>
      torch.fromTypedArray(BigInt64Array.from(values, BigInt), shape, { device })
    const prefixLength = prefix?.[0]?.key.shape[2] ?? 0
    const positionIds = whole(
      plan.positions.map((each) => prefixLength + each),
      [1, plan.positions.length],
    )
    // [rows, 1] and [length] to [rows, length]; tokens before a text's last do not see what is after it in causal models
    const needsMask = seenLengths !== null && (model.seesRight || pool === 'first-pad')
    const attentionMask = needsMask ? torch.arange(length, { device }).lt(whole(seenLengths, [rows, 1])) : undefined
    const words =
      promptEmbeddings === undefined
        ? { inputIds: whole(plan.tokens, [rows, length]) }
        : { inputEmbeddings: withPrompt(model, plan, promptEmbeddings, whole) }
    const input = { ...words, positionIds, attentionMask, layout: layout ?? undefined, prefix }
    const flat = pooled.flat()
    let features: Tensor
    if (pool !== 'mean') {
      features = model.forward({ ...input, outputTokens: whole(flat) }).lastHidden
    } else {
      // [rows, length, D] to [rows length, D]
      const hidden = model.forward(input).lastHidden.flatten(0, 1)
      const shares = pooled.flatMap((tokens) => tokens.map(() => 1 / tokens.length))
      const parts = hidden
        .indexSelect(0, whole(flat))
        .mul(torch.tensor(shares, { device, dtype: hidden.dtype }).unsqueeze(1))
      const owners = whole(pooled.flatMap((tokens, text) => tokens.map(() => text)))
      features = hidden.newZeros([pooled.length, model.width]).indexAdd(0, owners, parts)
    }
    return pooled.length === textOf.length && textOf.every((text, index) => text === index)
      ? features
      : features.indexSelect(0, whole(textOf))
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

/** The embeddings [rows, length, D] of tokens among which -1 - k stands for the k-th prompt vector. */
function withPrompt(
  model: TextEncoder,
  { tokens, rows, length }: TextPlan,
  prompt: Tensor,
  whole: (values: readonly number[], shape?: readonly number[]) => Tensor,
): Tensor {
  const words = model.wordEmbeddings().forward(whole(tokens.filter((token) => token >= 0)))
  let next = prompt.size(0)
  const order = tokens.map((token) => {
    if (token < 0) return -1 - token
    next += 1
    return next - 1
  })
  return torch
    .cat([prompt.to(words.dtype), words], 0)
    .indexSelect(0, whole(order))
    .view([rows, length, model.width])
}
