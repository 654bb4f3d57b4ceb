import { scope } from '../../scope.js'
import type { Tensor } from '../../tensor.js'
import { emptyParameter, type FactoryOptions } from '../construct.js'
import { embedding, linear } from '../functional.js'
import { calculateFans, kaimingUniform_, normal_, uniform_, zeros_ } from '../init.js'
import { Module } from '../module.js'
import { Parameter } from '../parameter.js'

/** PyTorch's way to start linear layers and convolutions: both within ± 1 / sqrt(fanIn). */
export function resetLinear(weight: Parameter, bias: Parameter | null): void {
  kaimingUniform_(weight, { a: Math.sqrt(5) })
  if (bias === null) return
  const { fanIn } = calculateFans(weight)
  const bound = fanIn > 0 ? 1 / Math.sqrt(fanIn) : 0
  uniform_(bias, -bound, bound)
}

export interface LinearOptions extends FactoryOptions {
  /** Whether to add a learned bias. Default: true. */
  bias?: boolean
}

/** x Wᵀ + b: [..., inFeatures] to [..., outFeatures]. Parameters: weight [outFeatures, inFeatures], bias [outFeatures]. */
export class Linear extends Module {
  weight: Parameter
  bias: Parameter | null

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    { bias = true, ...factory }: LinearOptions = {},
  ) {
    super()
    this.weight = emptyParameter([outFeatures, inFeatures], factory)
    this.bias = bias ? emptyParameter([outFeatures], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    resetLinear(this.weight, this.bias)
  }

  forward(input: Tensor): Tensor {
    return linear(input, this.weight, this.bias)
  }

  override extraRepr(): string {
    return `inFeatures=${this.inFeatures}, outFeatures=${this.outFeatures}, bias=${this.bias !== null}`
  }
}

export interface EmbeddingLayerOptions extends FactoryOptions {
  /** A row that starts as zeros and gets no gradient; from the end where negative. Default: null. */
  paddingIdx?: number | null
  /** Divide gradients by how often a row is used in the batch. Default: false. */
  scaleGradByFreq?: boolean
  /** Make the weight's gradient a sparse tensor. Default: false. */
  sparse?: boolean
}

/** A learned row for each index: int64 or int32 [...] to [..., embeddingDim]. Parameter: weight [numEmbeddings, embeddingDim]. */
export class Embedding extends Module {
  weight: Parameter
  readonly paddingIdx: number | null
  readonly scaleGradByFreq: boolean
  readonly sparse: boolean

  constructor(
    readonly numEmbeddings: number,
    readonly embeddingDim: number,
    { paddingIdx = null, scaleGradByFreq = false, sparse = false, ...factory }: EmbeddingLayerOptions = {},
  ) {
    super()
    if (paddingIdx !== null && !(paddingIdx >= -numEmbeddings && paddingIdx < numEmbeddings)) {
      throw new RangeError(
        `Embedding: expected paddingIdx to be one of ${numEmbeddings} rows, but received ${paddingIdx}`,
      )
    }
    this.paddingIdx = paddingIdx !== null && paddingIdx < 0 ? numEmbeddings + paddingIdx : paddingIdx
    this.scaleGradByFreq = scaleGradByFreq
    this.sparse = sparse
    this.weight = emptyParameter([numEmbeddings, embeddingDim], factory)
    this.resetParameters()
  }

  /** An embedding over given rows [numEmbeddings, embeddingDim], which it shares; frozen unless told otherwise. */
  static fromPretrained(
    rows: Tensor,
    { freeze = true, ...options }: Omit<EmbeddingLayerOptions, keyof FactoryOptions> & { freeze?: boolean } = {},
  ): Embedding {
    const [count, width] = rows.shape
    if (count === undefined || width === undefined || rows.ndim !== 2) {
      throw new RangeError(`Embedding.fromPretrained: expected a matrix, but received shape [${rows.shape}]`)
    }
    const layer = new Embedding(count, width, { ...options, device: 'meta' })
    layer.weight.dispose()
    layer.weight = new Parameter(rows, { requiresGrad: !freeze })
    return layer
  }

  resetParameters(): void {
    normal_(this.weight)
    const row = this.paddingIdx
    if (row === null) return
    scope(() => {
      zeros_(this.weight.data.select(0, row))
    })
  }

  forward(input: Tensor): Tensor {
    return embedding(input, this.weight, this)
  }
}

/** Gives its input. */
export class Identity extends Module {
  forward(input: Tensor): Tensor {
    return input
  }
}

/** Makes one dimension of those from startDim (1) to endDim (-1). */
export class Flatten extends Module {
  constructor(
    readonly startDim = 1,
    readonly endDim = -1,
  ) {
    super()
  }

  forward(input: Tensor): Tensor {
    return input.flatten(this.startDim, this.endDim)
  }
}
