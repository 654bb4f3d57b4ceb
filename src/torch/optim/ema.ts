import { noGrad } from '../modes.js'
import { native } from '../native.js'
import { type Holder, heldTensors, scope } from '../scope.js'
import { Tensor } from '../tensor.js'
import { type DictLike, entryOf, expectOption, isAtLeast, isDict } from './check.js'
import { foreachLerp_, groupByDeviceAndDtype } from './kernels.js'
import { copyLike, own } from './optimizer.js'

export interface ExponentialMovingAverageOptions {
  /** How much of the average stays, each update. From 0 on, up to 1. Default: 0.999. */
  decay?: number
  /**
   * Forget the beginning sooner: decay is min(decay, (1 + n) / (10 + n)) at update n, counted from 1. Default: false.
   */
  warmup?: boolean
}

/** The structure of the Python package torch_ema. The tensors are the average's own, not copies. */
export interface ExponentialMovingAverageStateDict {
  decay: number
  num_updates: number | null
  shadow_params: Tensor[]
  collected_params: Tensor[] | null
}

interface Pair {
  readonly average: Tensor
  readonly parameter: Tensor
}

/**
 * Running averages of parameters (Polyak averaging): average = decay * average + (1 - decay) * parameter at each
 * update(), computed as a linear interpolation like PyTorch's get_ema_multi_avg_fn. Averages of bfloat16 and float16
 * parameters are float32: in their own format 0.999 of something is itself.
 *
 * Ownership: the averages are its own, whatever scope they were made in; dispose() frees them. The parameters are not.
 *
 * @example
 * const ema = new optim.ExponentialMovingAverage(net.parameters(), { decay: 0.9999 })
 * adamw.step(); ema.update()
 * ema.averaged(() => evaluate(net))
 */
export class ExponentialMovingAverage implements Holder, Disposable {
  private decay: number
  private readonly warmup: boolean
  private updates = 0
  private readonly pairs: Pair[] = []
  private stored: Tensor[] | undefined

  /** Begins with copies of the parameters. */
  constructor(parameters: Iterable<Tensor>, options: ExponentialMovingAverageOptions = {}) {
    const { decay = 0.999, warmup = false } = options
    const isDecay = isAtLeast(0, decay) && decay <= 1
    expectOption(isDecay, 'ExponentialMovingAverage', 'decay', 'a number from 0 to 1', decay)
    this.decay = decay
    this.warmup = warmup
    const given = [...parameters]
    noGrad(() =>
      scope(() => {
        for (const parameter of given) {
          if (!(parameter instanceof Tensor)) {
            throw new TypeError(
              `ExponentialMovingAverage: expected an array of tensors, but one item is ${parameter === null ? 'null' : typeof parameter}`,
            )
          }
          const isHalf = parameter.dtype === 'bfloat16' || parameter.dtype === 'float16'
          const options = { copy: true, ...(isHalf ? { dtype: 'float32' as const } : {}) }
          this.pairs.push({ average: own(parameter.detach().to(options)), parameter })
        }
      }),
    )
  }

  /** How often update() was called. */
  get numUpdates(): number {
    return this.updates
  }

  /** The averages, in the parameters' order. They are its own. */
  get averages(): readonly Tensor[] {
    return this.pairs.map((pair) => pair.average)
  }

  /** Moves the averages toward the parameters: after each step of the optimizer. */
  update(): void {
    this.updates += 1
    const decay = this.warmup ? Math.min(this.decay, (1 + this.updates) / (10 + this.updates)) : this.decay
    noGrad(() =>
      scope(() => {
        for (const group of groupByDeviceAndDtype(this.pairs, (pair) => pair.average)) {
          const dtype = group[0]!.average.dtype
          const parameters = group.map(({ parameter }) => {
            return native.dtype(parameter.handle) === dtype ? parameter : parameter.to(dtype)
          })
          const averages = group.map((pair) => pair.average)
          if (/^(float|bfloat|complex)/.test(dtype)) foreachLerp_(averages, parameters, 1 - decay)
          // whole numbers have no mean: the last ones
          else for (const [index, average] of averages.entries()) average.copy_(parameters[index]!)
        }
      }),
    )
  }

  /** Puts the averages into the parameters, or into others of the same shapes. */
  copyTo(parameters: Iterable<Tensor> = this.pairs.map((pair) => pair.parameter)): void {
    const targets = this.matched([...parameters], 'copyTo')
    noGrad(() => {
      for (const [index, target] of targets.entries()) target.copy_(this.pairs[index]!.average)
    })
  }

  private matched(tensors: readonly Tensor[], where: string): readonly Tensor[] {
    if (tensors.length !== this.pairs.length) {
      throw new RangeError(
        `ExponentialMovingAverage.${where}: expected ${this.pairs.length} tensors, but received ${tensors.length}`,
      )
    }
    return tensors
  }

  /** Keeps copies of the parameters as they are, for restore(). */
  store(): void {
    this.dropStored()
    this.stored = noGrad(() =>
      scope(() => this.pairs.map(({ parameter }) => own(parameter.detach().to({ copy: true })))),
    )
  }

  /**
   * Puts the parameters back as they were at store(), and forgets the copies.
   *
   * @throws TypeError without store() before
   */
  restore(): void {
    const { stored } = this
    if (stored === undefined) {
      throw new TypeError('ExponentialMovingAverage.restore: expected store() to be called first, but it was not')
    }
    noGrad(() => {
      for (const [index, { parameter }] of this.pairs.entries()) parameter.copy_(stored[index]!)
    })
    this.dropStored()
  }

  private dropStored(): void {
    for (const tensor of this.stored ?? []) tensor.dispose()
    this.stored = undefined
  }

  /** Runs a synchronous function with the averages in the parameters, and puts them back, also when it throws. */
  averaged<T>(run: () => T): T {
    this.store()
    try {
      this.copyTo()
      return run()
    } finally {
      this.restore()
    }
  }

  stateDict(): ExponentialMovingAverageStateDict {
    return {
      decay: this.decay,
      num_updates: this.updates,
      shadow_params: [...this.averages],
      collected_params: this.stored === undefined ? null : [...this.stored],
    }
  }

  /** Takes over averages, decay, count and what store() kept, by copies. */
  loadStateDict(saved: ExponentialMovingAverageStateDict | DictLike): void {
    const where = 'ExponentialMovingAverage.loadStateDict'
    const dict = saved as DictLike
    const read = (name: string): unknown => (isDict(dict) ? entryOf(dict, name) : undefined)
    const decay = read('decay')
    const updates = read('num_updates') ?? 0
    const shadow = read('shadow_params')
    const collected = read('collected_params') ?? null
    expectOption(isAtLeast(0, decay) && decay <= 1, where, 'decay', 'a number from 0 to 1', decay)
    expectOption(isAtLeast(0, updates), where, 'num_updates', 'a number from 0 on', updates)
    if (!Array.isArray(shadow) || shadow.length !== this.pairs.length) {
      throw new RangeError(
        `${where}: expected ${this.pairs.length} shadow_params, but received ${Array.isArray(shadow) ? shadow.length : 'no array'}`,
      )
    }
    if (collected !== null && !(Array.isArray(collected) && collected.length === this.pairs.length)) {
      throw new RangeError(
        `${where}: expected null or ${this.pairs.length} collected_params, but received ${Array.isArray(collected) ? collected.length : 'no array'}`,
      )
    }
    noGrad(() =>
      scope(() => {
        // all are checked before one changes
        const copies = shadow.map((each: unknown, index) =>
          copyLike(each, this.pairs[index]!.average, `${where}, tensor ${index}`),
        )
        const kept = collected?.map((each: unknown, index) =>
          own(copyLike(each, this.pairs[index]!.parameter, `${where}, collected tensor ${index}`)),
        )
        for (const [index, copy] of copies.entries()) this.pairs[index]!.average.copy_(copy)
        this.dropStored()
        this.stored = kept
      }),
    )
    this.decay = decay as number
    this.updates = updates as number
  }

  [heldTensors](): Iterable<Tensor> {
    return [...this.averages, ...(this.stored ?? [])]
  }

  /** Frees the averages. The parameters are left as they are. */
  dispose(): void {
    this.dropStored()
    for (const { average } of this.pairs) average.dispose()
    this.pairs.length = 0
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
