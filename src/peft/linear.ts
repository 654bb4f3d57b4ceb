import { Conv1D } from '../models/text/gpt2.js'
import * as torch from '../torch/index.js'
import { nn } from '../torch/index.js'

type Tensor = torch.Tensor

/** A linear layer, whichever way round its weight lies. */
export interface LinearView {
  weight: nn.Parameter
  bias: nn.Parameter | null
  inFeatures: number
  outFeatures: number
  /** Whether the weight is [in, out], as in GPT-2's Conv1D, instead of [out, in]. */
  isTransposed: boolean
}

/** nn.Linear or GPT-2's Conv1D. */
export function isLinear(module: nn.Module): module is nn.Linear | Conv1D {
  return module instanceof nn.Linear || module instanceof Conv1D
}

/** What is known of a linear layer, or null for any other module. */
export function linearOf(module: nn.Module): LinearView | null {
  if (!isLinear(module)) return null
  const isTransposed = module instanceof Conv1D
  const { weight, bias } = module
  const [rows = 0, columns = 0] = weight.shape
  const [outFeatures, inFeatures] = isTransposed ? [columns, rows] : [rows, columns]
  return { weight, bias, inFeatures, outFeatures, isTransposed }
}

/** The weight as [out, in]. */
export function orient({ weight, isTransposed }: Pick<LinearView, 'weight' | 'isTransposed'>): Tensor {
  return isTransposed ? weight.t() : weight
}

/** Whether a layer computes what its class says: no hook, no forward() of somebody's own. */
export function isPlain(module: nn.Module): boolean {
  return module.forward === nn.Linear.prototype.forward || module.forward === Conv1D.prototype.forward
}

/** What a layer makes of rows. */
export interface BaseRows {
  /** [N, out] */
  rows: Tensor
  /** Whether nothing else refers to it, so that it may be changed in place. */
  isOwn: boolean
}

/**
 * A layer on rows [N, in]. A plain linear layer is one matrix product into a tensor that is not a view, so that an
 * adapter can be added in place: libtorch's linear keeps its input for backward(), not its output.
 */
export function forwardRows(layer: nn.Layer, rows: Tensor, { withBias = true } = {}): BaseRows {
  const view = isPlain(layer) ? linearOf(layer) : null
  if (view === null) return { rows: layer.forward(rows), isOwn: false }
  const bias = withBias ? view.bias : null
  return { rows: nn.functional.linear(rows, orient(view), bias), isOwn: true }
}

/** A tensor in another dtype, or itself. */
export function cast(tensor: Tensor, dtype: torch.DType): Tensor {
  return tensor.dtype === dtype ? tensor : tensor.to(dtype)
}

/** The kind of a tensor's device, without its number, for autocast; none for 'meta', where there is none. */
function autocastDevice(tensor: Tensor): torch.Device | null {
  return tensor.isMeta ? null : (tensor.device.split(':')[0] as torch.Device)
}

function isAutocasting(tensor: Tensor): boolean {
  const device = autocastDevice(tensor)
  return device !== null && torch.isAutocastEnabled(device)
}

/** Runs a function in the precision of its tensors. */
export function withoutAutocast<T>(tensor: Tensor, run: () => T): T {
  const device = autocastDevice(tensor)
  return device === null ? run() : torch.autocast({ device, enabled: false }, run)
}

/** An input in the adapter's dtype, as peft casts it. Autocast casts by itself. */
export function adapterInput(rows: Tensor, dtype: torch.DType): Tensor {
  return rows.dtype === dtype || isAutocasting(rows) ? rows : rows.to(dtype)
}

/**
 * Adds a low-rank update: base + scale * (x Aᵀ) Bᵀ. Two small matrix products, the second of which adds to what is
 * there, in place where `base.isOwn`; a base of lower precision than the adapter is taken up to the adapter's, as peft
 * does.
 *
 * @param x [N, in], after dropout @param a [r, in] @param b [out, r]
 */
export function addLowRank(base: BaseRows, x: Tensor, a: Tensor, b: Tensor, scale: number): BaseRows {
  const inner = nn.functional.linear(x, a)
  const right = cast(b, inner.dtype).t()
  const alpha = { alpha: torch.float(scale) }
  if (base.rows.dtype !== inner.dtype) {
    const isWider = torch.promoteTypes(base.rows.dtype, inner.dtype) === inner.dtype
    const rows = isWider ? base.rows.to(inner.dtype).addmm_(inner, right, alpha) : base.rows.add(inner.mm(right), alpha)
    return { rows, isOwn: true }
  }
  const rows = base.isOwn ? base.rows.addmm_(inner, right, alpha) : torch.addmm(base.rows, inner, right, alpha)
  return { rows, isOwn: true }
}
