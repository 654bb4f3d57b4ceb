import type { OperatorArgument } from './native.js'
import { Generator } from './random.js'
import { Tensor } from './tensor.js'
import { Float } from './types.js'

/*
 * What kinds of values there are, and which kind an operator's argument takes.
 */

/** The kinds of values that decide between overloads. Four bits each, so that several make one number. */
export const kindNames = [
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
export const Missing = 0
export const TensorKind = 1
export const NumberKind = 2
export const BooleanKind = 3
export const BigIntKind = 4
export const StringKind = 5
export const NullKind = 6
export const GeneratorKind = 7
export const BoxKind = 8
export const NumbersKind = 9
export const TensorsKind = 10
export const OptionalTensorsKind = 11
export const BooleansKind = 12
export const EmptyKind = 13
export const StringsKind = 14
export const OtherKind = 15

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

export function kindOf(value: unknown): number {
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

export function accepts(argument: OperatorArgument, given: number): boolean {
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

export type Keywords = Record<string, unknown>

/** Whether a last argument holds arguments by name. */
export function isKeywords(value: unknown): value is Keywords {
  if (typeof value !== 'object' || value === null) return false
  const prototype = Object.getPrototypeOf(value)
  return (prototype === Object.prototype || prototype === null) && !isBox(value)
}
