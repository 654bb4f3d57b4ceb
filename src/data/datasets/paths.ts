import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, isAbsolute, join, posix } from 'node:path'

/**
 * A table's path below the data set's folder, with '/' between.
 *
 * @returns null where it leaves the folder, is absolute, or is no path
 */
export function pathBelow(path: string): string | null {
  const slashed = path.replaceAll('\\', '/')
  if (slashed === '' || slashed.includes('\0') || slashed.startsWith('/') || /^[a-z]:/i.test(slashed)) return null
  // the common case is as it should be
  if (!/(^|\/)\.{0,2}(\/|$)/.test(slashed)) return slashed
  const normal = posix.normalize(slashed)
  return normal === '.' || normal === '..' || normal.startsWith('../') ? null : normal.replace(/\/$/, '')
}

export const leavesFolder = (path: string): string =>
  `expected a path below the data folder, but received ${JSON.stringify(path.slice(0, 200))}`

/**
 * Whose image a file is, by the names that the public data sets give their files: CheXpert's `patient00001/`, MIMIC-CXR's `p10000032/`,
 * ChestX-ray14's `00000001_000.png`. A file named otherwise is a patient of its own.
 */
export function patientOfPath(path: string): string {
  const folder = /(?:^|\/)(patient\d+|p\d{8})\//.exec(path)
  if (folder !== null) return folder[1]!
  return /^(\d{8})_\d{3}\.\w+$/.exec(basename(path))?.[1] ?? path
}

export const IMAGE_FILE = /\.(jpe?g|png|tiff?|webp|dcm|dicom)$/i

/** @throws Error where the folder is not there */
export function existingFolder(folder: string): void {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Error(
      `expected the folder of a data set, but ${folder} is ${existsSync(folder) ? 'a file' : 'not there'}`,
    )
  }
}

/**
 * The first of the tables that is there, also in gzip or zip.
 *
 * @throws Error where none is
 */
export function findTable(root: string, names: readonly string[]): string {
  existingFolder(root)
  for (const name of names) {
    for (const ending of ['', '.gz', '.zip']) {
      const file = isAbsolute(name) ? name + ending : join(root, name + ending)
      if (existsSync(file)) return file
    }
  }
  throw new Error(`expected ${names.join(' or ')} in ${root}, but there is no such file`)
}

/** The tables in a folder by name. */
export const tablesIn = (folder: string): string[] =>
  readdirSync(folder)
    .filter((name) => /\.(csv|tsv|jsonl|ndjson|parquet)(\.gz|\.zip)?$/i.test(name))
    .sort()
