import { full } from '../factories.js'
import { noGrad } from '../modes.js'
import { maximum } from '../ops.generated.js'
import { scope } from '../scope.js'
import type { Tensor } from '../tensor.js'
import type { Device } from '../types.js'
import { groupByDeviceAndDtype, nonFiniteCheckAndUnscale_ } from './kernels.js'
import type { CommonOptions, Optimizer } from './optimizer.js'

/**
 * The optimizer's step, unless a gradient is not finite: then parameters and state stay as they are. Where every parameter
 * goes through a fused kernel the device decides by itself, and nothing waits for it.
 *
 * @returns float32 [], 1 where the step was left out; the caller's (or the scope's)
 */
export function stepIfFinite(
  optimizer: Pick<Optimizer<CommonOptions>, 'step' | 'stepScaled' | 'supportsScaling' | 'parameters'>,
): Tensor {
  return noGrad(() =>
    scope(() => {
      const gradients = [...optimizer.parameters()].map((each) => each.grad).filter((each) => each !== null)
      const found = groupByDeviceAndDtype(gradients, (each) => each).map((group) => {
        const device = group[0]!.device as Device
        const flag = full([], 0, { dtype: 'float32', device })
        nonFiniteCheckAndUnscale_(group, flag, full([], 1, { dtype: 'float32', device }))
        return flag
      })
      const first = found[0]
      if (first === undefined) return full([], 0, { dtype: 'float32' })
      const foundInf = found.map((each) => each.to(first.device as Device)).reduce((a, b) => maximum(a, b))
      if (optimizer.supportsScaling) optimizer.stepScaled({ gradScale: null, foundInf })
      else if (foundInf.item() === 0) optimizer.step()
      return foundInf
    }),
  )
}
