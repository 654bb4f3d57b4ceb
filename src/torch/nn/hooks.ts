import type { Removable } from '../tensor.js'

/** What a module's forward() takes. `readonly unknown[]` for a module of which nothing is known. */
export type InputsOf<Forward> = Forward extends (...inputs: infer Inputs) => unknown
  ? never[] extends Inputs
    ? readonly unknown[]
    : Inputs
  : readonly unknown[]

/** What a module's forward() gives. */
export type OutputOf<Forward> = Forward extends (...inputs: never[]) => infer Output ? Output : unknown

/** What a hook returns, if anything. */
// biome-ignore lint/suspicious/noConfusingVoidType: a function that returns nothing is a hook too
export type Perhaps<T> = T | undefined | void

type Before = (inputs: readonly unknown[]) => unknown
type After = (inputs: readonly unknown[], output: unknown) => unknown

/**
 * The hooks of one module. The object's own `forward` is put in front of the class's with the first hook and taken away
 * with the last, so that `module.forward(x)` runs hooks, and a module without hooks pays nothing.
 */
export class ForwardHooks {
  private readonly before = new Set<{ run: Before }>()
  private readonly after = new Set<{ run: After }>()
  private installed: ((...inputs: unknown[]) => unknown) | undefined
  private previous: PropertyDescriptor | undefined

  constructor(private readonly module: { forward: (...inputs: never[]) => unknown }) {}

  addBefore(run: Before): Removable {
    return this.add(this.before, { run })
  }

  addAfter(run: After): Removable {
    return this.add(this.after, { run })
  }

  private add<Hook>(hooks: Set<Hook>, hook: Hook): Removable {
    if (this.installed === undefined) this.install()
    hooks.add(hook)
    return {
      remove: () => {
        hooks.delete(hook)
        if (this.before.size === 0 && this.after.size === 0) this.uninstall()
      },
    }
  }

  private install(): void {
    const { module } = this
    this.previous = Object.getOwnPropertyDescriptor(module, 'forward')
    const forward = module.forward as (...inputs: readonly unknown[]) => unknown
    this.installed = (...given) => {
      let inputs: readonly unknown[] = given
      for (const { run } of [...this.before]) {
        const changed = run(inputs)
        if (changed !== undefined) inputs = Array.isArray(changed) ? changed : [changed]
      }
      let output = forward.apply(module, [...inputs])
      for (const { run } of [...this.after]) {
        const changed = run(inputs, output)
        if (changed !== undefined) output = changed
      }
      return output
    }
    Object.defineProperty(module, 'forward', {
      configurable: true,
      writable: true,
      enumerable: false,
      value: this.installed,
    })
  }

  private uninstall(): void {
    // somebody else's forward in front of this one calls it still
    if (
      this.installed === undefined ||
      Object.getOwnPropertyDescriptor(this.module, 'forward')?.value !== this.installed
    )
      return
    if (this.previous === undefined) Reflect.deleteProperty(this.module, 'forward')
    else Object.defineProperty(this.module, 'forward', this.previous)
    this.installed = undefined
  }
}
