import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer } from 'tokenizers'
import { type JsonObject, readJsonObject } from '../config.js'

export interface TokenizerOptions {
  /** The token of padding. Default: the end token of GPT-2 and LLaMA models, BERT's [PAD], else what the files say. By its text or its id. */
  padToken?: string | number
}

export interface EncodeOptions {
  /** Longer texts are cut, their special tokens counted and kept, as in Python. Default: nothing is cut. */
  maximumLength?: number
  /** Whether the model's special tokens ([CLS], a beginning token) are added. Default: true. */
  specialTokens?: boolean
}

export interface PaddedTexts {
  /** [texts, length], padding on the right. */
  inputIds: number[][]
  /** [texts, length], 1 for tokens and 0 for padding. */
  attentionMask: number[][]
}

/**
 * Text to token ids by a model's own tokenizer.json. It is the library that Python uses (npm's `tokenizers`, in Rust), so
 * ids are equal; texts are taken as they are.
 */
export class TextTokenizer {
  /** One for each maximum length: it is a setting of the library's object, and encoding goes on behind an await. */
  private readonly instances = new Map<number, Tokenizer>()

  private constructor(
    private readonly file: string,
    private readonly json: string,
    /** The token of padding: see {@link TokenizerOptions.padToken}. */
    readonly padToken: number,
  ) {}

  /**
   * Opens a model's folder, or a tokenizer.json.
   *
   * @throws where there is none, it cannot be read, or no padding token is known
   */
  static open(path: string, options: TokenizerOptions = {}): TextTokenizer {
    const isFolder = existsSync(path) && statSync(path).isDirectory()
    const file = isFolder ? join(path, 'tokenizer.json') : path
    if (!existsSync(file)) {
      throw new Error(
        `expected a file '${file}', but there is none; save it with AutoTokenizer.from_pretrained(...).save_pretrained(folder)`,
      )
    }
    const json = readFileSync(file, 'utf8')
    const plain = parse(file, json)
    const pad = options.padToken ?? padTokenOf(plain, isFolder ? path : null)
    const id = typeof pad === 'number' ? pad : pad === null ? null : plain.tokenToId(pad)
    if (id === null) {
      throw new RangeError(
        `'${file}': expected a padding token, but ${pad === null ? 'no file names one' : `the vocabulary has no '${pad}'`}; give one as padToken`,
      )
    }
    const tokenizer = new TextTokenizer(file, json, id)
    tokenizer.instances.set(Number.POSITIVE_INFINITY, plain)
    return tokenizer
  }

  private get plain(): Tokenizer {
    return this.instances.get(Number.POSITIVE_INFINITY) as Tokenizer
  }

  private cutAt(maximumLength: number): Tokenizer {
    let found = this.instances.get(maximumLength)
    if (found === undefined) {
      if (!Number.isInteger(maximumLength) || maximumLength < 1) {
        throw new RangeError(`tokenizer: expected a maximumLength of 1 or more, but received ${maximumLength}`)
      }
      found = parse(this.file, this.json)
      found.setTruncation(maximumLength)
      this.instances.set(maximumLength, found)
    }
    return found
  }

  /** Tokens, those that were added included. */
  get vocabularySize(): number {
    return this.plain.getVocabSize(true)
  }

  tokenToId(token: string): number | null {
    return this.plain.tokenToId(token)
  }

  /** The ids of each text, as many as it has. */
  async encode(texts: readonly string[], options: EncodeOptions = {}): Promise<number[][]> {
    const { maximumLength = Number.POSITIVE_INFINITY, specialTokens: addSpecialTokens = true } = options
    for (const [index, text] of texts.entries()) {
      if (typeof text !== 'string') {
        throw new TypeError(
          `tokenizer: expected text ${index} to be a string, but received ${text === null ? 'null' : typeof text}`,
        )
      }
    }
    if (texts.length === 0) return []
    const encodings = await this.cutAt(maximumLength).encodeBatch([...texts], { addSpecialTokens })
    return encodings.map((encoding) => encoding.getIds())
  }

  /** The ids of each text, filled up to maximumLength, or to the longest text where none is given. */
  async encodePadded(texts: readonly string[], options: EncodeOptions = {}): Promise<PaddedTexts> {
    return padTexts(await this.encode(texts, options), this.padToken, options.maximumLength)
  }

  /** The text of ids, without special tokens. */
  decode(ids: readonly number[]): Promise<string> {
    return this.plain.decode([...ids], true)
  }
}

/** Fills texts up with padding on the right, to a length or to the longest. */
export function padTexts(texts: readonly (readonly number[])[], padToken: number, length?: number): PaddedTexts {
  const width = length ?? texts.reduce((longest, { length: own }) => Math.max(longest, own), 0)
  const fill = (own: readonly number[], value: number): number[] => [
    ...own,
    ...new Array<number>(Math.max(0, width - own.length)).fill(value),
  ]
  return {
    inputIds: texts.map((ids) => fill(ids, padToken)),
    attentionMask: texts.map((ids) => fill(new Array<number>(ids.length).fill(1), 0)),
  }
}

function parse(file: string, json: string): Tokenizer {
  let tokenizer: Tokenizer
  try {
    tokenizer = Tokenizer.fromString(json)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new SyntaxError(
      `expected a tokenizer in '${file}', but it cannot be read as such (${reason}); get the file again`,
    )
  }
  // files carry the settings of whoever saved them
  tokenizer.disableTruncation()
  tokenizer.disablePadding()
  return tokenizer
}

/** What the usual vocabularies call it, where no file says so. */
const USUAL_PADS = ['[PAD]', '<pad>', '<|endoftext|>', '</s>']

/** The padding token by its name or its id: the end token for GPT-2 and LLaMA, which have no other. */
function padTokenOf(tokenizer: Tokenizer, folder: string | null): string | number | null {
  const usual = USUAL_PADS.find((token) => tokenizer.tokenToId(token) !== null) ?? null
  if (folder === null) return usual
  const read = (name: string): JsonObject => (existsSync(join(folder, name)) ? readJsonObject(join(folder, name)) : {})
  const config = read('config.json')
  const named = { ...read('special_tokens_map.json'), ...read('tokenizer_config.json') }
  if (config.model_type === 'gpt2' || config.model_type === 'llama') {
    const end = Array.isArray(config.eos_token_id) ? config.eos_token_id[0] : config.eos_token_id
    if (typeof end === 'number') return end
    return tokenName(named.eos_token) ?? usual
  }
  return (
    tokenName(named.pad_token) ??
    (typeof config.pad_token_id === 'number' ? config.pad_token_id : (tokenName(named.eos_token) ?? usual))
  )
}

/** A token as the files write it: a text, or an object with one. */
function tokenName(value: unknown): string | null {
  if (typeof value === 'string') return value
  const content = typeof value === 'object' && value !== null && 'content' in value ? value.content : null
  return typeof content === 'string' ? content : null
}
