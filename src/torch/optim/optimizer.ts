import { enableGrad, noGrad } from '../modes.js'
import { native } from '../native.js'
import { emptyLike, zerosLike } from '../ops.generated.js'
import { type Holder, heldTensors, keep, scope } from '../scope.js'
import { Tensor } from '../tensor.js'
import type { Device, DType } from '../types.js'
import { type DictLike, entryOf, expectOption, isDict, namesOf, show, snakeCase } from './check.js'
import { foreachZero_, groupByDeviceAndDtype } from './kernels.js'

/**
 * How an update is computed.
 *
 * - 'single': tensor by tensor, in PyTorch's operations and order (its default on the CPU)
 * - 'foreach': the same operations over all tensors of a device and dtype at once (its default on CUDA). Takes memory
 *   for temporaries of the size of the parameters
 * - 'fused': one kernel for everything. Floating-point parameters on the CPU, CUDA and MPS. It rounds less often than
 *   the others: float32 results differ from theirs in the last digit, and bfloat16 and float16 ones by a step or two of
 *   that format
 */
export type Implementation = 'single' | 'foreach' | 'fused'

/** What every parameter group has, whatever the optimizer. */
export interface CommonOptions {
  /** How fast to learn. Schedulers change it. */
  lr: number | null
  /** Default: 'fused' where device and dtype support it, else 'foreach' on CUDA, else 'single'. */
  implementation?: Implementation | undefined
  /** The rate that schedulers start from. Set by the first scheduler. */
  initialLr?: number | undefined
  /** For the reader's eyes: not used. */
  name?: string | undefined
}

/** Parameters and the options of their updates. Changes to the options count from the next step on. */
export type ParameterGroup<Options> = Options & { readonly params: Tensor[] }

/** A group as it is given: options that are left out are the optimizer's. */
export type ParameterGroupInput<Options> = Partial<Options> & { readonly params: Tensor | Iterable<Tensor> }

/** Parameters, or groups of them with options of their own. */
export type Parameters<Options> = Iterable<Tensor> | Iterable<ParameterGroupInput<Options>>

/** What an optimizer remembers of a parameter, by PyTorch's names. */
export type ParameterState = { [name: string]: Tensor | number | undefined }

export type OptionValue = number | boolean | string | null | readonly number[]

/** An optimizer's state in PyTorch's structure and with its names: Python's load_state_dict() reads it. */
export interface OptimizerStateDict {
  /** By the parameters' numbers, which run through all groups. The tensors are the optimizer's own, not copies. */
  state: Map<number, ParameterState>
  /** Options in snake case, and in `params` the numbers of the group's parameters. */
  param_groups: { [option: string]: OptionValue }[]
}

/** @internal A parameter with a gradient, and its state. */
export interface Update<State> {
  readonly parameter: Tensor
  readonly gradient: Tensor
  readonly state: State
}

/** @internal What a GradScaler hands to step(). */
export interface Scaling {
  readonly gradScale: Tensor | null
  readonly foundInf: Tensor
}

const fusedDevices = /^(cpu|cuda|mps)(:|$)/
const fusedDtypes: ReadonlySet<DType> = new Set<DType>(['float32', 'float64', 'bfloat16', 'float16'])

/** @internal Takes a tensor out of every scope: it belongs to whoever calls this. */
export const own = <T extends Tensor>(tensor: T): T => keep(tensor)

/** @internal Zeros of a tensor's shape and memory layout, owned. */
export function ownedZerosLike(tensor: Tensor): Tensor {
  return own(zerosLike(tensor))
}

/** @internal A copy of a saved tensor in the shape, dtype, device and memory layout of `like`. */
export function copyLike(saved: unknown, like: Tensor, where: string): Tensor {
  if (!(saved instanceof Tensor)) throw new TypeError(`${where}: expected a tensor, but received ${show(saved)}`)
  const shape = like.shape
  if (saved.ndim !== shape.length || saved.shape.some((size, dim) => size !== shape[dim])) {
    throw new RangeError(`${where}: expected a tensor of shape [${shape}], but received one of [${saved.shape}]`)
  }
  return emptyLike(like).copy_(saved)
}

/**
 * What all optimizers share: parameter groups, state per parameter, PyTorch's state dicts.
 *
 * Ownership: the state belongs to the optimizer from the moment it is made, also where the first step is inside
 * torch.scope(); dispose() frees it. The parameters are not the optimizer's.
 *
 * Whoever extends it writes updateGroup(), and checkOptions() and restoreState() for what is its own.
 */
export abstract class Optimizer<Options extends CommonOptions, State extends ParameterState = ParameterState>
  implements Holder, Disposable
{
  /** Groups of parameters with their options, which may be changed between steps: `paramGroups[0].lr = 1e-4`. */
  readonly paramGroups: ParameterGroup<Options>[] = []
  /** What is remembered of each parameter; empty before its first step. The tensors are the optimizer's. */
  readonly state = new Map<Tensor, State>()
  /** By storage, since two Tensor objects can be over one tensor. */
  private readonly known = new Map<bigint, Tensor[]>()
  private scaling: Scaling | undefined

  /**
   * @param defaults every option, for groups that leave it out
   * @throws RangeError, TypeError for bad options and parameters
   */
  protected constructor(
    parameters: Parameters<Options>,
    protected readonly defaults: Options,
    given: Partial<Options>,
  ) {
    this.refuseUnknown(given, this.className)
    for (const [name, value] of Object.entries(given)) {
      if (value !== undefined) Object.assign(this.defaults, { [name]: value })
    }
    this.checkCommon(this.defaults, this.className)
    this.checkOptions(this.defaults, this.className)
    if (parameters instanceof Tensor || typeof parameters?.[Symbol.iterator] !== 'function') {
      throw new TypeError(
        `${this.className}: expected an array of parameters or of groups { params, lr, ... }, but received ${show(parameters)}`,
      )
    }
    const items: readonly (Tensor | ParameterGroupInput<Options>)[] = [...parameters]
    if (items.length === 0) throw new RangeError(`${this.className}: expected parameters, but the list is empty`)
    if (items.every((item) => item instanceof Tensor)) {
      this.addParamGroup({ params: items } as unknown as ParameterGroupInput<Options>)
      return
    }
    for (const item of items) {
      if (item instanceof Tensor) {
        throw new TypeError(`${this.className}: expected parameters alone or groups alone, but received both`)
      }
      this.addParamGroup(item)
    }
  }

  protected get className(): string {
    return this.constructor.name
  }

  /** Refuses wrong options of a group or of all. */
  protected abstract checkOptions(options: Options, where: string): void

  /** One step of a group's parameters that have a gradient. Under noGrad() and in a scope of its own. */
  protected abstract updateGroup(group: ParameterGroup<Options>): void

  /** Makes the state of a parameter from a saved one, by copies, which are owned afterwards. `where` begins errors. */
  protected abstract restoreState(
    parameter: Tensor,
    group: ParameterGroup<Options>,
    saved: DictLike,
    where: string,
  ): State

  /** Options of a state dict that are Python's alone, or have another form there. */
  protected extraOptions(_group: ParameterGroup<Options>): { [option: string]: OptionValue } {
    return {}
  }

  private refuseUnknown(options: object, where: string): void {
    for (const name of Object.keys(options)) {
      if (!(name in this.defaults) && !['params', 'implementation', 'initialLr', 'name'].includes(name)) {
        throw new TypeError(
          `${where}: expected options from ${Object.keys(this.defaults).join(', ')}, implementation, but received ${name}`,
        )
      }
    }
  }

  private checkCommon(options: CommonOptions, where: string): void {
    const { implementation } = options
    const known = implementation === undefined || ['single', 'foreach', 'fused'].includes(implementation)
    expectOption(known, where, 'implementation', "'single', 'foreach' or 'fused'", implementation)
  }

  /**
   * Adds parameters with options of their own, at any time.
   *
   * @throws TypeError for a tensor that does not require a gradient or is not a leaf, and for one that is there already
   */
  addParamGroup(input: ParameterGroupInput<Options>): void {
    const where = `${this.className}, group ${this.paramGroups.length}`
    if (!isDict(input) || !('params' in input)) {
      throw new TypeError(`${where}: expected { params, ... }, but received ${show(input)}`)
    }
    this.refuseUnknown(input, where)
    const given = input.params
    const params = given instanceof Tensor ? [given] : [...given]
    const options = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined))
    const group = { ...this.defaults, ...options, params } as ParameterGroup<Options>
    this.checkCommon(group, where)
    this.checkOptions(group, where)
    const added: Tensor[] = []
    try {
      for (const [index, parameter] of params.entries()) {
        this.addParameter(parameter, `${where}, parameter ${index}`, group)
        added.push(parameter)
      }
    } catch (error) {
      for (const parameter of added) this.forget(parameter)
      throw error
    }
    this.paramGroups.push(group)
  }

  private addParameter(parameter: Tensor, where: string, group: ParameterGroup<Options>): void {
    if (!(parameter instanceof Tensor)) {
      throw new TypeError(`${where}: expected a tensor, but received ${show(parameter)}`)
    }
    const { requiresGrad, isLeaf } = native.autogradInfo(parameter.handle)
    if (!isLeaf) {
      throw new TypeError(
        `${where}: expected a leaf, but this tensor of shape [${parameter.shape}] was computed from others`,
      )
    }
    if (!requiresGrad) {
      throw new TypeError(
        `${where}: expected a tensor that requires a gradient, but this one of shape [${parameter.shape}] does not; leave frozen parameters out, or call requiresGrad_()`,
      )
    }
    const bucket = this.bucket(parameter)
    if (bucket.some((other) => other === parameter || other.isSame(parameter))) {
      throw new TypeError(
        `${where}: expected each parameter once, but this one of shape [${parameter.shape}] is in the optimizer already; give tied weights once`,
      )
    }
    if (group.implementation === 'fused' && !this.canFuse(parameter)) {
      throw new TypeError(
        `${where}: expected a floating-point tensor on the CPU, CUDA or MPS for the fused implementation, but received ${parameter.dtype} on ${parameter.device}`,
      )
    }
    bucket.push(parameter)
  }

  private bucket(parameter: Tensor): Tensor[] {
    const storage = native.storageId(parameter.handle)
    let bucket = this.known.get(storage)
    if (bucket === undefined) {
      bucket = []
      this.known.set(storage, bucket)
    }
    return bucket
  }

  private forget(parameter: Tensor): void {
    const bucket = this.bucket(parameter)
    bucket.splice(bucket.indexOf(parameter), 1)
  }

  private canFuse(parameter: Tensor): boolean {
    return fusedDevices.test(native.device(parameter.handle)) && fusedDtypes.has(native.dtype(parameter.handle))
  }

  /** All parameters, group by group. */
  *parameters(): IterableIterator<Tensor> {
    for (const group of this.paramGroups) yield* group.params
  }

  /**
   * Lets go of all gradients, or fills them with zeros.
   *
   * @param options.setToNone default: true. false keeps the memory, but a parameter without use is then updated with a
   *   gradient of zero instead of not at all
   */
  zeroGrad({ setToNone = true }: { setToNone?: boolean } = {}): void {
    if (setToNone) {
      for (const parameter of this.parameters()) native.setGradient(parameter.handle, null)
      return
    }
    noGrad(() =>
      scope(() => {
        const gradients: Tensor[] = []
        for (const parameter of this.parameters()) {
          const gradient = parameter.grad
          if (gradient === null) continue
          // a gradient made with createGraph has a past that zeros must not change
          gradients.push(native.autogradInfo(gradient.handle).gradFunction === null ? gradient : gradient.detach())
        }
        for (const group of groupByDeviceAndDtype(gradients, (each) => each)) foreachZero_(group)
      }),
    )
  }

  /**
   * Changes the parameters by their gradients. Parameters without one are left alone.
   *
   * @param closure computes the loss and the gradients anew, and returns the loss, which step() returns
   */
  step(): void
  step<Loss>(closure: () => Loss): Loss
  step<Loss>(closure?: () => Loss): Loss | undefined {
    const loss = closure === undefined ? undefined : enableGrad(closure)
    noGrad(() =>
      scope(() => {
        for (const group of this.paramGroups) {
          // a scheduler or a user may have set a rate that is none
          this.checkOptions(group, `${this.className}.step`)
          this.updateGroup(group)
        }
      }),
    )
    return loss
  }

  /**
   * @internal Whether step() itself can unscale gradients and skip where one is not finite, without waiting for the
   * GPU.
   */
  get supportsScaling(): boolean {
    return false
  }

  /** @internal step() for a GradScaler. */
  stepScaled(scaling: Scaling): void {
    this.scaling = scaling
    try {
      this.step()
    } finally {
      this.scaling = undefined
    }
  }

  /** Whether every parameter goes through a fused kernel. */
  protected areAllFused(): boolean {
    return this.paramGroups.every((group) =>
      group.params.every((parameter) => this.implementationFor(parameter, group) === 'fused'),
    )
  }

  private implementationFor(parameter: Tensor, group: ParameterGroup<Options>): Implementation {
    if (group.implementation !== undefined) return group.implementation
    if (this.canFuse(parameter)) return 'fused'
    return native.device(parameter.handle).startsWith('cuda') ? 'foreach' : 'single'
  }

  /** The parameters of a group that have a gradient, by device and dtype, with how to update them. */
  protected updates(
    group: ParameterGroup<Options>,
    makeState: (parameter: Tensor, gradient: Tensor) => State,
  ): { implementation: Implementation; device: Device; items: Update<State>[] }[] {
    const items: Update<State>[] = []
    for (const parameter of group.params) {
      const gradient = parameter.grad
      if (gradient === null) continue
      // in the common case the gradient is of the parameter's kind, and that is dense
      if (native.traits(gradient.handle) !== native.traits(parameter.handle) && gradient.layout !== 'strided') {
        throw new TypeError(
          `${this.className}.step: expected dense gradients, but a parameter of shape [${parameter.shape}] has a ${gradient.layout} one`,
        )
      }
      let state = this.state.get(parameter)
      if (state === undefined) {
        state = makeState(parameter, gradient)
        this.state.set(parameter, state)
      }
      const item = { parameter, gradient, state }
      const inState = this.firstAligned(state)
      if (inState !== undefined && native.traits(inState.handle) !== native.traits(parameter.handle)) {
        this.realign(item)
      }
      items.push(item)
    }
    return groupByDeviceAndDtype(items, (item) => item.parameter).map((each) => {
      const first = each[0]!.parameter
      return {
        implementation: this.implementationFor(first, group),
        device: first.device as Device,
        items: each,
      }
    })
  }

  /** The names of state tensors of the parameter's shape, dtype, device and memory layout. */
  protected abstract readonly aligned: readonly (keyof State & string)[]

  /** Brings the state to where its parameter is now, and in its dtype: after net.to(...). */
  private realign({ parameter, state }: Update<State>): void {
    for (const name of this.aligned) {
      const before: unknown = state[name]
      if (before instanceof Tensor) replaceOwned(state, name, emptyLike(parameter).copy_(before))
    }
  }

  private firstAligned(state: State): Tensor | undefined {
    const name = this.aligned[0]
    const tensor: unknown = name === undefined ? undefined : state[name]
    return tensor instanceof Tensor ? tensor : undefined
  }

  /**
   * Sorts out what fused kernels can take: they read memory as it lies, and on the CPU they do not check that gradients
   * and state lie as the parameter does (seen with libtorch 2.13: wrong results). Gradients that lie otherwise are
   * copied; parameters with holes (views of something larger) are left to the single implementation.
   */
  protected forFused(items: readonly Update<State>[]): { fused: Update<State>[]; others: Update<State>[] } {
    const fused: Update<State>[] = []
    const others: Update<State>[] = []
    for (const item of items) {
      const { handle } = item.parameter
      if (!native.isDense(handle)) {
        others.push(item)
        continue
      }
      const inState = this.firstAligned(item.state)
      if (inState !== undefined && !native.liesAs(inState.handle, handle)) this.realign(item)
      if (native.liesAs(item.gradient.handle, handle)) fused.push(item)
      else fused.push({ ...item, gradient: emptyLike(item.parameter).copy_(item.gradient) })
    }
    return { fused, others }
  }

  /** What a GradScaler asks for, on a device. */
  protected scalingOn(device: Device): { gradScale: Tensor | null; foundInf: Tensor | null } {
    if (this.scaling === undefined) return { gradScale: null, foundInf: null }
    const { gradScale, foundInf } = this.scaling
    const options = { device, nonBlocking: true }
    return { gradScale: gradScale === null ? null : gradScale.to(options), foundInf: foundInf.to(options) }
  }

  /**
   * The same for items that no fused kernel takes: unscaled here, and none where a gradient is not finite. Waits for
   * the device, where there is a GradScaler.
   */
  protected unscaled(items: readonly Update<State>[]): readonly Update<State>[] {
    if (this.scaling === undefined || items.length === 0) return items
    const { gradScale, foundInf } = this.scaling
    if (foundInf.item() !== 0) return []
    if (gradScale !== null) for (const { gradient } of items) gradient.div_(gradScale.to(gradient.device as Device))
    return items
  }

  /**
   * The state in PyTorch's structure, for torch.save() and Python. Its tensors are the optimizer's own: the next step
   * changes them, and they must not be disposed of.
   */
  stateDict(): OptimizerStateDict {
    const numbers = new Map([...this.parameters()].map((parameter, index) => [parameter, index]))
    const state = new Map<number, ParameterState>()
    for (const [parameter, index] of numbers) {
      const each = this.state.get(parameter)
      if (each === undefined) continue
      const entries = Object.entries(each).filter(([, value]) => value !== undefined)
      if (entries.length > 0) state.set(index, Object.fromEntries(entries))
    }
    const groups = this.paramGroups.map((group) => {
      const options: { [option: string]: OptionValue } = {}
      for (const name of Object.keys(this.defaults) as (keyof Options & string)[]) {
        if (name !== 'implementation') options[snakeCase(name)] = group[name] as OptionValue
      }
      // as Python says it: null for both is no preference
      options.foreach = group.implementation === undefined ? null : group.implementation === 'foreach'
      options.fused = group.implementation === undefined ? null : group.implementation === 'fused'
      if (group.initialLr !== undefined) options.initial_lr = group.initialLr
      if (group.name !== undefined) options.name = group.name
      Object.assign(options, this.extraOptions(group))
      options.params = group.params.map((parameter) => numbers.get(parameter)!)
      return options
    })
    return { state, param_groups: groups }
  }

  /**
   * Takes over state and options from a state dict, ours or Python's, by copies. As in PyTorch parameters go by their
   * order, and the options of the groups are the saved ones afterwards (an implementation only where the saved one says
   * which). Where anything is wrong nothing changes.
   *
   * @throws TypeError, RangeError where structure, number, shapes or options do not fit
   */
  loadStateDict(saved: OptimizerStateDict | DictLike): void {
    const where = `${this.className}.loadStateDict`
    const dict = saved as DictLike
    const savedGroups = isDict(dict) ? entryOf(dict, 'param_groups') : undefined
    const savedState = isDict(dict) ? entryOf(dict, 'state') : undefined
    if (!Array.isArray(savedGroups) || !isDict(savedState)) {
      throw new TypeError(`${where}: expected { state, param_groups }, but received ${show(dict)}`)
    }
    if (savedGroups.length !== this.paramGroups.length) {
      throw new RangeError(
        `${where}: expected ${this.paramGroups.length} parameter groups, but the state dict has ${savedGroups.length}`,
      )
    }
    const byNumber = new Map<string, { parameter: Tensor; group: ParameterGroup<Options> }>()
    const groups = this.paramGroups.map((group, index) => {
      const savedGroup: unknown = savedGroups[index]
      const params = isDict(savedGroup) ? entryOf(savedGroup, 'params') : undefined
      if (!isDict(savedGroup) || !Array.isArray(params)) {
        throw new TypeError(
          `${where}: expected group ${index} to have a list of params, but received ${show(savedGroup)}`,
        )
      }
      if (params.length !== group.params.length) {
        throw new RangeError(
          `${where}: expected ${group.params.length} parameters in group ${index}, but the state dict has ${params.length}`,
        )
      }
      const options = this.restoreOptions(group, savedGroup, `${where}, group ${index}`)
      for (const [position, number] of params.entries()) {
        byNumber.set(String(number), { parameter: group.params[position]!, group: options })
      }
      return options
    })

    const restored = new Map<Tensor, State>()
    noGrad(() =>
      scope(() => {
        for (const number of namesOf(savedState)) {
          const target = byNumber.get(String(number))
          if (target === undefined) {
            throw new RangeError(`${where}: expected state of known parameters, but there is one of number ${number}`)
          }
          const entry = savedState instanceof Map ? savedState.get(number) : entryOf(savedState, String(number))
          const name = `${where}, parameter ${number}`
          if (!isDict(entry)) throw new TypeError(`${name}: expected a dict, but received ${show(entry)}`)
          if (namesOf(entry).length === 0) continue
          restored.set(target.parameter, this.restoreState(target.parameter, target.group, entry, name))
        }
        // not before all of it is there: what was copied until an error is freed with the scope
        for (const state of restored.values()) keep(state)
      }),
    )
    this.clearState()
    for (const [parameter, state] of restored) this.state.set(parameter, state)
    for (const [index, options] of groups.entries()) Object.assign(this.paramGroups[index]!, options)
  }

  private restoreOptions(group: ParameterGroup<Options>, saved: DictLike, where: string): ParameterGroup<Options> {
    const found: { [name: string]: unknown } = {}
    for (const name of Object.keys(this.defaults)) {
      const value = entryOf(saved, snakeCase(name))
      if (value !== undefined) found[name] = Array.isArray(value) ? [...value] : value
    }
    if (found.lr === undefined) throw new TypeError(`${where}: expected options with lr, but there is none`)
    const initialLr = entryOf(saved, 'initial_lr')
    if (typeof initialLr === 'number') found.initialLr = initialLr
    const foreach = entryOf(saved, 'foreach')
    const fused = entryOf(saved, 'fused')
    if (fused === true) found.implementation = 'fused'
    else if (foreach === true) found.implementation = 'foreach'
    else if (foreach === false && fused === false) found.implementation = 'single'
    const options = { ...group, ...found } as ParameterGroup<Options>
    this.fixOptions(options)
    this.checkOptions(options, where)
    return options
  }

  /** Options that are not a file's to say. */
  protected fixOptions(_options: ParameterGroup<Options>): void {}

  [heldTensors](): Iterable<Tensor> {
    const held: Tensor[] = []
    for (const state of this.state.values()) {
      for (const value of Object.values(state)) if (value instanceof Tensor) held.push(value)
    }
    return held
  }

  private clearState(): void {
    for (const state of this.state.values()) disposeState(state)
    this.state.clear()
  }

  /** Frees the state. The parameters are left as they are; another step begins anew. */
  dispose(): void {
    this.clearState()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function disposeState(state: ParameterState): void {
  for (const value of Object.values(state)) if (value instanceof Tensor) value.dispose()
}

/** @internal Puts another tensor where a state tensor was. */
export function replaceOwned<State extends ParameterState>(
  state: State,
  name: keyof State & string,
  tensor: Tensor,
): void {
  const before = state[name]
  if (before === tensor) return
  Object.assign(state, { [name]: own(tensor) })
  if (before instanceof Tensor) before.dispose()
}
