import { createHash } from 'node:crypto'
import {
  accessSync,
  constants,
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'

/** The first executable of this name on PATH, without starting a process. */
export function findExecutable(name: string, searchPath = process.env.PATH ?? ''): string | null {
  const endings = process.platform === 'win32' ? ['.exe', '.cmd', '.bat', ''] : ['']
  for (const folder of searchPath.split(delimiter)) {
    if (folder === '') continue
    for (const ending of endings) {
      const candidate = join(folder, name + ending)
      try {
        accessSync(candidate, constants.X_OK)
        if (statSync(candidate).isFile()) return candidate
      } catch {
        // Not here: the next folder.
      }
    }
  }
  return null
}

/** A JSON file as an object, or null where it is missing or damaged: every such file can be made again. */
export function readRecord(file: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(readFileSync(file, 'utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : null
  } catch {
    return null
  }
}

/** Writes a file beside its place and renames it: nobody sees half of it, and a full disk leaves the old one. */
export function writeWhole(file: string, content: string | Buffer, beside = `${file}.part`): void {
  try {
    writeFileSync(beside, content)
    renameSync(beside, file)
  } finally {
    if (existsSync(beside)) rmSync(beside)
  }
}

/** Writes a JSON file, and the folders above it, as {@link writeWhole} does; several processes may do so at once. */
export function writeRecord(file: string, value: object): void {
  mkdirSync(dirname(file), { recursive: true })
  writeWhole(file, `${JSON.stringify(value, null, 2)}\n`, `${file}.${process.pid}`)
}

/** The SHA-256 of a file, in hexadecimal. */
export async function sha256OfFile(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}

/** Whether a folder can be written to, or made. */
export function isWritable(folder: string): boolean {
  let existing = folder
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing)
  try {
    accessSync(existing, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** Makes a folder and those above it, one by one: Node 20's `recursive` never returns where a kernel refuses (below /proc). */
export function makeFolders(folder: string): void {
  const path = resolve(folder)
  const isThere = () => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  if (isThere()) return
  if (dirname(path) !== path) makeFolders(dirname(path))
  try {
    mkdirSync(path)
  } catch (error) {
    // another process may have been faster
    if (!isThere()) throw error
  }
}
