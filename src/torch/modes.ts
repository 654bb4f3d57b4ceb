import { native } from './native.js'
import type { Device, DType } from './types.js'

function refuseAsync(name: string, value: unknown): void {
  if (typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function') {
    void Promise.resolve(value as Promise<unknown>).catch(() => {})
    throw new TypeError(
      `${name}: expected a synchronous function, since the mode ends when it returns, but it returned a Promise`,
    )
  }
}

function withGrad<T>(enabled: boolean, name: string, run: () => T): T {
  const before = native.setGradEnabled(enabled)
  try {
    const result = run()
    refuseAsync(name, result)
    return result
  } finally {
    native.setGradEnabled(before)
  }
}

/** Runs a function without recording operations for backward(). */
export function noGrad<T>(run: () => T): T {
  return withGrad(false, 'noGrad', run)
}

/** Runs a function recording operations, also inside noGrad(). */
export function enableGrad<T>(run: () => T): T {
  return withGrad(true, 'enableGrad', run)
}

export function isGradEnabled(): boolean {
  return native.isGradEnabled()
}

/** Switches recording on or off until changed again, and gives what it was before. */
export function setGradEnabled(enabled: boolean): boolean {
  return native.setGradEnabled(enabled)
}

/** noGrad() that also skips version counters: faster, and its tensors can never take part in autograd. */
export function inferenceMode<T>(run: () => T): T {
  native.enterInferenceMode(true)
  try {
    const result = run()
    refuseAsync('inferenceMode', result)
    return result
  } finally {
    native.exitInferenceMode()
  }
}

export function isInferenceModeEnabled(): boolean {
  return native.isInferenceModeEnabled()
}

export interface AutocastOptions {
  /** Default: 'cpu'. */
  device?: Device
  /** bfloat16 or float16. Default: bfloat16 on the CPU, float16 elsewhere (PyTorch's own defaults). */
  dtype?: DType
  /** Default: true. */
  enabled?: boolean
  /** Keep the casts of weights until the outermost autocast ends. Default: true. */
  cacheEnabled?: boolean
}

/** Runs a function with matrix products and convolutions in a lower precision, and what needs float32 in it. */
export function autocast<T>(options: AutocastOptions, run: () => T): T {
  const { device = 'cpu', dtype = null, enabled = true, cacheEnabled = true } = options
  const before = native.enterAutocast(device, enabled, dtype, cacheEnabled)
  try {
    const result = run()
    refuseAsync('autocast', result)
    return result
  } finally {
    native.exitAutocast(before)
  }
}

export function isAutocastEnabled(device: Device = 'cpu'): boolean {
  return native.autocastState(device).enabled
}

/** The dtype of autocast on a device. */
export function getAutocastDtype(device: Device = 'cpu'): DType {
  return native.autocastState(device).dtype
}

/** Threads of one operation on the CPU. */
export function getNumThreads(): number {
  return native.numThreads()
}

export function setNumThreads(threads: number): void {
  native.setNumThreads(threads)
}

export function getDefaultDtype(): DType {
  return native.defaultDtype()
}

/** The dtype of factories and of plain numbers: a floating-point one. */
export function setDefaultDtype(dtype: DType): void {
  native.setDefaultDtype(dtype)
}

/**
 * Makes operators use deterministic algorithms, and those that have none fail (or warn). On a GPU call it before the first
 * matrix product: cuBLAS reads CUBLAS_WORKSPACE_CONFIG then, which is set here to ':4096:8' unless it is set already.
 */
export function useDeterministicAlgorithms(enabled: boolean, options: { warnOnly?: boolean } = {}): void {
  if (enabled) process.env.CUBLAS_WORKSPACE_CONFIG ??= ':4096:8'
  native.setDeterministic(enabled, options.warnOnly ?? false)
}

export function areDeterministicAlgorithmsEnabled(): boolean {
  return native.isDeterministic()
}

/** Finds the operation whose gradient is NaN. Slow. */
export function setDetectAnomaly(enabled: boolean, options: { checkNan?: boolean } = {}): void {
  native.setAnomalyDetection(enabled, options.checkNan ?? true)
}

function makeSwitch(name: string): { get enabled(): boolean; set enabled(value: boolean) } {
  return {
    get enabled() {
      return native.contextSwitch(name)
    },
    set enabled(value: boolean) {
      native.contextSwitch(name, value)
    },
  }
}

/** Switches of libtorch's backends: `torch.backends.tf32MatrixProducts.enabled = true`. */
export const backends = {
  tf32MatrixProducts: makeSwitch('tf32MatrixProducts'),
  tf32Convolutions: makeSwitch('tf32Convolutions'),
  cudnnBenchmark: makeSwitch('cudnnBenchmark'),
  flashAttention: makeSwitch('flashAttention'),
  memoryEfficientAttention: makeSwitch('memoryEfficientAttention'),
  mathAttention: makeSwitch('mathAttention'),
  cudnnAttention: makeSwitch('cudnnAttention'),
}
