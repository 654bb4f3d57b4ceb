import type * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'
import type { PrefixConfig, Resolved } from './config.js'
import type { KeyValue, TextEncoder } from './host.js'

type Tensor = torch.Tensor

/** Width of the keys of all heads of a layer. */
export function keyWidth(model: TextEncoder): number {
  return model.keyValueHeads * model.headWidth
}

/**
 * Learned keys and values for each layer of a text model. Parameters: embedding.weight [n, 2 * layers * keyWidth], or
 * with a projection embedding.weight [n, keyWidth] and transform.0, transform.2 (Linear, Tanh, Linear).
 */
export class PrefixEncoder extends nn.Module {
  embedding: nn.Embedding
  transform: nn.Sequential | null = null
  readonly #layers: number
  readonly #heads: number
  readonly #headWidth: number

  constructor(
    model: TextEncoder,
    config: Resolved<PrefixConfig>,
    { dtype = null }: { dtype?: torch.DType | null } = {},
  ) {
    super()
    this.#layers = model.layerCount
    this.#heads = model.keyValueHeads
    this.#headWidth = model.headWidth
    const width = keyWidth(model)
    const full = 2 * this.#layers * width
    const factory = { device: model.wordEmbeddings().weight.device as torch.Device, dtype }
    const start = (tensor: nn.Parameter | null): void => {
      if (tensor !== null && config.initWeights === 'zero') nn.init.zeros_(tensor)
    }
    this.embedding = new nn.Embedding(config.numVirtualTokens, config.prefixProjection ? width : full, factory)
    if (!config.prefixProjection) {
      start(this.embedding.weight)
      return
    }
    const hidden = config.encoderHiddenSize ?? width
    const last = new nn.Linear(hidden, full, factory)
    this.transform = new nn.Sequential(new nn.Linear(width, hidden, factory), new nn.Tanh(), last)
    start(last.weight)
    start(last.bias)
  }

  /** What is saved: keys and values of all layers, [n, 2 * layers * keyWidth]. */
  flat(): Tensor {
    return this.transform === null ? this.embedding.weight : this.transform.forward(this.embedding.weight)
  }

  /**
   * For each layer, keys and values [1, keyValueHeads, n, headWidth] in a dtype: keys of layer l at 2 l, values after.
   */
  forward(dtype: torch.DType): KeyValue[] {
    const flat = this.flat()
    const n = flat.shape[0]!
    const parts = flat
      .to(dtype)
      .view([n, 2 * this.#layers, this.#heads, this.#headWidth])
      .permute([1, 2, 0, 3])
      .contiguous()
      .unsqueeze(1)
      .unbind(0)
    return Array.from({ length: this.#layers }, (_, layer) => ({
      key: parts[2 * layer]!,
      value: parts[2 * layer + 1]!,
    }))
  }
}
