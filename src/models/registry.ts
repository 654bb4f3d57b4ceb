import type { Module } from '../torch/nn/module.js'
import type { Config } from './config.js'
import type { RenameTable } from './renames.js'
import type { TextModelOptions } from './text/index.js'
import type { LoadWeightsOptions, WeightSource } from './weights.js'

/** What a config.json leaves open. */
export interface BuildOptions {
  text?: TextModelOptions
}

/** How a family of models is built and filled. */
export interface ModelLoader<M extends Module = Module> {
  /** Builds the model by its config.json. It runs inside nn.construct(), which says where and in which dtype. */
  build(config: Config, options: BuildOptions): M
  /** Tables from a checkpoint's names to the model's, applied one after the other. Default: none. */
  rename?(names: readonly string[], model: M): readonly RenameTable[]
  /** Templates of the model's names that a checkpoint may lack, and the value that fills them. */
  optional?: Readonly<Record<string, number>>
  /** Called after loading, with the checkpoint's names. */
  loaded?(model: M, names: readonly string[]): void
  /** Builds and fills in one, in place of the others, where what is built depends on the checkpoint. */
  load?(config: Config, source: WeightSource, options: BuildOptions & Pick<LoadWeightsOptions, 'dtype' | 'device'>): M
}

const loaders = new Map<string, ModelLoader>()

/** Says how models of a `model_type` are built. The newest says it. */
export function registerModel<M extends Module>(modelType: string, loader: ModelLoader<M>): void {
  // a loader's own methods see the models that it builds, and no others
  loaders.set(modelType, loader as unknown as ModelLoader)
}

/** @throws RangeError for types that nobody registered */
export function loaderOf(modelType: string): ModelLoader {
  const loader = loaders.get(modelType)
  if (loader !== undefined) return loader
  throw new RangeError(
    `expected a model_type of ${registeredModels().join(', ')}, but config.json says '${modelType}', which is not supported`,
  )
}

export function registeredModels(): readonly string[] {
  return [...loaders.keys()].sort()
}
