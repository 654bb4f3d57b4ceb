export { LoadedDataset } from './dataset.js'
export { openDataset } from './open.js'
export { classWeights } from './select.js'
export { DATASET_KINDS, type DatasetSpec } from './spec.js'
