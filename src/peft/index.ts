/*
 * Adapters (parameter-efficient fine-tuning) on any model by module name, read and written as Python's peft does.
 */

export { AdaLoraLayer, type Triplets } from './adalora.js'
export { AdaptedTextModel, adapt, addAdapter, markOnlyAdaptersTrainable } from './adapt.js'
export * from './config.js'
export { readAdapterConfig } from './config-file.js'
export type { KeyValue, TextEncoder, TextInput, TextOutput } from './host.js'
export { Ia3Layer } from './ia3.js'
export { type AdapterKey, fileKey, memoryKey, parseKey as parseAdapterKey } from './keys.js'
export { AdapterLayer } from './layer.js'
export {
  type LoadAdapterOptions,
  type LoadStateOptions,
  loadAdapter,
  loadAdapterState,
  readAdapterFiles,
} from './load.js'
export { LoraLayer } from './lora.js'
export {
  AdaptedModel,
  type Adapter,
  type MergeReport,
  type TrainOptions,
  type VirtualTokens,
} from './model.js'
export { PrefixEncoder } from './prefix.js'
export { PromptEncoder } from './prompt.js'
export { type AllocatorState, RankAllocator } from './rank-allocator.js'
export { adapterJson, adapterState, type SaveAdapterOptions, saveAdapter } from './save.js'
export { type TrainableParameter, type TrainableParameters, trainableParameters } from './trainable.js'
