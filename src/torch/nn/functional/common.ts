/** How a loss puts its elements together: their mean, their sum, or each one. */
export type Reduction = 'mean' | 'sum' | 'none'

export interface ReductionOptions {
  /** Default: 'mean'. */
  reduction?: Reduction
}

/** A number for each spatial dimension, or one for all. */
export type Sizes = number | readonly number[]

/** The position of a word in the list of those that are allowed: libtorch's number for it. */
export function oneOf<Word extends string>(
  operation: string,
  what: string,
  words: readonly Word[],
  given: Word,
): number {
  const position = words.indexOf(given)
  if (position < 0) {
    throw new RangeError(
      `${operation}: expected ${what} to be one of '${words.join("', '")}', but received '${String(given)}'`,
    )
  }
  return position
}

const reductions: readonly Reduction[] = ['none', 'mean', 'sum']

/** libtorch's number for a reduction. */
export function reductionCode(operation: string, reduction: Reduction = 'mean'): number {
  return oneOf(operation, 'reduction', reductions, reduction)
}

/** One number for each of `count` dimensions. */
export function expandSizes(operation: string, what: string, sizes: Sizes, count: number): number[] {
  if (typeof sizes === 'number') return new Array<number>(count).fill(sizes)
  if (sizes.length !== count) {
    throw new RangeError(`${operation}: expected ${what} to be a number or ${count} of them, but received [${sizes}]`)
  }
  return [...sizes]
}
