import { quote } from './error.js'

/**
 * A reader of JSON whose layout is known, for headers that come from anywhere. JSON.parse takes the last of two equal
 * keys without a word, sets prototypes by `__proto__`, rounds integers beyond 2^53, and builds whatever is there (100 MB
 * of `[[[[` is gigabytes of arrays). This one visits, refuses repeated keys, and builds nothing but what is asked for.
 */
export class JsonReader {
  private position = 0

  /** @param refuse makes the error to throw of "expected ..., found ..." */
  constructor(
    private readonly text: string,
    private readonly refuse: (problem: string) => Error,
  ) {}

  /** Skips blanks, and says which character comes next ('' at the end). */
  private peek(): string {
    for (;;) {
      const code = this.text.charCodeAt(this.position)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) break
      this.position += 1
    }
    return this.text.charAt(this.position)
  }

  private fail(expected: string): Error {
    const found = this.peek()
    return this.refuse(
      found === ''
        ? `expected ${expected}, but it ends`
        : `expected ${expected} at character ${this.position}, not ${quote(found)}`,
    )
  }

  private take(character: string): void {
    if (this.peek() !== character) throw this.fail(quote(character))
    this.position += 1
  }

  private takeIf(character: string): boolean {
    if (this.peek() !== character) return false
    this.position += 1
    return true
  }

  /** A string, with its escapes resolved. */
  string(): string {
    if (this.peek() !== '"') throw this.fail('a string')
    const start = this.position
    let end = start + 1
    let escaped = false
    for (;;) {
      const code = this.text.charCodeAt(end)
      if (Number.isNaN(code)) throw this.refuse(`expected the string at character ${start} to end, but it does not`)
      if (code === 0x22) break
      if (code < 0x20) throw this.refuse(`expected no control character in a string, but character ${end} is one`)
      if (code === 0x5c) {
        escaped = true
        end += 1
      }
      end += 1
    }
    this.position = end + 1
    if (!escaped) return this.text.slice(start + 1, end)
    try {
      return JSON.parse(this.text.slice(start, end + 1)) as string
    } catch {
      throw this.refuse(`expected a string at character ${start}, but its escapes are not JSON's`)
    }
  }

  /** A safe integer that is not negative, written as one. */
  integer(): number {
    this.peek()
    const digits = this.number()
    const value = Number(digits)
    if (!/^(0|[1-9][0-9]*)$/.test(digits) || !Number.isSafeInteger(value)) {
      throw this.refuse(`expected an integer from 0 to 2^53 - 1, not ${quote(digits)}`)
    }
    return value
  }

  private number(): string {
    const pattern = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
    pattern.lastIndex = this.position
    const match = pattern.exec(this.text)
    if (match === null) throw this.fail('a number')
    this.position = pattern.lastIndex
    return match[0]
  }

  /** An array of at most `limit` integers. */
  integers(limit: number): number[] {
    const values: number[] = []
    this.take('[')
    if (this.takeIf(']')) return values
    do {
      if (values.length === limit) throw this.refuse(`expected a list of ${limit} integers at most, but it is longer`)
      values.push(this.integer())
    } while (this.takeIf(','))
    this.take(']')
    return values
  }

  /** An object: `visit` is called for each key, which no object may have twice, and reads its value. */
  object(visit: (key: string) => void): void {
    const seen = new Set<string>()
    this.take('{')
    if (this.takeIf('}')) return
    do {
      const key = this.string()
      if (seen.has(key)) throw this.refuse(`expected every key once, but ${quote(key)} is there twice`)
      seen.add(key)
      this.take(':')
      visit(key)
    } while (this.takeIf(','))
    this.take('}')
  }

  /** Passes over any value. Keeps nothing of it, and does not call itself. */
  skip(): void {
    const open: string[] = []
    for (;;) {
      const next = this.peek()
      let complete = true
      if (next === '{' || next === '[') {
        if (open.length === 128) throw this.refuse('expected values nested 128 deep at most')
        this.position += 1
        if (!this.takeIf(next === '{' ? '}' : ']')) {
          open.push(next)
          if (next === '{') this.key()
          complete = false
        }
      } else if (next === '"') {
        this.string()
      } else if (/[tfn]/.test(next)) {
        const word = ['true', 'false', 'null'].find((w) => this.text.startsWith(w, this.position))
        if (word === undefined) throw this.fail('a value')
        this.position += word.length
      } else {
        this.number()
      }
      while (complete) {
        const inside = open.at(-1)
        if (inside === undefined) return
        if (this.takeIf(',')) {
          if (inside === '{') this.key()
          complete = false
        } else {
          this.take(inside === '{' ? '}' : ']')
          open.pop()
        }
      }
    }
  }

  private key(): void {
    this.string()
    this.take(':')
  }

  /** Nothing but blanks may be left. */
  end(): void {
    if (this.peek() !== '') throw this.fail('nothing more')
  }
}
