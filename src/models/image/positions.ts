import * as torch from '../../torch/index.js'

const { nn } = torch
type Tensor = torch.Tensor

/**
 * How position embeddings come to another grid, all bicubic and in float32:
 * - 'size-antialias': by size, antialiased: DINOv2 with registers, timm
 * - 'scale-offset': by the factor (n + 0.1) / N, not antialiased: the original DINOv2 without registers
 * - 'size': by size, not antialiased: transformers' ViT, CLIP, and DINOv2 without registers
 *
 * They are not alike: the wrong one is a silent error.
 */
export type PositionMethod = 'size-antialias' | 'scale-offset' | 'size'

/**
 * Position embeddings for another grid of patches.
 *
 * @param positions [1, prefix + rows * columns, D]; the first `prefix` (the class token's) stay as they are
 */
export function resizePositions(
  positions: Tensor,
  from: readonly [number, number],
  to: readonly [number, number],
  method: PositionMethod,
  prefix: 0 | 1 = 1,
): Tensor {
  if (from[0] === to[0] && from[1] === to[1]) return positions
  const { dtype } = positions
  const width = positions.size(2)
  // [1, rows * columns, D] to [1, D, rows, columns]
  const grid = positions
    .narrow(1, prefix, from[0] * from[1])
    .view([1, ...from, width])
    .permute(0, 3, 1, 2)
    .float()
  const target =
    method === 'scale-offset'
      ? { scaleFactor: [(to[0] + 0.1) / from[0], (to[1] + 0.1) / from[1]] }
      : { size: to, antialias: method === 'size-antialias' }
  const resized = nn.functional.interpolate(grid, { ...target, mode: 'bicubic', alignCorners: false })
  // [1, D, rows', columns'] to [1, rows' * columns', D]
  const flat = resized.to(dtype).permute(0, 2, 3, 1).reshape([1, -1, width])
  return prefix === 0 ? flat : torch.cat([positions.narrow(1, 0, prefix), flat], 1)
}

/** What the cached embeddings were made from. */
interface CacheKey {
  readonly grid: string
  readonly version: unknown
  /** Over the memory that the parameter had. */
  readonly source: Tensor
}

/**
 * Position embeddings that remember the last grid while they are frozen: then they are computed once for each resolution.
 * The result is a buffer of the module that owns them, so it moves and is freed with it; it is not saved.
 */
export class PositionCache {
  #key: CacheKey | undefined

  /** @param owner has no field of the name `resized_positions` of its own */
  constructor(private readonly owner: torch.nn.Module) {}

  /** resizePositions(), or what it gave before. */
  resize(
    positions: Tensor,
    from: readonly [number, number],
    to: readonly [number, number],
    method: PositionMethod,
    prefix: 0 | 1 = 1,
  ): Tensor {
    if (from[0] === to[0] && from[1] === to[1]) return positions
    const isFrozen = !positions.requiresGrad && !positions.isInference() && !positions.isMeta
    if (!isFrozen || torch.isInferenceModeEnabled()) return resizePositions(positions, from, to, method, prefix)
    const grid = `${method} ${from} ${to}`
    const version = torch.callOperator('aten::_version', positions)
    const key = this.#key
    const cached = this.owner.ownBuffers().find(([name]) => name === 'resized_positions')?.[1]
    if (
      cached?.isAlive &&
      key !== undefined &&
      key.grid === grid &&
      key.version === version &&
      key.source.isAlive &&
      key.source.sharesStorage(positions) &&
      cached.dtype === positions.dtype
    ) {
      return cached
    }
    const made = torch.scope(() => torch.noGrad(() => resizePositions(positions, from, to, method, prefix)))
    this.owner.registerBuffer('resized_positions', made, { persistent: false })
    cached?.dispose()
    key?.source.dispose()
    this.#key = { grid, version, source: torch.keep(positions.detach()) }
    return made
  }
}

/**
 * MAE's fixed positions (He et al. 2021, arXiv 2111.06377): of each patch sines and cosines of its column, then of its row,
 * at wavelengths from 2 pi to 20,000 pi; the class token in front has zeros.
 *
 * @param like [B, T, D]: gives width, dtype and device
 * @returns [1, 1 + rows * columns, D]
 */
export function sinePositions([rows, columns]: readonly [number, number], like: Tensor): Tensor {
  const width = like.size(2)
  if (width % 4 !== 0) throw new RangeError(`sinePositions: expected a width that 4 divides, but received ${width}`)
  const place = { device: like.device as torch.Device }
  return torch.scope(() => {
    const rates = torch
      .arange(width / 4, { ...place, dtype: 'float64' })
      .mul(-4 * (Math.log(10_000) / width))
      .exp()
    // [1, count, D / 2]
    const along = (count: number) => {
      const angles = torch
        .arange(count, { ...place, dtype: 'float64' })
        .unsqueeze(1)
        .mul(rates)
      return torch.cat([angles.sin(), angles.cos()], 1).unsqueeze(0)
    }
    const x = along(columns).expand(rows, -1, -1)
    const y = along(rows).transpose(0, 1).expand(-1, columns, -1)
    const patches = torch.cat([x, y], 2).reshape([1, rows * columns, width])
    return torch.cat([torch.zeros([1, 1, width], { ...place, dtype: 'float64' }), patches], 1).to(like.dtype)
  })
}
