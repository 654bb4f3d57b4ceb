import type { TextTower, TokenSequences } from '../clip/text-tower.js'
import type { TextEncoder } from '../models/index.js'
import * as torch from '../torch/index.js'
import type { CaptionTokens } from './caption-tokens.js'
import type { FullPretrainOptions } from './options/index.js'

type Processes = torch.distributed.Processes

/** Every distinct caption of a training set, for `negatives: 'corpus'`. Several processes encode a part each. */
export class Corpus implements Disposable {
  /** Token ids, a text for each caption of this process' part. */
  readonly texts: TokenSequences
  /** [M]: ln of the captions' shares of the images; null without priors. */
  readonly logShares: torch.Tensor | null
  readonly #rows: ReadonlyMap<string, number>
  readonly #processes: Processes

  private constructor(
    captions: readonly string[],
    texts: TokenSequences,
    logShares: torch.Tensor | null,
    processes: Processes,
  ) {
    this.texts = texts
    this.logShares = logShares
    this.#rows = new Map(captions.map((caption, row) => [caption, row]))
    this.#processes = processes
  }

  /** Of captions with their shares. {@link checkCorpus} says whether it may be. */
  static async of(
    shares: ReadonlyMap<string, number>,
    tokens: CaptionTokens,
    { priors, device, processes }: { priors: boolean; device: torch.Device; processes: Processes },
  ): Promise<Corpus> {
    const { rank, size } = processes
    const captions = [...shares.keys()]
    // those that begin alike go to one process, which encodes what they share once
    if (size > 1) captions.sort()
    const share = shareOf(captions.length, processes)
    const texts = await tokens.encode(share === null ? captions : captions.slice(rank * share, (rank + 1) * share))
    const logShares = priors
      ? torch.keep(
          torch.tensor(
            captions.map((each) => Math.log(shares.get(each)!)),
            { device },
          ),
        )
      : null
    return new Corpus(captions, texts, logShares, processes)
  }

  /** The features of all captions, [M, width], of those of each process' part. */
  readonly join = (own: torch.Tensor): torch.Tensor => {
    const share = shareOf(this.#rows.size, this.#processes)
    if (share === null) return own
    // only the last part may be shorter: its padding comes last
    const padded = own.size(0) === share ? own : torch.constantPadNd(own, [0, 0, 0, share - own.size(0)])
    return this.#processes.gatherFeatures(padded).narrow(0, 0, this.#rows.size)
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

/** How many captions each process encodes; null: all of them. */
function shareOf(captions: number, { size }: Processes): number | null {
  const share = Math.ceil(captions / size)
  return size === 1 || (size - 1) * share >= captions ? null : share
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
