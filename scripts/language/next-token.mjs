// The next token's loss of a GPT-2 over texts one after another, and its continuations. `torch` is the binding: dist/torch for scripts, src/torch for tests.

/**
 * The ids of records: texts one after the other, each with the end token behind it. Longer records than the model has positions
 * lose their last texts, or are left out where they are one text.
 */
export async function tokensOf(records, tokenizer, longest) {
  const ids = await tokenizer.encode(records.flat())
  let next = 0
  return records
    .map((texts) => {
      const joined = []
      let isFull = false
      for (const _ of texts) {
        const own = [...ids[next++], tokenizer.padToken]
        isFull ||= joined.length + own.length > longest
        if (!isFull) joined.push(...own)
      }
      return joined
    })
    .filter(({ length }) => length > 0)
}

/** Records side by side attend as one part, with a mask: of this many tokens, unless one alone is longer. */
const PART_LENGTH = 256

/** Who sees whom in records side by side: each token itself and those before it in its record. */
function visibility(records, blind, end) {
  const length = records.reduce((sum, each) => sum + each.length, 0)
  const seen = new Uint8Array(length * length)
  let start = 0
  for (const [index, record] of records.entries()) {
    for (const [position, token] of record.entries()) {
      const row = (start + position) * length + start
      seen.fill(1, row, row + position + 1)
      if (blind[index] && token === end) seen[row + position] = 0
    }
    start += record.length
  }
  return seen
}

/** How records in one row of tokens attend. */
function layoutOf(records, isBlind, end) {
  const parts = []
  for (let first = 0; first < records.length; ) {
    let [last, length] = [first, 0]
    while (last < records.length && (last === first || length + records[last].length <= PART_LENGTH)) {
      length += records[last++].length
    }
    const blind = Array.from({ length: last - first }, (_, index) => isBlind(first + index))
    parts.push({ rows: 1, length, before: [], seen: visibility(records.slice(first, last), blind, end) })
    first = last
  }
  return { parts }
}

/**
 * The mean cross-entropy of each token after the first of its record, in nats. All records run as one row of tokens, without
 * padding.
 *
 * @param isBlind in which records, by their index, end tokens do not see themselves: as padding does not, whose state
 *   CLEFT takes for the feature of the text before it. Default: in none
 */
export function lossOf(torch, model, records, { isBlind = () => false, end = 0 } = {}) {
  const whole = (numbers, shape) => torch.fromTypedArray(BigInt64Array.from(numbers, BigInt), shape)
  const tokens = records.flat()
  // the last token of a record foretells nothing
  const asked = []
  let start = 0
  for (const { length } of records) {
    for (let position = 0; position < length - 1; position += 1) asked.push(start + position)
    start += length
  }
  const { lastHidden } = model.forward({
    inputIds: whole(tokens, [1, tokens.length]),
    positionIds: whole(
      records.flatMap((record) => [...record.keys()]),
      [1, tokens.length],
    ),
    layout: layoutOf(records, isBlind, end),
    outputTokens: whole(asked, [asked.length]),
  })
  // the head is the word embeddings
  const logits = torch.linear(lastHidden, model.wte.weight)
  const targets = asked.map((index) => tokens[index + 1])
  return torch.nn.functional.crossEntropy(logits, whole(targets, [targets.length]))
}

/** A text continued up to its end, each token drawn as often as the model expects it. */
export async function continuation(torch, model, tokenizer, start, random) {
  const [ids] = await tokenizer.encode([start])
  while (ids.length < 100) {
    const expected = torch.noGrad(() =>
      torch.scope(() => {
        const { lastHidden } = model.forward({ inputIds: [ids] })
        return torch.linear(lastHidden.select(1, -1), model.wte.weight).softmax(-1).view([-1]).toArray()
      }),
    )
    let left = random.uniform()
    let token = 0
    while (token < expected.length - 1 && left >= expected[token]) left -= expected[token++]
    if (token === tokenizer.padToken) break
    ids.push(token)
  }
  return tokenizer.decode(ids)
}
