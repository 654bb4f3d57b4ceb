import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, freemem } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf, SetupError } from './errors.js'
import { onEarlyExit } from './exit.js'
import { findExecutable, isWritable, readRecord, writeRecord } from './files.js'
import { describeLibtorch, type Libtorch, libraryFile, resolveLibtorch } from './libtorch.js'
import { cacheFolder, packageRoot } from './paths.js'
import { type AddonInfo, probeAddon } from './probe.js'
import { type Reporter, silentReporter } from './report.js'
import { run } from './run.js'

const ADDON = 'cleft.node'

/** Everything whose contents decide what the add-on is. */
function sourceFiles(root: string): string[] {
  const native = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(cpp|hpp|h)$/.test(name))
    .sort()
    .map((name) => join('native', name))
  return [...native, 'CMakeLists.txt', 'binding.gyp']
}

/** The name of the add-on that belongs to these sources and this libtorch. */
function addonKey(root: string, libtorch: Libtorch): string {
  const hash = createHash('sha256')
  for (const name of sourceFiles(root)) {
    const contents = readFileSync(join(root, name))
    hash.update(`${name.replaceAll('\\', '/')}\0${contents.length}\0`).update(contents)
  }
  hash.update([libtorch.root, libtorch.version, libtorch.cuda ?? 'cpu', process.platform, process.arch].join('\0'))
  return hash.digest('hex').slice(0, 24)
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

export type Builder = 'cmake' | 'node-gyp'

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

/** One compiler for each core, but not more than memory holds: a file that includes torch takes about 1.5 GiB. */
function parallelJobs(): number {
  const limit = process.constrainedMemory()
  const free = limit > 0 && limit < 2 ** 50 ? Math.min(limit, freemem()) : freemem()
  return Math.max(1, Math.min(availableParallelism(), Math.floor(free / (1.5 * 2 ** 30))))
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

function linkedLibraries(libtorch: Libtorch): string[] {
  const cuda = libtorch.cuda === null ? [] : ['torch_cuda', 'c10_cuda']
  return ['torch_cpu', 'c10', ...cuda, 'torch'].filter((name) => {
    // Windows links the import library, whose name has the same stem.
    const file = process.platform === 'win32' ? `${name}.lib` : libraryFile(name)
    return existsSync(join(libtorch.libDir, file))
  })
}

/** The path of a file in a package of ours, wherever npm has put that package. */
function packageFile(name: string, path: string): string {
  const require = createRequire(import.meta.url)
  return join(dirname(require.resolve(`${name}/package.json`)), path)
}

/** In a clone warnings are errors; a user's newer compiler may warn of more than we know. */
function warningsAreErrors(root: string): boolean {
  return existsSync(join(root, 'tsconfig.json'))
}

async function compile(
  what: string,
  parameters: readonly string[],
  options: { cwd: string; log: string; reporter: Reporter; env?: NodeJS.ProcessEnv },
) {
  const finished = await run(process.execPath, parameters, {
    cwd: options.cwd,
    env: options.env,
    onLine(line) {
      // Ninja and make count their steps; in a log only the steps are worth a line.
      const step = line.match(/^\[\s*(\d+\/\d+|\d+%)\]\s*(.*)$/) ?? line.match(/^ {2}([A-Z_]+)\(target\)\s+(.*)$/)
      if (step) options.reporter.line(`  [${step[1]}] ${step[2]?.replace(/CMakeFiles\/\w+\.dir\//, '')}`)
    },
  })
  writeFileSync(options.log, `${finished.stdout}\n${finished.stderr}`)
  if (finished.status !== 0) {
    const all = `${finished.stdout}\n${finished.stderr}`.split('\n')
    const first = all.findIndex((line) => /error[: ]|FAILED/i.test(line))
    const shown = (first < 0 ? all.slice(-25) : all.slice(first, first + 25)).filter((line) => line.trim() !== '')
    throw new SetupError(
      `${what} was expected to build the add-on, and failed with status ${finished.status}; the whole output is in ${options.log}, its first error:\n${shown.map((line) => `  ${line.slice(0, 400)}`).join('\n')}\n  to see what is wrong, run: npx cleft doctor`,
    )
  }
}

async function buildWithCMake(root: string, work: string, libtorch: Libtorch, reporter: Reporter): Promise<string> {
  // One folder for each libtorch: going back and forth between two does not compile everything again.
  const out = join(work, `cmake-${createHash('sha256').update(libtorch.root).digest('hex').slice(0, 8)}`)
  mkdirSync(out, { recursive: true })
  const cache = join(out, 'CMakeCache.txt')
  // CMake refuses a cache that was made elsewhere, as after a folder was moved.
  const home = existsSync(cache)
    ? readFileSync(cache, 'utf8').match(/^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m)?.[1]
    : root
  if (home !== root) rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  const values: Record<string, string> = {
    CLEFT_TORCH_LIB: libtorch.libDir,
    CLEFT_TORCH_INCLUDES: libtorch.includeDirs.join(';'),
    CLEFT_TORCH_LIBRARIES: linkedLibraries(libtorch).join(';'),
    CLEFT_TORCH_CUDA: libtorch.cuda === null ? 'OFF' : 'ON',
    CLEFT_NODE_INCLUDES: [packageFile('node-api-headers', 'include'), packageFile('node-addon-api', '.')].join(';'),
    CLEFT_WARNINGS_AS_ERRORS: warningsAreErrors(root) ? 'ON' : 'OFF',
  }
  const tool = packageFile('cmake-js', 'bin/cmake-js')
  const common = ['--directory', root, '--out', out, '--config', 'Release']
  const settings = Object.entries(values).map(([name, value]) => `--CD${name}=${value.replaceAll('\\', '/')}`)
  // Configuring each time takes a second, and is what notices another libtorch or a new source file.
  await compile('CMake', [tool, 'configure', ...common, ...settings], {
    cwd: root,
    log: join(work, 'configure.log'),
    reporter,
  })
  const jobs = String(parallelJobs())
  await compile('CMake', [tool, 'build', ...common, '--parallel', jobs], {
    cwd: root,
    log: join(work, 'build.log'),
    reporter,
  })
  return [join(out, 'Release', ADDON), join(out, ADDON)].find((file) => existsSync(file)) ?? join(out, 'Release', ADDON)
}

/** Copies what changed only, with its time, so that make builds only what changed. */
function copySources(root: string, target: string): void {
  const wanted = new Set([...sourceFiles(root), 'package.json'])
  for (const name of wanted) {
    const from = join(root, name)
    const to = join(target, name)
    mkdirSync(dirname(to), { recursive: true })
    if (existsSync(to) && readFileSync(to).equals(readFileSync(from))) continue
    cpSync(from, to)
    const now = new Date()
    utimesSync(to, now, now)
  }
  for (const name of readdirSync(join(target, 'native'), { recursive: true, encoding: 'utf8' })) {
    const path = join('native', name)
    if (statSync(join(target, path)).isFile() && !wanted.has(path)) rmSync(join(target, path))
  }
}

/**
 * What node-gyp wants of a Node installation: the headers, common.gypi and config.gypi. Made from node-api-headers, so
 * that nothing is downloaded.
 */
function makeNodeFolder(folder: string): void {
  const include = join(folder, 'include', 'node')
  mkdirSync(include, { recursive: true })
  cpSync(packageFile('node-api-headers', 'include'), include, { recursive: true })
  const position =
    "{ 'target_defaults': { 'default_configuration': 'Release', 'configurations': { 'Debug': {}, 'Release': {} } } }\n"
  writeFileSync(join(include, 'common.gypi'), position)
  const variables = {
    host_arch: process.arch,
    target_arch: process.arch,
    napi_build_version: '8',
    clang: 0,
    v8_enable_webassembly: 1,
  }
  writeFileSync(join(include, 'config.gypi'), JSON.stringify({ target_defaults: {}, variables }))
}

async function buildWithNodeGyp(root: string, work: string, libtorch: Libtorch, reporter: Reporter): Promise<string> {
  // node-gyp always builds into build/ beside binding.gyp, which is CMake's place here: it gets a folder of its own.
  const folder = join(work, 'gyp')
  copySources(root, folder)
  const nodeFolder = join(work, 'node')
  makeNodeFolder(nodeFolder)
  // Values go through the environment: gyp's own -D options break at spaces.
  const env = {
    ...process.env,
    CLEFT_TORCH_LIB: libtorch.libDir,
    CLEFT_TORCH_INCLUDES: libtorch.includeDirs.join('\n'),
    CLEFT_TORCH_LIBRARIES: linkedLibraries(libtorch).join('\n'),
    CLEFT_TORCH_CUDA: libtorch.cuda === null ? 'off' : 'on',
    CLEFT_NODE_INCLUDES: [packageFile('node-api-headers', 'include'), packageFile('node-addon-api', '.')].join('\n'),
    CLEFT_WARNINGS_AS_ERRORS: warningsAreErrors(root) ? 'on' : 'off',
  }
  const tool = packageFile('node-gyp', 'bin/node-gyp.js')
  const jobs = String(parallelJobs())
  const parameters = ['configure', 'build', `--nodedir=${nodeFolder}`, `--jobs=${jobs}`, '--release']
  await compile('node-gyp', [tool, ...parameters], { cwd: folder, log: join(work, 'gyp.log'), reporter, env })
  return join(folder, 'build', 'Release', ADDON)
}

/** The build tool that would be used, or null where there is none. */
export function chooseBuilder(): Builder | null {
  if (findExecutable('cmake') !== null) return 'cmake'
  const make = process.platform === 'win32' || findExecutable('make') !== null || findExecutable('gmake') !== null
  const python = findExecutable('python3') !== null || findExecutable('python') !== null
  return make && python ? 'node-gyp' : null
}

/** The C++ compiler that a build would use, by name, or null. */
export function findCompiler(): string | null {
  const wanted = process.env.CXX
  // CXX may hold parameters, as in "ccache g++".
  if (wanted)
    return wanted.split(' ').every((word, index) => index > 0 || findExecutable(word) !== null || existsSync(word))
      ? wanted
      : null
  const names = process.platform === 'darwin' ? ['clang++', 'c++'] : ['c++', 'g++', 'clang++']
  return names.find((name) => findExecutable(name) !== null) ?? null
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

/**
 * Builds the add-on for a libtorch, loads it in a child process, and only then puts it where imports look for it. Where it
 * is there already, it is only loaded.
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
  if (builder === null) {
    throw new SetupError(
      'CMake, or make and Python for node-gyp, was expected to build the add-on, and neither was found on PATH; install CMake (for example: apt-get install cmake ninja-build), then run: npx cleft setup',
    )
  }
  if (process.platform !== 'win32' && findCompiler() === null) {
    throw new SetupError(
      'a C++20 compiler was expected to build the add-on, and none was found on PATH; install one (for example: apt-get install g++), then run: npx cleft setup',
    )
  }
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
      mkdirSync(dirname(file), { recursive: true })
      // Loaded under another name first, so that imports never see an add-on that does not load.
      const beside = `${file}.${process.pid}.node`
      const forget = onEarlyExit(() => rmSync(beside, { force: true }))
      try {
        copyFileSync(made, beside)
        const info = await probeAddon(beside, libtorch)
        renameSync(beside, file)
        writeRecord(join(dirname(file), 'record.json'), {
          package: root,
          libtorch: libtorch.root,
          version: libtorch.version,
          builder,
          built: new Date().toISOString(),
        })
        removeOlder(root, libtorch, file)
        reporter.line(`built and loaded the add-on in ${Math.round((performance.now() - started) / 1000)} s`)
        return { file, info, built: true }
      } finally {
        forget()
        rmSync(beside, { force: true })
      }
    }
    throw new SetupError(
      'the sources in native/ were expected to stay as they are during the build, and changed three times; run the build again',
    )
  } finally {
    unlock()
  }
}
