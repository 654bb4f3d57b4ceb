import { createHash } from 'node:crypto'
import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64'
import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus'
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator'

/**
 * Random numbers that depend on what they are for and on nothing else: the same keys give the same numbers on every run,
 * whatever else was drawn, in whatever order, by however many workers.
 */
export class Random {
  readonly #generator: RandomGenerator
  #spare: number | null = null

  /** @param keys what the numbers are for: a seed, then words and numbers, as in `new Random(seed, 'shuffle', epoch)` */
  constructor(...keys: readonly (number | string)[]) {
    const digest = createHash('sha256').update(JSON.stringify(keys)).digest()
    this.#generator = xoroshiro128plusFromState([0, 4, 8, 12].map((offset) => digest.readInt32LE(offset)))
  }

  /** Uniform in [low, high). */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * uniformFloat64(this.#generator)
  }

  /** A whole number from 0 to count - 1. */
  integer(count: number): number {
    if (!(Number.isInteger(count) && count > 0)) {
      throw new RangeError(`Random.integer: expected a count above 0, but received ${count}`)
    }
    return uniformInt(this.#generator, 0, count - 1)
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.uniform() < probability
  }

  /** Normally distributed (Box and Muller 1958). */
  normal(mean = 0, deviation = 1): number {
    if (this.#spare !== null) {
      const value = this.#spare
      this.#spare = null
      return mean + deviation * value
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()))
    const angle = 2 * Math.PI * this.uniform()
    this.#spare = radius * Math.sin(angle)
    return mean + deviation * radius * Math.cos(angle)
  }

  /** One of the items. */
  pick<Item>(items: readonly Item[]): Item {
    return items[this.integer(items.length)]!
  }

  /** The items in another order (Fisher and Yates); the array is left as it is. */
  shuffle<Item>(items: readonly Item[]): Item[] {
    const shuffled = [...items]
    for (let last = shuffled.length - 1; last > 0; last -= 1) {
      const other = this.integer(last + 1)
      const item = shuffled[last]!
      shuffled[last] = shuffled[other]!
      shuffled[other] = item
    }
    return shuffled
  }
}
