import { inspect } from 'node:util'
import { type Holder, heldTensors, keep } from '../scope.js'
import { type Removable, Tensor, type ToOptions } from '../tensor.js'
import type { Device, DType } from '../types.js'
import { ForwardHooks, type InputsOf, type OutputOf, type Perhaps } from './hooks.js'
import { Parameter } from './parameter.js'
import { describeFields, describeModule } from './repr.js'
import {
  adoptState,
  convertTensors,
  emptyTensors,
  type LoadOptions,
  type LoadResult,
  type StateSource,
} from './state.js'

/**
 * A part of a network: its parameters, its buffers and its parts are its fields, by their names, in the order in which
 * they are defined. A class says what it computes in forward().
 *
 * A field that is a {@link Parameter} is learned, a field that is a Module is a part; several parts go into a ModuleList,
 * a Sequential or a ModuleDict, not into an array. A tensor that is saved and moved with the module, but not learned, is
 * a buffer: see registerBuffer(). Other fields, plain tensors too, are neither moved nor saved. Fields whose name starts
 * with # are not looked at.
 *
 * What a module holds belongs to it and to no scope. dispose() frees it; `using` works.
 *
 * @example
 * class Net extends nn.Module {
 *   hidden = new nn.Linear(10, 32)
 *   out = new nn.Linear(32, 1)
 *   forward(x: torch.Tensor) { return this.out.forward(this.hidden.forward(x).gelu()) }
 * }
 */
export abstract class Module implements Disposable, Holder {
  /** Whether dropout drops and batch statistics are taken: see train() and eval(). */
  training = true

  /** Names of the buffers, and whether they are saved. */
  readonly #buffers = new Map<string, boolean>()
  #hooks: ForwardHooks | undefined
  #isSettingMode = false

  /** What the module computes. Hooks run around it. */
  abstract forward(...inputs: never[]): unknown

  // What it holds

  /** Direct parts by name. Containers list their items here. */
  namedChildren(): [string, Module][] {
    const found: [string, Module][] = []
    for (const [name, value] of Object.entries(this)) {
      if (value instanceof Module) found.push([name, value])
      else if (Array.isArray(value) && (value[0] instanceof Module || value[0] instanceof Parameter)) {
        throw new TypeError(
          `${this.constructor.name}: expected the field '${name}' to be an nn.ModuleList or nn.Sequential, whose items are found, but it is an array (a #private field may be one)`,
        )
      }
    }
    return found
  }

  /** Direct parts. */
  children(): Module[] {
    return this.namedChildren().map(([, child]) => child)
  }

  /** This module ('') and all its parts, at any depth, parents first; a shared one once, by its first name. */
  namedModules(prefix = ''): [string, Module][] {
    const found = new Map<Module, string>()
    const visit = (module: Module, name: string): void => {
      if (found.has(module)) return
      found.set(module, name)
      for (const [part, child] of module.namedChildren()) visit(child, name === '' ? part : `${name}.${part}`)
    }
    visit(this, prefix)
    return Array.from(found, ([module, name]) => [name, module])
  }

  modules(): Module[] {
    return this.namedModules().map(([, module]) => module)
  }

  /** The module's own parameters, without its parts'. */
  ownParameters(): [string, Parameter][] {
    return Object.entries(this).filter((entry): entry is [string, Parameter] => entry[1] instanceof Parameter)
  }

  /** The module's own buffers, without its parts', and whether each is saved. */
  ownBuffers(): [string, Tensor, boolean][] {
    const found: [string, Tensor, boolean][] = []
    for (const [name, persistent] of this.#buffers) {
      const value: unknown = Reflect.get(this, name)
      if (value instanceof Tensor) found.push([name, value, persistent])
    }
    return found
  }

  /** Parameters with dotted names ('layers.0.weight'); a shared one once, by its first name. */
  namedParameters(): [string, Parameter][] {
    return this.collect((module) => module.ownParameters())
  }

  /** Parameters, each once. */
  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter)
  }

  /** Buffers with dotted names, each once, those that are not saved too. */
  namedBuffers(): [string, Tensor][] {
    return this.collect((module) => module.ownBuffers().map(([name, buffer]) => [name, buffer]))
  }

  buffers(): Tensor[] {
    return this.namedBuffers().map(([, buffer]) => buffer)
  }

  private collect<T>(own: (module: Module) => readonly [string, T][]): [string, T][] {
    const found = new Map<T, string>()
    for (const [prefix, module] of this.namedModules()) {
      for (const [name, value] of own(module)) {
        if (!found.has(value)) found.set(value, prefix === '' ? name : `${prefix}.${name}`)
      }
    }
    return Array.from(found, ([value, name]) => [name, value])
  }

  /** The part of a dotted name; '' is this module. */
  getSubmodule(name: string): Module {
    let found: Module = this
    for (const part of name === '' ? [] : name.split('.')) {
      const child = found.namedChildren().find(([each]) => each === part)
      if (child === undefined) {
        throw new RangeError(
          `getSubmodule: expected a part named '${part}' of ${name}, but ${found.constructor.name} has [${found.namedChildren().map(([each]) => each)}]`,
        )
      }
      found = child[1]
    }
    return found
  }

  /** Puts another module in the place of a part. The old one is not freed: the new one may hold it. */
  setSubmodule(name: string, module: Module): void {
    const dot = name.lastIndexOf('.')
    const parent = this.getSubmodule(dot < 0 ? '' : name.slice(0, dot))
    // that there is one
    parent.getSubmodule(name.slice(dot + 1))
    parent.setChild(name.slice(dot + 1), module)
  }

  /** Puts a module in a direct part's place. Containers say how. */
  protected setChild(name: string, module: Module): void {
    Reflect.set(this, name, module)
  }

  // What it takes

  /**
   * Makes a tensor part of the module's state, though it is not learned, and gives it back. The module owns it: no scope
   * frees it. It is the module's field of that name. Change it in place, or register another one under the name.
   *
   * @param options.persistent whether it is in stateDict(); default: true
   * @example this.running_mean = this.registerBuffer('running_mean', torch.zeros([channels], nn.factoryOptions()))
   */
  registerBuffer<T extends Tensor | null>(
    name: string,
    tensor: T,
    { persistent = true }: { persistent?: boolean } = {},
  ): T {
    this.checkName('registerBuffer', name)
    this.#buffers.set(name, persistent)
    if (tensor !== null) keep(tensor)
    Reflect.set(this, name, tensor)
    return tensor
  }

  /** Adds a parameter under a name that is only known at run time, or null for one that is left out. */
  registerParameter<T extends Parameter | null>(name: string, parameter: T): T {
    this.checkName('registerParameter', name)
    Reflect.set(this, name, parameter)
    return parameter
  }

  private checkName(method: string, name: string): void {
    if (name === '' || name.includes('.')) {
      throw new TypeError(`${method}: expected a name without dots, but received '${name}'`)
    }
    if (typeof Reflect.get(this, name) === 'function') {
      throw new TypeError(
        `${method}: expected a name that is free, but '${name}' is a method of ${this.constructor.name}`,
      )
    }
  }

  // State

  /**
   * Parameters and saved buffers by their published names, sharing memory with the module. Tied parameters are there
   * under each name. The tensors belong to the scope around, like any other.
   */
  stateDict(): Map<string, Tensor> {
    return new Map(Array.from(this.stateTensors(), ([name, tensor]) => [name, tensor.detach()]))
  }

  private stateTensors(
    prefix = '',
    path: ReadonlySet<Module> = new Set(),
    found = new Map<string, Tensor>(),
  ): Map<string, Tensor> {
    // a part that refers to what it is a part of
    if (path.has(this)) return found
    for (const [name, parameter] of this.ownParameters()) found.set(prefix + name, parameter)
    for (const [name, buffer, persistent] of this.ownBuffers()) if (persistent) found.set(prefix + name, buffer)
    for (const [name, child] of this.namedChildren())
      child.stateTensors(`${prefix}${name}.`, new Set([...path, this]), found)
    return found
  }

  /**
   * Fills parameters and saved buffers by name. Everything is checked before anything is changed.
   *
   * @param source tensors by name; they are copied, with conversions of dtype and device
   * @param options.strict whether a missing or an unexpected name is an error; default: true
   * @param options.assign take the source's memory, dtype and device instead of copying: for modules on 'meta', and for
   *   files that are mapped into memory; default: false
   * @returns the names that the source lacks, and those that the module lacks
   * @throws StateDictError that lists all missing and unexpected names and all shapes that differ
   */
  loadStateDict(source: StateSource, options: LoadOptions = {}): LoadResult {
    return adoptState(this.constructor.name, this.stateTensors(), source, options)
  }

  // Modes and places

  /** Sets training mode (or, with false, evaluation mode) here and in all parts. */
  train(mode = true): this {
    // through the parts' own train(), which some write anew; a part may refer back to what it is a part of
    if (this.#isSettingMode) return this
    this.#isSettingMode = true
    try {
      this.training = mode
      for (const child of this.children()) child.train(mode)
    } finally {
      this.#isSettingMode = false
    }
    return this
  }

  /** train(false): dropout is off, batch normalisation uses its running statistics. */
  eval(): this {
    return this.train(false)
  }

  /**
   * Moves parameters, their gradients and buffers to a device or a dtype, in place; only floating-point ones change
   * dtype. The Parameter objects stay, so an optimizer may be made before.
   *
   * @throws TypeError for a module on 'meta', which has no values to move: see toEmpty()
   */
  to(target: Device | DType | Pick<ToOptions, 'device' | 'dtype' | 'nonBlocking'>): this {
    convertTensors(this.namedParameters(), this.namedBuffers(), target)
    return this
  }

  /** Moves to a device without the values, which are then whatever was in memory: to be filled by loadStateDict(). */
  toEmpty(device: Device): this {
    emptyTensors([...this.parameters(), ...this.buffers()], device)
    return this
  }

  /** Whether parameters are trained. */
  requiresGrad_(value = true): this {
    for (const parameter of this.parameters()) parameter.requiresGrad_(value)
    return this
  }

  /** Lets go of all gradients. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.grad = null
  }

  /** Calls a function with all parts, the innermost first, and with this module. */
  apply(run: (module: Module) => void): this {
    for (const child of this.children()) child.apply(run)
    run(this)
    return this
  }

  // Hooks

  // `Self` instead of `this`: modules of different inputs stay assignable to Module

  /** Calls a function before each forward(). An array that it returns takes the inputs' place. */
  registerForwardPreHook<Self extends Module>(
    this: Self,
    hook: (module: Self, inputs: InputsOf<Self['forward']>) => Perhaps<readonly [...InputsOf<Self['forward']>]>,
  ): Removable {
    this.#hooks ??= new ForwardHooks(this)
    return this.#hooks.addBefore((inputs) => hook(this, inputs as InputsOf<Self['forward']>))
  }

  /**
   * Calls a function after each forward(). What it returns takes the output's place. What it wants to have later it holds
   * with keep(): encoders run each of their blocks in a scope, which frees what was made in it.
   */
  registerForwardHook<Self extends Module>(
    this: Self,
    hook: (
      module: Self,
      inputs: InputsOf<Self['forward']>,
      output: OutputOf<Self['forward']>,
    ) => Perhaps<OutputOf<Self['forward']>>,
  ): Removable {
    this.#hooks ??= new ForwardHooks(this)
    return this.#hooks.addAfter((inputs, output) =>
      hook(this, inputs as InputsOf<Self['forward']>, output as OutputOf<Self['forward']>),
    )
  }

  // Life

  /** @internal Parameters, buffers, and also plain tensors: a scope that returns the module frees none of them. */
  *[heldTensors](): Generator<Tensor> {
    for (const module of this.modules()) {
      for (const value of Object.values(module)) if (value instanceof Tensor) yield value
      for (const [, buffer] of module.ownBuffers()) yield buffer
    }
  }

  /** Frees all parameters and buffers. */
  dispose(): void {
    for (const tensor of [...this.parameters(), ...this.buffers()]) tensor.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** What toString() says between the parentheses. Default: the fields that are numbers, strings and booleans. */
  extraRepr(): string {
    return describeFields(this)
  }

  toString(): string {
    return describeModule(this)
  }

  [inspect.custom](): string {
    return this.toString()
  }
}
