import { createFiles } from './files/index.js'
import { noGrad } from './modes.js'
import { native } from './native.js'
import { callOperator } from './operators.js'
import { scope } from './scope.js'
import { Tensor, wrap } from './tensor.js'

/*
 * Files of weights, for this package's tensors.
 */

const files = createFiles<Tensor>({
  native,
  wrap(handle, requiresGrad) {
    if (requiresGrad) native.setRequiresGrad(handle, true)
    return wrap(handle)
  },
  isTensor: (value): value is Tensor => value instanceof Tensor,
  describe: ({ handle }) => ({
    dtype: native.dtype(handle),
    shape: native.shape(handle),
    identity:
      native.numberOfElements(handle) === 0
        ? null
        : `${native.storageId(handle)} ${native.storageOffset(handle)} ${native.strides(handle)}`,
  }),
  open(tensor) {
    const plain = scope(() =>
      noGrad(() => {
        // a lazy conjugate or negative is a flag on other bytes
        const settled = callOperator('aten::resolve_neg', callOperator('aten::resolve_conj', tensor.detach()) as Tensor)
        return (settled as Tensor).to('cpu').contiguous()
      }),
    )
    return { handle: plain.handle, release: () => plain.dispose() }
  },
})

/** Opens a safetensors file: reads its header, checks it, and maps tensors into memory when they are asked for. */
export const openSafetensors = files.openSafetensors
/** Opens a folder of safetensors files (model.safetensors, or shards with model.safetensors.index.json) as one. */
export const openSharded = files.openSharded
/** Writes tensors as the safetensors library does: to a file beside, then renamed. Returns the paths written. */
export const saveSafetensors = files.saveSafetensors
/** Reads a .pt, .bin or .ckpt file of Python's torch.save: tensors, containers and numbers; nothing in it is run. */
export const load = files.load
/** Writes a file that Python's torch.load reads. */
export const save = files.save
/** The tensors of what load() returned, by dotted names. */
export const toStateDict = files.toStateDict

export { inspect, PickleStub, WeightsFileError } from './files/index.js'

/**
 * Lets the system take back the memory of a contiguous tensor that is mapped from a file and was not written to; it is
 * read again where it is needed. Nothing happens for other tensors.
 */
export function dropPages(tensor: Tensor): void {
  native.dropPages(tensor.handle)
}
