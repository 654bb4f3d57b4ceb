import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import { type Attached, attach, detach } from './attach.js'
import { type AdapterConfig, type Resolved, resolveConfig } from './config.js'
import {
  adapterLayers,
  isTextEncoder,
  type KeyValue,
  type TextEncoder,
  type TextInput,
  type TextOutput,
} from './host.js'
import { ParameterDict } from './layer.js'
import { PrefixEncoder } from './prefix.js'
import { type PromptEncoder, prependPrompt } from './prompt.js'

type Tensor = torch.Tensor

/** An adapter that is on a model. */
export interface Adapter {
  readonly name: string
  readonly config: Resolved<AdapterConfig>
  /** Paths of the modules that it is on; none for prefix and prompt. */
  readonly paths: readonly string[]
}

export interface MergeReport {
  /** How many layers took adapters in. */
  layers: number
  /** The largest difference of a stored weight from the same sum in float64: what the layer's dtype rounds away. */
  largestError: number
  /** The largest change of a weight. */
  largestChange: number
}

export interface TrainOptions {
  /** Whether the frozen model is in training mode too. Default: where a text model runs with its own dropout. */
  base?: boolean
}

/** What a prefix or prompt adapter puts before every text. */
export interface VirtualTokens {
  /** For each layer keys and values [1, keyValueHeads, n, headWidth]. */
  prefix: KeyValue[] | null
  /** [n, width] */
  embeddings: Tensor | null
  /** n */
  count: number
}

const wrapped = new WeakMap<nn.Module, AdaptedModel>()

/** @internal The AdaptedModel of a model. */
export function adaptedOf(model: nn.Module): AdaptedModel | undefined {
  return model instanceof AdaptedModel ? model : wrapped.get(model)
}

/**
 * A model with adapters. Call it like the model. The adapters stand apart: `model` is the model itself, in which an
 * adapted layer is an {@link AdapterLayer} around the layer; prefix and prompt adapters are in `prompt_encoder`.
 *
 * Modes: train() puts the adapters in training mode (their dropout drops) and leaves the frozen model in evaluation
 * mode.
 */
export class AdaptedModel<Model extends nn.Module = nn.Module> extends nn.Module {
  readonly model: Model
  prompt_encoder: nn.ModuleDict<PrefixEncoder | PromptEncoder> = new nn.ModuleDict()
  readonly #adapters = new Map<string, Adapter>()
  readonly #rankPatterns = new Map<string, () => Record<string, boolean[]> | null>()
  #active: readonly string[] = []
  #isEnabled = true

  /** Use {@link addAdapter}, which gives the one AdaptedModel of a model. */
  constructor(model: Model) {
    super()
    this.model = model
    this.training = model.training
    wrapped.set(model, this as unknown as AdaptedModel)
  }

  /** The adapters by name. */
  get adapters(): ReadonlyMap<string, Adapter> {
    return this.#adapters
  }

  /** Names of the adapters that take part, in order. */
  get active(): readonly string[] {
    return this.#active
  }

  get isMerged(): boolean {
    return adapterLayers(this.model).some(([, layer]) => layer.isMerged)
  }

  /** One adapter by name. */
  adapter(name = 'default'): Adapter {
    const found = this.#adapters.get(name)
    if (found === undefined) {
      throw new RangeError(`adapter: expected one of [${[...this.#adapters.keys()]}], but received '${name}'`)
    }
    return found
  }

  /**
   * Adds an adapter. The first one on a model freezes the model's own parameters and is active at once; others wait for
   * setAdapter().
   */
  addAdapter(config: AdapterConfig, name = 'default'): Adapter {
    const full = resolveConfig(config)
    if (!/^[A-Za-z_][\w-]*$/.test(name) || name === 'training' || name in ParameterDict.prototype) {
      throw new TypeError(
        `addAdapter: expected a name of letters, digits, '_' and '-' that is no method's, but received '${name}'`,
      )
    }
    if (this.#adapters.has(name)) {
      throw new RangeError(
        `addAdapter: expected a new name, but there is an adapter '${name}'; use another, or removeAdapter('${name}')`,
      )
    }
    if (this.isMerged)
      throw new TypeError('addAdapter: expected a model without merged adapters; call unmerge() before')
    const isFirst = this.#adapters.size === 0
    const attached: Attached = attach(this.model, full, name)
    if (attached.encoder !== null) this.prompt_encoder.set(name, attached.encoder)
    const adapter = { name, config: attached.config, paths: attached.paths }
    this.#adapters.set(name, adapter)
    if (isFirst) {
      this.model.requiresGrad_(false)
      this.#active = [name]
    }
    this.setAdapter(this.#active)
    this.train(this.training)
    return adapter
  }

  /** @internal Who knows which triplets of an AdaLoRA adapter are kept. */
  setRankPattern(name: string, current: () => Record<string, boolean[]> | null): void {
    this.#rankPatterns.set(name, current)
  }

  /** Which triplets of an AdaLoRA adapter are kept now, as its file has it; null where all are. */
  rankPattern(name = 'default'): Readonly<Record<string, readonly boolean[]>> | null {
    const { config } = this.adapter(name)
    return this.#rankPatterns.get(name)?.() ?? (config.kind === 'adalora' ? config.rankPattern : null)
  }

  /** Takes an adapter off and frees its parameters. */
  removeAdapter(name: string): void {
    this.adapter(name)
    if (this.isMerged)
      throw new TypeError('removeAdapter: expected a model without merged adapters; call unmerge() before')
    detach(this.model, name)
    if (this.prompt_encoder.has(name)) {
      const others = [...this.prompt_encoder].filter(([each]) => each !== name)
      this.prompt_encoder.get(name).dispose()
      this.prompt_encoder = new nn.ModuleDict(others)
    }
    this.#adapters.delete(name)
    this.#rankPatterns.delete(name)
    this.setAdapter(this.#active.filter((each) => each !== name))
  }

  /**
   * Which adapters take part: one, several (whose updates add up), or none. Their parameters train, the other
   * adapters' rest.
   *
   * @param options.trainable false to run them only; default: true
   */
  setAdapter(names: string | readonly string[], { trainable = true }: { trainable?: boolean } = {}): this {
    const chosen = typeof names === 'string' ? [names] : [...names]
    for (const name of chosen) this.adapter(name)
    const virtual = chosen.filter((name) => this.prompt_encoder.has(name))
    if (virtual.length > 1) {
      throw new RangeError(
        `setAdapter: expected one prefix or prompt adapter at most, but received ${virtual.join(', ')}`,
      )
    }
    const kinds = new Set(
      chosen.filter((name) => !virtual.includes(name)).map((name) => this.adapter(name).config.kind),
    )
    if (kinds.size > 1) {
      throw new RangeError(`setAdapter: expected adapters of one kind together, but received ${[...kinds].join(', ')}`)
    }
    if (this.isMerged)
      throw new TypeError('setAdapter: expected a model without merged adapters; call unmerge() before')
    this.#active = chosen
    for (const [, layer] of adapterLayers(this.model)) layer.activate(chosen)
    for (const name of this.#adapters.keys()) {
      for (const parameter of this.adapterParameters(name).values())
        parameter.requiresGrad_(trainable && chosen.includes(name))
    }
    return this
  }

  /** Runs a function with all adapters switched off, the merged ones too. */
  withoutAdapters<T>(run: () => T): T {
    const layers = adapterLayers(this.model).map(([, layer]) => layer)
    const was = this.#isEnabled
    try {
      this.#isEnabled = false
      for (const layer of layers) layer.setEnabled(false)
      const result = run()
      if (result instanceof Promise) {
        result.catch(() => {})
        throw new TypeError(
          'withoutAdapters: expected a synchronous function, since adapters are on again when it returns, but it returned a Promise',
        )
      }
      return result
    } finally {
      this.#isEnabled = was
      for (const layer of layers) layer.setEnabled(was)
    }
  }

  /**
   * Puts the active adapters into the layers' own weights, computed in float32: then they cost nothing.
   *
   * @param options.keepOriginal hold on to the weights before, for unmerge(); default: true
   * @param options.log told the largest error in words; default: nobody
   */
  merge({ keepOriginal = true, log }: { keepOriginal?: boolean; log?: (line: string) => void } = {}): MergeReport {
    const virtual = this.#active.filter((name) => this.prompt_encoder.has(name))
    if (virtual.length > 0) {
      throw new TypeError(
        `merge: expected adapters on weights, but ${virtual.join(', ')} is made of virtual tokens, which no weight can hold`,
      )
    }
    if (this.isMerged) throw new TypeError('merge: expected adapters that are not merged; call unmerge() before')
    const done = adapterLayers(this.model)
      .map(([, layer]) => layer.merge(keepOriginal))
      .filter((each) => each !== null)
    const report = {
      layers: done.length,
      largestError: Math.max(0, ...done.map(({ error }) => error)),
      largestChange: Math.max(0, ...done.map(({ change }) => change)),
    }
    log?.(
      `merged ${this.#active.join(', ')} into ${report.layers} layers: largest error ${report.largestError.toExponential(2)}, largest change ${report.largestChange.toExponential(2)}`,
    )
    return report
  }

  /** Puts the weights before merge() back, exactly. Says how many layers had adapters merged in. */
  unmerge(): number {
    return adapterLayers(this.model).filter(([, layer]) => layer.unmerge()).length
  }

  /** Takes all adapters off, and gives the model as it was, or (`merge: true`) with the active ones merged in. */
  unload({ merge = false }: { merge?: boolean } = {}): Model {
    if (merge && !this.isMerged) this.merge({ keepOriginal: false })
    for (const [, layer] of adapterLayers(this.model)) {
      if (merge) layer.keepMerged()
      else layer.unmerge()
    }
    for (const name of [...this.#adapters.keys()]) this.removeAdapter(name)
    wrapped.delete(this.model)
    return this.model
  }

  /** Parameters of one adapter by path and name in files ('h.0.attn.c_attn.lora_A.weight'). */
  adapterParameters(name = 'default'): Map<string, nn.Parameter> {
    if (this.prompt_encoder.has(name)) return new Map(this.prompt_encoder.get(name).namedParameters())
    const layers = adapterLayers(this.model).filter(([, layer]) => layer.adapterNames().includes(name))
    return new Map(
      layers.flatMap(([path, layer]) =>
        layer
          .adapterParameters(name)
          .map(([part, parameter]): [string, nn.Parameter] => [`${path}.${part}`, parameter]),
      ),
    )
  }

  private get virtualName(): string | undefined {
    return this.#isEnabled ? this.#active.find((each) => this.prompt_encoder.has(each)) : undefined
  }

  /**
   * What the active prefix or prompt adapter puts before a text, or null: for those that lay out the texts themselves.
   */
  virtualTokens(): VirtualTokens | null {
    const name = this.virtualName
    if (name === undefined || !isTextEncoder(this.model)) return null
    const encoder = this.prompt_encoder.get(name)
    const { dtype } = this.model.wordEmbeddings().weight
    const count = encoder.embedding.numEmbeddings
    if (encoder instanceof PrefixEncoder) return { prefix: encoder.forward(dtype), embeddings: null, count }
    return { prefix: null, embeddings: encoder.forward(dtype), count }
  }

  /**
   * What the model gives, with the active adapters. A prompt adapter's output is longer by its virtual tokens, at the
   * front.
   */
  forward(...inputs: Parameters<Model['forward']>): ReturnType<Model['forward']> {
    const { model } = this
    if (this.virtualName === undefined || !isTextEncoder(model)) {
      const forward = model.forward as (...given: readonly unknown[]) => ReturnType<Model['forward']>
      return forward.apply(model, inputs)
    }
    const [input] = inputs as unknown as [TextInput]
    return torch.scope(() => this.forwardAfter(model, input)) as ReturnType<Model['forward']>
  }

  private forwardAfter(model: TextEncoder, input: TextInput): TextOutput {
    const virtual = this.virtualTokens()
    if (virtual?.embeddings) return model.forward(prependPrompt(model, input, virtual.embeddings))
    if (input.prefix !== undefined) {
      throw new TypeError(
        'prefix adapter: expected an input without a prefix of its own; switch the adapter off by setAdapter([])',
      )
    }
    return model.forward({ ...input, prefix: virtual?.prefix ?? undefined })
  }

  /** The adapters train; the frozen model stays in evaluation mode unless told otherwise. */
  override train(mode = true, { base }: TrainOptions = {}): this {
    const withBase = base ?? (isTextEncoder(this.model) && this.model.running.ownDropout)
    super.train(mode)
    if (withBase) return this
    const adapters = new Set<nn.Module>(adapterLayers(this.model).map(([, layer]) => layer))
    for (const module of this.model.modules()) if (!adapters.has(module)) module.training = false
    return this
  }

  override extraRepr(): string {
    return `active=[${this.#active}]`
  }
}
