import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach } from 'vitest'

const made: string[] = []

afterEach(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true })
})

/** A new empty folder that is removed after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'cleft-test-'))
  made.push(folder)
  return folder
}

/** Writes files given by path and contents. */
export function writeFiles(folder: string, files: Readonly<Record<string, string>>): void {
  for (const [name, data] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), data)
  }
}

/** A program on a PATH of its own, written in JavaScript. */
export function fakeProgram(folder: string, name: string, code: string): void {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, name), `#!${process.execPath}\n${code}`)
  chmodSync(join(folder, name), 0o755)
}
