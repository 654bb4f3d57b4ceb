import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ADDON, type Builder, buildWithCMake, buildWithNodeGyp, chooseBuilder, findCompiler } from './builders.js'
import { codeOf, SetupError } from './errors.js'
import { onEarlyExit } from './exit.js'
import { isWritable, readRecord, writeRecord } from './files.js'
import { describeLibtorch, type Libtorch, resolveLibtorch } from './libtorch.js'
import { cacheFolder, packageRoot } from './paths.js'
import { fittingPrebuilt, hashOfSources, LIBRARIES_BESIDE, whyNoPrebuilt } from './prebuilt.js'
import { type AddonInfo, probeAddon } from './probe.js'
import { type Reporter, silentReporter } from './report.js'

/** The name of the add-on that belongs to these sources and this libtorch. */
function addonKey(root: string, libtorch: Libtorch): string {
  const parts = [libtorch.root, libtorch.version, libtorch.cuda ?? 'cpu', process.platform, process.arch]
  return createHash('sha256')
    .update([hashOfSources(root), ...parts].join('\0'))
    .digest('hex')
    .slice(0, 24)
}

function addonFile(root: string, libtorch: Libtorch): string {
  return join(cacheFolder(), 'addon', addonKey(root, libtorch), ADDON)
}

/**
 * The built add-on for the current sources and libtorch. Called at each import: it reads some files and starts no
 * process, but for a Python that was never asked about its torch.
 */
export function locateAddon(): string {
  // For whoever builds the add-on in another way, and knows what they do.
  const given = process.env.CLEFT_ADDON
  if (given) {
    if (existsSync(given)) return given
    throw new SetupError(`CLEFT_ADDON must name a built add-on, but ${given} does not exist; correct it or unset it`)
  }
  const libtorch = resolveLibtorch()
  const file = addonFile(packageRoot(), libtorch)
  if (existsSync(file)) return file
  throw new SetupError(
    `the native add-on for libtorch ${describeLibtorch(libtorch)} was expected at ${file} and is not built; run: npx cleft setup`,
  )
}

export interface BuildOptions {
  readonly reporter?: Reporter
  /** Which build tool; unless given, CMake where it is there and node-gyp where not. */
  readonly builder?: Builder
  /** Builds although the add-on is there. */
  readonly force?: boolean
}

export interface BuiltAddon {
  readonly file: string
  readonly info: AddonInfo
  /** False where the add-on was there already. */
  readonly built: boolean
}

/** The work folder for builds: in the package, so that a developer's builds are incremental, else in the cache. */
function workFolder(root: string): string {
  if (isWritable(join(root, 'build'))) return join(root, 'build')
  return join(cacheFolder(), 'build', createHash('sha256').update(root).digest('hex').slice(0, 16))
}

/** Holds the work folder for this process; whoever comes second waits for the first. */
async function lock(work: string, reporter: Reporter): Promise<() => void> {
  const file = join(work, 'lock')
  let told = false
  for (;;) {
    try {
      const descriptor = openSync(file, 'wx')
      writeSync(descriptor, String(process.pid))
      closeSync(descriptor)
      const release = () => rmSync(file, { force: true })
      const forget = onEarlyExit(release)
      return () => {
        forget()
        release()
      }
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
    }
    if (isStale(file)) {
      rmSync(file, { force: true })
      continue
    }
    if (!told) reporter.line('another process is building the add-on: waiting for it')
    told = true
    await sleep(300)
  }
}

function isStale(file: string): boolean {
  try {
    const holder = Number(readFileSync(file, 'utf8'))
    // Between making the file and writing into it there is a moment: an empty lock counts only when it is old.
    if (!holder) return Date.now() - statSync(file).mtimeMs > 5_000
    process.kill(holder, 0)
    return false
  } catch (error) {
    return codeOf(error) === 'ESRCH'
  }
}

/** Removes older add-ons of the same package and libtorch: each change of a source makes a new one. */
function removeOlder(root: string, libtorch: Libtorch, kept: string): void {
  const folder = join(cacheFolder(), 'addon')
  const old: { path: string; time: number }[] = []
  for (const name of readdirSync(folder)) {
    const path = join(folder, name)
    const record = readRecord(join(path, 'record.json'))
    if (record?.package !== root || record.libtorch !== libtorch.root || path === dirname(kept)) continue
    old.push({ path, time: statSync(path).mtimeMs })
  }
  old.sort((a, b) => b.time - a.time)
  for (const { path } of old.slice(2)) rmSync(path, { recursive: true, force: true })
}

/** What is missing for a build, as an error that says so; null where nothing is. */
function missingTool(builder: Builder | null): string | null {
  if (builder === null) {
    return 'CMake, or make and Python for node-gyp, was expected to build the add-on, and neither was found on PATH; install CMake (for example: apt-get install cmake ninja-build), then run: npx cleft setup'
  }
  if (process.platform !== 'win32' && findCompiler() === null) {
    return 'a C++20 compiler was expected to build the add-on, and none was found on PATH; install one (for example: apt-get install g++), then run: npx cleft setup'
  }
  return null
}

/** Loads what was made under another name, so that imports never see an add-on that does not load; then puts it in its place. */
async function place(
  made: string,
  file: string,
  libtorch: Libtorch,
  record: { readonly package: string; readonly builder: string },
): Promise<AddonInfo> {
  mkdirSync(dirname(file), { recursive: true })
  const beside = `${file}.${process.pid}.node`
  const forget = onEarlyExit(() => rmSync(beside, { force: true }))
  try {
    copyFileSync(made, beside)
    const info = await probeAddon(beside, libtorch)
    renameSync(beside, file)
    writeRecord(join(dirname(file), 'record.json'), {
      ...record,
      libtorch: libtorch.root,
      version: libtorch.version,
      built: new Date().toISOString(),
    })
    removeOlder(record.package, libtorch, file)
    return info
  } finally {
    forget()
    rmSync(beside, { force: true })
  }
}

/** Puts the add-on that came built where imports look for it, with libtorch's libraries beside it. */
async function placePrebuilt(libtorch: Libtorch, missing: string, reporter: Reporter): Promise<BuiltAddon> {
  const root = packageRoot()
  const prebuilt = fittingPrebuilt(libtorch, root)
  if (prebuilt === null) throw new SetupError(`${missing}${whyNoPrebuilt(libtorch, root)}`)
  reporter.line(
    `using the add-on that came built for libtorch ${prebuilt.torch}, since there is no compiler or no build tool here`,
  )
  const file = addonFile(root, libtorch)
  const libraries = join(dirname(file), LIBRARIES_BESIDE)
  mkdirSync(dirname(file), { recursive: true })
  rmSync(libraries, { force: true })
  symlinkSync(libtorch.libDir, libraries)
  return {
    file,
    info: await place(prebuilt.file, file, libtorch, { package: root, builder: 'prebuilt' }),
    built: false,
  }
}

/**
 * Builds the add-on for a libtorch, loads it in a child process, and only then puts it where imports look for it. Where it
 * is there already, it is only loaded. Without a compiler, an add-on that came built with the package is taken where it
 * fits.
 */
export async function buildAddon(libtorch: Libtorch, options: BuildOptions = {}): Promise<BuiltAddon> {
  const reporter = options.reporter ?? silentReporter
  const root = packageRoot()
  const existing = () => {
    const file = addonFile(root, libtorch)
    return existsSync(file) && !options.force ? file : null
  }
  const present = existing()
  if (present !== null) return { file: present, info: await probeAddon(present, libtorch), built: false }

  const builder = options.builder ?? chooseBuilder()
  const missing = missingTool(builder)
  if (missing !== null) return await placePrebuilt(libtorch, missing, reporter)
  const work = workFolder(root)
  mkdirSync(work, { recursive: true })
  const unlock = await lock(work, reporter)
  try {
    const since = existing()
    if (since !== null) return { file: since, info: await probeAddon(since, libtorch), built: false }
    for (let attempt = 0; attempt < 3; attempt++) {
      const started = performance.now()
      const file = addonFile(root, libtorch)
      reporter.line(
        `building the add-on with ${builder === 'cmake' ? 'CMake' : 'node-gyp'} for libtorch ${describeLibtorch(libtorch)}`,
      )
      const build = builder === 'cmake' ? buildWithCMake : buildWithNodeGyp
      const made = await build(root, work, libtorch, reporter)
      // Somebody edited a source meanwhile: what was built belongs to no known state, and what remains is little.
      if (addonFile(root, libtorch) !== file) {
        reporter.line('a source in native/ changed during the build: building once more')
        continue
      }
      const info = await place(made, file, libtorch, { package: root, builder: builder ?? 'cmake' })
      reporter.line(`built and loaded the add-on in ${Math.round((performance.now() - started) / 1000)} s`)
      return { file, info, built: true }
    }
    throw new SetupError(
      'the sources in native/ were expected to stay as they are during the build, and changed three times; run the build again',
    )
  } finally {
    unlock()
  }
}
