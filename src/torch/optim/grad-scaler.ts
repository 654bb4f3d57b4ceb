import { full } from '../factories.js'
import { noGrad } from '../modes.js'
import { maximum } from '../ops.generated.js'
import { type Holder, heldTensors, scope } from '../scope.js'
import { Tensor } from '../tensor.js'
import type { Device } from '../types.js'
import { type DictLike, entryOf, expectOption, isAtLeast, isDict } from './check.js'
import { groupByDeviceAndDtype, nonFiniteCheckAndUnscale_, updateScale_ } from './kernels.js'
import { type CommonOptions, type Optimizer, own } from './optimizer.js'

export interface GradScalerOptions {
  /** What losses are multiplied with at first. Default: 65536. */
  initScale?: number
  /** Times this after growthInterval steps without overflow. Above 1. Default: 2. */
  growthFactor?: number
  /** Times this after an overflow. Below 1. Default: 0.5. */
  backoffFactor?: number
  /** Steps. Default: 2000. */
  growthInterval?: number
  /** false: everything passes through. Default: true. */
  enabled?: boolean
}

/** PyTorch's structure; empty where the scaler is not enabled. */
export interface GradScalerStateDict {
  scale: number
  growth_factor: number
  backoff_factor: number
  growth_interval: number
  _growth_tracker: number
}

/** What is needed of an optimizer, whatever its options. */
type AnyOptimizer = Pick<Optimizer<CommonOptions>, 'step' | 'stepScaled' | 'supportsScaling' | 'parameters'>

interface Progress {
  stage: 'unscaled' | 'stepped'
  /** 1 where a gradient was not finite, a tensor for each device. */
  foundInf: Map<string, Tensor>
}

/**
 * Scales losses so that float16 gradients do not vanish, unscales the gradients before the step, skips steps with a
 * gradient that is not finite, and adapts the scale (Micikevicius et al., "Mixed Precision Training", ICLR 2018). As
 * PyTorch's torch.amp.GradScaler. bfloat16 does not need it.
 *
 * Ownership: its tensors are its own, whatever scope they were made in; dispose() frees them.
 *
 * @example
 * const scaler = new optim.GradScaler()
 * scaler.scale(loss).backward()
 * scaler.unscale_(adamw)            // only where gradients are looked at or clipped
 * optim.clipGradNorm_(net.parameters(), 1)
 * scaler.step(adamw)
 * scaler.update()
 */
export class GradScaler implements Holder, Disposable {
  readonly enabled: boolean
  private initScale: number
  private growthFactor: number
  private backoffFactor: number
  private growthInterval: number
  private initGrowthTracker = 0
  // made by the first scale(), on the loss's device
  private scaleTensor: Tensor | undefined
  private growthTracker: Tensor | undefined
  private readonly progress = new Map<AnyOptimizer, Progress>()

  /** @throws RangeError for a factor on the wrong side of 1 */
  constructor(options: GradScalerOptions = {}) {
    const { initScale = 65536, growthFactor = 2, backoffFactor = 0.5, growthInterval = 2000, enabled = true } = options
    this.enabled = enabled
    this.initScale = initScale
    this.growthFactor = growthFactor
    this.backoffFactor = backoffFactor
    this.growthInterval = growthInterval
    this.check('GradScaler')
  }

  private check(where: string): void {
    const { initScale, growthFactor, backoffFactor, growthInterval } = this
    expectOption(isAtLeast(0, initScale) && initScale > 0, where, 'initScale', 'a number above 0', initScale)
    expectOption(
      isAtLeast(1, growthFactor) && growthFactor > 1,
      where,
      'growthFactor',
      'a number above 1',
      growthFactor,
    )
    const isBackoff = isAtLeast(0, backoffFactor) && backoffFactor > 0 && backoffFactor < 1
    expectOption(isBackoff, where, 'backoffFactor', 'a number between 0 and 1', backoffFactor)
    const isInterval = Number.isSafeInteger(growthInterval) && growthInterval >= 1
    expectOption(isInterval, where, 'growthInterval', 'a whole number from 1 on', growthInterval)
  }

  private ready(where: string): Tensor {
    if (this.scaleTensor === undefined) {
      throw new TypeError(`GradScaler.${where}: expected scale(loss) to be called first, but it was not`)
    }
    return this.scaleTensor
  }

  /** The loss times the scale: call backward() on it. */
  scale(loss: Tensor): Tensor {
    if (!this.enabled) return loss
    if (this.scaleTensor === undefined) {
      const device = loss.device as Device
      this.scaleTensor = own(full([], this.initScale, { dtype: 'float32', device }))
      this.growthTracker = own(full([], this.initGrowthTracker, { dtype: 'int32', device }))
    }
    const scale = this.scaleTensor
    if (scale.device === loss.device) return loss.mul(scale)
    return scope(() => loss.mul(scale.to({ device: loss.device as Device, nonBlocking: true })))
  }

  /**
   * Divides an optimizer's gradients by the scale, in place, and notes where one is not finite. step() does it where it
   * was not done. Does not wait for the device.
   *
   * @throws TypeError a second time before update(), and for float16 gradients: parameters are to be float32
   */
  unscale_(optimizer: AnyOptimizer): void {
    if (!this.enabled) return
    const scale = this.ready('unscale_')
    const done = this.progress.get(optimizer)
    if (done !== undefined) {
      throw new TypeError(
        `GradScaler.unscale_: expected to be called once for an optimizer before update(), but ${done.stage === 'stepped' ? 'step() was called already' : 'it was called already'}`,
      )
    }
    noGrad(() =>
      scope(() => {
        // through float64, as PyTorch does: a reciprocal in float32 can be off by a digit
        const inverse = scale.double().reciprocal_().float()
        this.progress.set(optimizer, { stage: 'unscaled', foundInf: this.checkGradients(optimizer, inverse, false) })
      }),
    )
  }

  private checkGradients(optimizer: AnyOptimizer, inverse: Tensor, allowHalf: boolean): Map<string, Tensor> {
    const gradients: Tensor[] = []
    for (const parameter of optimizer.parameters()) {
      const gradient = parameter.grad
      if (gradient === null) continue
      if (!allowHalf && gradient.dtype === 'float16') {
        throw new TypeError(
          'GradScaler.unscale_: expected float32 gradients, but received float16 ones, in which they may have overflowed; keep parameters in float32 and compute under autocast',
        )
      }
      gradients.push(gradient)
    }
    const found = new Map<string, Tensor>()
    for (const group of groupByDeviceAndDtype(gradients, (each) => each)) {
      const device = group[0]!.device as Device
      let foundInf = found.get(device)
      if (foundInf === undefined) {
        foundInf = own(full([], 0, { dtype: 'float32', device }))
        found.set(device, foundInf)
      }
      nonFiniteCheckAndUnscale_(group, foundInf, inverse.to({ device, nonBlocking: true }))
    }
    return found
  }

  /**
   * The optimizer's step, unless a gradient is not finite. Waits for the device to know, but for optimizers whose every
   * parameter goes through a fused kernel: there the kernel looks itself.
   *
   * @throws TypeError a second time before update()
   */
  step(optimizer: AnyOptimizer): void {
    if (!this.enabled) {
      optimizer.step()
      return
    }
    const scale = this.ready('step')
    let progress = this.progress.get(optimizer)
    if (progress?.stage === 'stepped') {
      throw new TypeError(
        'GradScaler.step: expected to be called once for an optimizer before update(), but it was called twice',
      )
    }
    const isFused = optimizer.supportsScaling
    const wasUnscaled = progress !== undefined
    if (progress === undefined) {
      if (isFused) {
        // looks only: the kernel unscales
        const foundInf = noGrad(() =>
          scope(() => this.checkGradients(optimizer, full([], 1, { dtype: 'float32' }), true)),
        )
        progress = { stage: 'unscaled', foundInf }
        this.progress.set(optimizer, progress)
      } else {
        this.unscale_(optimizer)
        progress = this.progress.get(optimizer)!
      }
    }
    const { foundInf } = progress
    if (foundInf.size > 0) {
      if (isFused) {
        scope(() =>
          optimizer.stepScaled({ gradScale: wasUnscaled ? null : scale, foundInf: combine(foundInf.values(), scale) }),
        )
      } else if ([...foundInf.values()].every((each) => each.item() === 0)) optimizer.step()
    }
    progress.stage = 'stepped'
  }

  /**
   * Adapts the scale, at the end of an iteration.
   *
   * @param newScale sets it instead
   * @throws TypeError where nothing was unscaled before
   */
  update(newScale?: number): void {
    if (!this.enabled) return
    const scale = this.ready('update')
    if (newScale !== undefined) {
      const isScale = isAtLeast(0, newScale) && newScale > 0
      expectOption(isScale, 'GradScaler.update', 'newScale', 'a number above 0', newScale)
      scale.fill_(newScale)
    } else {
      const found = [...this.progress.values()].flatMap((each) => [...each.foundInf.values()])
      if (found.length === 0) {
        throw new TypeError(
          'GradScaler.update: expected step() or unscale_() with gradients before, but there was none',
        )
      }
      const { growthFactor, backoffFactor, growthInterval } = this
      scope(() => {
        const foundInf = combine(found, scale)
        updateScale_(scale, this.growthTracker!, foundInf, growthFactor, backoffFactor, growthInterval)
      })
    }
    this.clearProgress()
  }

  private clearProgress(): void {
    for (const { foundInf } of this.progress.values()) for (const each of foundInf.values()) each.dispose()
    this.progress.clear()
  }

  /** The scale now: 1 where not enabled. Waits for the device. */
  getScale(): number {
    if (!this.enabled) return 1
    return this.scaleTensor?.item() ?? this.initScale
  }

  /** Steps without overflow since the scale last changed. Waits for the device. */
  getGrowthTracker(): number {
    return this.growthTracker?.item() ?? this.initGrowthTracker
  }

  stateDict(): GradScalerStateDict | Record<string, never> {
    if (!this.enabled) return {}
    return {
      scale: this.getScale(),
      growth_factor: this.growthFactor,
      backoff_factor: this.backoffFactor,
      growth_interval: this.growthInterval,
      _growth_tracker: this.getGrowthTracker(),
    }
  }

  /** @throws TypeError, RangeError for something else than the state of an enabled scaler */
  loadStateDict(saved: GradScalerStateDict | DictLike): void {
    if (!this.enabled) return
    const where = 'GradScaler.loadStateDict'
    const dict = saved as DictLike
    const read = (name: string): number => {
      const value = isDict(dict) ? entryOf(dict, name) : undefined
      expectOption(isAtLeast(0, value), where, name, 'a number from 0 on', value)
      return value as number
    }
    const loaded = {
      initScale: read('scale'),
      growthFactor: read('growth_factor'),
      backoffFactor: read('backoff_factor'),
      growthInterval: read('growth_interval'),
      initGrowthTracker: read('_growth_tracker'),
    }
    // refuses before anything changes
    new GradScaler(loaded)
    Object.assign(this, loaded)
    this.scaleTensor?.fill_(loaded.initScale)
    this.growthTracker?.fill_(loaded.initGrowthTracker)
  }

  [heldTensors](): Iterable<Tensor> {
    const found = [...this.progress.values()].flatMap((each) => [...each.foundInf.values()])
    return [this.scaleTensor, this.growthTracker, ...found].filter((each) => each instanceof Tensor)
  }

  /** Frees its tensors. The next scale() begins from the scale it had. */
  dispose(): void {
    this.clearProgress()
    this.scaleTensor?.dispose()
    this.growthTracker?.dispose()
    this.scaleTensor = undefined
    this.growthTracker = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** 1 where one of them is, on the device of `like`. */
function combine(found: Iterable<Tensor>, like: Tensor): Tensor {
  const device = like.device as Device
  return [...found].map((each) => each.to({ device, nonBlocking: true })).reduce((a, b) => maximum(a, b))
}
