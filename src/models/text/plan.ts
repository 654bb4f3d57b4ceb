import type { AttentionLayout, AttentionPart } from './layout.js'
import { buildPrefixTree, pathTo, type TextItem, treeParts } from './prefix-tree.js'

/** Which state of a text is its feature. */
export type Pooling =
  /** At the first padding position, whose query sees the text and not itself; at the last token of a text without padding. */
  | 'first-pad'
  | 'last-token'
  /** At the first token. */
  | 'cls'
  /** The mean over the text's tokens. */
  | 'mean'

export type Execution = 'padded' | 'packed' | 'tree'

/** What is computed for a batch of texts. Nothing in it is on a device. */
export interface TextPlan {
  readonly execution: Execution
  /** Tokens, [rows, length] row by row. -1 - k stands for the k-th prompt vector. */
  readonly tokens: readonly number[]
  readonly rows: number
  readonly length: number
  /** Of each token, or of each column for padded rows; without those of a prefix. */
  readonly positions: readonly number[]
  /** How the tokens of the one row see each other; null for padded rows. */
  readonly layout: AttentionLayout | null
  /** For padded rows: the tokens of each that are seen. */
  readonly seenLengths: readonly number[] | null
  /** For each text that is computed, the tokens whose mean is its feature: one, but for 'mean'. */
  readonly pooled: readonly (readonly number[])[]
  /** Which text that is computed each text of the batch is. */
  readonly textOf: readonly number[]
  /** Pairs of queries and keys. */
  readonly pairs: number
}

export interface PlanRequest {
  /** The batch, its prompt vectors in front. */
  readonly items: readonly TextItem[]
  readonly pool: Pooling
  readonly padToken: number
  readonly seesRight: boolean
  /** How many of each text's first tokens are prompt vectors. */
  readonly promptLength: number
  /** Padded rows' length. Default: the longest of the batch. */
  readonly rowLength?: number
}

/** Nodes or tokens that attend together: see treeParts. */
const PART_LENGTH = 256
/** Texts of one length with so many tokens are worth attention of their own. */
const GROUP_TOKENS = 192

/** Tokens that a text takes, the padding that is looked at included. */
export const computedLength = ({ tokens, hasPad }: TextItem): number => tokens.length + (hasPad ? 1 : 0)

/** The distinct texts, and which of them each text is. */
function distinct(items: readonly TextItem[]): { texts: TextItem[]; textOf: number[] } {
  const found = new Map<string, number>()
  const texts: TextItem[] = []
  const textOf = items.map((item) => {
    const key = `${item.hasPad ? 'p' : ''}${item.tokens.join(' ')}`
    let index = found.get(key)
    if (index === undefined) {
      index = texts.push(item) - 1
      found.set(key, index)
    }
    return index
  })
  return { texts, textOf }
}

/** The tokens whose mean is a text's feature, counted from its first. */
function pooledTokens(item: TextItem, pool: Pooling, promptLength: number): number[] {
  if (pool === 'cls') return [promptLength]
  if (pool === 'mean') return item.tokens.slice(promptLength).map((_, index) => promptLength + index)
  return [computedLength(item) - 1]
}

const ascending = (length: number): number[] => Array.from({ length }, (_, index) => index)

/** Each text in a row of its own, filled up with padding. */
export function planPadded({ items, pool, padToken, promptLength, rowLength }: PlanRequest): TextPlan {
  const length = rowLength ?? Math.max(...items.map(computedLength))
  const tokens: number[] = []
  for (const item of items) {
    tokens.push(...item.tokens)
    for (let k = item.tokens.length; k < length; k += 1) tokens.push(padToken)
  }
  return {
    execution: 'padded',
    tokens,
    rows: items.length,
    length,
    positions: ascending(length),
    layout: null,
    seenLengths: items.map((item) => item.tokens.length),
    pooled: items.map((item, row) => pooledTokens(item, pool, promptLength).map((each) => row * length + each)),
    textOf: ascending(items.length),
    pairs: items.length * length * length,
  }
}

/** Who sees whom in some texts side by side: each text itself, and nobody a padding token. */
function blocks(texts: readonly TextItem[], seesRight: boolean): Uint8Array {
  const length = texts.reduce((sum, text) => sum + computedLength(text), 0)
  const seen = new Uint8Array(length * length)
  let start = 0
  for (const text of texts) {
    const own = text.tokens.length
    for (let query = 0; query < computedLength(text); query += 1) {
      const row = (start + query) * length + start
      seen.fill(1, row, row + (seesRight ? own : Math.min(own, query + 1)))
    }
    start += computedLength(text)
  }
  return seen
}

/** The distinct texts one after the other, without padding. Those of one length attend together. */
export function planPacked({ items, pool, padToken, seesRight, promptLength }: PlanRequest): TextPlan {
  const { texts, textOf } = distinct(items)
  const groups = new Map<string, number[]>()
  for (const [index, text] of texts.entries()) {
    const key = `${computedLength(text)} ${text.hasPad}`
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [index])
    else group.push(index)
  }
  const order: number[] = []
  const parts: AttentionPart[] = []
  const mixed: number[] = []
  for (const group of groups.values()) {
    const first = texts[group[0]!]!
    const length = computedLength(first)
    if (length * group.length < GROUP_TOKENS) {
      mixed.push(...group)
      continue
    }
    order.push(...group)
    const plain = seesRight ? 'all' : 'causal'
    parts.push({ rows: group.length, length, before: [], seen: first.hasPad ? blocks([first], seesRight) : plain })
  }
  for (let start = 0; start < mixed.length; ) {
    // whole texts, up to the length of a part
    let end = start
    let length = 0
    while (end < mixed.length && (end === start || length + computedLength(texts[mixed[end]!]!) <= PART_LENGTH)) {
      length += computedLength(texts[mixed[end]!]!)
      end += 1
    }
    const chosen = mixed.slice(start, end)
    parts.push({
      rows: 1,
      length,
      before: [],
      seen: blocks(
        chosen.map((index) => texts[index]!),
        seesRight,
      ),
    })
    order.push(...chosen)
    start = end
  }
  const tokens: number[] = []
  const positions: number[] = []
  const pooled = new Array<number[]>(texts.length).fill([])
  for (const index of order) {
    const text = texts[index]!
    const start = tokens.length
    pooled[index] = pooledTokens(text, pool, promptLength).map((each) => start + each)
    tokens.push(...text.tokens, ...(text.hasPad ? [padToken] : []))
    positions.push(...ascending(computedLength(text)))
  }
  return oneRow('packed', tokens, positions, parts, pooled, textOf)
}

/** Each distinct prefix once: for causal models alone. */
export function planTree({ items, pool, padToken, promptLength }: PlanRequest): TextPlan {
  const { texts, textOf } = distinct(items)
  const tree = buildPrefixTree(texts, padToken)
  const pooled = texts.map((text, index) => {
    const end = tree.ends[index]!
    if (pool === 'first-pad' || pool === 'last-token') return [end]
    const path = pathTo(tree, end)
    return pooledTokens(text, pool, promptLength).map((each) => path[each]!)
  })
  return oneRow('tree', tree.tokens, tree.depths, treeParts(tree, PART_LENGTH), pooled, textOf)
}

function oneRow(
  execution: Execution,
  tokens: readonly number[],
  positions: readonly number[],
  parts: readonly AttentionPart[],
  pooled: readonly (readonly number[])[],
  textOf: readonly number[],
): TextPlan {
  const pairs = parts.reduce((sum, { rows, length, before }) => sum + rows * length * (before.length + length), 0)
  return {
    execution,
    tokens,
    rows: 1,
    length: tokens.length,
    positions,
    layout: { parts },
    seenLengths: null,
    pooled,
    textOf,
    pairs,
  }
}
