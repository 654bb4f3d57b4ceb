import * as torch from '../../torch/index.js'

const { nn } = torch
type Tensor = torch.Tensor

export interface ImageForwardOptions {
  /** Compute the final norm. Without it ImageFeatures.normed and pooled are refused, which saves time where the features
   *  before it are wanted. Default: true. */
  norm?: boolean
  /** Give the attention maps of each block, [B, heads, T, T] each; slower. Default: false. */
  attentions?: boolean
  /** Give the tokens before the first block and after each, before the final norm, [B, T, D] each. Default: false. */
  hiddenStates?: boolean
  /** The part of the patches that is dropped at random while training (FLIP). Default: the encoder's maskRatio. */
  maskRatio?: number
  /** Where the random choice of patches comes from. Default: the default generator. */
  generator?: torch.Generator | null
  /** Keep only the blocks' inputs for backward(), and run them again there. Default: the encoder's checkpointing. */
  checkpoint?: boolean
}

/** Tokens of a batch of images [B, T, D]: the class token, where there is one, registers, patches. */
export class Tokens {
  constructor(
    readonly all: Tensor,
    private readonly classTokens: 0 | 1,
    private readonly registerTokens: number,
  ) {}

  /** The class token, [B, D]; null for models without one. */
  get cls(): Tensor | null {
    return this.classTokens === 0 ? null : this.all.select(1, 0)
  }

  /** [B, registers, D]. */
  get registers(): Tensor {
    return this.all.narrow(1, this.classTokens, this.registerTokens)
  }

  /** Row by row, [B, patches, D]. */
  get patches(): Tensor {
    const start = this.classTokens + this.registerTokens
    return this.all.narrow(1, start, this.all.size(1) - start)
  }
}

/** What an image encoder finds. */
export interface ImageFeatures {
  /** Tokens before the final norm. */
  readonly prenorm: Tokens
  /** Tokens after it. */
  readonly normed: Tokens
  /** The model's own summary, [B, featureWidth]: the class token after the final norm, or the mean over space. */
  readonly pooled: Tensor
  /** What transformers (or torchvision) calls the last hidden state. */
  readonly hidden: Tensor
  /** Rows and columns of patches, before any were dropped. */
  readonly grid: readonly [number, number]
  /** Which patches were kept, int64 [B, kept], ascending; null where none was dropped. */
  readonly keptPatches: Tensor | null
  readonly hiddenStates: readonly Tensor[] | null
  readonly attentions: readonly Tensor[] | null
}

/** Features where the final norm was left out: what needs it says so. */
export class PrenormFeatures {
  constructor(
    readonly prenorm: Tokens,
    readonly grid: readonly [number, number],
    readonly keptPatches: Tensor | null,
    readonly hiddenStates: readonly Tensor[] | null,
    readonly attentions: readonly Tensor[] | null,
  ) {}

  get normed(): Tokens {
    throw leftOut('normed')
  }

  get pooled(): Tensor {
    throw leftOut('pooled')
  }

  get hidden(): Tensor {
    throw leftOut('hidden')
  }
}

function leftOut(name: string): Error {
  return new Error(`ImageFeatures.${name}: expected forward() with the final norm, but it ran with { norm: false }`)
}

/** What all image encoders have: pixels [B, 3, H, W] in, tokens out. */
export abstract class ImageEncoder extends nn.Module {
  /** As config.json says: 'dinov2', 'vit'. */
  abstract readonly modelType: string
  /** The width of tokens and of `pooled`. */
  abstract readonly featureWidth: number
  /** Height and width of the images that it was trained on. */
  abstract readonly imageSize: readonly [number, number]
  /** Height and width of a patch; for convolutional networks of what a position of the last map stands for. */
  abstract readonly patchSize: readonly [number, number]
  abstract readonly channels: number
  /** Whether images of other sizes than multiples of the patch are taken. */
  abstract readonly takesAnySize: boolean
  readonly hasClassToken: boolean = true
  readonly registerCount: number = 0
  /** The part of the patches that is dropped while training, for calls that do not say. */
  maskRatio = 0
  /** Whether blocks run again in backward(), for calls that do not say. */
  checkpointing = false

  abstract override forward(pixels: Tensor, options?: ImageForwardOptions): ImageFeatures

  /** Refuses what are no images for this encoder, and gives the grid of patches. */
  protected checkPixels(pixels: Tensor): readonly [number, number] {
    const name = this.constructor.name
    const [batch, channels, height, width] = pixels.shape
    if (pixels.ndim !== 4 || channels !== this.channels || !pixels.isFloatingPoint()) {
      throw new RangeError(
        `${name}: expected floating-point pixels [B, ${this.channels}, H, W], but received ${pixels.dtype} [${pixels.shape}]`,
      )
    }
    if (batch === 0) throw new RangeError(`${name}: expected one image at least, but the batch is empty`)
    const [rows, columns] = this.patchSize
    const isFit = this.takesAnySize || (height! % rows === 0 && width! % columns === 0)
    if (!isFit || height === 0 || width === 0) {
      throw new RangeError(
        `${name}: expected images whose sides are multiples of ${rows} and ${columns}, but received ${height} x ${width}; resize them`,
      )
    }
    return [Math.floor(height! / rows), Math.floor(width! / columns)]
  }

  /** How many of `count` patches stay in this call: all, unless the encoder is training and has a ratio. */
  protected keptCount(count: number, { maskRatio = this.maskRatio }: ImageForwardOptions): number {
    if (!(maskRatio >= 0 && maskRatio < 1)) {
      throw new RangeError(`${this.constructor.name}: expected maskRatio from 0 to below 1, but received ${maskRatio}`)
    }
    return this.training ? Math.max(1, keptOf(count, maskRatio)) : count
  }

  /** For encoders whose patches belong together in a grid. */
  protected refuseMasking({ maskRatio = this.maskRatio }: ImageForwardOptions): void {
    if (maskRatio === 0 || !this.training) return
    throw new RangeError(
      `${this.constructor.name}: expected maskRatio 0, since it needs the whole grid of patches, but received ${maskRatio}`,
    )
  }
}

/** floor(count (1 - ratio)), where 1 - 0.9 is not a little less than 0.1. */
function keptOf(count: number, ratio: number): number {
  return Math.floor(Math.round(count * (1 - ratio) * 1e9) / 1e9)
}

/**
 * Keeps the same number of random patches of each image (FLIP: Li et al. 2023, arXiv 2212.00794).
 *
 * @param patches [B, S, D]
 * @returns [B, keep, D], and which ones, [B, keep]
 */
export function dropPatches(
  patches: Tensor,
  keep: number,
  generator: torch.Generator | null = null,
): { patches: Tensor; kept: Tensor | null } {
  const [batch, count, width] = patches.shape as [number, number, number]
  if (keep >= count) return { patches, kept: null }
  const place = { device: patches.device as torch.Device }
  return torch.scope(() => {
    const order = torch.empty([batch, count], place).uniform_(0, 1, { generator }).argsort(1)
    const kept = order.narrow(1, 0, keep).sort(1)[0]
    // rows of [B * S, D]: [B, keep] to [B * keep]
    const first = torch.arange(batch, place).mul(count).unsqueeze(1)
    const chosen = patches.reshape([batch * count, width]).indexSelect(0, kept.add(first).flatten())
    return { patches: chosen.view([batch, keep, width]), kept }
  })
}

/** A block of a transformer: tokens to tokens. It adds its attention map to `maps` where given. */
export type Block = torch.nn.Module & { forward(tokens: Tensor, maps?: Tensor[]): Tensor }

/** Runs blocks one after the other. What a block makes on its way is freed behind it, but for what backward() needs. */
export function runBlocks(
  blocks: Iterable<Block>,
  first: Tensor,
  options: ImageForwardOptions,
  checkpointing: boolean,
): { tokens: Tensor; hiddenStates: Tensor[] | null; attentions: Tensor[] | null } {
  const { attentions = false, hiddenStates = false, checkpoint = checkpointing } = options
  const maps: Tensor[] = []
  const states: Tensor[] = [first]
  let tokens = first
  // maps would outlive the run that is thrown away
  const isCheckpointed = checkpoint && !attentions && torch.isGradEnabled()
  for (const block of blocks) {
    const before = tokens
    if (isCheckpointed) tokens = torch.autograd.checkpoint((x: Tensor) => block.forward(x), [before])
    else tokens = attentions ? block.forward(before, maps) : torch.scope(() => block.forward(before))
    if (hiddenStates) states.push(tokens)
  }
  return { tokens, hiddenStates: hiddenStates ? states : null, attentions: attentions ? maps : null }
}
