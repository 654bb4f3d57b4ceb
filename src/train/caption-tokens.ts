import type { TextTokenizer } from '../models/index.js'

/** Token ids of captions. Each distinct caption is tokenized once in a run. */
export class CaptionTokens {
  readonly #known = new Map<string, readonly number[]>()

  constructor(
    private readonly tokenizer: TextTokenizer,
    readonly maximumLength: number,
  ) {}

  async encode(captions: readonly string[]): Promise<(readonly number[])[]> {
    const fresh = [...new Set(captions)].filter((each) => !this.#known.has(each))
    const { maximumLength } = this
    const ids = await this.tokenizer.encode(fresh, { maximumLength })
    for (const [index, caption] of fresh.entries()) this.#known.set(caption, ids[index]!)
    return captions.map((caption) => this.#known.get(caption)!)
  }
}
