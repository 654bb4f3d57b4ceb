/*
 * Evaluation: a model on a test set, numbers with intervals, and a report.
 */
export {
  type BootstrapOptions,
  type Difference,
  differenceOf,
  type Estimate,
  estimateOf,
  evaluateOnce,
  resample,
} from './bootstrap.js'
export { type ClassifyOptions, type ClassifyResult, classify } from './classify.js'
export { type CompareOptions, type Comparison, compareRuns, type Run, readRun } from './compare.js'
export { evaluate } from './evaluate.js'
export type { Evaluation, RetrievalEvaluation } from './evaluation.js'
export type { Prediction } from './loaded.js'
export { LoadedClassifier } from './loaded-classifier.js'
export {
  type Ensemble,
  LoadedModel,
  type LoadOptions,
  load,
} from './loaded-model.js'
export {
  type Measurement,
  type MeasureOptions,
  measure,
  type OverallMetric,
  overallIndex,
  targetIndex,
} from './measures.js'
export * as metrics from './metrics.js'
export type { EvaluateOptions } from './options.js'
export {
  type ClassPredictions,
  checkPredictions,
  type FindingPredictions,
  type LabelRules,
  type Predictions,
  type Scale,
  selectRows,
  type Task,
} from './predictions.js'
export { readPredictions, writePredictions } from './predictions-file.js'
export type { ThresholdRule } from './ranking.js'
export type { ImageSource } from './read-images.js'
export {
  type Embedding,
  type Heat,
  type MapExample,
  type ReportInput,
  type RetrievalExample,
  type WrittenReport,
  writeReport,
} from './report/index.js'
export { type RetrievalResult, type Retrieved, retrievalRanks, topRetrieved } from './retrieval.js'
export { type Provenance, type Summary, type SummaryOptions, summarize } from './summary.js'
export { thresholdsOf } from './targets.js'
export { type ZeroShotOptions, type ZeroShotResult, zeroShot } from './zero-shot.js'
