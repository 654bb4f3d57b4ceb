import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { download, fetchText } from './download.js'
import { SetupError } from './errors.js'
import { onEarlyExit } from './exit.js'
import { sha256OfFile } from './files.js'
import { findPython } from './libtorch.js'
import type { Reporter } from './report.js'
import { compareVersions, fitsSpecifier, normalizeName } from './requirements.js'
import { run } from './run.js'

export const TORCH_ARCHIVE = 'https://download.pytorch.org/whl'

export interface Wheel {
  readonly file: string
  readonly sha256: string
  /** Where it came from, for people. */
  readonly from: string
}

/** Somewhere wheels come from. */
export interface WheelSource {
  readonly name: string
  /** Puts the wheel of a requirement into a folder; throws a SetupError where it has none. */
  fetch(name: string, specifier: string, folder: string, reporter: Reporter): Promise<Wheel>
}

/** The tags that pip is asked for when the Python here has no wheel: only libraries and headers are used. */
function platformTags(): string[] {
  const arm = process.arch === 'arm64'
  if (process.platform === 'darwin') return [arm ? 'macosx_14_0_arm64' : 'macosx_10_9_x86_64']
  if (process.platform === 'win32') return ['win_amd64']
  // pip takes given tags literally, so that each older one has to be named too.
  return ['2_28', '2_27', '2_17', '2014'].map(
    (glibc) => `manylinux${glibc === '2014' ? '' : '_'}${glibc}_${arm ? 'aarch64' : 'x86_64'}`,
  )
}

function isForPlatform(file: string): boolean {
  if (/-any\.whl$/.test(file)) return true
  const machine = process.arch === 'arm64' ? '(aarch64|arm64)' : '(x86_64|amd64)'
  const system = { darwin: 'macosx', win32: 'win' }[process.platform as string] ?? 'linux'
  return new RegExp(`${system}[a-z0-9_]*_${machine}|${system}_${machine}`).test(file)
}

/** The parts of a wheel's file name that matter here. */
export function parseWheelName(file: string): { name: string; version: string; python: string } | null {
  const match = file.match(/^([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+)-[^-]+-[^-]+\.whl$/)
  if (!match) return null
  return { name: normalizeName(match[1] ?? ''), version: match[2] ?? '', python: match[3] ?? '' }
}

/** A wheel that an earlier run has finished fetching from the same source. */
function finishedWheel(folder: string, name: string, specifier: string): string | null {
  if (!existsSync(folder)) return null
  for (const file of readdirSync(folder)) {
    const parsed = parseWheelName(file)
    if (parsed?.name === name && fitsSpecifier(parsed.version, specifier)) return join(folder, file)
  }
  return null
}

/** pip, with the user's own configuration, mirror and certificates; or with another index in their place. */
export function pipSource(python: string, index: string | null): WheelSource {
  const name = index === null ? 'pip' : `pip from ${index}`
  return {
    name,
    async fetch(wanted, specifier, folder, reporter) {
      const known = finishedWheel(folder, wanted, specifier)
      if (known !== null) return { file: known, sha256: await sha256OfFile(known), from: name }
      mkdirSync(folder, { recursive: true })
      // pip copies into its folder last: beside and renamed, half a copy is never taken for a wheel.
      const beside = mkdtempSync(join(folder, '.pip-'))
      const forget = onEarlyExit(() => rmSync(beside, { recursive: true, force: true }))
      try {
        const where = index === null ? [] : ['--index-url', index, '--retries', '1', '--timeout', '20']
        const base = [
          '-m',
          'pip',
          'download',
          '--no-deps',
          '--only-binary=:all:',
          '--disable-pip-version-check',
          '--no-input',
          '--dest',
          beside,
        ]
        if (await hasResume(python)) base.push('--resume-retries', '20')
        const other = (version: string) => [
          '--python-version',
          version,
          ...platformTags().flatMap((tag) => ['--platform', tag]),
        ]
        let failure = ''
        // The Python's own kind first; any other does as well, since nothing of Python's is used.
        for (const tags of [[], other('3.12'), other('3.11'), other('3.13')]) {
          const finished = await run(python, [...base, ...where, ...tags, `${wanted}${specifier}`], {
            show: reporter.interactive,
          })
          const file = readdirSync(beside).find((entry) => entry.endsWith('.whl'))
          if (finished.status === 0 && file !== undefined) {
            const target = join(folder, file)
            renameSync(join(beside, file), target)
            return { file: target, sha256: await sha256OfFile(target), from: name }
          }
          const lines = finished.stderr.split('\n').filter((line) => /^ERROR:/.test(line))
          failure ||= lines.at(-1)?.replace(/^ERROR:\s*/, '') ?? `status ${finished.status}`
          if (finished.status === 127) break
          // Only "no such wheel" is worth another tag; a broken network stays broken.
          if (!/no matching distribution|could not find a version/i.test(finished.stderr)) break
        }
        throw new SetupError(`${name} was expected to bring ${wanted}${specifier}, and did not: ${failure}`)
      } finally {
        forget()
        rmSync(beside, { recursive: true, force: true })
      }
    },
  }
}

const resumes = new Map<string, boolean>()

/** pip resumes broken downloads since 25.1, and only when told to. */
async function hasResume(python: string): Promise<boolean> {
  const known = resumes.get(python)
  if (known !== undefined) return known
  const { stdout } = await run(python, ['-m', 'pip', '--version'], { timeout: 60_000 })
  const version = stdout.match(/^pip (\d+\.\d+)/)?.[1] ?? '0'
  const answer = compareVersions(version, '25.1') >= 0
  resumes.set(python, answer)
  return answer
}

interface IndexedWheel {
  readonly file: string
  readonly url: string
  readonly sha256: string | undefined
}

/** The wheels that a page of a package index links to. */
export function parseIndex(page: string, url: string): IndexedWheel[] {
  const found: IndexedWheel[] = []
  for (const match of page.matchAll(/<a\s[^>]*href\s*=\s*["']([^"']+)["']/gi)) {
    const address = new URL((match[1] ?? '').replaceAll('&amp;', '&'), url)
    const file = decodeURIComponent(basename(address.pathname))
    if (!file.endsWith('.whl')) continue
    const sha256 = address.hash.match(/sha256=([0-9a-f]{64})/i)?.[1]?.toLowerCase()
    address.hash = ''
    found.push({ file, url: address.href, sha256 })
  }
  return found
}

/** The best of an index's wheels for a requirement: newest version, then a usual Python, on this platform. */
export function chooseWheel(wheels: readonly IndexedWheel[], name: string, specifier: string): IndexedWheel | null {
  const rank = (python: string) => ['cp313', 'cp311', 'cp312'].indexOf(python)
  const fitting = wheels.flatMap((wheel) => {
    const parsed = parseWheelName(wheel.file)
    const fits =
      parsed !== null && parsed.name === name && isForPlatform(wheel.file) && fitsSpecifier(parsed.version, specifier)
    return fits ? [{ wheel, parsed }] : []
  })
  fitting.sort(
    (a, b) => compareVersions(b.parsed.version, a.parsed.version) || rank(b.parsed.python) - rank(a.parsed.python),
  )
  return fitting[0]?.wheel ?? null
}

/** PyTorch's own archive through our own downloader: needs no Python, resumes, and checks the index's SHA-256. */
export function archiveSource(base: string, flavour: string): WheelSource {
  const name = `${base}/${flavour}`
  return {
    name,
    async fetch(wanted, specifier, folder, reporter) {
      const url = `${name}/${wanted}/`
      const page = await fetchText(url)
      const wheel = page === null ? null : chooseWheel(parseIndex(page, url), wanted, specifier)
      if (wheel === null) throw new SetupError(`${url} was expected to list ${wanted}${specifier}, and does not`)
      const file = join(folder, wheel.file)
      await download(wheel.url, file, { sha256: wheel.sha256, reporter })
      return { file, sha256: await sha256OfFile(file), from: wheel.url }
    },
  }
}

/** The Python whose pip can be used, or null. */
export async function findPip(): Promise<string | null> {
  const python = findPython()
  if (python === null) return null
  const { status } = await run(python, ['-m', 'pip', '--version'], { timeout: 60_000 })
  return status === 0 ? python : null
}
