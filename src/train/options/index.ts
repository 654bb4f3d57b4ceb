import { z } from 'zod'
import { fineTuneSchema, probeSchema } from './classify.js'
import { pretrainSchema } from './pretrain.js'
import { promptSchema } from './prompt.js'

export type { FineTuneOptions, FullFineTuneOptions, FullProbeOptions, ProbeOptions } from './classify.js'
export { adapterConfig, type FullPretrainOptions, type PeftOptions, type PretrainOptions } from './pretrain.js'
export type { FullPromptOptions, PromptOptions } from './prompt.js'
export { describeIssues, warmupOf } from './shared.js'

/** Options of a run, by its stage. */
export const optionsSchema = z.discriminatedUnion('stage', [pretrainSchema, promptSchema, probeSchema, fineTuneSchema])
export type FullOptions = z.output<typeof optionsSchema>
