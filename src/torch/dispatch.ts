import type { Guard } from './guards.js'
import {
  BigIntKind,
  isKeywords,
  type Keywords,
  kindNames,
  kindOf,
  NumberKind,
  NumbersKind,
  TensorKind,
} from './kinds.js'
import { native } from './native.js'
import { camelCase, describe, Overload, signature } from './overload.js'
import { Generator } from './random.js'
import { Tensor, wrap } from './tensor.js'

/*
 * From a call in TypeScript to one overload of an operator. Overloads are told apart by the kinds of the arguments
 * alone, so that the choice can be remembered by kinds; nothing is tried and caught.
 */

/** Calls of up to so many positional arguments are remembered: more would not fit a number of four bits each. */
const keyLimit = 12

/** What a value becomes on its way to native code. */
function lower(value: unknown): unknown {
  if (value instanceof Tensor) return value.handle
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) {
    for (const item of value) {
      if (item instanceof Tensor) return value.map((each) => (each instanceof Tensor ? each.handle : each))
      if (item !== null) return value
    }
    return value
  }
  if (value instanceof Generator) return value.native
  return value
}

/** A call with arguments by name, and the overload that fits it. */
interface KeywordCall {
  readonly kinds: readonly number[]
  readonly names: readonly string[]
  readonly keywordKinds: readonly number[]
  readonly overload: Overload
}

/** Whether a call has the kinds and names of one before. Makes nothing: optimizers come here at every step. */
function isLike(call: KeywordCall, values: readonly unknown[], keywords: Keywords): boolean {
  if (values.length !== call.kinds.length) return false
  for (let index = 0; index < values.length; index += 1) if (kindOf(values[index]) !== call.kinds[index]) return false
  let count = 0
  for (const name in keywords) {
    if (keywords[name] === undefined) continue
    if (call.names[count] !== name || call.keywordKinds[count] !== kindOf(keywords[name])) return false
    count += 1
  }
  return count === call.names.length
}

/** All overloads of one name. */
export class Operator {
  /** Which overload fits, by the number of positional arguments and their kinds. */
  private readonly byKinds = new Map<number, Overload>()
  /** The same for one tensor alone, and for a tensor with one more argument: most calls are these. */
  private unary: Overload | undefined
  private readonly binary: (Overload | undefined)[] = new Array(16).fill(undefined)
  /** The same for calls with arguments by name: few for each operator, looked through in order. */
  private readonly keywordCalls: KeywordCall[] = []
  private found: Overload[] | undefined
  private missing: string[] = []

  constructor(
    readonly publicName: string,
    private readonly name: string,
    private readonly overloads: readonly string[],
  ) {}

  private get candidates(): readonly Overload[] {
    if (this.found === undefined) {
      this.found = []
      for (const overload of this.overloads) {
        const description = native.lookup(this.name, overload)
        const text = overload === '' ? this.name : `${this.name}.${overload}`
        if (description === null) this.missing.push(text)
        else this.found.push(new Overload(text, description))
      }
    }
    return this.found
  }

  /** call([self]) without the array. */
  callUnary(self: Tensor): unknown {
    const overload = this.unary
    if (overload === undefined) return this.call([self])
    return this.raise(overload, native.call(overload.id, self.handle), self)
  }

  /** call([self, value]) without the array. */
  callBinary(self: Tensor, value: unknown): unknown {
    if (value instanceof Tensor) {
      const overload = this.binary[TensorKind]
      if (overload === undefined) return this.call([self, value])
      const result = native.call(overload.id, self.handle, value.handle)
      return overload.returnsTensor && result !== null ? wrap(result as number) : this.raise(overload, result, self)
    }
    const overload = this.binary[kindOf(value)]
    if (overload === undefined) return this.call([self, value])
    return this.raise(overload, native.call(overload.id, self.handle, lower(value)), self)
  }

  call(values: readonly unknown[]): unknown {
    const count = values.length
    if (count <= keyLimit && !isKeywords(values[count - 1])) {
      let key = count
      for (let index = 0; index < count; index += 1) key = key * 16 + kindOf(values[index])
      const overload = this.byKinds.get(key)
      if (overload !== undefined) return this.invoke(overload, values)
    }
    return this.resolve(values)
  }

  private invoke(overload: Overload, values: readonly unknown[]): unknown {
    if (overload.guard !== undefined) this.check(overload, overload.guard, values)
    let result: unknown
    switch (values.length) {
      case 0:
        result = native.call(overload.id)
        break
      case 1:
        result = native.call(overload.id, lower(values[0]))
        break
      case 2:
        result = native.call(overload.id, lower(values[0]), lower(values[1]))
        break
      case 3:
        result = native.call(overload.id, lower(values[0]), lower(values[1]), lower(values[2]))
        break
      default:
        result = native.call(overload.id, ...values.map(lower))
    }
    return this.raise(overload, result, values[0])
  }

  /** Refuses what libtorch would not survive: see guards.ts. */
  private check(overload: Overload, guard: Guard, values: readonly unknown[]): void {
    const given: Record<string, unknown> = {}
    for (const [index, name] of overload.names.entries()) given[name] = values[index]
    let problem: string | undefined
    try {
      problem = guard(given)
    } catch (error) {
      // a disposed tensor is refused by native code, with the argument's name
      if (values.some((value) => value instanceof Tensor && !value.isAlive)) return
      throw error
    }
    if (problem !== undefined) throw new RangeError(`${this.publicName}: ${problem}`)
  }

  /** Results as TypeScript objects. */
  private raise(overload: Overload, result: unknown, self: unknown): unknown {
    const returns = overload.returns
    if (returns === 'tensor') return result === null ? null : wrap(result as number)
    if (returns === 'self') return self
    const { returnKinds, returnNames } = overload.description
    if (returns === 'tensors') return (result as number[]).map(wrap)
    if (returns !== 'several') return result
    const several = (result as unknown[]).map((each, index) =>
      each === null
        ? null
        : returnKinds[index] === 'tensor'
          ? wrap(each as number)
          : Array.isArray(each)
            ? each.map(wrap)
            : each,
    )
    if (returnNames[0] === '') return several
    return Object.assign(
      several,
      Object.fromEntries(returnNames.map((name, index) => [camelCase(name), several[index]])),
    )
  }

  private resolve(given: readonly unknown[]): unknown {
    const last = given[given.length - 1]
    if (isKeywords(last)) return this.resolveKeywords(given.slice(0, -1), last)
    const kinds = given.map(kindOf)
    const overload = this.candidates.find((candidate) => candidate.matches(kinds, undefined))
    if (overload === undefined) {
      const spread = this.trySpread(given, kinds, undefined)
      if (spread !== undefined) return this.resolve(spread)
      throw this.mismatch(given, kinds, undefined)
    }
    const direct = overload.guard === undefined && kinds[0] === TensorKind
    if (direct && kinds.length === 1) this.unary = overload
    if (direct && kinds.length === 2) this.binary[kinds[1]!] = overload
    if (kinds.length <= keyLimit) {
      this.byKinds.set(
        kinds.reduce((key, kind) => key * 16 + kind, kinds.length),
        overload,
      )
    }
    return this.invoke(overload, given)
  }

  private resolveKeywords(values: readonly unknown[], keywords: Keywords): unknown {
    let overload = this.keywordCalls.find((call) => isLike(call, values, keywords))?.overload
    if (overload === undefined) {
      const kinds = values.map(kindOf)
      const given = Object.entries(keywords).filter(([, value]) => value !== undefined)
      const keywordKinds = new Map(given.map(([name, value]) => [name, kindOf(value)]))
      overload = this.candidates.find((candidate) => candidate.matches(kinds, keywordKinds))
      if (overload === undefined) {
        const spread = this.trySpread(values, kinds, keywordKinds)
        if (spread !== undefined) return this.resolveKeywords(spread, keywords)
        throw this.mismatch(values, kinds, keywordKinds)
      }
      if (this.keywordCalls.length < 32) {
        this.keywordCalls.push({
          kinds,
          names: [...keywordKinds.keys()],
          keywordKinds: [...keywordKinds.values()],
          overload,
        })
      }
    }
    return this.invokeKeywords(overload, values, keywords)
  }

  private invokeKeywords(overload: Overload, values: readonly unknown[], keywords: Keywords): unknown {
    const given = overload.names.map((name, index) => (index < values.length ? values[index] : keywords[name]))
    if (overload.guard !== undefined) this.check(overload, overload.guard, given)
    // what is left out at the end is the default's
    while (given.length > 0 && given[given.length - 1] === undefined) given.pop()
    const result = this.raise(overload, native.call(overload.id, ...given.map(lower)), given[0])
    if (overload.isFactory && keywords.requiresGrad !== undefined && result instanceof Tensor) {
      result.requiresGrad_(keywords.requiresGrad as boolean)
    }
    return result
  }

  private trySpread(
    values: readonly unknown[],
    kinds: readonly number[],
    keywords: ReadonlyMap<string, number> | undefined,
  ): readonly unknown[] | undefined {
    const start = kinds[0] === TensorKind ? 1 : 0
    const rest = kinds.slice(start)
    if (rest.length === 0 || !rest.every((kind) => kind === NumberKind || kind === BigIntKind)) return undefined
    const packed = [...kinds.slice(0, start), NumbersKind]
    const fits = this.candidates.some((each) => each.takesSpread(start) && each.matches(packed, keywords))
    return fits ? [...values.slice(0, start), values.slice(start)] : undefined
  }

  private mismatch(
    values: readonly unknown[],
    kinds: readonly number[],
    keywords: ReadonlyMap<string, number> | undefined,
  ): TypeError {
    if (this.candidates.length === 0) {
      return new TypeError(
        `${this.publicName}: expected libtorch ${native.info().torchVersion} to have the operator ${this.missing.join(', ')}, but it has not; install another version with npx cleft setup --torch 2.13.0`,
      )
    }
    const given = [
      ...values.map((value, index) => describe(value, kinds[index]!)),
      ...[...(keywords ?? [])].map(([name, kind]) => `${name}: ${kindNames[kind]}`),
    ]
    const wanted = this.candidates.map((candidate) => signature(this.publicName, candidate.description.arguments))
    return new TypeError(`${this.publicName}: expected ${wanted.join(' or ')}, but received (${given.join(', ')})`)
  }
}

const operators = new Map<string, Operator>()

/** The operator of a public name, made once. Overloads are names of aten's, the empty string being the one without. */
export function operator(publicName: string, name: string, overloads: readonly string[]): Operator {
  const key = `${name}|${overloads.join(',')}`
  let found = operators.get(key)
  if (found === undefined) {
    found = new Operator(publicName, name, overloads)
    operators.set(key, found)
  }
  return found
}

/** The functional form of an operator. `Signature` is what the generated surface says of it. */
export function asFunction<Signature>(publicName: string, name: string, overloads: readonly string[]): Signature {
  const target = operator(publicName, name, overloads)
  return ((...values: unknown[]) => target.call(values)) as Signature
}

/** Puts the method form of operators on Tensor. */
export function installMethods(table: Readonly<Record<string, readonly [string, string]>>): void {
  for (const [publicName, [name, overloads]] of Object.entries(table)) {
    const target = operator(publicName, name, overloads.split(','))
    Object.defineProperty(Tensor.prototype, publicName, {
      configurable: true,
      writable: true,
      enumerable: false,
      value: function (this: Tensor, first?: unknown): unknown {
        // `arguments`, not a rest parameter: no array for the common cases
        // biome-ignore lint/complexity/noArguments: see above
        const given = arguments
        if (given.length === 0) return target.callUnary(this)
        if (given.length === 1) return target.callBinary(this, first)
        return target.call([this, ...given])
      },
    })
  }
}
