import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, freemem } from 'node:os'
import { dirname, join } from 'node:path'
import { SetupError } from './errors.js'
import { findExecutable } from './files.js'
import { type Libtorch, libraryFile } from './libtorch.js'
import type { Reporter } from './report.js'
import { run } from './run.js'

/** The file that is built. */
export const ADDON = 'cleft.node'

export type Builder = 'cmake' | 'node-gyp'

/** Everything whose contents decide what the add-on is. */
export function sourceFiles(root: string): string[] {
  const native = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(cpp|hpp|h)$/.test(name))
    .sort()
    .map((name) => join('native', name))
  return [...native, 'CMakeLists.txt', 'binding.gyp']
}

/** One compiler for each core, but not more than memory holds: a file that includes torch takes about 1.5 GiB. */
function parallelJobs(): number {
  const limit = process.constrainedMemory()
  const free = limit > 0 && limit < 2 ** 50 ? Math.min(limit, freemem()) : freemem()
  return Math.max(1, Math.min(availableParallelism(), Math.floor(free / (1.5 * 2 ** 30))))
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

/**
 * What CMakeLists.txt and binding.gyp are told, by the names that both have for it.
 *
 * @param separator between the parts of a list
 */
function buildValues(root: string, libtorch: Libtorch, separator: string): Record<string, string> {
  const headers = [packageFile('node-api-headers', 'include'), packageFile('node-addon-api', '.')]
  return {
    CLEFT_TORCH_LIB: libtorch.libDir,
    CLEFT_TORCH_INCLUDES: libtorch.includeDirs.join(separator),
    CLEFT_TORCH_LIBRARIES: linkedLibraries(libtorch).join(separator),
    CLEFT_TORCH_CUDA: libtorch.cuda === null ? 'off' : 'on',
    CLEFT_NODE_INCLUDES: headers.join(separator),
    CLEFT_WARNINGS_AS_ERRORS: warningsAreErrors(root) ? 'on' : 'off',
  }
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

export async function buildWithCMake(
  root: string,
  work: string,
  libtorch: Libtorch,
  reporter: Reporter,
  /** To be carried to another machine: libtorch's libraries are looked for in a folder beside it. Only links anew. */
  { relocatable = false } = {},
): Promise<string> {
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
  const values = { ...buildValues(root, libtorch, ';'), CLEFT_RELOCATABLE: relocatable ? 'on' : 'off' }
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

export async function buildWithNodeGyp(
  root: string,
  work: string,
  libtorch: Libtorch,
  reporter: Reporter,
): Promise<string> {
  // node-gyp always builds into build/ beside binding.gyp, which is CMake's place here: it gets a folder of its own.
  const folder = join(work, 'gyp')
  copySources(root, folder)
  const nodeFolder = join(work, 'node')
  makeNodeFolder(nodeFolder)
  // Values go through the environment: gyp's own -D options break at spaces.
  const env = { ...process.env, ...buildValues(root, libtorch, '\n') }
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
