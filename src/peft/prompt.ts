import { embedInput } from '../models/text/encoder.js'
import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import type { PromptConfig, Resolved } from './config.js'
import type { TextEncoder, TextInput } from './host.js'

type Tensor = torch.Tensor

/** Learned embeddings before a text's. Parameter: embedding.weight [n, width]. */
export class PromptEncoder extends nn.Module {
  embedding: nn.Embedding

  constructor(model: TextEncoder, config: Resolved<PromptConfig>) {
    super()
    const { weight } = model.wordEmbeddings()
    const n = config.numVirtualTokens
    this.embedding = new nn.Embedding(n, model.width, { device: weight.device as torch.Device, dtype: 'float32' })
    if (config.init === 'random' || weight.isMeta) return
    const ids =
      config.init === 'text' ? repeatTokens(config.initTokens ?? [], n) : randomTokens(n, model.vocabularySize)
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= model.vocabularySize)
    if (wrong !== undefined) {
      throw new RangeError(
        `addAdapter: expected initTokens from 0 to ${model.vocabularySize - 1}, but received ${wrong}`,
      )
    }
    torch.scope(() =>
      torch.noGrad(() => {
        const index = torch.tensor(ids, { dtype: 'int64', device: weight.device as torch.Device })
        this.embedding.weight.copy_(weight.indexSelect(0, index))
      }),
    )
  }

  /** What is saved: [n, width]. */
  flat(): Tensor {
    return this.embedding.weight
  }

  /** [n, width] in a dtype. */
  forward(dtype: torch.DType): Tensor {
    return this.embedding.weight.to(dtype)
  }
}

/** Token ids over and over until there are n. */
export function repeatTokens(tokens: readonly number[], n: number): number[] {
  return Array.from({ length: n }, (_, position) => tokens[position % tokens.length]!)
}

function randomTokens(n: number, vocabularySize: number): number[] {
  return torch.scope(() => Array.from(torch.randint(vocabularySize, [n]).toTypedArray(), Number))
}

/**
 * A text model's input with embeddings [n, width] before its own: the output is n tokens longer, and the text's
 * positions start at n.
 */
export function prependPrompt(model: TextEncoder, input: TextInput, prompt: Tensor): TextInput {
  const { inputIds, inputEmbeddings, attentionMask, positionIds, tokenTypeIds, layout, outputTokens, ...rest } = input
  if (layout !== undefined || (attentionMask !== undefined && attentionMask.ndim > 2)) {
    throw new TypeError(
      'prompt adapter: expected a padded batch with an attentionMask [batch, length], but received a mask or layout that says what each token sees; put virtualTokens() before the text yourself',
    )
  }
  const device = prompt.device as torch.Device
  const { embeddings: words, batch, length } = embedInput(model, 'prompt adapter', { inputIds, inputEmbeddings })
  const n = prompt.shape[0]!
  const widened = (tensor: Tensor, value: number): Tensor =>
    torch.cat([torch.full([tensor.shape[0]!, n], value, { dtype: tensor.dtype, device }), tensor], 1)
  return {
    ...rest,
    inputEmbeddings: torch.cat([prompt.unsqueeze(0).expand([batch, -1, -1]), words.to(prompt.dtype)], 1),
    attentionMask: attentionMask === undefined ? undefined : widened(attentionMask, 1),
    tokenTypeIds: tokenTypeIds === undefined ? undefined : widened(tokenTypeIds, 0),
    positionIds:
      positionIds === undefined
        ? undefined
        : torch.cat(
            [torch.arange(n, { device }).unsqueeze(0).expand([positionIds.shape[0]!, -1]), positionIds.add(n)],
            1,
          ),
    // of rows that are n longer now
    outputTokens:
      outputTokens === undefined
        ? undefined
        : outputTokens.add(outputTokens.div(length, { roundingMode: 'floor' }).add(1).mul(n)),
  }
}
