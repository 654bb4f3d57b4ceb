/*
 * From scores of a model on samples to numbers with intervals and a report. Loops that run models are not here.
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
export { type CompareOptions, type Comparison, compareRuns, type Run, readRun } from './compare.js'
export {
  type Measurement,
  type MeasureOptions,
  measure,
  type OverallMetric,
  overallIndex,
  targetIndex,
} from './measures.js'
export * as metrics from './metrics.js'
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
