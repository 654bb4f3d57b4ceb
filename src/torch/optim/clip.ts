import { tensor } from '../factories.js'
import { noGrad } from '../modes.js'
import { logicalOr, stack } from '../ops.generated.js'
import { scope } from '../scope.js'
import { Tensor } from '../tensor.js'
import { type Device, float } from '../types.js'
import {
  foreachClampMax_,
  foreachClampMin_,
  foreachMulTensor_,
  foreachNorm,
  groupByDeviceAndDtype,
  vectorNorm,
} from './kernels.js'

export interface NormOptions {
  /** The norm's order: Infinity for the largest absolute value. Default: 2. */
  normType?: number
  /** Throw where the norm is not finite. Waits for a GPU. Default: false. */
  errorIfNonfinite?: boolean
  /** All tensors of a device and dtype at once. Default: true. */
  foreach?: boolean
}

function listOf(tensors: Tensor | Iterable<Tensor>): readonly Tensor[] {
  return tensors instanceof Tensor ? [tensors] : [...tensors]
}

function gradientsOf(parameters: Tensor | Iterable<Tensor>): Tensor[] {
  return listOf(parameters)
    .map((each) => each.grad)
    .filter((each) => each !== null)
}

/**
 * The norm of all tensors as if they were one vector, on the first one's device. 0 without tensors.
 *
 * @throws RangeError with errorIfNonfinite, where it is NaN or infinite
 */
export function getTotalNorm(tensors: Tensor | Iterable<Tensor>, options: NormOptions = {}): Tensor {
  const { normType = 2, errorIfNonfinite = false, foreach = true } = options
  if (typeof normType !== 'number' || Number.isNaN(normType)) {
    throw new RangeError(`getTotalNorm: expected normType to be a number, but received ${normType}`)
  }
  const order = float(normType)
  return noGrad(() =>
    scope(() => {
      const all = listOf(tensors)
      const first = all[0]
      if (first === undefined) return tensor(0)
      const norms = groupByDeviceAndDtype(all, (each) => each).flatMap((group) =>
        foreach ? foreachNorm(group, order) : group.map((each) => vectorNorm(each, order)),
      )
      const device = first.device as Device
      const total = vectorNorm(stack(norms.map((norm) => norm.to(device))), order)
      if (errorIfNonfinite && logicalOr(total.isnan(), total.isinf()).item()) {
        throw new RangeError(
          `getTotalNorm: expected a finite norm of order ${normType}, but it is ${total.item()}; look for what overflows, or leave errorIfNonfinite out`,
        )
      }
      return total
    }),
  )
}

/**
 * Scales gradients in place so that their total norm is `maxNorm` at most: by min(1, maxNorm / (norm + 1e-6)), which
 * stays on the device. PyTorch's torch.nn.utils.clip_grad_norm_.
 *
 * @returns the norm before, on the first gradient's device; the caller's
 * @throws RangeError with errorIfNonfinite, where it is NaN or infinite: the gradients are as they were
 */
export function clipGradNorm_(
  parameters: Tensor | Iterable<Tensor>,
  maxNorm: number,
  options: NormOptions = {},
): Tensor {
  if (!(maxNorm >= 0)) {
    throw new RangeError(`clipGradNorm_: expected maxNorm to be a number from 0 on, but received ${maxNorm}`)
  }
  return noGrad(() =>
    scope(() => {
      const gradients = gradientsOf(parameters)
      const total = getTotalNorm(gradients, options)
      // multiplied also where it is 1: asking would wait for the device
      const coefficient = total.add(1e-6).reciprocal_().mul_(float(maxNorm)).clampMax_(1)
      for (const group of groupByDeviceAndDtype(gradients, (each) => each)) {
        const here = coefficient.to(group[0]!.device as Device)
        if (options.foreach ?? true) foreachMulTensor_(group, here)
        else for (const gradient of group) gradient.mul_(here)
      }
      return total
    }),
  )
}

/** Clamps gradients in place to -clipValue to clipValue. */
export function clipGradValue_(
  parameters: Tensor | Iterable<Tensor>,
  clipValue: number,
  options: { foreach?: boolean } = {},
): void {
  if (!(clipValue >= 0)) {
    throw new RangeError(`clipGradValue_: expected clipValue to be a number from 0 on, but received ${clipValue}`)
  }
  noGrad(() =>
    scope(() => {
      for (const group of groupByDeviceAndDtype(gradientsOf(parameters), (each) => each)) {
        if (options.foreach ?? true) {
          foreachClampMin_(group, -clipValue)
          foreachClampMax_(group, clipValue)
        } else for (const gradient of group) gradient.clamp_(-clipValue, clipValue)
      }
    }),
  )
}
