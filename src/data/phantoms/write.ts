import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { PhantomSettings } from './kind.js'
import { PHANTOM_KINDS } from './kinds.js'

/** Under another name first: a file that is there is whole. */
export async function writeWhole(path: string, content: string | Uint8Array): Promise<void> {
  const part = `${path}.part`
  try {
    await makeFolder(dirname(path))
    await writeFile(part, content)
    await rename(part, path)
  } catch (error) {
    // Half a file on a full disk helps nobody.
    await rm(part, { force: true }).catch(() => {})
    throw new Error(describeWriteError(path, error))
  }
}

/** With all folders above it. Node's own way of that (recursive) never returns below /proc. */
async function makeFolder(path: string): Promise<void> {
  const make = async () =>
    await mkdir(path).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST' || !(await stat(path)).isDirectory()) throw error
    })
  try {
    await make()
  } catch (error) {
    const isMissing = error instanceof Error && 'code' in error && error.code === 'ENOENT'
    if (!isMissing || dirname(path) === path) throw error
    await makeFolder(dirname(path))
    await make()
  }
}

function describeWriteError(path: string, error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const reasons: Readonly<Record<string, string>> = {
    ENOSPC: 'the disk is full; free some space and run the same command again, which goes on where it stopped',
    EDQUOT: 'the quota is used up; free some space and run the same command again, which goes on where it stopped',
    EACCES: 'permission is denied; choose a folder that can be written to',
    EPERM: 'permission is denied; choose a folder that can be written to',
    ENOENT: 'the folder cannot be made there; choose another',
    EROFS: 'the file system is read-only; choose another folder',
    ENOTDIR: 'a file lies where a folder is needed; choose another folder',
    EEXIST: 'a file lies where a folder is needed; choose another folder',
    EISDIR: 'a folder lies where the file belongs; choose another folder',
  }
  return `${path} was expected to be written, but ${reasons[code] ?? (error instanceof Error ? error.message : String(error))}`
}

async function exists(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch {
    return false
  }
}

/** Draws and writes what a patient's files lack; how many images the patient has. */
export async function writePatient(out: string, settings: PhantomSettings, patient: number): Promise<number> {
  const images = PHANTOM_KINDS[settings.kind].images(settings, patient)
  for (const image of images) {
    const path = join(out, image.path)
    if (await exists(path)) continue
    await writeWhole(path, await image.encode(image.draw()))
  }
  return images.length
}
