export { BertModel, type BertConfig, type BertOptions, bertRenames, readBertConfig } from './bert.js'
export { encodeText, type EncodeTextOptions, planText, runPlan } from './encode-text.js'
export type { KeyValue, RunningOptions, TextEncoder, TextInput, TextOutput } from './encoder.js'
export { Conv1D, GPT2Model, type GPT2Config, gpt2Renames, readGPT2Config } from './gpt2.js'
export type { AttentionLayout, AttentionPart } from './layout.js'
export { LlamaModel, type LlamaConfig, llamaRenames, readLlamaConfig } from './llama.js'
export {
  buildTextModel,
  loadTextModel,
  type LoadTextModelOptions,
  lowerMatrices,
  textModelFrom,
  type TextModelOptions,
  textModelTypes,
} from './load.js'
export type { Execution, Pooling, TextPlan } from './plan.js'
export { type EncodeOptions, type PaddedTexts, padTexts, TextTokenizer, type TokenizerOptions } from './tokenizer.js'
