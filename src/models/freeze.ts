import type { Module } from '../torch/nn/module.js'

const frozen = new WeakSet<Module>()

/**
 * Takes a model out of training: its parameters require no gradient, and it stays in evaluation mode (no dropout of its
 * own) also where train() is called on what it is a part of. Parts that are put into it later, such as adapters, train.
 *
 * @param options.ownDropout leave train() and eval() as they are, so that the model's own dropout is on while what holds it
 *   trains: what the published CLEFT code does; default: false
 */
export function freeze<M extends Module>(model: M, { ownDropout = false }: { ownDropout?: boolean } = {}): M {
  model.requiresGrad_(false)
  if (ownDropout) {
    // text models have a switch for it, off by default
    if (hasRunningOptions(model)) model.running.ownDropout = true
    return model
  }
  for (const module of model.modules()) {
    // no value to write to: train() of a module around sets the fields of all its parts
    Object.defineProperty(module, 'training', { get: () => false, set: () => {}, enumerable: true, configurable: true })
    frozen.add(module)
  }
  return model
}

function hasRunningOptions(model: Module): model is Module & { running: { ownDropout: boolean } } {
  return 'running' in model && typeof model.running === 'object' && model.running !== null
}

/** Undoes freeze(): all parameters require gradients, train() works again. The model stays in evaluation mode until then. */
export function unfreeze<M extends Module>(model: M): M {
  for (const module of model.modules()) {
    if (!frozen.delete(module)) continue
    Object.defineProperty(module, 'training', { value: false, writable: true, enumerable: true, configurable: true })
  }
  return model.requiresGrad_(true)
}
