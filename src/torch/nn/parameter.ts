import { inspect } from 'node:util'
import { operator } from '../dispatch.js'
import { type Handle, native } from '../native.js'
import { Tensor, track } from '../tensor.js'

const compatible = operator('data', 'aten::_has_compatible_shallow_copy_type', [''])

/** A handle of the same values that belongs to no scope and no graph. */
function ownHandle(tensor: Tensor): Handle {
  // inside a scope, so that no finalizer is told of the object around the handle
  native.enterScope()
  try {
    const { handle } = tensor.detach()
    native.keep(handle)
    return handle
  } finally {
    native.exitScope(undefined)
  }
}

/**
 * A tensor that a module learns: a leaf that requires a gradient. It shares the memory of the tensor that it is made
 * from, and belongs to no scope, also where it is made inside one: it lives until dispose(), or until JavaScript has let
 * go of it.
 *
 * @example readonly scale = new nn.Parameter(torch.ones([3]))
 */
export class Parameter extends Tensor {
  /** @param options.requiresGrad whether backward() makes a gradient; default: true */
  constructor(tensor: Tensor, { requiresGrad = true }: { requiresGrad?: boolean } = {}) {
    super(ownHandle(tensor))
    track(this)
    if (requiresGrad) native.setRequiresGrad(this.handle, true)
  }

  override toString(): string {
    return `Parameter containing:\n${super.toString()}`
  }

  override [inspect.custom](): string {
    return this.toString()
  }
}

/**
 * @internal Makes a held tensor (a parameter, a buffer) have the source's memory, dtype and device, while the object
 * stays the one that optimizers and users hold. A gradient that no longer fits must have been taken off before.
 */
export function adopt(target: Tensor, source: Tensor): void {
  if (compatible.call([target, source]) === true) {
    native.setData(target.handle, source.handle)
    return
  }
  // from and to meta tensors libtorch cannot exchange the content of one tensor: the object gets another one
  const before = target.handle
  const { requiresGrad } = target
  const changed: { -readonly [Key in 'handle']: Tensor[Key] } = target
  changed.handle = ownHandle(source)
  if (requiresGrad) native.setRequiresGrad(target.handle, true)
  track(target)
  native.release(before)
}
