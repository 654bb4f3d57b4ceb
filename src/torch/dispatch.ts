import { type Guard, guardOf } from './guards.js'
import { native, type OperatorArgument, type OperatorDescription } from './native.js'
import { Generator } from './random.js'
import { Tensor, wrap } from './tensor.js'
import { Float } from './types.js'

/*
 * From a call in TypeScript to one overload of an operator. Overloads are told apart by the kinds of the arguments
 * alone, so that the choice can be remembered by kinds; nothing is tried and caught.
 */

/** The kinds of values that decide between overloads. Four bits each, so that several make one number. */
const kindNames = [
  'nothing',
  'a Tensor',
  'a number',
  'a boolean',
  'a bigint',
  'a string',
  'null',
  'a Generator',
  'a complex number or torch.float',
  'an array of numbers',
  'an array of tensors',
  'an array of tensors and nulls',
  'an array of booleans',
  'an empty array',
  'an array of strings',
  'something else',
] as const
/** So many kinds of four bits fit a whole number, with their count before them. */
const keyLimit = 12
const Missing = 0
const TensorKind = 1
const NumberKind = 2
const BooleanKind = 3
const BigIntKind = 4
const StringKind = 5
const NullKind = 6
const GeneratorKind = 7
const BoxKind = 8
const NumbersKind = 9
const TensorsKind = 10
const OptionalTensorsKind = 11
const BooleansKind = 12
const EmptyKind = 13
const StringsKind = 14
const OtherKind = 15

function isBox(value: object): boolean {
  return value instanceof Float || ('re' in value && 'im' in value)
}

function kindOfArray(values: readonly unknown[]): number {
  if (values.length === 0) return EmptyKind
  let kind = -1
  for (const value of values) {
    const one = kindOf(value)
    const asArray =
      one === TensorKind
        ? TensorsKind
        : one === NullKind
          ? OptionalTensorsKind
          : one === NumberKind || one === BigIntKind || one === BoxKind
            ? NumbersKind
            : one === BooleanKind
              ? BooleansKind
              : one === StringKind
                ? StringsKind
                : OtherKind
    if (asArray === OtherKind) return OtherKind
    if (kind === -1 || kind === asArray) kind = asArray
    else if ((kind === TensorsKind && asArray === OptionalTensorsKind) || kind === OptionalTensorsKind)
      kind = asArray === TensorsKind || asArray === OptionalTensorsKind ? OptionalTensorsKind : OtherKind
    else return OtherKind
  }
  return kind
}

function kindOf(value: unknown): number {
  switch (typeof value) {
    case 'object':
      if (value === null) return NullKind
      if (value instanceof Tensor) return TensorKind
      if (Array.isArray(value)) return kindOfArray(value)
      if (value instanceof Generator) return GeneratorKind
      return isBox(value) ? BoxKind : OtherKind
    case 'number':
      return NumberKind
    case 'boolean':
      return BooleanKind
    case 'string':
      return StringKind
    case 'bigint':
      return BigIntKind
    case 'undefined':
      return Missing
    default:
      return OtherKind
  }
}

function acceptsSingle(kind: string, given: number): boolean {
  switch (kind) {
    case 'Tensor':
      return given === TensorKind
    case 'int':
      return given === NumberKind || given === BigIntKind
    case 'float':
    case 'complex':
      return given === NumberKind || given === BigIntKind || given === BoxKind
    case 'bool':
      return given === BooleanKind
    case 'Scalar':
      return given === NumberKind || given === BigIntKind || given === BooleanKind || given === BoxKind
    case 'str':
    case 'dtype':
    case 'layout':
    case 'memory_format':
    case 'Device':
      return given === StringKind
    case 'Generator':
      return given === GeneratorKind
    default:
      return false
  }
}

function accepts(argument: OperatorArgument, given: number): boolean {
  if (given === Missing) return argument.hasDefault || argument.optional
  if (given === NullKind) return argument.optional
  if (!argument.list) return acceptsSingle(argument.kind, given)
  if (given === EmptyKind) return true
  switch (argument.kind) {
    case 'Tensor':
      return given === TensorsKind || (argument.optionalElements && given === OptionalTensorsKind)
    case 'int':
    case 'float':
      return given === NumbersKind || (argument.listSize > 0 && (given === NumberKind || given === BigIntKind))
    case 'Scalar':
      return given === NumbersKind || given === BooleansKind
    case 'bool':
      return given === BooleansKind
    case 'str':
      return given === StringsKind
    default:
      return false
  }
}

export function camelCase(name: string): string {
  // the underscore at the end says "in place" and stays
  return name.replace(/(?<=[A-Za-z0-9])_+([A-Za-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

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

class Overload {
  readonly id: number
  readonly returns: OperatorDescription['returns']
  readonly positional: readonly OperatorArgument[]
  readonly names: readonly string[]
  readonly isFactory: boolean
  readonly guard: Guard | undefined

  constructor(
    readonly text: string,
    readonly description: OperatorDescription,
    name: string,
  ) {
    this.id = description.id
    this.returns = description.returns
    this.positional = description.arguments.filter((argument) => !argument.keywordOnly)
    this.names = description.arguments.map((argument) => camelCase(argument.name))
    this.isFactory = this.names.includes('pinMemory') && this.names.includes('dtype')
    this.guard = guardOf(name, this.names)
  }

  /** Whether positional arguments of these kinds, and keywords of these names and kinds, fit. */
  matches(kinds: readonly number[], keywords: ReadonlyMap<string, number> | undefined): boolean {
    if (kinds.length > this.positional.length) return false
    let used = 0
    for (const [index, argument] of this.description.arguments.entries()) {
      let kind = index < kinds.length ? kinds[index]! : Missing
      const keyword = keywords?.get(this.names[index]!)
      if (keyword !== undefined) {
        if (kind !== Missing) return false
        kind = keyword
        used += 1
      }
      if (!accepts(argument, kind)) return false
    }
    if (keywords === undefined) return true
    if (this.isFactory && keywords.has('requiresGrad')) used += 1
    return used === keywords.size
  }

  /** One list of numbers given as several arguments: x.view(2, 3). */
  takesSpread(start: number): boolean {
    const rest = this.positional.slice(start)
    return rest.length > 0 && rest[0]!.list && rest[0]!.kind === 'int' && rest.slice(1).every((each) => each.hasDefault)
  }
}

type Keywords = Record<string, unknown>

function isKeywords(value: unknown): value is Keywords {
  if (typeof value !== 'object' || value === null) return false
  const prototype = Object.getPrototypeOf(value)
  return (prototype === Object.prototype || prototype === null) && !isBox(value)
}

/** All overloads of one name. */
export class Operator {
  /** Which overload fits, by the number of positional arguments and their kinds. */
  private readonly byKinds = new Map<number, Overload>()
  /** The same for one tensor alone, and for a tensor with one more argument: most calls are these. */
  private unary: Overload | undefined
  private readonly binary: (Overload | undefined)[] = new Array(16).fill(undefined)
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
        else this.found.push(new Overload(text, description, this.name))
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
    const overload = this.binary[value instanceof Tensor ? TensorKind : kindOf(value)]
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
    // a disposed tensor is refused by native code, with the argument's name
    if (values.some((value) => value instanceof Tensor && !value.isAlive)) return
    const problem = guard(Object.fromEntries(overload.names.map((name, index) => [name, values[index]])))
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
      each === null ? null : returnKinds[index] === 'tensor' ? wrap(each as number) : each instanceof Array ? each.map(wrap) : each,
    )
    if (returnNames[0] === '') return several
    return Object.assign(several, Object.fromEntries(returnNames.map((name, index) => [camelCase(name), several[index]])))
  }

  private resolve(given: readonly unknown[]): unknown {
    const keywords = isKeywords(given[given.length - 1]) ? (given[given.length - 1] as Keywords) : undefined
    const values = keywords === undefined ? given : given.slice(0, -1)
    const kinds = values.map(kindOf)
    const keywordKinds =
      keywords &&
      new Map(
        Object.entries(keywords)
          .filter(([, value]) => value !== undefined)
          .map(([name, value]) => [name, kindOf(value)]),
      )
    let overload = this.candidates.find((candidate) => candidate.matches(kinds, keywordKinds))
    if (overload === undefined) {
      const spread = this.trySpread(values, kinds, keywordKinds)
      if (spread !== undefined) return this.resolve(keywords === undefined ? spread : [...spread, keywords])
      throw this.mismatch(values, kinds, keywordKinds)
    }
    if (keywords === undefined) {
      const direct = overload.guard === undefined && kinds[0] === TensorKind
      if (direct && kinds.length === 1) this.unary = overload
      if (direct && kinds.length === 2 && !isKeywords(values[1])) this.binary[kinds[1]!] = overload
      if (values.length <= keyLimit) {
        this.byKinds.set(
          kinds.reduce((key, kind) => key * 16 + kind, values.length),
          overload,
        )
      }
      return this.invoke(overload, values)
    }
    const given = overload.names.map((name, index) => (index < values.length ? values[index] : keywords[name]))
    if (overload.guard !== undefined) this.check(overload, overload.guard, given)
    const bound: unknown[] = given.map(lower)
    while (bound.length > 0 && bound[bound.length - 1] === undefined) bound.pop()
    const self = values.length > 0 ? values[0] : keywords[overload.names[0]!]
    const result = this.raise(overload, native.call(overload.id, ...bound), self)
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
    return new TypeError(
      `${this.publicName}: expected ${wanted.join(' or ')}, but received (${given.join(', ')})`,
    )
  }
}

function describe(value: unknown, kind: number): string {
  if (kind === OtherKind) return typeof value === 'function' ? 'a function' : Array.isArray(value) ? 'a mixed array' : 'an object'
  if (kind === Missing) return 'undefined'
  return kindNames[kind]!
}

function signature(name: string, list: readonly OperatorArgument[]): string {
  const one = (each: OperatorArgument) =>
    `${camelCase(each.name)}${each.hasDefault ? '?' : ''}: ${each.kind}${each.list ? '[]' : ''}${each.optional ? ' | null' : ''}`
  const positional = list.filter((each) => !each.keywordOnly).map(one)
  const keywords = list.filter((each) => each.keywordOnly).map(one)
  return `${name}(${[...positional, ...(keywords.length > 0 ? [`{ ${keywords.join(', ')} }`] : [])].join(', ')})`
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
