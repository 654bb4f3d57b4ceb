import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { writeRecord } from '../../setup/files.js'
import type { PrepareSettings } from '../loader/decoders.js'

/*
 * A folder of prepared images:
 *
 *   prepared.json             what they are: settings, the data set's kind
 *   shard-00000.safetensors   images [N, 1, S, S] (uint8 or uint16), boxes [N, 4] (int32: top, left, bottom, right, inclusive),
 *                             rows [N] (int64: the first row of the table with that path), hashes [N, 32] (uint8: SHA-256 of
 *                             the pixels' bytes); metadata `paths` and `warnings`, JSON lists with N entries
 *   problems.json             files that could not be prepared, and why
 *
 * Which image lies in which shard says nothing: they are found by path. In Python: safetensors.safe_open(...).
 */

export const FORMAT = 'cleft-prepared-1'
const SETTINGS_FILE = 'prepared.json'
export const PROBLEMS_FILE = 'problems.json'
const LOCK_FILE = 'writing.lock'

const folderSchema = z.object({
  format: z.literal(FORMAT),
  kind: z.string(),
  size: z.int().positive(),
  bits: z.union([z.literal(8), z.literal(16)]),
  windowing: z.union([z.literal('published'), z.literal('dicom')]),
})

/** Kinds that are made of the same images may share a folder. */
export const imagesOfKind = (kind: string): string => (kind === 'chexpert-5x200' ? 'chexpert' : kind)

/** What a folder of prepared images says of itself. */
export interface PreparedFolder {
  readonly kind: string
  readonly settings: PrepareSettings
}

/** @returns null where there is no such folder yet, or an empty one */
export function readFolder(folder: string): PreparedFolder | null {
  let text: string
  try {
    text = readFileSync(join(folder, SETTINGS_FILE), 'utf8')
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null
    throw new Error(`expected a folder of prepared images, but '${folder}' cannot be read: ${(error as Error).message}`)
  }
  let parsed: ReturnType<typeof folderSchema.safeParse> | null = null
  try {
    parsed = folderSchema.safeParse(JSON.parse(text))
  } catch {
    // said below
  }
  if (parsed?.success !== true) {
    throw new Error(
      `expected '${join(folder, SETTINGS_FILE)}' to be what \`cleft prepare\` writes (${FORMAT}), but it is not; prepare into another folder`,
    )
  }
  const { kind, size, bits, windowing } = parsed.data
  return { kind, settings: { size, bits, windowing } }
}

export const describeFolder = ({ kind, settings: { size, bits, windowing } }: PreparedFolder): string =>
  `${kind}, ${size} pixels, ${bits} bits, windowing '${windowing}'`

/**
 * Makes the folder, or finds that it is one of the same kind and settings.
 *
 * @throws where it was prepared otherwise, or is somebody else's folder with other files in it
 */
export function claimFolder(folder: string, wanted: PreparedFolder): void {
  const there = readFolder(folder)
  if (there !== null) {
    if (describeFolder(there) === describeFolder(wanted)) return
    throw new Error(
      `expected '${folder}' to be prepared as ${describeFolder(wanted)}, but it is ${describeFolder(there)}; give another folder`,
    )
  }
  try {
    makeFolder(folder)
    const others = readdirSync(folder).filter((name) => name !== LOCK_FILE && !name.startsWith(`${SETTINGS_FILE}.`))
    if (others.length > 0) {
      throw new Error(`it holds other files (${others.slice(0, 3).join(', ')})`)
    }
    writeRecord(join(folder, SETTINGS_FILE), { format: FORMAT, kind: wanted.kind, ...wanted.settings })
  } catch (error) {
    throw new Error(
      `expected a folder to write prepared images to, but '${folder}' is none: ${(error as Error).message}; give another one`,
    )
  }
}

/** Node's own recursive mkdir never ends where the system says that there is no parent though there is one, as below /proc. */
function makeFolder(folder: string): void {
  if (existsSync(folder)) return
  if (dirname(folder) !== folder) makeFolder(dirname(folder))
  mkdirSync(folder)
}

/** Names of the shards in a folder, in order. */
export function shardNames(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /^shard-\d{5,}\.safetensors$/.test(name))
    .sort((a, b) => shardNumber(a) - shardNumber(b))
}

export const shardNumber = (name: string): number => Number(/\d+/.exec(name)?.[0])
export const shardName = (number: number): string => `shard-${String(number).padStart(5, '0')}.safetensors`

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/**
 * Lets one process write to a folder at a time, and removes what one that was killed left half written.
 *
 * @returns what gives it back
 * @throws where another one is writing
 */
export function lockFolder(folder: string): () => void {
  const lock = join(folder, LOCK_FILE)
  for (let attempt = 0; ; attempt += 1) {
    try {
      const file = openSync(lock, 'wx')
      writeSync(file, `${process.pid}\n`)
      closeSync(file)
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        throw new Error(`expected a folder that can be written to, but '${folder}' cannot: ${(error as Error).message}`)
      }
      const owner = Number.parseInt(readOr(lock, ''), 10)
      if (attempt > 0 || (owner !== process.pid && isRunning(owner))) {
        throw new Error(
          `expected to be alone in '${folder}', but process ${owner} is preparing images there; wait for it, or remove '${lock}'`,
        )
      }
      rmSync(lock, { force: true })
    }
  }
  for (const name of readdirSync(folder)) {
    if (/^\.shard-.*\.tmp$/.test(name)) rmSync(join(folder, name), { force: true })
  }
  return () => rmSync(lock, { force: true })
}

function readOr(file: string, otherwise: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return otherwise
  }
}
