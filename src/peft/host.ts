import type { KeyValue, TextEncoder, TextInput, TextOutput } from '../models/text/encoder.js'
import type { nn } from '../torch/index.js'
import { AdapterLayer } from './layer.js'

/*
 * What adapters need to know of the model below them.
 */

export type { KeyValue, TextEncoder, TextInput, TextOutput }

/** A place in the model, whatever adapters stand around it. */
export interface Place {
  /** The path without wrappers: 'h.0.attn.c_attn'. */
  path: string
  /** What was there before any adapter. */
  module: nn.Module
  /** What is there now. */
  outer: nn.Module
}

/** The model's modules as they would be without adapters, in the model's order. */
export function places(model: nn.Module): Place[] {
  const found: Place[] = []
  const seen = new Set<nn.Module>()
  const visit = (outer: nn.Module, path: string): void => {
    const module = outer instanceof AdapterLayer ? outer.innermost : outer
    if (seen.has(module)) return
    seen.add(module)
    found.push({ path, module, outer })
    for (const [name, child] of module.namedChildren()) visit(child, path === '' ? name : `${path}.${name}`)
  }
  visit(model, '')
  return found
}

/** All adapter layers with their paths; more than one at a path where adapters of several kinds are. */
export function adapterLayers(model: nn.Module): [string, AdapterLayer][] {
  return places(model).flatMap(({ path, outer }) => {
    const chain: [string, AdapterLayer][] = []
    for (let each: nn.Module = outer; each instanceof AdapterLayer; each = each.base_layer) chain.push([path, each])
    return chain
  })
}

export type Architecture = 'gpt2' | 'llama' | 'bert'

const headPrefixes: Readonly<Record<Architecture, string>> = { gpt2: 'transformer.', llama: 'model.', bert: '' }

/** Which of the architectures that peft has defaults for a model is: by its modelType, else by its parts' names. */
export function architectureOf(model: nn.Module): Architecture | null {
  const named: unknown = Reflect.get(model, 'modelType')
  if (named === 'gpt2' || named === 'llama' || named === 'bert') return named
  const parts = new Set(model.namedChildren().map(([name]) => name))
  if (parts.has('h') && parts.has('wte')) return 'gpt2'
  if (parts.has('layers') && parts.has('embed_tokens')) return 'llama'
  return parts.has('encoder') && parts.has('embeddings') ? 'bert' : null
}

/**
 * What stands before the paths of a model without head in the files of one with it: `transformer.`, `model.` or
 * nothing.
 */
export function headPrefixOf(model: nn.Module): string {
  const architecture = architectureOf(model)
  if (architecture === null) return ''
  const prefix = headPrefixes[architecture]
  const hasHead = model.namedChildren().some(([name]) => `${name}.` === prefix)
  return hasHead ? '' : prefix
}

export function isTextEncoder(model: nn.Module): model is TextEncoder {
  return 'wordEmbeddings' in model && typeof model.wordEmbeddings === 'function' && 'layerCount' in model
}

/** A text model, for adapters that make keys, values or embeddings. */
export function asTextEncoder(model: nn.Module, kind: string): TextEncoder {
  if (isTextEncoder(model)) return model
  throw new TypeError(
    `addAdapter: expected a text model (with layerCount, keyValueHeads, headWidth and wordEmbeddings()) for a ${kind} adapter, but received a ${model.constructor.name}; LoRA, AdaLoRA and IA3 go on any model`,
  )
}
