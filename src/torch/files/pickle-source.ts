/** Default of what one file's pickles may take of memory. */
export const MAX_PICKLE_MEMORY = 256 << 20
/** Default of how long a file's pickles may be. Tensors are not in there. */
export const MAX_PICKLE_BYTES = 256 << 20

/** A pickle's bytes. Where they are in front of a file, more are read as they are wanted. */
export class PickleSource {
  position = 0

  /** @param more gives bytes from the beginning to at least `end`, or null where there are not so many */
  constructor(
    private bytes: Buffer,
    private readonly more?: (end: number) => Buffer | null,
  ) {}

  /** Passes `count` bytes, and says where they begin; -1 where there are fewer. */
  private pass(count: number): number {
    const start = this.position
    const end = start + count
    if (end > this.bytes.length) {
      const more = this.more?.(end) ?? null
      if (more === null || more.length < end) return -1
      this.bytes = more
    }
    this.position = end
    return start
  }

  /** `count` bytes, not copied; null where there are fewer. */
  take(count: number): Buffer | null {
    const start = this.pass(count)
    return start < 0 ? null : this.bytes.subarray(start, start + count)
  }

  /** One byte, or -1 at the end. */
  byte(): number {
    const start = this.pass(1)
    return start < 0 ? -1 : (this.bytes[start] as number)
  }

  /** A line without its end, at most `limit` bytes; null where there is none. */
  line(limit: number): Buffer | null {
    const start = this.position
    for (let end = start; end < start + limit; end += 1) {
      const code = this.byte()
      if (code < 0) return null
      if (code === 0x0a) return this.bytes.subarray(start, end)
    }
    return null
  }
}
