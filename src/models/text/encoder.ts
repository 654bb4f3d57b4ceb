import * as torch from '../../torch/index.js'
import type { AttentionLayout } from './layout.js'

type Tensor = torch.Tensor

/** Keys and values that stand before a text's own in one layer, each [batch or 1, keyValueHeads, n, headWidth]. */
export interface KeyValue {
  key: Tensor
  value: Tensor
}

export interface TextInput {
  /** Token ids: an int64 tensor [B, S], or B arrays of S numbers, which are checked against the vocabulary. */
  inputIds?: Tensor | readonly (readonly number[])[]
  /** Word embeddings [B, S, width] in place of ids. */
  inputEmbeddings?: Tensor
  /**
   * What each token sees. [B, S], 1 for tokens and 0 for padding: a causal model adds its own mask, and a prefix is always
   * seen. Of 3 or 4 dimensions: everything that is to be said, bool (true where seen) or float (added to the scores),
   * [B or 1, heads or 1, S, K] or [B or 1, S, K]; K counts a prefix, which is seen by all where K is S alone.
   */
  attentionMask?: Tensor
  /** int64 [B or 1, S]. Default: from the length of the prefix on. */
  positionIds?: Tensor
  /** BERT's: int64 [B, S]. Default: zeros. */
  tokenTypeIds?: Tensor
  /** For each layer, keys and values before the text's own. */
  prefix?: readonly KeyValue[]
  /** How the tokens of a single row see each other, in place of a mask: what encodeText makes. */
  layout?: AttentionLayout
  /** int64 [N]: which of the B x S tokens to give; lastHidden is [N, width] then, and the last layer is cheaper. */
  outputTokens?: Tensor
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface TextOutput {
  /** After the last norm: [B, S, width], or [N, width] where outputTokens are asked for. */
  lastHidden: Tensor
  /** The embeddings and the output of each layer, [B, S, width] each, the last one after the last norm. */
  hiddenStates: Tensor[] | null
  /** The attention of each layer, [B, heads, S, K] each. */
  attentions: Tensor[] | null
  /** BERT's pooler: [B, width]. */
  pooled: Tensor | null
}

/** What a text model is to those who put adapters on it, pool its states and train. */
export interface TextEncoder extends torch.nn.Module {
  forward(input: TextInput): TextOutput
  /** As config.json says: 'gpt2', 'llama', 'bert'. */
  readonly modelType: string
  readonly width: number
  readonly vocabularySize: number
  readonly maximumPositions: number
  /** How many layers, and what a prefix of keys and values must have in each. */
  readonly layerCount: number
  readonly keyValueHeads: number
  readonly headWidth: number
  /** Whether a token sees those after it. */
  readonly seesRight: boolean
  /** How it runs; changed at any time. */
  readonly running: RunningOptions
  /** The module whose weight [vocabularySize, width] holds the words. */
  wordEmbeddings(): torch.nn.Embedding
}

/** A text model with adapters that put something before every text: prefix and prompt tuning. */
export interface AdaptedTextEncoder extends TextEncoder {
  readonly model: TextEncoder
  virtualTokens(): { prefix: readonly KeyValue[] | null; embeddings: Tensor | null } | null
}

export function isAdapted(model: TextEncoder): model is AdaptedTextEncoder {
  return 'virtualTokens' in model && typeof model.virtualTokens === 'function' && 'model' in model
}

export interface RunningOptions {
  /**
   * The model's own dropout, at the rates of config.json, while it is in training mode. A frozen model has none, so the
   * default is false; the published CLEFT code leaves it on, and a model that is trained as a whole wants it.
   */
  ownDropout: boolean
  /** Keep each layer's input only, and compute the layer again in backward(). Default: false. */
  checkpointing: boolean
}

/** Shared by a model and its layers. */
export function runningOptions(): RunningOptions {
  return { ownDropout: false, checkpointing: false }
}

/** Dropout of the model's own: see {@link RunningOptions.ownDropout}. */
export function ownDropout(x: Tensor, p: number, training: boolean, running: RunningOptions): Tensor {
  return p > 0 && training && running.ownDropout ? torch.dropout(x, p, true) : x
}

/** The sizes of an input, checked against a model. */
export interface InputSizes {
  batch: number
  length: number
  prefixLength: number
}

const shapeOf = (shape: readonly number[]): string => `[${shape.join(', ')}]`

/** Checks ids on the host. `where` names the text in the error. */
export function checkIds(ids: readonly number[], vocabularySize: number, where: string): void {
  for (const [position, id] of ids.entries()) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabularySize) {
      throw new RangeError(
        `${where}: expected token ids from 0 to ${vocabularySize - 1}, but received ${id} at position ${position}; use the model's own tokenizer`,
      )
    }
  }
}

function uploadIds(rows: readonly (readonly number[])[], model: TextEncoder, name: string): Tensor {
  const length = rows[0]?.length ?? 0
  const flat = new BigInt64Array(rows.length * length)
  for (const [row, ids] of rows.entries()) {
    if (ids.length !== length) {
      throw new RangeError(
        `${name}: expected rows of one length, but received ${length} and ${ids.length} ids; pad them, or use encodeText`,
      )
    }
    checkIds(ids, model.vocabularySize, `${name}: row ${row}`)
    for (const [column, id] of ids.entries()) flat[row * length + column] = BigInt(id)
  }
  return torch.fromTypedArray(flat, [rows.length, length], {
    device: model.wordEmbeddings().weight.device as torch.Device,
  })
}

/** A tensor in the host's memory can be checked without waiting for anything. */
function checkIdTensor(ids: Tensor, vocabularySize: number, name: string): void {
  if (!/^u?int/.test(ids.dtype))
    throw new TypeError(`${name}: expected whole token ids (int64), but received ${ids.dtype}`)
  if (ids.ndim !== 2) {
    throw new RangeError(`${name}: expected token ids of shape [batch, length], but received ${shapeOf(ids.shape)}`)
  }
  if (ids.device !== 'cpu' || ids.numel() === 0) return
  const [low, high] = torch.scope(() => [ids.min().item(), ids.max().item()] as const)
  if (low < 0 || high >= vocabularySize) {
    throw new RangeError(
      `${name}: expected token ids from 0 to ${vocabularySize - 1}, but received ${low < 0 ? low : high}; use the model's own tokenizer`,
    )
  }
}

/** The word embeddings of an input [B, S, width], and its sizes, all checked. */
export function embedInput(model: TextEncoder, name: string, input: TextInput): { embeddings: Tensor } & InputSizes {
  const { inputIds, inputEmbeddings } = input
  if ((inputIds === undefined) === (inputEmbeddings === undefined)) {
    throw new TypeError(
      `${name}: expected either inputIds or inputEmbeddings, but received ${inputIds === undefined ? 'neither' : 'both'}`,
    )
  }
  let embeddings: Tensor
  if (inputEmbeddings !== undefined) {
    if (inputEmbeddings.ndim !== 3 || inputEmbeddings.shape[2] !== model.width) {
      throw new RangeError(
        `${name}: expected inputEmbeddings of shape [batch, length, ${model.width}], but received ${shapeOf(inputEmbeddings.shape)}`,
      )
    }
    const { dtype } = model.wordEmbeddings().weight
    embeddings = inputEmbeddings.dtype === dtype ? inputEmbeddings : inputEmbeddings.to(dtype)
  } else {
    let ids = inputIds as Tensor
    if (inputIds instanceof torch.Tensor) checkIdTensor(ids, model.vocabularySize, name)
    else ids = uploadIds(inputIds as readonly (readonly number[])[], model, name)
    embeddings = model.wordEmbeddings().forward(ids)
  }
  const [batch = 0, length = 0] = embeddings.shape
  if (batch === 0 || length === 0) {
    throw new RangeError(
      `${name}: expected at least one text of at least one token, but received shape [${batch}, ${length}]`,
    )
  }
  const prefixLength = checkPrefix(model, name, input.prefix, batch)
  if (input.positionIds === undefined && prefixLength + length > model.maximumPositions) {
    throw new RangeError(
      `${name}: expected at most ${model.maximumPositions} positions, but received ${length} tokens${prefixLength > 0 ? ` after a prefix of ${prefixLength}` : ''}; truncate the text`,
    )
  }
  return { embeddings, batch, length, prefixLength }
}

function checkPrefix(model: TextEncoder, name: string, prefix: readonly KeyValue[] | undefined, batch: number): number {
  if (prefix === undefined || prefix.length === 0) return 0
  if (prefix.length !== model.layerCount) {
    throw new RangeError(
      `${name}: expected a prefix for each of ${model.layerCount} layers, but received ${prefix.length}; is it another model's?`,
    )
  }
  const length = prefix[0]?.key.shape[2] ?? 0
  for (const [layer, { key, value }] of prefix.entries()) {
    for (const each of [key, value]) {
      const { shape } = each
      const fits = shape.length === 4 && (shape[0] === 1 || shape[0] === batch)
      if (!fits || shape[1] !== model.keyValueHeads || shape[2] !== length || shape[3] !== model.headWidth) {
        throw new RangeError(
          `${name}: expected a prefix of shape [${batch} or 1, ${model.keyValueHeads}, ${length}, ${model.headWidth}] in layer ${layer}, but received ${shapeOf(shape)}`,
        )
      }
    }
  }
  return length
}

/** The positions of an input, int64 [B or 1, S]. */
export function positionsOf(
  input: TextInput,
  { length, prefixLength }: InputSizes,
  model: TextEncoder,
  name: string,
): Tensor {
  const { positionIds } = input
  if (positionIds === undefined) {
    return torch
      .arange(prefixLength, prefixLength + length, { device: model.wordEmbeddings().weight.device as torch.Device })
      .unsqueeze(0)
  }
  if (positionIds.ndim !== 2 || positionIds.shape[1] !== length) {
    throw new RangeError(
      `${name}: expected positionIds of shape [batch or 1, ${length}], but received ${shapeOf(positionIds.shape)}`,
    )
  }
  if (positionIds.device === 'cpu') {
    const highest = torch.scope(() => positionIds.max().item())
    if (highest >= model.maximumPositions) {
      throw new RangeError(
        `${name}: expected position ids below ${model.maximumPositions}, but received ${highest}; truncate the text`,
      )
    }
  }
  return positionIds
}
