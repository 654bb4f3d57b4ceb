/** A small seeded generator (splitmix32): the same numbers everywhere. */
export class Random {
  /** @param {readonly number[]} seeds */
  constructor(...seeds) {
    this.state = 0x9e3779b9
    for (const seed of seeds) {
      this.state = (this.state ^ seed) >>> 0
      this.next()
      this.state = Math.floor(this.next() * 4294967296) >>> 0
    }
  }

  /** A number from 0 up to 1. */
  next() {
    this.state = (this.state + 0x9e3779b9) >>> 0
    let mixed = this.state
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 4294967296
  }

  /** A whole number from `low` to `high`, both included. @param {number} low @param {number} high */
  int(low, high) {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  /** @param {number} probability */
  chance(probability) {
    return this.next() < probability
  }

  /** @template T @param {readonly T[]} list @returns {T} */
  pick(list) {
    return list[Math.floor(this.next() * list.length)]
  }
}
