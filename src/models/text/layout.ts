/**
 * How the tokens of one row see each other, part by part: what lets several texts, or a tree of prefixes, run as one row
 * of tokens. The parts follow each other and cover the row.
 */
export interface AttentionLayout {
  readonly parts: readonly AttentionPart[]
}

/** `rows` texts of `length` tokens, one after the other, each of which attends to itself and to `before`. */
export interface AttentionPart {
  readonly rows: number
  readonly length: number
  /** Tokens of the row that stand before the part's own as keys. */
  readonly before: readonly number[]
  /** 'causal': each token sees itself and those before. Else [length, before + length], row by row, 1 where seen. */
  readonly seen: 'all' | 'causal' | Uint8Array
}

/** How many tokens a layout is for. */
export function tokensOf(layout: AttentionLayout): number {
  return layout.parts.reduce((sum, { rows, length }) => sum + rows * length, 0)
}

/** Which keys the tokens of a part see, behind `prefixLength` keys that all see: [length, keys], 1 where seen. */
export function seenKeys({ length, before, seen }: AttentionPart, prefixLength: number): Uint8Array {
  const own = before.length + length
  const keys = prefixLength + own
  const found = new Uint8Array(length * keys)
  for (let query = 0; query < length; query += 1) {
    const row = query * keys
    found.fill(1, row, row + prefixLength)
    if (seen === 'all') found.fill(1, row + prefixLength, row + keys)
    else if (seen === 'causal') found.fill(1, row + prefixLength, row + prefixLength + before.length + query + 1)
    else found.set(seen.subarray(query * own, (query + 1) * own), row + prefixLength)
  }
  return found
}
