/*
 * `nn`: modules, their layers and initialisers, in PyTorch's words.
 */
export { type ConstructOptions, construct, type FactoryOptions, factoryOptions, onMeta } from './construct.js'
export type { Reduction, Sizes } from './functional/common.js'
export * as functional from './functional.js'
export type { InputsOf, OutputOf } from './hooks.js'
export * as init from './init.js'
export * from './layers/activation.js'
export * from './layers/attention.js'
export * from './layers/containers.js'
export * from './layers/convolution.js'
export * from './layers/dropout.js'
export * from './layers/layer-scale.js'
export {
  Embedding,
  type EmbeddingLayerOptions,
  Flatten,
  Identity,
  Linear,
  type LinearOptions,
} from './layers/linear.js'
export * from './layers/loss.js'
export * from './layers/normalization.js'
export * from './layers/pooling.js'
export { Module } from './module.js'
export { Parameter } from './parameter.js'
export { type LoadOptions, type LoadResult, StateDictError, type StateSource } from './state.js'
