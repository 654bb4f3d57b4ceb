import type { AttentionPart } from './layout.js'

/** A text to compute: its tokens, and whether a padding token after them, which sees them and not itself, is what counts. */
export interface TextItem {
  readonly tokens: readonly number[]
  readonly hasPad: boolean
}

/**
 * Every distinct prefix of some texts, once. What a causal model computes at a token depends on the tokens before it
 * alone, so a token of the tree stands for that token in every text that begins in the same way.
 */
export interface PrefixTree {
  /** The nodes' tokens, parents first; the nodes below one follow it without a gap. */
  readonly tokens: readonly number[]
  /** How far from the start: the position of the token. */
  readonly depths: readonly number[]
  /** The node before, or -1. */
  readonly parents: readonly number[]
  /** Whether a node is a padding token that does not see itself. */
  readonly isPad: readonly boolean[]
  /** For each text the node that ends it: the padding token where it has one. */
  readonly ends: readonly number[]
}

function compare(a: readonly number[], b: readonly number[]): number {
  const length = Math.min(a.length, b.length)
  for (let k = 0; k < length; k += 1) {
    const difference = (a[k] as number) - (b[k] as number)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

/** The tree of distinct texts. In the order of the alphabet each text goes on from the one before. */
export function buildPrefixTree(texts: readonly TextItem[], padToken: number): PrefixTree {
  const tokens: number[] = []
  const depths: number[] = []
  const parents: number[] = []
  const isPad: boolean[] = []
  const ends = new Array<number>(texts.length).fill(-1)
  const add = (token: number, depth: number, parent: number, pad: boolean): number => {
    depths.push(depth)
    parents.push(parent)
    isPad.push(pad)
    return tokens.push(token) - 1
  }
  const order = texts.map((_, index) => index).sort((a, b) => compare(texts[a]!.tokens, texts[b]!.tokens))
  let path: number[] = []
  let before: readonly number[] = []
  for (const index of order) {
    const { tokens: own, hasPad } = texts[index]!
    let shared = 0
    while (shared < own.length && shared < before.length && own[shared] === before[shared]) shared += 1
    path = path.slice(0, shared)
    for (let depth = shared; depth < own.length; depth += 1)
      path.push(add(own[depth]!, depth, path[depth - 1] ?? -1, false))
    before = own
    const last = path[own.length - 1] ?? -1
    ends[index] = hasPad ? add(padToken, own.length, last, true) : last
  }
  return { tokens, depths, parents, isPad, ends }
}

/** The nodes from the start to a node, itself included. */
export function pathTo({ parents }: PrefixTree, node: number): number[] {
  const path: number[] = []
  for (let at = node; at >= 0; at = parents[at]!) path.push(at)
  return path.reverse()
}

/**
 * Attention over a tree, in parts of `partLength` nodes: a part sees itself and the path to its first node, since every
 * node above one of its nodes is in the part or on that path. So the work grows with the nodes, not with their square.
 */
export function treeParts(tree: PrefixTree, partLength: number): AttentionPart[] {
  const count = tree.tokens.length
  const parts: AttentionPart[] = []
  for (let start = 0; start < count; start += partLength) {
    const length = Math.min(partLength, count - start)
    const parent = tree.parents[start]!
    const before = parent < 0 ? [] : pathTo(tree, parent)
    const keys = before.length + length
    const seen = new Uint8Array(length * keys)
    for (let own = 0; own < length; own += 1) {
      const node = start + own
      const above = tree.parents[node]!
      const row = own * keys
      if (above >= start) {
        // what the node above sees, and that node itself
        seen.copyWithin(row, (above - start) * keys, (above - start + 1) * keys)
      } else if (above >= 0) {
        seen.fill(1, row, row + tree.depths[above]! + 1)
      }
      if (!tree.isPad[node]) seen[row + before.length + own] = 1
    }
    parts.push({ rows: 1, length, before, seen })
  }
  return parts
}
