import { type Guard, guardOf } from './guards.js'
import { accepts, kindNames, Missing, OtherKind } from './kinds.js'
import type { OperatorArgument, OperatorDescription } from './native.js'

/*
 * One overload of an operator: which arguments it takes, and how it looks in an error.
 */

export function camelCase(name: string): string {
  // the underscore at the end says "in place" and stays
  return name.replace(/(?<=[A-Za-z0-9])_+([A-Za-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

export class Overload {
  readonly id: number
  readonly returns: OperatorDescription['returns']
  readonly returnsTensor: boolean
  readonly positional: readonly OperatorArgument[]
  readonly names: readonly string[]
  readonly isFactory: boolean
  readonly guard: Guard | undefined

  constructor(
    readonly text: string,
    readonly description: OperatorDescription,
  ) {
    this.id = description.id
    this.returns = description.returns
    this.returnsTensor = description.returns === 'tensor'
    this.positional = description.arguments.filter((argument) => !argument.keywordOnly)
    this.names = description.arguments.map((argument) => camelCase(argument.name))
    this.isFactory = this.names.includes('pinMemory') && this.names.includes('dtype')
    this.guard = guardOf(text, this.names)
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

/** A value in the words of an error. */
export function describe(value: unknown, kind: number): string {
  if (kind === OtherKind)
    return typeof value === 'function' ? 'a function' : Array.isArray(value) ? 'a mixed array' : 'an object'
  if (kind === Missing) return 'undefined'
  return kindNames[kind]!
}

/** An overload in the words of an error. */
export function signature(name: string, list: readonly OperatorArgument[]): string {
  const one = (each: OperatorArgument) =>
    `${camelCase(each.name)}${each.hasDefault ? '?' : ''}: ${each.kind}${each.list ? '[]' : ''}${each.optional ? ' | null' : ''}`
  const positional = list.filter((each) => !each.keywordOnly).map(one)
  const keywords = list.filter((each) => each.keywordOnly).map(one)
  return `${name}(${[...positional, ...(keywords.length > 0 ? [`{ ${keywords.join(', ')} }`] : [])].join(', ')})`
}
