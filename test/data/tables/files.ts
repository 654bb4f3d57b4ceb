import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { writeZip } from '../../setup/zip.js'

/** A folder of files that the test leaves no trace of. */
export function folderOf(files: Readonly<Record<string, string | Uint8Array>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'cleft-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
  return folder
}

export const fileOf = (content: string | Uint8Array, name = 'table.csv'): string =>
  join(folderOf({ [name]: content }), name)

/** The bytes of an archive of files, without compression. */
export function zipOf(files: Readonly<Record<string, string>>): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'cleft-'))
  try {
    const file = join(folder, 'archive.zip')
    writeZip(
      file,
      Object.entries(files).map(([name, data]) => ({ name, data })),
    )
    return readFileSync(file)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
