import { operator } from '../../dispatch.js'
import * as ops from '../../ops.generated.js'
import type { Tensor } from '../../tensor.js'
import { expandSizes, oneOf, type Sizes } from './common.js'

const paddingModes = ['constant', 'reflect', 'replicate', 'circular'] as const

export interface PadOptions {
  /** Default: 'constant'. The others pad the last dimensions of a tensor with one or two dimensions before them. */
  mode?: (typeof paddingModes)[number]
  /** What to pad with in mode 'constant'. Default: 0. */
  value?: number
}

/**
 * Adds to both ends of dimensions, the last one first: [left, right] or [left, right, top, bottom] and so on. Negative
 * numbers cut off.
 */
export function pad(input: Tensor, padding: readonly number[], { mode = 'constant', value }: PadOptions = {}): Tensor {
  oneOf('pad', 'mode', paddingModes, mode)
  return ops.pad(input, padding, mode, value ?? null)
}

export type InterpolationMode = 'nearest' | 'nearest-exact' | 'linear' | 'bilinear' | 'bicubic' | 'trilinear' | 'area'

export interface InterpolateOptions {
  /** The size that comes out, for each spatial dimension or one for all. Either this or scaleFactor. */
  size?: Sizes | null
  /** How many times the size that goes in. */
  scaleFactor?: Sizes | null
  /**
   * 'linear' for [N, C, W], 'bilinear' and 'bicubic' for [N, C, H, W], 'trilinear' for [N, C, D, H, W], the others for
   * all. 'nearest-exact' is the nearest pixel's centre, 'nearest' is what OpenCV does. Default: 'nearest'.
   */
  mode?: InterpolationMode
  /** Whether corner pixels stay where they are; for linear modes and 'bicubic' alone. Default: false. */
  alignCorners?: boolean | null
  /**
   * True computes the output's size from scaleFactor, and the scale again from the sizes; false uses scaleFactor as it
   * is. Default: false, but true for 'area'.
   */
  recomputeScaleFactor?: boolean | null
  /** Average over what a smaller pixel covers, as Pillow does; 'bilinear' and 'bicubic' alone. Default: false. */
  antialias?: boolean
}

const nearestKernels = [1, 2, 3].map((count) => operator('interpolate', `aten::upsample_nearest${count}d`, ['vec']))
const exactKernels = [1, 2, 3].map((count) =>
  operator('interpolate', `aten::_upsample_nearest_exact${count}d`, ['vec']),
)
const areaKernels = [ops.adaptiveAvgPool1d, ops.adaptiveAvgPool2d, ops.adaptiveAvgPool3d]

/** Modes with weights, and how many spatial dimensions each is for. */
const weightedModes = {
  linear: { dimensions: 1, kernel: operator('interpolate', 'aten::upsample_linear1d', ['vec']), antialias: null },
  bilinear: {
    dimensions: 2,
    kernel: operator('interpolate', 'aten::upsample_bilinear2d', ['vec']),
    antialias: operator('interpolate', 'aten::_upsample_bilinear2d_aa', ['vec']),
  },
  bicubic: {
    dimensions: 2,
    kernel: operator('interpolate', 'aten::upsample_bicubic2d', ['vec']),
    antialias: operator('interpolate', 'aten::_upsample_bicubic2d_aa', ['vec']),
  },
  trilinear: { dimensions: 3, kernel: operator('interpolate', 'aten::upsample_trilinear3d', ['vec']), antialias: null },
}

/**
 * Another size of images, sequences or volumes: torch.nn.functional.interpolate, bit for bit the same kernels.
 *
 * @param input [N, C, W], [N, C, H, W] or [N, C, D, H, W]
 * @throws RangeError for options that do not go together
 */
export function interpolate(input: Tensor, options: InterpolateOptions): Tensor {
  const { size = null, scaleFactor = null, mode = 'nearest', alignCorners = null, antialias = false } = options
  const count = input.ndim - 2
  const fail = (expected: string, received: string): never => {
    throw new RangeError(`interpolate: expected ${expected}, but received ${received}`)
  }
  if (count < 1 || count > 3) fail('input of 3 to 5 dimensions', `shape [${input.shape}]`)
  if ((size === null) === (scaleFactor === null)) fail('either size or scaleFactor', size === null ? 'neither' : 'both')
  if (options.recomputeScaleFactor && size !== null) fail('recomputeScaleFactor with scaleFactor', 'it with size')

  let sizes = size === null ? null : expandSizes('interpolate', 'size', size, count)
  let scales = scaleFactor === null ? null : expandSizes('interpolate', 'scaleFactor', scaleFactor, count)
  if (scales !== null && (options.recomputeScaleFactor || mode === 'area')) {
    const { shape } = input
    sizes = scales.map((scale, dim) => Math.trunc(shape[dim + 2]! * scale))
    scales = null
  }

  if (mode === 'nearest' || mode === 'nearest-exact' || mode === 'area') {
    if (alignCorners !== null) fail(`no alignCorners with mode '${mode}'`, String(alignCorners))
    if (antialias) fail("mode 'bilinear' or 'bicubic' with antialias", `'${mode}'`)
    if (mode === 'area') return areaKernels[count - 1]!(input, sizes!)
    const kernels = mode === 'nearest' ? nearestKernels : exactKernels
    return kernels[count - 1]!.call([input, sizes, scales]) as Tensor
  }
  oneOf('interpolate', 'mode', ['nearest', 'nearest-exact', 'area', ...Object.keys(weightedModes)], mode)
  const weighted = weightedModes[mode]
  if (weighted.dimensions !== count) {
    fail(`input of ${weighted.dimensions + 2} dimensions for mode '${mode}'`, `shape [${input.shape}]`)
  }
  if (antialias && weighted.antialias === null) fail("mode 'bilinear' or 'bicubic' with antialias", `'${mode}'`)
  const kernel = antialias ? weighted.antialias! : weighted.kernel
  return kernel.call([input, sizes, alignCorners ?? false, scales]) as Tensor
}

export interface WindowOptions {
  /** Default: 1. */
  dilation?: Sizes
  /** Default: 0. */
  padding?: Sizes
  /** Default: 1. */
  stride?: Sizes
}

const im2col = operator('unfold', 'aten::im2col', [''])
const col2im = operator('fold', 'aten::col2im', [''])

function windows(
  operation: string,
  kernelSize: Sizes,
  { dilation = 1, padding = 0, stride = 1 }: WindowOptions,
): number[][] {
  return Object.entries({ kernelSize, dilation, padding, stride }).map(([name, value]) =>
    expandSizes(operation, name, value, 2),
  )
}

/** The windows of images [N, C, H, W] as columns [N, C * kernel area, windows]. */
export function unfold(input: Tensor, kernelSize: Sizes, options: WindowOptions = {}): Tensor {
  return im2col.call([input, ...windows('unfold', kernelSize, options)]) as Tensor
}

/** Adds up columns [N, C * kernel area, windows] to images [N, C, ...outputSize]. */
export function fold(input: Tensor, outputSize: Sizes, kernelSize: Sizes, options: WindowOptions = {}): Tensor {
  const size = expandSizes('fold', 'outputSize', outputSize, 2)
  return col2im.call([input, size, ...windows('fold', kernelSize, options)]) as Tensor
}

const gridModes = ['bilinear', 'nearest', 'bicubic'] as const
const gridPaddings = ['zeros', 'border', 'reflection'] as const

export interface GridSampleOptions {
  /** Default: 'bilinear'. */
  mode?: (typeof gridModes)[number]
  /** What is outside of the image. Default: 'zeros'. */
  paddingMode?: (typeof gridPaddings)[number]
  /** Whether -1 and 1 are the centres of the corner pixels (true) or their outer edges. Default: false. */
  alignCorners?: boolean
}

/**
 * The values of images at positions.
 *
 * @param input [N, C, H, W], or [N, C, D, H, W]
 * @param grid positions x, y (and z) from -1 to 1, [N, H', W', 2], or [N, D', H', W', 3]
 */
export function gridSample(input: Tensor, grid: Tensor, options: GridSampleOptions = {}): Tensor {
  const { mode = 'bilinear', paddingMode = 'zeros', alignCorners = false } = options
  const modeCode = oneOf('gridSample', 'mode', gridModes, mode)
  return ops.gridSampler(
    input,
    grid,
    modeCode,
    oneOf('gridSample', 'paddingMode', gridPaddings, paddingMode),
    alignCorners,
  )
}

/**
 * The grid for gridSample() that an affine map makes.
 *
 * @param theta [N, 2, 3] for images, [N, 3, 4] for volumes
 * @param size of the output: [N, C, H, W] or [N, C, D, H, W]
 */
export function affineGrid(
  theta: Tensor,
  size: readonly number[],
  { alignCorners = false }: { alignCorners?: boolean } = {},
): Tensor {
  return ops.affineGridGenerator(theta, size, alignCorners)
}
