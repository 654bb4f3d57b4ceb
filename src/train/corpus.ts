import type { TextTower, TokenSequences } from '../clip/text-tower.js'
import type { TextEncoder } from '../models/index.js'
import * as torch from '../torch/index.js'
import type { CaptionTokens } from './caption-tokens.js'
import type { FullPretrainOptions } from './options/index.js'

/** Every distinct caption of a training set, for `negatives: 'corpus'`. */
export class Corpus implements Disposable {
  /** Token ids, a text for each caption. */
  readonly texts: TokenSequences
  /** [M]: ln of the captions' shares of the images; null without priors. */
  readonly logShares: torch.Tensor | null
  readonly #rows: ReadonlyMap<string, number>

  private constructor(captions: readonly string[], texts: TokenSequences, logShares: torch.Tensor | null) {
    this.texts = texts
    this.logShares = logShares
    this.#rows = new Map(captions.map((caption, row) => [caption, row]))
  }

  /** Of captions with their shares. {@link checkCorpus} says whether it may be. */
  static async of(
    shares: ReadonlyMap<string, number>,
    tokens: CaptionTokens,
    { priors, device }: { priors: boolean; device: torch.Device },
  ): Promise<Corpus> {
    const captions = [...shares.keys()]
    const texts = await tokens.encode(captions)
    const logShares = priors ? torch.keep(torch.tensor([...shares.values()].map(Math.log), { device })) : null
    return new Corpus(captions, texts, logShares)
  }

  /** The batch's captions among all. */
  ownersOf(captions: readonly string[]): number[] {
    return captions.map((caption) => {
      const row = this.#rows.get(caption)
      if (row === undefined) throw new Error(`expected a caption of the training set, but received '${caption}'`)
      return row
    })
  }

  [Symbol.dispose](): void {
    this.logShares?.dispose()
  }
}

const refuse = (what: string): never => {
  throw new RangeError(`negatives: expected ${what}, or use 'local'`)
}

/**
 * Refuses what would make every step slow, before anything is loaded.
 *
 * @param captions how many distinct ones there are
 */
export function checkCorpus(captions: number, { maximumCaptions, text }: FullPretrainOptions): void {
  if (captions > maximumCaptions) {
    const shown = (value: number) => value.toLocaleString('en-US')
    refuse(
      `${shown(maximumCaptions)} distinct captions at most for 'corpus', since each step encodes them all, but the training set has ${shown(captions)}; raise maximumCaptions`,
    )
  }
  if (text.execution === 'padded' || text.execution === 'packed') {
    refuse(
      `text.execution 'auto' or 'tree' for 'corpus', so that captions share what they begin with, but received '${text.execution}'; change it`,
    )
  }
}

/** Refuses a language model whose captions cannot share the work on what they begin with. */
export function checkSharing({ text: model }: TextTower, { text }: FullPretrainOptions): void {
  const { seesRight, modelType, running } = model as TextEncoder
  if (seesRight) {
    refuse(
      `a language model that reads from left to right for 'corpus', so that captions share what they begin with, but ${modelType} sees to the right; take another`,
    )
  }
  if (text.execution === 'auto' && running.ownDropout) {
    refuse(
      "a language model without dropout of its own for 'corpus', since each caption would draw its own, but it is on; let captions share what is drawn by text.execution: 'tree'",
    )
  }
}
