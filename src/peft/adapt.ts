import type { nn } from '../torch/index.js'
import type { AdapterConfig } from './config.js'
import { isTextEncoder, type TextEncoder, type TextInput, type TextOutput } from './host.js'
import { AdaptedModel, adaptedOf } from './model.js'

/** An {@link AdaptedModel} that stands wherever a text model does. */
export class AdaptedTextModel extends AdaptedModel<TextEncoder> implements TextEncoder {
  override forward(input: TextInput): TextOutput {
    return super.forward(input)
  }

  get modelType(): string {
    return this.model.modelType
  }

  get width(): number {
    return this.model.width
  }

  get vocabularySize(): number {
    return this.model.vocabularySize
  }

  get maximumPositions(): number {
    return this.model.maximumPositions
  }

  get layerCount(): number {
    return this.model.layerCount
  }

  get keyValueHeads(): number {
    return this.model.keyValueHeads
  }

  get headWidth(): number {
    return this.model.headWidth
  }

  get seesRight(): boolean {
    return this.model.seesRight
  }

  get running(): TextEncoder['running'] {
    return this.model.running
  }

  wordEmbeddings(): nn.Embedding {
    return this.model.wordEmbeddings()
  }
}

/** The AdaptedModel of a model (or itself), made where there is none. */
export function adapt(model: TextEncoder): AdaptedTextModel
export function adapt<Model extends nn.Module>(model: Model | AdaptedModel<Model>): AdaptedModel<Model>
export function adapt(model: nn.Module): AdaptedModel {
  const known = adaptedOf(model)
  if (known !== undefined) return known
  return isTextEncoder(model) ? (new AdaptedTextModel(model) as unknown as AdaptedModel) : new AdaptedModel(model)
}

/**
 * Puts an adapter on a model and gives the model with it, to be called like the model. Another call for the same model
 * adds another adapter.
 *
 * @example const adapted = addAdapter(gpt2, { kind: 'lora', r: 8, alpha: 32, dropout: 0.1 })
 */
export function addAdapter(model: TextEncoder, config: AdapterConfig, name?: string): AdaptedTextModel
export function addAdapter<Model extends nn.Module>(
  model: Model | AdaptedModel<Model>,
  config: AdapterConfig,
  name?: string,
): AdaptedModel<Model>
export function addAdapter(model: nn.Module, config: AdapterConfig, name = 'default'): AdaptedModel {
  const adapted = adapt(model)
  adapted.addAdapter(config, name)
  return adapted
}

/** Freezes everything but the active adapters' parameters. */
export function markOnlyAdaptersTrainable(model: nn.Module): void {
  const adapted = adapt(model)
  adapted.requiresGrad_(false)
  adapted.setAdapter(adapted.active)
}
