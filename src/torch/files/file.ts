import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, openSync, readSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { reasonOf, WeightsFileError } from './error.js'

/** A file open for reading. */
export class InputFile {
  private constructor(
    readonly path: string,
    private fd: number,
    readonly size: number,
  ) {}

  /** @throws WeightsFileError where there is no such file, it may not be read, or it is a folder, a pipe or a device */
  static open(path: string): InputFile {
    try {
      // looked at before it is opened: opening a named pipe waits for a writer
      const status = statSync(path)
      if (!status.isFile()) {
        const kind = status.isDirectory() ? 'a folder' : 'no regular file'
        throw new WeightsFileError(path, `expected a weights file, but '${path}' is ${kind}; give the path of a file`)
      }
      return new InputFile(path, openSync(path, 'r'), status.size)
    } catch (thrown) {
      if (thrown instanceof WeightsFileError) throw thrown
      const missing = (thrown as NodeJS.ErrnoException).code === 'ENOENT'
      const message = missing
        ? `expected a weights file, but '${path}' does not exist; check the path`
        : `expected a weights file that can be read, but '${path}' cannot: ${reasonOf(thrown)}`
      throw new WeightsFileError(path, message, { cause: thrown })
    }
  }

  /** Reads exactly `length` bytes from `position` into `buffer`; false where the file ends before. */
  readInto(buffer: Uint8Array, offset: number, length: number, position: number): boolean {
    if (!(position >= 0 && length >= 0 && position + length <= this.size)) return false
    let done = 0
    while (done < length) {
      // one call reads 2 GiB at most
      const count = readSync(this.fd, buffer, offset + done, Math.min(length - done, 1 << 30), position + done)
      if (count === 0) return false
      done += count
    }
    return true
  }

  /** @throws WeightsFileError where the file ends before (what: whose bytes they are) */
  read(position: number, length: number, what: string): Buffer {
    const ends = () =>
      new WeightsFileError(
        this.path,
        `expected ${length} bytes of ${what} from byte ${position} on, but '${this.path}' ends at byte ${this.size}; ` +
          'the file is truncated or damaged, get it again',
      )
    // checked before memory is taken: the length came out of the file
    if (!(position >= 0 && length >= 0 && position + length <= this.size)) throw ends()
    const buffer = Buffer.allocUnsafeSlow(length)
    if (!this.readInto(buffer, 0, length, position)) throw ends()
    return buffer
  }

  close(): void {
    if (this.fd >= 0) closeSync(this.fd)
    this.fd = -1
  }
}

/** What tensors are copied through on their way to a file. */
const CHUNK = 16 << 20

/**
 * A file that is written beside its place, under another name, and takes its place when it is complete and on the disk:
 * who reads the path sees the file before or the file after, whatever happens between. A symbolic link is replaced, not
 * what it points to (in Hugging Face's cache that is a shared file named by its hash).
 */
export class OutputFile {
  readonly path: string
  private readonly temporary: string
  private fd: number
  /** Bytes written so far. */
  position = 0

  /** @throws WeightsFileError where the folder does not exist or cannot be written */
  constructor(path: string) {
    this.path = path
    this.temporary = join(
      dirname(this.path),
      `.${basename(this.path).slice(0, 180)}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`,
    )
    try {
      this.fd = openSync(this.temporary, 'wx', 0o666)
    } catch (thrown) {
      throw new WeightsFileError(
        path,
        `expected a path that can be written, but '${path}' cannot: ${reasonOf(thrown)}`,
        {
          cause: thrown,
        },
      )
    }
  }

  /** Appends bytes, or writes them over earlier ones at `position`. */
  write(bytes: Uint8Array, position?: number): void {
    let done = 0
    try {
      while (done < bytes.length) {
        const at = (position ?? this.position) + done
        done += writeSync(this.fd, bytes, done, Math.min(bytes.length - done, 1 << 30), at)
      }
    } catch (thrown) {
      throw new WeightsFileError(
        this.path,
        `expected to write '${this.path}', but writing failed (the file there before is untouched): ${reasonOf(thrown)}`,
        { cause: thrown },
      )
    }
    if (position === undefined) this.position += bytes.length
  }

  /** Appends what `copy` gives piece by piece, and shows each piece to `see`. */
  writeChunks(
    length: number,
    copy: (offset: number, length: number) => Uint8Array,
    see?: (bytes: Uint8Array) => void,
  ): void {
    for (let offset = 0; offset < length; offset += CHUNK) {
      const bytes = copy(offset, Math.min(CHUNK, length - offset))
      see?.(bytes)
      this.write(bytes)
    }
  }

  /** Everything is on the disk, still under the temporary name. */
  finish(): void {
    fsyncSync(this.fd)
    closeSync(this.fd)
    this.fd = -1
  }

  /** Puts a finished file in its place. */
  commit(): void {
    if (this.fd >= 0) this.finish()
    renameSync(this.temporary, this.path)
    syncFolder(dirname(this.path))
  }

  /** Removes what was written; nothing where it is in its place already. */
  discard(): void {
    if (this.fd >= 0) closeSync(this.fd)
    this.fd = -1
    rmSync(this.temporary, { force: true })
  }
}

/** Writes a file as a whole, or not at all. */
export function writeFileSafely(path: string, write: (file: OutputFile) => void): void {
  const file = new OutputFile(path)
  try {
    write(file)
    file.commit()
  } catch (thrown) {
    file.discard()
    throw thrown
  }
}

/** Without it the rename itself may be lost with the power. Not every system lets a folder be synchronised. */
function syncFolder(folder: string): void {
  try {
    const fd = openSync(folder, 'r')
    try {
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  } catch {
    // Windows and some network file systems
  }
}
