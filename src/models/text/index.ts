export { type BertConfig, BertModel, type BertOptions, bertRenames, readBertConfig } from './bert.js'
export {
  type EncodeTextOptions,
  encodeText,
  encodeUploaded,
  planText,
  runPlan,
  type UploadedTexts,
  uploadTexts,
} from './encode-text.js'
export type { KeyValue, RunningOptions, TextEncoder, TextInput, TextOutput } from './encoder.js'
export { Conv1D, type GPT2Config, GPT2Model, gpt2Renames, readGPT2Config } from './gpt2.js'
export type { AttentionLayout, AttentionPart } from './layout.js'
export { type LlamaConfig, LlamaModel, llamaRenames, readLlamaConfig } from './llama.js'
export {
  buildTextModel,
  type LoadTextModelOptions,
  loadTextModel,
  lowerMatrices,
  type TextModelOptions,
  textModelFrom,
  textModelTypes,
} from './load.js'
export type { Execution, Pooling, TextPlan } from './plan.js'
export { type EncodeOptions, type PaddedTexts, padTexts, TextTokenizer, type TokenizerOptions } from './tokenizer.js'
