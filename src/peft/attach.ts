import type { nn } from '../torch/index.js'
import { AdaLoraLayer } from './adalora.js'
import type { AdaLoraConfig, AdapterConfig, Ia3Config, LoraConfig, Resolved } from './config.js'
import { adapterLayers, asTextEncoder, places } from './host.js'
import { Ia3Layer } from './ia3.js'
import { AdapterLayer } from './layer.js'
import { LoraLayer } from './lora.js'
import { PrefixEncoder } from './prefix.js'
import { PromptEncoder } from './prompt.js'
import { defaultTargets, findTargets, isFeedforward, type Target } from './targets.js'

/*
 * Adapters onto a model and off it.
 */

export interface Attached {
  /** With the names that were taken where it gave none. */
  config: Resolved<AdapterConfig>
  /** Paths of the modules that have the adapter now. */
  paths: string[]
  /** Of prefix and prompt adapters. */
  encoder: PrefixEncoder | PromptEncoder | null
}

/** The adapter layer of a class around a place, put there where there is none. */
function layerAt<Layer extends AdapterLayer>(
  model: nn.Module,
  { path }: Target,
  isWanted: (layer: AdapterLayer) => layer is Layer,
  make: (base: nn.Layer) => Layer,
): Layer {
  const outer = model.getSubmodule(path)
  for (let each = outer; each instanceof AdapterLayer; each = each.base_layer) if (isWanted(each)) return each
  const layer = make(outer as nn.Layer)
  model.setSubmodule(path, layer)
  return layer
}

function attachLora(model: nn.Module, config: Resolved<LoraConfig>, name: string, targets: readonly Target[]): void {
  for (const target of targets) {
    const isLora = (layer: AdapterLayer): layer is LoraLayer => layer instanceof LoraLayer
    layerAt(model, target, isLora, (base) => new LoraLayer(base)).addAdapter(name, config, target)
  }
}

/** How many triplets of a module a pattern keeps. Its keys name `lora_E`, with or without the head's prefix. */
export function keptTriplets(
  config: Resolved<AdaLoraConfig>,
  { path, fullPath }: Pick<Target, 'path' | 'fullPath'>,
): readonly boolean[] | null {
  const pattern = config.rankPattern ?? {}
  return pattern[`${fullPath}.lora_E`] ?? pattern[`${path}.lora_E`] ?? null
}

function attachAdaLora(
  model: nn.Module,
  config: Resolved<AdaLoraConfig>,
  name: string,
  targets: readonly Target[],
): void {
  for (const target of targets) {
    const isAdaLora = (layer: AdapterLayer): layer is AdaLoraLayer => layer instanceof AdaLoraLayer
    const kept = keptTriplets(config, target)
    const rank = kept === null ? config.initR : kept.filter(Boolean).length
    layerAt(model, target, isAdaLora, (base) => new AdaLoraLayer(base)).addAdapter(name, config, rank)
  }
}

function attachIa3(model: nn.Module, config: Resolved<Ia3Config>, name: string, targets: readonly Target[]): void {
  const inner = config.feedforwardModules ?? []
  for (const target of targets) {
    const isInner = isFeedforward(target.fullPath, inner) || isFeedforward(target.path, inner)
    const isIa3 = (layer: AdapterLayer): layer is Ia3Layer =>
      layer instanceof Ia3Layer && layer.isFeedforward === isInner
    layerAt(model, target, isIa3, (base) => new Ia3Layer(base, isInner)).addAdapter(name, config.dtype)
  }
}

/** The names that a config takes where it gives none. */
function withTargets(model: nn.Module, config: Resolved<AdapterConfig>): Resolved<AdapterConfig> {
  if (config.kind === 'prefix' || config.kind === 'prompt') return config
  const targetModules = config.targetModules ?? defaultTargets(model, config.kind === 'ia3' ? 'ia3' : 'lora')
  if (config.kind !== 'ia3') return { ...config, targetModules }
  if (config.feedforwardModules !== null) return { ...config, targetModules }
  // of the default feed-forward modules, those that are targets
  const inner = defaultTargets(model, 'feedforward')
  const isDefault = config.targetModules === null
  return {
    ...config,
    targetModules,
    feedforwardModules:
      isDefault || typeof targetModules === 'string' ? inner : inner.filter((each) => targetModules.includes(each)),
  }
}

/** Puts an adapter on a model. Nothing stays on it where that fails. */
export function attach(model: nn.Module, given: Resolved<AdapterConfig>, name: string): Attached {
  const config = withTargets(model, given)
  if (config.kind === 'prefix' || config.kind === 'prompt') {
    const text = asTextEncoder(model, config.kind)
    const encoder = config.kind === 'prefix' ? new PrefixEncoder(text, config) : new PromptEncoder(text, config)
    return { config, paths: [], encoder }
  }
  const targets = findTargets(model, config)
  try {
    if (config.kind === 'lora') attachLora(model, config, name, targets)
    else if (config.kind === 'adalora') attachAdaLora(model, config, name, targets)
    else attachIa3(model, config, name, targets)
  } catch (error) {
    detach(model, name)
    throw error
  }
  return { config, paths: targets.map(({ path }) => path), encoder: null }
}

/** Takes an adapter off a model's layers; a layer without adapters is itself again. */
export function detach(model: nn.Module, name: string): void {
  for (const [path, layer] of adapterLayers(model)) {
    if (layer.adapterNames().includes(name)) layer.deleteAdapter(name)
    if (layer.adapterNames().length > 0) continue
    const place = places(model).find((each) => each.path === path)
    if (place?.outer === layer) {
      model.setSubmodule(path, layer.base_layer)
      continue
    }
    for (let each = place?.outer; each instanceof AdapterLayer; each = each.base_layer) {
      if (each.base_layer === layer) each.base_layer = layer.base_layer
    }
  }
}
