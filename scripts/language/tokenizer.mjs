import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BPE, byteLevelAlphabet, byteLevelPreTokenizer, lowercase, Tokenizer } from 'tokenizers'

export const END = '<|endoftext|>'

/**
 * A byte-level BPE of lower-case texts (Sennrich et al. 2016; Radford et al. 2019), as the text of a tokenizer.json.
 *
 * A space is put in front of every text, so that a word is the same tokens at the start of a text and inside.
 *
 * @param texts what it is learned from
 * @param size tokens in all: the end token, the 256 bytes, and what was merged first
 */
export function learnTokenizer(texts, size) {
  const folder = mkdtempSync(join(tmpdir(), 'cleft-tokenizer-'))
  try {
    const [corpus, learned] = [join(folder, 'corpus.txt'), join(folder, 'tokenizer.json')]
    writeFileSync(corpus, `${texts.join('\n')}\n`)
    const tokenizer = new Tokenizer(BPE.empty())
    tokenizer.setNormalizer(lowercase())
    tokenizer.setPreTokenizer(byteLevelPreTokenizer(true, true))
    tokenizer.train([corpus])
    tokenizer.save(learned)
    return withMerges(JSON.parse(readFileSync(learned, 'utf8')), size)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The library learns merges until all words are tokens: the first of them are those of a smaller vocabulary. */
function withMerges(learned, size) {
  const alphabet = byteLevelAlphabet().sort()
  const merges = learned.model.merges.slice(0, size - 1 - alphabet.length)
  const tokens = [END, ...alphabet, ...merges.map((pair) => pair.join(''))]
  if (new Set(tokens).size !== size) {
    throw new Error(`expected ${size} tokens, but the texts gave ${new Set(tokens).size}; learn from more of them`)
  }
  const byteLevel = { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true }
  const end = {
    id: 0,
    content: END,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }
  return JSON.stringify({
    ...learned,
    added_tokens: [end],
    // without the space in front
    decoder: { type: 'Sequence', decoders: [byteLevel, { type: 'Strip', content: ' ', start: 1, stop: 0 }] },
    model: { ...learned.model, vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  })
}
