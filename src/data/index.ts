/*
 * Data sets from disk to the training step.
 */
export { type InputOptions, inputOf, RESIZES, type Resize } from './augment/input.js'
export { DATASET_KINDS, type DatasetSpec, openDataset } from './datasets/index.js'
export { atMostOfClasses } from './datasets/select.js'
export * from './images/index.js'
export { type Decoder, DecoderPool, type PrepareSettings, publishedSettings } from './loader/decoders.js'
export { imagesOf, type OpenImages } from './loader/image-source.js'
export { type Batch, DataLoader, type LoaderOptions, type LoaderState, type LoaderStatistics } from './loader/loader.js'
export { type PhantomOptions, type PhantomResult, writePhantoms } from './phantoms/index.js'
export { describeProblem, type Problem, Problems } from './problems.js'
export { Random } from './random.js'
export * from './sample.js'
export { PROBLEMS_FILE } from './shards/format.js'
export { type PrepareOptions as PrepareDatasetOptions, type PrepareReport, prepareDataset } from './shards/prepare.js'
export { PreparedImages } from './shards/prepared.js'
export { ShardWriter } from './shards/writer.js'
export { contactSheet } from './sheet.js'
