import { native, type Opaque } from './native.js'
import { handleOf, type Tensor, wrap } from './tensor.js'
import type { Device } from './types.js'

/**
 * A random generator with a state of its own, for `generator` options of random operators.
 *
 * @example const generator = new torch.Generator().manualSeed(7); torch.randn([2, 3], { generator })
 */
export class Generator {
  /** @internal */
  readonly native: Opaque<'generator'>

  constructor(device: Device = 'cpu') {
    this.native = native.makeGenerator(device)
  }

  get device(): string {
    return native.generatorDevice(this.native)
  }

  manualSeed(seed: number | bigint): this {
    native.seedGenerator(this.native, seed)
    return this
  }

  initialSeed(): bigint {
    return native.initialSeed(this.native)
  }

  /** The state as a uint8 tensor, which setState() takes back. */
  getState(): Tensor {
    return wrap(native.generatorState(this.native))
  }

  setState(state: Tensor): this {
    native.setGeneratorState(this.native, handleOf(state, 'setState', 'state'))
    return this
  }
}

/** Seeds the default generators of every device. */
export function manualSeed(seed: number | bigint): void {
  native.manualSeed(seed)
}

/** The seed that the default generator of a device started from. */
export function initialSeed(device: Device = 'cpu'): bigint {
  return native.initialSeed(device)
}

/** The state of a device's default generator, a uint8 tensor. */
export function getRngState(device: Device = 'cpu'): Tensor {
  return wrap(native.generatorState(device))
}

/** Puts back what getRngState() gave. */
export function setRngState(state: Tensor, device: Device = 'cpu'): void {
  native.setGeneratorState(device, handleOf(state, 'setRngState', 'state'))
}
