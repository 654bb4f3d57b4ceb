/*
 * Models: image and text encoders with their published weights.
 */
export {
  CONFIG_NAME,
  type Config,
  consoleLogger,
  exactJson,
  type JsonObject,
  jsonText,
  type Logger,
  readConfig,
  readJsonObject,
  writeJson,
} from './config.js'
export { freeze, unfreeze } from './freeze.js'
export { hubCacheFolder, hubSnapshot } from './hub.js'
export * from './image/index.js'
export { findPreset, listPresets, type Preset } from './presets.js'
export {
  type BuildModelOptions,
  buildModel,
  configText,
  fromPretrained,
  fromSource,
  type PretrainedOptions,
  pretrainedFolder,
  readNamedConfig,
} from './pretrained.js'
export { type ModelLoader, registerModel } from './registry.js'
export { invertTable, type RenameRule, type RenameTable } from './renames.js'
export * from './text/index.js'
export {
  fromTensors,
  type LoadWeightsOptions,
  loadWeights,
  openWeights,
  renameSource,
  selectSource,
  type WeightSource,
  WeightsMismatchError,
} from './weights.js'
