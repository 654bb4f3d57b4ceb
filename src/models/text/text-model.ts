import * as torch from '../../torch/index.js'
import { runningOptions, type TextEncoder, type TextInput, type TextOutput } from './encoder.js'

const { nn } = torch

/** The sizes that every text model's config has. */
export interface TextModelConfig {
  vocabularySize: number
  maximumPositions: number
  width: number
  layers: number
  heads: number
  /** Default: heads. */
  keyValueHeads?: number
  /** Default: width / heads. */
  headWidth?: number
}

/** What GPT-2, LLaMA and BERT have in common. */
export abstract class TextModel<Config extends TextModelConfig> extends nn.Module implements TextEncoder {
  abstract readonly modelType: string
  abstract readonly seesRight: boolean
  readonly running = runningOptions()

  constructor(readonly config: Config) {
    super()
  }

  get width(): number {
    return this.config.width
  }

  get vocabularySize(): number {
    return this.config.vocabularySize
  }

  get maximumPositions(): number {
    return this.config.maximumPositions
  }

  get layerCount(): number {
    return this.config.layers
  }

  get keyValueHeads(): number {
    return this.config.keyValueHeads ?? this.config.heads
  }

  get headWidth(): number {
    return this.config.headWidth ?? this.config.width / this.config.heads
  }

  abstract wordEmbeddings(): torch.nn.Embedding

  abstract override forward(input: TextInput): TextOutput

  override extraRepr(): string {
    return ''
  }
}
