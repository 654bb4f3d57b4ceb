import { native, type Opaque } from './native.js'
import { Tensor, wrap } from './tensor.js'
import { type Device, type DType, dtypeBytes, type Float } from './types.js'

/*
 * TorchScript modules: what Python saved with torch.jit.save(), run by libtorch's own interpreter.
 */

/** What a script takes and gives. Lists and tuples are arrays, dictionaries Maps; `float(2)` where a whole number is a float. */
export type ScriptValue =
  | Tensor
  | number
  | bigint
  | boolean
  | string
  | null
  | Float
  | readonly ScriptValue[]
  | ReadonlyMap<string | number, ScriptValue>

function encode(value: ScriptValue): unknown {
  if (value instanceof Tensor) return { tensor: value.handle }
  if (value instanceof Map) return { entries: Array.from(value, ([key, item]) => [encode(key), encode(item)]) }
  if (Array.isArray(value)) return { items: value.map(encode) }
  return value
}

function decode(value: unknown): ScriptValue {
  if (Array.isArray(value)) return value.map(decode)
  if (typeof value === 'object' && value !== null) {
    if ('tensor' in value) return value.tensor === null ? null : wrap(value.tensor as number)
    if ('entries' in value) {
      return new Map(
        (value.entries as [unknown, unknown][]).map(([key, item]) => [decode(key) as string, decode(item)]),
      )
    }
  }
  return value as ScriptValue
}

/** A TorchScript module. Its parameters can be trained like any other. */
export class ScriptModule {
  /** @internal */
  constructor(private readonly module: Opaque<'script'>) {}

  /** Runs the module's forward(). */
  forward(...inputs: readonly ScriptValue[]): ScriptValue {
    return this.call('forward', ...inputs)
  }

  /** Runs any method that the module exports. */
  call(method: string, ...inputs: readonly ScriptValue[]): ScriptValue {
    return decode(native.scriptCall(this.module, method, inputs.map(encode)))
  }

  /** Names of the methods. */
  methods(): string[] {
    return native.scriptMethods(this.module)
  }

  namedParameters(): [string, Tensor][] {
    return native.scriptTensors(this.module, 'parameters').map(([name, handle]) => [name, wrap(handle)])
  }

  parameters(): Tensor[] {
    return this.namedParameters().map(([, tensor]) => tensor)
  }

  namedBuffers(): [string, Tensor][] {
    return native.scriptTensors(this.module, 'buffers').map(([name, handle]) => [name, wrap(handle)])
  }

  train(mode = true): this {
    native.scriptTrain(this.module, mode)
    return this
  }

  eval(): this {
    return this.train(false)
  }

  /** Moves parameters and buffers to a device or a dtype, in place. */
  to(target: Device | DType): this {
    const isDtype = target in dtypeBytes
    native.scriptTo(this.module, isDtype ? null : target, isDtype ? (target as DType) : null)
    return this
  }

  /** Writes a file that jit.load() here and torch.jit.load() in Python read. */
  save(path: string): void {
    native.scriptSave(this.module, path)
  }
}

/**
 * Loads a file of torch.jit.save(). TorchScript is a program: load it from people you trust.
 *
 * @param options.device where to put its tensors; default: where they were saved from
 */
export function load(path: string, options: { device?: Device } = {}): ScriptModule {
  return new ScriptModule(native.scriptLoad(path, options.device ?? null))
}
