/*
 * Training.
 */
export { type RunSources, readRunOptions } from './config-file.js'
export type { ImageEvent, ProgressEvent, SkippedEvent, StartEvent, StepEvent, TrainEvent } from './events.js'
export { describeFigures, type MemoryPlan, type RunFigures } from './figures.js'
export { Job } from './job.js'
export { ConsoleLog, type ConsoleOptions } from './log/console.js'
export { type EventLog, eventLine } from './log/event-log.js'
export type { FineTuneOptions, PeftOptions, PretrainOptions, ProbeOptions, PromptOptions } from './options/index.js'
export { OutOfMemoryError } from './out-of-memory.js'
export { type Plan, planStep, type StepMemory } from './plan/index.js'
export { listRecipes, type Recipe, readRecipe } from './recipes.js'
export type { TrainResult } from './run.js'
export { type RecipeOptions, type TrainContext, type TrainOptions, train } from './train.js'
