import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ADDON, buildWithCMake, sourceFiles } from './builders.js'
import { SetupError } from './errors.js'
import { findExecutable, readRecord, writeRecord } from './files.js'
import { describeLibtorch, flavourOf, type Libtorch } from './libtorch.js'
import { packageRoot } from './paths.js'
import type { Reporter } from './report.js'
import { run } from './run.js'

/*
 * Add-ons that come built, for machines without a compiler: prebuilt/<name>/{cleft.node, record.json} in the package.
 * They look for libtorch's libraries in the folder libtorch/ beside themselves, which is made where they are put.
 */

/** The folder beside a prebuilt add-on in which it looks for libtorch's libraries. */
export const LIBRARIES_BESIDE = 'libtorch'

export interface Prebuilt {
  readonly file: string
  /** The libtorch that it was built for: 2.13.0+cpu. */
  readonly torch: string
  /** Of CUDA, null for a CPU build. */
  readonly cuda: string | null
  readonly system: string
  /** The SHA-256 of the sources that it was built from. */
  readonly sources: string
}

const SYSTEM = `${process.platform}-${process.arch}`

/** The SHA-256 of everything that decides what the add-on is, but for libtorch. */
export function hashOfSources(root: string): string {
  const hash = createHash('sha256')
  for (const name of sourceFiles(root)) {
    const contents = readFileSync(join(root, name))
    hash.update(`${name.replaceAll('\\', '/')}\0${contents.length}\0`).update(contents)
  }
  return hash.digest('hex')
}

function prebuiltFolder(root: string): string {
  return join(root, 'prebuilt')
}

/** The add-ons that came built with the package. */
export function listPrebuilt(root = packageRoot()): Prebuilt[] {
  const folder = prebuiltFolder(root)
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .sort()
    .flatMap((name) => {
      const file = join(folder, name, ADDON)
      const record = readRecord(join(folder, name, 'record.json'))
      if (record === null || !existsSync(file)) return []
      const { torch, cuda, system, sources } = record
      if (typeof torch !== 'string' || typeof system !== 'string' || typeof sources !== 'string') return []
      return [{ file, torch, cuda: typeof cuda === 'string' ? cuda : null, system, sources }]
    })
}

const describe = ({ torch, cuda, system }: Omit<Prebuilt, 'file' | 'sources'>) =>
  `${torch} (${cuda === null ? 'CPU' : `CUDA ${cuda}`}, ${system})`

const release = (version: string) => version.replace(/\+.*/, '')

/** The prebuilt add-on that fits a libtorch: the same release, the same CUDA, this system, these sources. */
export function fittingPrebuilt(libtorch: Libtorch, root = packageRoot()): Prebuilt | null {
  const sources = hashOfSources(root)
  return (
    listPrebuilt(root).find(
      (each) =>
        each.system === SYSTEM &&
        each.sources === sources &&
        release(each.torch) === release(libtorch.version) &&
        each.cuda === libtorch.cuda,
    ) ?? null
  )
}

/** Why no prebuilt add-on is used, for the end of an error; empty where none came with the package. */
export function whyNoPrebuilt(libtorch: Libtorch, root = packageRoot()): string {
  const all = listPrebuilt(root)
  if (all.length === 0) return ''
  const sources = hashOfSources(root)
  const stale = all.every((each) => each.sources !== sources)
  const why = stale ? 'are of other sources than those in native/' : 'do not fit'
  return `; the add-ons that came built, for libtorch ${all.map(describe).join(' and ')}, ${why}: this libtorch is ${describeLibtorch(libtorch)}, on ${SYSTEM}`
}

/** Builds an add-on that can be carried to another machine, into `prebuilt/` of a package that lies in `packageFolder`. */
export async function makePrebuilt(
  libtorch: Libtorch,
  packageFolder: string,
  work: string,
  reporter: Reporter,
): Promise<Prebuilt> {
  if (findExecutable('cmake') === null) {
    throw new SetupError('CMake was expected to build the add-on for the bundle, and is not on PATH; install it')
  }
  const root = packageRoot()
  mkdirSync(work, { recursive: true })
  reporter.line(`building an add-on to carry along for libtorch ${describeLibtorch(libtorch)}`)
  const made = await buildWithCMake(root, work, libtorch, reporter, { relocatable: true })
  const folder = join(prebuiltFolder(packageFolder), `${release(libtorch.version)}-${flavourOf(libtorch)}`)
  mkdirSync(folder, { recursive: true })
  const file = join(folder, ADDON)
  copyFileSync(made, file)
  // Names for a debugger are a third of the file.
  if (findExecutable('strip') !== null) await run('strip', ['--strip-unneeded', file])
  const record = { torch: libtorch.version, cuda: libtorch.cuda, system: SYSTEM, sources: hashOfSources(root) }
  writeRecord(join(folder, 'record.json'), record)
  return { file, ...record }
}
