import { once } from 'node:events'

const BUFFERED = 1 << 16

/** Lines to standard output, many at a time, no faster than they are read. */
export class Lines {
  #waiting = ''

  async write(line: string): Promise<void> {
    this.#waiting += `${line}\n`
    if (this.#waiting.length >= BUFFERED) await this.flush()
  }

  async flush(): Promise<void> {
    const text = this.#waiting
    this.#waiting = ''
    if (text !== '' && !process.stdout.write(text)) await once(process.stdout, 'drain')
  }
}

/** Ends quietly where the reader has enough, as `cleft inspect FILE | head` does. */
export function endWithReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
}
