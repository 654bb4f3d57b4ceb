import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs'

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
