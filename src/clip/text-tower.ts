import { type EncodeTextOptions, encodeText, type TextEncoder } from '../models/text/index.js'
import { AdaptedModel } from '../peft/index.js'
import * as torch from '../torch/index.js'
import { TwoTower, type TwoTowerOptions } from './two-tower.js'

/** Token ids of texts, without padding. */
export type TokenSequences = readonly (readonly number[])[]

export interface TextTowerOptions extends Omit<TwoTowerOptions<TokenSequences>, 'text' | 'textWidth' | 'textFeature'> {
  /** A language model, with or without adapters. */
  text: TextEncoder
  /** How its states become a feature. Default: 'first-pad' for models that do not see to the right, else 'cls'. */
  pooling?: EncodeTextOptions['pool']
  /** Default: 0. */
  padToken?: number
  /** Default: as many as the model has positions for beside virtual tokens, `usualLength` at most. */
  maximumLength?: number
  /** Default: 64. */
  usualLength?: number
  execution?: EncodeTextOptions['execution']
}

/** The model of CLEFT: an image encoder and a language model over token sequences. */
export class TextTower extends TwoTower<TokenSequences> {
  /** How texts are encoded from now on; may be changed at any time. */
  readonly encoding: EncodeTextOptions
  /** Names of the language model's own parameters that are no longer those of the frozen one: trained before, and saved. */
  readonly trainedText = new Set<string>()

  constructor(options: TextTowerOptions) {
    const { text, pooling, padToken = 0, maximumLength, usualLength = 64, execution = 'auto', ...rest } = options
    const encoding: EncodeTextOptions = {
      pool: pooling ?? (text.seesRight ? 'cls' : 'first-pad'),
      padToken,
      maximumLength: maximumLength ?? Math.min(usualLength, text.maximumPositions - virtualCount(text)),
      execution,
    }
    super({ ...rest, text, textWidth: text.width, textFeature: (texts) => encodeText(text, texts, encoding) })
    this.encoding = encoding
  }
}

/** How many positions a prefix or prompt adapter takes. */
function virtualCount(text: TextEncoder): number {
  return text instanceof AdaptedModel ? torch.scope(() => text.virtualTokens()?.count ?? 0) : 0
}
