import { createHash } from 'node:crypto'
import { createWriteStream, mkdirSync } from 'node:fs'
import { basename, dirname, resolve, sep } from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type Entry, openPromise, type ZipFile } from 'yauzl'
import { messageOf, SetupError } from './errors.js'
import { type Reporter, silentReporter } from './report.js'

/** METADATA and RECORD are small texts: more than this is no wheel. */
const TEXT_LIMIT = 64 << 20

export interface WheelContents {
  /** The text of METADATA. */
  readonly metadata: string
  /** The version in METADATA, with its local part where it has one. */
  readonly version: string
  readonly name: string
  /** True where the wheel holds libtorch_cuda. */
  readonly hasCuda: boolean
  /** For a torch wheel, the CUDA version of its version.py. */
  readonly cuda: string | null
}

interface OpenWheel {
  readonly zip: ZipFile
  readonly entries: ReadonlyMap<string, Entry>
}

async function open(file: string): Promise<OpenWheel> {
  let zip: ZipFile | undefined
  try {
    zip = await openPromise(file, { autoClose: false, lazyEntries: true })
    const entries = new Map<string, Entry>()
    for await (const entry of zip.eachEntry()) entries.set(entry.fileName, entry)
    return { zip, entries }
  } catch (error) {
    zip?.close()
    throw new SetupError(
      `a wheel was expected in ${file}, and it cannot be read (${messageOf(error)}); delete it and run the set-up again`,
    )
  }
}

async function readText(wheel: OpenWheel, name: string, file: string): Promise<string> {
  const entry = wheel.entries.get(name)
  if (entry === undefined || entry.uncompressedSize > TEXT_LIMIT) {
    throw new SetupError(
      `${basename(file)} was expected to hold ${name}, and does not; delete it and run the set-up again`,
    )
  }
  const chunks: Buffer[] = []
  for await (const chunk of await wheel.zip.openReadStreamPromise(entry)) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks).toString('utf8')
}

function distInfo(wheel: OpenWheel, file: string): string {
  for (const name of wheel.entries.keys()) {
    const folder = name.match(/^([^/]+\.dist-info)\/RECORD$/)?.[1]
    if (folder !== undefined) return folder
  }
  throw new SetupError(
    `${basename(file)} was expected to be a wheel, and holds no RECORD; delete it and run the set-up again`,
  )
}

/** Looks into a wheel without unpacking it. */
export async function inspectWheel(file: string): Promise<WheelContents> {
  const wheel = await open(file)
  try {
    const metadata = await readText(wheel, `${distInfo(wheel, file)}/METADATA`, file)
    const header = (name: string) => metadata.match(new RegExp(`^${name}:\\s*(\\S+)`, 'mi'))?.[1] ?? ''
    const names = [...wheel.entries.keys()]
    const versionFile = wheel.entries.has('torch/version.py') ? await readText(wheel, 'torch/version.py', file) : ''
    // A wheel of the public index has no local version in its name, but its version.py has.
    const version = versionFile.match(/^__version__\s*=\s*['"]([^'"]+)/m)?.[1] ?? header('Version')
    return {
      metadata,
      version,
      name: header('Name'),
      hasCuda: names.some((name) => /^torch\/lib\/(lib)?torch_cuda\.(so|dll)/.test(name)),
      cuda: versionFile.match(/^cuda\b[^=]*=\s*['"]([^'"]+)['"]/m)?.[1] ?? null,
    }
  } finally {
    wheel.zip.close()
  }
}

/** RECORD's lines: path, sha256=..., size. A path with a comma stands in quotes. */
export function parseRecord(text: string): Map<string, string> {
  const hashes = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const match = line.match(/^(?:"((?:[^"]|"")*)"|([^,]*)),sha256=([^,]*),/)
    if (match) hashes.set((match[1]?.replaceAll('""', '"') ?? match[2]) || '', match[3] ?? '')
  }
  return hashes
}

/** What of a wheel is needed: libraries, headers and the words about them. */
export function isNeeded(name: string): boolean {
  return /^(torch\/(lib|include)\/|torch\/version\.py$|nvidia\/)/.test(name) || /^[^/]+\.dist-info\//.test(name)
}

/**
 * Unpacks what is needed of a wheel into a folder. Each file is compared with the SHA-256 that the wheel's RECORD gives for
 * it, and no file may lie outside the folder.
 */
export async function unpackWheel(
  file: string,
  folder: string,
  options: { readonly reporter?: Reporter; readonly wanted?: (name: string) => boolean } = {},
): Promise<number> {
  const wanted = options.wanted ?? isNeeded
  const target = resolve(folder)
  const wheel = await open(file)
  try {
    const info = distInfo(wheel, file)
    const record = parseRecord(await readText(wheel, `${info}/RECORD`, file))
    const entries = [...wheel.entries.values()].filter(
      (entry) => !entry.fileName.endsWith('/') && wanted(entry.fileName),
    )
    const total = entries.reduce((sum, entry) => sum + entry.uncompressedSize, 0)
    const progress = (options.reporter ?? silentReporter).progress(`unpacking ${basename(file)}`, total, 'MB')
    let done = 0
    for (const entry of entries) {
      const path = resolve(target, entry.fileName)
      const refuse = (what: string) =>
        new SetupError(`${basename(file)}: ${entry.fileName} ${what}; delete ${file} and run the set-up again`)
      if (!path.startsWith(target + sep)) throw refuse('was expected to lie inside the wheel, and points outside')
      const mode = entry.externalFileAttributes >>> 16
      if ((mode & 0o170000) === 0o120000) throw refuse('was expected to be a file, and is a link')
      const expected = record.get(entry.fileName)
      // RECORD cannot hold its own sum, nor those of signatures over it.
      const exempt = entry.fileName === `${info}/RECORD` || /\/RECORD\.(jws|p7s)$/.test(entry.fileName)
      if (expected === undefined && !exempt) throw refuse('is not in RECORD')
      mkdirSync(dirname(path), { recursive: true })
      const hash = createHash('sha256')
      const counted = new Transform({
        transform(chunk: Buffer, _encoding, callback) {
          hash.update(chunk)
          done += chunk.length
          progress.update(done)
          callback(null, chunk)
        },
      })
      const output = createWriteStream(path, { mode: mode & 0o111 ? 0o755 : 0o644 })
      await pipeline(await wheel.zip.openReadStreamPromise(entry), counted, output)
      const found = hash.digest('base64url')
      if (!exempt && found !== expected) throw refuse(`was expected to have the SHA-256 ${expected}, and has ${found}`)
    }
    progress.finish()
    return entries.length
  } catch (error) {
    if (error instanceof SetupError) throw error
    throw new SetupError(
      `unpacking ${basename(file)} failed: ${messageOf(error)}; delete ${file} and run the set-up again`,
    )
  } finally {
    wheel.zip.close()
  }
}
