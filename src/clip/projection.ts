import * as torch from '../torch/index.js'

const { nn } = torch
type Tensor = torch.Tensor

export interface ProjectionOptions {
  /** 'linear': one layer with a bias. 'mlp': linear, BatchNorm, ReLU, linear, BatchNorm without affine. Default: 'linear'. */
  kind?: 'linear' | 'mlp'
  /** The width inside the 'mlp'. Default: 2048. */
  hiddenWidth?: number
}

/** What leads from an encoder's feature [B, in] to the common space [B, out]. */
export type Projection = torch.nn.Linear | MlpProjection

/** The baselines' projection (GLoRIA's and MGCA's GlobalEmbedding). It takes the statistics of the batch while training. */
export class MlpProjection extends nn.Module {
  head: torch.nn.Sequential

  constructor(inFeatures: number, outFeatures: number, hiddenWidth = 2048) {
    super()
    this.head = new nn.Sequential(
      new nn.Linear(inFeatures, hiddenWidth),
      new nn.BatchNorm1d(hiddenWidth),
      new nn.ReLU(),
      new nn.Linear(hiddenWidth, outFeatures),
      new nn.BatchNorm1d(outFeatures, { affine: false }),
    )
  }

  forward(features: Tensor): Tensor {
    return this.head.forward(features)
  }
}

export function makeProjection(
  inFeatures: number,
  outFeatures: number,
  { kind = 'linear', hiddenWidth = 2048 }: ProjectionOptions = {},
): Projection {
  if (kind === 'linear') return new nn.Linear(inFeatures, outFeatures)
  if (kind === 'mlp') return new MlpProjection(inFeatures, outFeatures, hiddenWidth)
  throw new RangeError(`makeProjection: expected kind 'linear' or 'mlp', but received '${String(kind)}'`)
}
