/*
 * `cleft/torch`: libtorch for TypeScript.
 */
import { operator } from './dispatch.js'
import { where } from './ops.generated.js'
import { setHelpers, type Tensor } from './tensor.js'

const cast = operator('to', 'aten::to', ['dtype_layout'])
setHelpers({
  cast: (tensor, options) => cast.call([tensor, options]) as Tensor,
  select: (condition, tensor, other) => where(condition, tensor, other as Tensor),
})

export * as autograd from './autograd.js'
export { cuda } from './cuda.js'
export { deviceOf, info } from './devices.js'
export * as distributed from './distributed/index.js'
export { isOutOfMemory, TorchError } from './errors.js'
export * from './factories.js'
export type { CaptureOptions, Graph, GraphedStep, GraphedStepOptions } from './graphs.js'
export { type Index, Slice, slice } from './indexing.js'
export * as memory from './memory.js'
export * from './modes.js'
export * as nn from './nn/index.js'
export { callOperator, type OperatorValue } from './operators.js'
export * from './ops.generated.js'
export * as optim from './optim/index.js'
export { getPrintOptions, type PrintOptions, setPrintOptions } from './printing.js'
export * as profiler from './profiler.js'
export * from './random.js'
export { dispose, type Holder, heldTensors, keep, Scope, scope } from './scope.js'
export * as jit from './script.js'
export { type BackwardOptions, type Removable, Tensor, type ToOptions } from './tensor.js'
export * from './types.js'
export { type Unique, type UniqueOptions, unique } from './unique.js'
export * from './weights.js'
export { receive, send, type TensorToken } from './worker.js'
