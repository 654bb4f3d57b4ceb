import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { messageOf } from '../../setup/errors.js'

/** Writes a file beside its place and renames it: nobody sees half of it, and a full disk leaves the old one. */
export function writeWhole(file: string, content: string | Buffer): void {
  const beside = `${file}.part`
  try {
    writeFileSync(beside, content)
    renameSync(beside, file)
  } finally {
    if (existsSync(beside)) rmSync(beside)
  }
}

/** Makes a folder, and those above it. @throws Error in one sentence where it cannot be made */
export function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true })
  } catch (error) {
    throw new Error(
      `expected a folder for a report, but ${folder} cannot be made (${messageOf(error)}); give another place`,
      { cause: error },
    )
  }
}
