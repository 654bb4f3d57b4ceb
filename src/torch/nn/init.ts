import { full } from '../factories.js'
import { noGrad } from '../modes.js'
import { diag, empty, emptyLike, linalg, where } from '../ops.generated.js'
import type { Generator } from '../random.js'
import { scope } from '../scope.js'
import type { Tensor } from '../tensor.js'
import { isInitializing } from './construct.js'

/*
 * Initialisers: they fill a tensor in place, outside of autograd, and give it back. They draw the random numbers that
 * torch.nn.init draws, in its order, so one seed gives the same values. Tensors on 'meta' stay as they are, and so do all
 * tensors inside nn.construct({ initialize: false }, ...).
 */

export interface RandomOptions {
  /** Default: the default generator of the tensor's device. */
  generator?: Generator | null
}

function fill<T extends Tensor>(tensor: T, run: () => void): T {
  if (tensor.isMeta || !isInitializing()) return tensor
  noGrad(() => scope(run))
  return tensor
}

/** Evenly between `from` and `to`. */
export function uniform_<T extends Tensor>(tensor: T, from = 0, to = 1, { generator = null }: RandomOptions = {}): T {
  return fill(tensor, () => tensor.uniform_(from, to, { generator }))
}

/** The normal distribution. */
export function normal_<T extends Tensor>(tensor: T, mean = 0, std = 1, { generator = null }: RandomOptions = {}): T {
  return fill(tensor, () => tensor.normal_(mean, std, { generator }))
}

export function constant_<T extends Tensor>(tensor: T, value: number): T {
  return fill(tensor, () => tensor.fill_(value))
}

export function zeros_<T extends Tensor>(tensor: T): T {
  return constant_(tensor, 0)
}

export function ones_<T extends Tensor>(tensor: T): T {
  return constant_(tensor, 1)
}

/** The identity matrix. */
export function eye_<T extends Tensor>(tensor: T): T {
  if (tensor.ndim !== 2) throw new RangeError(`eye_: expected a matrix, but received shape [${tensor.shape}]`)
  return fill(tensor, () => {
    tensor.zero_()
    tensor.diagonal().fill_(1)
  })
}

/** How many inputs make an output element, and the other way round, of a weight [out, in, ...kernel]. */
export function calculateFans(tensor: Tensor): { fanIn: number; fanOut: number } {
  const [out, input, ...kernel] = tensor.shape
  if (out === undefined || input === undefined) {
    throw new RangeError(`init: expected a weight of 2 dimensions or more, but received shape [${tensor.shape}]`)
  }
  const field = kernel.reduce((product, size) => product * size, 1)
  return { fanIn: input * field, fanOut: out * field }
}

export type Nonlinearity =
  | 'linear'
  | 'conv1d'
  | 'conv2d'
  | 'conv3d'
  | 'sigmoid'
  | 'tanh'
  | 'relu'
  | 'leaky_relu'
  | 'selu'

/**
 * The factor by which a weight's spread makes up for the activation after it.
 *
 * @param negativeSlope of 'leaky_relu'
 */
export function calculateGain(nonlinearity: Nonlinearity, negativeSlope = 0.01): number {
  switch (nonlinearity) {
    case 'tanh':
      return 5 / 3
    case 'relu':
      return Math.SQRT2
    case 'leaky_relu':
      return Math.sqrt(2 / (1 + negativeSlope ** 2))
    case 'selu':
      return 3 / 4
    case 'linear':
    case 'sigmoid':
    case 'conv1d':
    case 'conv2d':
    case 'conv3d':
      return 1
    default:
      throw new RangeError(`calculateGain: expected the name of an activation, but received '${String(nonlinearity)}'`)
  }
}

export interface XavierOptions extends RandomOptions {
  /** Default: 1. */
  gain?: number
}

/** Glorot and Bengio (2010): evenly within ± gain * sqrt(6 / (fanIn + fanOut)). */
export function xavierUniform_<T extends Tensor>(tensor: T, { gain = 1, generator = null }: XavierOptions = {}): T {
  const { fanIn, fanOut } = calculateFans(tensor)
  const bound = Math.sqrt(3) * gain * Math.sqrt(2 / (fanIn + fanOut))
  return uniform_(tensor, -bound, bound, { generator })
}

/** Glorot and Bengio (2010): normal with standard deviation gain * sqrt(2 / (fanIn + fanOut)). */
export function xavierNormal_<T extends Tensor>(tensor: T, { gain = 1, generator = null }: XavierOptions = {}): T {
  const { fanIn, fanOut } = calculateFans(tensor)
  return normal_(tensor, 0, gain * Math.sqrt(2 / (fanIn + fanOut)), { generator })
}

export interface KaimingOptions extends RandomOptions {
  /** The negative slope of the leaky ReLU after the layer. Default: 0. */
  a?: number
  /** Keep the spread of activations ('fanIn') or of gradients ('fanOut'). Default: 'fanIn'. */
  mode?: 'fanIn' | 'fanOut'
  /** Default: 'leaky_relu'. */
  nonlinearity?: Nonlinearity
}

function kaimingStd(tensor: Tensor, { a = 0, mode = 'fanIn', nonlinearity = 'leaky_relu' }: KaimingOptions): number {
  return calculateGain(nonlinearity, a) / Math.sqrt(calculateFans(tensor)[mode])
}

/** He et al. (2015): evenly within ± gain * sqrt(3 / fan). */
export function kaimingUniform_<T extends Tensor>(tensor: T, options: KaimingOptions = {}): T {
  if (tensor.numel() === 0) return tensor
  const bound = Math.sqrt(3) * kaimingStd(tensor, options)
  return uniform_(tensor, -bound, bound, options)
}

/** He et al. (2015): normal with standard deviation gain / sqrt(fan). */
export function kaimingNormal_<T extends Tensor>(tensor: T, options: KaimingOptions = {}): T {
  if (tensor.numel() === 0) return tensor
  return normal_(tensor, 0, kaimingStd(tensor, options), options)
}

export interface TruncatedNormalOptions extends RandomOptions {
  /** Default: 0. */
  mean?: number
  /** Default: 1. */
  std?: number
  /** The lowest value. Default: -2. */
  a?: number
  /** The highest value. Default: 2. */
  b?: number
}

/** The part of the standard normal distribution below x. */
function normalCdf(x: number): number {
  return (
    (1 +
      full([], x / Math.SQRT2, { dtype: 'float64' })
        .erf()
        .item()) /
    2
  )
}

/**
 * The normal distribution between two bounds: what falls outside is drawn again. As in torch 2.13; earlier releases drew
 * through the inverse error function, and give other values for the same seed.
 */
export function truncNormal_<T extends Tensor>(tensor: T, options: TruncatedNormalOptions = {}): T {
  const { mean = 0, std = 1, a = -2, b = 2, generator = null } = options
  if (!(a < b && std > 0)) {
    throw new RangeError(`truncNormal_: expected a < b and std > 0, but received a ${a}, b ${b}, std ${std}`)
  }
  return fill(tensor, () => {
    if (normalCdf((b - mean) / std) - normalCdf((a - mean) / std) > 0.3)
      redrawNormal(tensor, mean, std, a, b, generator)
    else redrawUniform(tensor, mean, std, a, b, generator)
  })
}

/** Normal values until all are within bounds: most are at once. */
function redrawNormal(
  tensor: Tensor,
  mean: number,
  std: number,
  a: number,
  b: number,
  generator: Generator | null,
): void {
  // bounds as the tensor's dtype has them
  const [low, high] = [a, b].map((bound) => full([], bound, { dtype: tensor.dtype }).item()) as [number, number]
  let result = tensor.normal_(mean, std, { generator }) as Tensor
  for (;;) {
    const isOutside = result.lt(low).logicalOr(result.gt(high))
    if (!isOutside.any().item()) break
    result = where(isOutside, emptyLike(result).normal_(mean, std, { generator }), result)
  }
  if (result !== tensor) tensor.copy_(result)
}

/** Even values, accepted as often as the density says: for bounds far out, where normal values hardly fall. */
function redrawUniform(
  tensor: Tensor,
  mean: number,
  std: number,
  a: number,
  b: number,
  generator: Generator | null,
): void {
  const logPeak = -0.5 * ((Math.max(a, Math.min(mean, b)) - mean) / std) ** 2
  const candidates = emptyLike(tensor)
  const rejected = () => {
    candidates.sub_(mean).div_(std).pow_(2).mul_(-0.5).sub_(logPeak)
    return emptyLike(tensor).uniform_(0, 1, { generator }).log_().gt(candidates)
  }
  candidates.copy_(tensor.uniform_(a, b, { generator }))
  let result: Tensor = tensor
  let pending = rejected()
  while (pending.any().item()) {
    candidates.uniform_(a, b, { generator })
    result = where(pending, candidates, result)
    pending = pending.logicalAnd(rejected())
  }
  if (result !== tensor) tensor.copy_(result)
}

/** Saxe et al. (2014): a matrix with orthogonal rows or columns; further dimensions count as columns. */
export function orthogonal_<T extends Tensor>(tensor: T, { gain = 1, generator = null }: XavierOptions = {}): T {
  const [rows] = tensor.shape
  if (rows === undefined || tensor.ndim < 2) {
    throw new RangeError(`orthogonal_: expected 2 dimensions or more, but received shape [${tensor.shape}]`)
  }
  if (tensor.numel() === 0) return tensor
  return fill(tensor, () => {
    const columns = tensor.numel() / rows
    const options = { dtype: tensor.dtype, device: tensor.device as 'cpu' }
    const drawn = empty([rows, columns], options).normal_(0, 1, { generator })
    const [q, r] = linalg.qr(rows < columns ? drawn.t() : drawn)
    // the sign makes it an even draw among all such matrices (Mezzadri 2007)
    const signed = q.mul(diag(r).sign())
    tensor.copy_((rows < columns ? signed.t() : signed).reshape(tensor.shape)).mul_(gain)
  })
}

/** The identity of a convolution [out, in / groups, ...kernel]: as many channels as possible come out as they are. */
export function dirac_<T extends Tensor>(tensor: T, { groups = 1 }: { groups?: number } = {}): T {
  const [out, input, ...kernel] = tensor.shape
  if (out === undefined || input === undefined || kernel.length < 1 || kernel.length > 3 || out % groups !== 0) {
    throw new RangeError(
      `dirac_: expected a weight of 3 to 5 dimensions, the first divisible by groups (${groups}), but received shape [${tensor.shape}]`,
    )
  }
  return fill(tensor, () => {
    tensor.zero_()
    const perGroup = out / groups
    const centre = kernel.map((size) => Math.floor(size / 2))
    for (let channel = 0; channel < out; channel += 1) {
      if (channel % perGroup < input) tensor.setAt([channel, channel % perGroup, ...centre], 1)
    }
  })
}
