import { type Handle, native } from './native.js'
import { collectTensors } from './scope.js'
import { handleOf, Tensor, wrap } from './tensor.js'

/*
 * Autograd beyond Tensor.backward(): gradients as values, functions with a backward written in TypeScript, and
 * activation checkpointing. Their callbacks run on the JavaScript thread: native code keeps the engine on it.
 */

export interface GradOptions {
  /** Gradients of the outputs, each of its output's shape. May be left out for outputs of one element. */
  gradOutputs?: readonly (Tensor | null)[]
  /** Keep the graph for another backward. Default: createGraph. */
  retainGraph?: boolean
  /** Make gradients that can be differentiated again. Default: false. */
  createGraph?: boolean
  /** Give null for inputs that the outputs do not depend on, where it is an error otherwise. Default: false. */
  allowUnused?: boolean
}

function list(value: Tensor | readonly Tensor[]): readonly Tensor[] {
  return Array.isArray(value) ? (value as readonly Tensor[]) : [value as Tensor]
}

function handlesOf(values: readonly Tensor[], operation: string, argument: string): Handle[] {
  if (!Array.isArray(values)) throw new TypeError(`${operation}: expected ${argument} to be an array of Tensors`)
  return values.map((each) => handleOf(each, operation, argument))
}

function optionalHandlesOf(values: readonly (Tensor | null)[], operation: string, argument: string): (Handle | null)[] {
  return values.map((each) => (each === null || each === undefined ? null : handleOf(each, operation, argument)))
}

/** The gradients of outputs with respect to inputs, without touching any `grad`. */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions & { allowUnused: true },
): (Tensor | null)[]
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options?: GradOptions,
): Tensor[]
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions = {},
): (Tensor | null)[] {
  const handles = native.grad(
    handlesOf(list(outputs), 'grad', 'outputs'),
    handlesOf(list(inputs), 'grad', 'inputs'),
    options.gradOutputs ? optionalHandlesOf(options.gradOutputs, 'grad', 'gradOutputs') : null,
    options.retainGraph ?? null,
    options.createGraph ?? false,
    options.allowUnused ?? false,
  )
  return handles.map((handle) => (handle === null ? null : wrap(handle)))
}

/** Several losses at once: the gradients of all are added up. */
export function backward(
  outputs: readonly Tensor[],
  gradients: readonly (Tensor | null)[] | null = null,
  options: { retainGraph?: boolean; createGraph?: boolean; inputs?: readonly Tensor[] } = {},
): void {
  native.backward(
    handlesOf(outputs, 'backward', 'outputs'),
    gradients ? optionalHandlesOf(gradients, 'backward', 'gradients') : null,
    options.retainGraph ?? null,
    options.createGraph ?? false,
    handlesOf(options.inputs ?? [], 'backward', 'inputs'),
  )
}

/** What forward() leaves for backward(). */
export class FunctionContext {
  /** @internal */
  toSave: readonly (Tensor | null)[] = []
  /** @internal */
  dirty: readonly Tensor[] = []
  /** @internal */
  nonDifferentiable: readonly Tensor[] = []
  /** @internal */
  materialize = true
  /** The tensors given to saveForBackward(), inside backward(). */
  saved: readonly (Tensor | null)[] = []
  /** Which of the tensor arguments of apply() need a gradient. */
  needsInputGrad: readonly boolean[] = []

  /** Keeps tensors for backward(), safely: changes in place are noticed, and no cycle keeps the graph alive. */
  saveForBackward(...tensors: readonly (Tensor | null)[]): void {
    this.toSave = tensors
  }

  /** Says which inputs forward() changed in place; it returns them too. */
  markDirty(...tensors: readonly Tensor[]): void {
    this.dirty = tensors
  }

  /** Says which outputs have no gradient. */
  markNonDifferentiable(...tensors: readonly Tensor[]): void {
    this.nonDifferentiable = tensors
  }

  /** Whether missing gradients of outputs come as zeros (the default) or as null. */
  setMaterializeGrads(value: boolean): void {
    this.materialize = value
  }
}

/** The static side of a class that extends {@link Function}. */
export interface FunctionClass<Inputs extends readonly unknown[], Output extends Tensor | readonly Tensor[]> {
  forward(context: FunctionContext, ...inputs: Inputs): Output
  backward(context: FunctionContext, ...gradients: Tensor[]): Tensor | null | readonly (Tensor | null)[]
}

/**
 * An operation with a backward of its own, written in TypeScript.
 *
 * backward() gets a gradient for each output and returns one (or null) for each TENSOR argument of apply(), in order;
 * tensors inside arrays or objects are not seen. What both make is freed when they return.
 *
 * @example
 * class Square extends torch.autograd.Function {
 *   static forward(context: torch.autograd.FunctionContext, x: torch.Tensor) {
 *     context.saveForBackward(x)
 *     return x.mul(x)
 *   }
 *   static backward(context: torch.autograd.FunctionContext, gradient: torch.Tensor) {
 *     return gradient.mul(context.saved[0]!).mul(2)
 *   }
 * }
 * const y = Square.apply(x)
 */
// biome-ignore lint/complexity/noStaticOnlyClass: PyTorch's users know it as a class, and `this` is the class that extends it
abstract class AutogradFunction {
  static apply<Inputs extends readonly unknown[], Output extends Tensor | readonly Tensor[]>(
    this: FunctionClass<Inputs, Output>,
    ...inputs: Inputs
  ): Output {
    const tensors = inputs.filter((input): input is Inputs[number] & Tensor => input instanceof Tensor)
    const context = new FunctionContext()
    context.needsInputGrad = tensors.map((each) => each.requiresGrad)
    let isSingle = false
    const outputs = native.applyFunction(
      tensors.map((each) => each.handle),
      (handles) => {
        let next = 0
        const values = inputs.map((input) => (input instanceof Tensor ? new Tensor(handles[next++]!) : input))
        const output = this.forward(context, ...(values as unknown as Inputs))
        isSingle = output instanceof Tensor
        return {
          outputs: handlesOf(list(output), 'Function.forward', 'what it returns'),
          saved: optionalHandlesOf(context.toSave, 'saveForBackward', 'each'),
          dirty: handlesOf(context.dirty, 'markDirty', 'each'),
          nonDifferentiable: handlesOf(context.nonDifferentiable, 'markNonDifferentiable', 'each'),
          materialize: context.materialize,
          backward: (gradients, saved) => {
            const inside = Object.assign(new FunctionContext(), { needsInputGrad: context.needsInputGrad })
            Object.assign(inside, ownFields(context))
            inside.saved = saved.map((handle) => (handle === null ? null : new Tensor(handle)))
            const found = this.backward(
              inside,
              ...gradients.map((handle) => (handle === null ? null : new Tensor(handle)) as Tensor),
            )
            const all = Array.isArray(found) ? found : [found as Tensor | null]
            if (all.length !== tensors.length) {
              throw new TypeError(
                `Function.backward: expected a gradient or null for each of the ${tensors.length} tensor arguments, but received ${all.length}`,
              )
            }
            return optionalHandlesOf(all, 'Function.backward', 'each gradient')
          },
        }
      },
    )
    const wrapped = outputs.map(wrap)
    return (isSingle ? wrapped[0] : wrapped) as unknown as Output
  }
}

export { AutogradFunction as Function }

const contextFields = new Set(Object.keys(new FunctionContext()))

/** What a user put on the context beside its own fields: context.shape = x.shape. */
function ownFields(context: FunctionContext): Record<string, unknown> {
  return Object.fromEntries(Object.entries(context).filter(([name]) => !contextFields.has(name)))
}

export interface CheckpointOptions {
  /** Draw the same random numbers (dropout) when the function runs again. Default: true. */
  preserveRandomState?: boolean
}

/**
 * Runs a function without keeping what backward() needs; backward() runs it again (Chen et al. 2016). Not re-entrant:
 * parameters used inside get gradients also where no input requires one. The function must depend on its inputs, its
 * parameters and the random state alone.
 */
export function checkpoint<Inputs extends readonly Tensor[], Output extends Tensor | readonly Tensor[]>(
  run: (...inputs: Inputs) => Output,
  inputs: readonly [...Inputs],
  options: CheckpointOptions = {},
): Output {
  if (typeof run !== 'function') {
    throw new TypeError(`checkpoint: expected a function, but received ${String(run)}`)
  }
  let isSingle = false
  const outputs = native.checkpoint(
    (handles) => {
      const output = run(...(handles.map((handle) => new Tensor(handle)) as unknown as Inputs))
      isSingle = output instanceof Tensor
      if (!isSingle && !(Array.isArray(output) && output.every((each) => each instanceof Tensor))) {
        throw new TypeError(
          `checkpoint: expected the function to return a tensor or an array of tensors, but it returned ${collectTensors(output).size === 0 ? 'something else' : 'tensors inside an object'}`,
        )
      }
      return list(output).map((each) => each.handle)
    },
    handlesOf(inputs, 'checkpoint', 'inputs'),
    options.preserveRandomState ?? true,
  )
  const wrapped = outputs.map(wrap)
  return (isSingle ? wrapped[0] : wrapped) as unknown as Output
}
