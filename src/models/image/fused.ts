import * as torch from '../../torch/index.js'
import { gelu, tanhGelu } from '../text/activations.js'

/*
 * Linear layers joined with the norm before them, or with the activation before and the residual behind: native/fused_linear.cpp.
 * They keep less for backward(). Where a layer is no plain one (an adapter or a hook is on it) each runs by itself.
 */

const { nn } = torch
type Tensor = torch.Tensor

/** Any layer from one tensor to one, an adapter around a Linear too. */
export type Layer = torch.nn.Module & { forward(input: Tensor): Tensor }

/** Whether calls of the module are looked at, so that it has to be called. */
export const isHooked = (module: torch.nn.Module): boolean => Object.hasOwn(module, 'forward')

const isPlain = (layer: Layer, kind: new (...options: never[]) => Layer): boolean =>
  layer.constructor === kind && !isHooked(layer)

export const isPlainLinear = (layer: Layer): layer is torch.nn.Linear => isPlain(layer, nn.Linear)

/** What {@link normLinear} computes with; null where the norm is no plain one with a weight and a bias. */
export interface PlainNorm {
  weight: torch.nn.Parameter
  bias: torch.nn.Parameter
  eps: number
}

/** The norm over the last dimension, where it may be joined with what follows. */
export function plainNorm(norm: Layer): PlainNorm | null {
  if (!isPlain(norm, nn.LayerNorm)) return null
  const { weight, bias, eps, normalizedShape } = norm as torch.nn.LayerNorm
  return weight !== null && bias !== null && normalizedShape.length === 1 ? { weight, bias, eps } : null
}

/** linear(norm(x)), [..., D] to [..., outputs]. */
export function normLinear(x: Tensor, norm: PlainNorm, weight: Tensor, bias: Tensor | null): Tensor {
  return torch.callOperator('cleft::norm_linear', x, norm.weight, norm.bias, norm.eps, weight, bias) as Tensor
}

/** The same of layers. */
export function forwardNormed(norm: Layer, linear: Layer, x: Tensor): Tensor {
  const plain = plainNorm(norm)
  if (plain === null || !isPlainLinear(linear)) return linear.forward(norm.forward(x))
  return normLinear(x, plain, linear.weight, linear.bias)
}

export interface AddOptions {
  /** Scales what is added, [D] (LayerScale: Touvron et al. 2021). Default: none. */
  gamma?: Tensor | null
  /** What x goes through before the layer. Default: nothing. */
  activation?: ((x: Tensor) => Tensor) | null
  /** What the layer's output goes through, as dropout does, which is then a step of its own. Default: nothing. */
  drop?: ((branch: Tensor) => Tensor) | null
}

/** residual + gamma * linear(activation(x)), [..., D]. */
export function addLinear(residual: Tensor, linear: Layer, x: Tensor, options: AddOptions = {}): Tensor {
  const { gamma = null, activation = null, drop = null } = options
  if (drop === null && isPlainLinear(linear)) {
    const name = activation === gelu ? 'gelu' : activation === tanhGelu ? 'gelu_tanh' : 'none'
    const input = activation === null || name !== 'none' ? x : activation(x)
    return torch.callOperator(
      'cleft::linear_residual',
      residual,
      input,
      linear.weight,
      linear.bias,
      gamma,
      name,
    ) as Tensor
  }
  return addBranch(residual, linear.forward(activation === null ? x : activation(x)), { gamma, drop })
}

/** residual + gamma * branch, [..., D]. */
export function addBranch(
  residual: Tensor,
  branch: Tensor,
  { gamma = null, drop = null }: Pick<AddOptions, 'gamma' | 'drop'>,
): Tensor {
  const dropped = drop === null ? branch : drop(branch)
  if (gamma === null) return residual.add(dropped)
  return torch.callOperator('cleft::layer_scale_residual', residual, dropped, gamma) as Tensor
}
