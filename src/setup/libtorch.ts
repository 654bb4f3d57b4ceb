import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { SetupError } from './errors.js'
import { findExecutable, readRecord, writeRecord } from './files.js'
import { cacheFolder } from './paths.js'

export interface Libtorch {
  /** The folder that holds include/ and lib/. */
  readonly root: string
  readonly includeDirs: readonly string[]
  readonly libDir: string
  /** As the library names itself, with its flavour where it has one: 2.13.0+cpu. */
  readonly version: string
  /** The version of CUDA that it was built for, 'unknown' where it does not say, null for a CPU build. */
  readonly cuda: string | null
  readonly source: 'LIBTORCH' | 'setup' | 'python'
}

/** The versions that the add-on is written for: from the first, up to and without the second. */
const SUPPORTED = { from: [2, 11], before: [2, 15] } as const
export const SUPPORTED_TEXT = '2.11 to 2.14'

/** The file in which `cleft setup` notes the libtorch that it installed. */
export function setupRecordFile(cache = cacheFolder()): string {
  return join(cache, 'libtorch.json')
}

export function libraryFile(name: string): string {
  if (process.platform === 'win32') return `${name}.dll`
  return process.platform === 'darwin' ? `lib${name}.dylib` : `lib${name}.so`
}

function readText(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null
  }
}

/** The version, by what says it most exactly: a Python package's version.py, a zip's build-version, the header. */
function readVersion(root: string): string | null {
  const python = readText(join(root, 'version.py'))?.match(/^__version__\s*=\s*['"]([^'"]+)['"]/m)?.[1]
  if (python !== undefined) return python
  const zip = readText(join(root, 'build-version'))?.trim()
  if (zip) return zip
  // The macros moved to the second file in 2.10; the first then only includes it.
  for (const header of [
    'include/torch/version.h',
    'include/torch/headeronly/version.h',
    'include/torch/csrc/api/include/torch/version.h',
  ]) {
    const text = readText(join(root, header))
    const part = (name: string) => text?.match(new RegExp(`#define\\s+TORCH_VERSION_${name}\\s+(\\d+)`))?.[1]
    const [major, minor, patch] = [part('MAJOR'), part('MINOR'), part('PATCH')]
    if (major !== undefined && minor !== undefined && patch !== undefined) return `${major}.${minor}.${patch}`
  }
  return null
}

function readCuda(root: string, libDir: string, version: string): string | null {
  if (!existsSync(join(libDir, libraryFile('torch_cuda')))) return null
  const python = readText(join(root, 'version.py'))?.match(/^cuda\b[^=]*=\s*['"]([^'"]+)['"]/m)?.[1]
  if (python !== undefined) return python
  const local = version.match(/\+cu(\d+)(\d)$/)
  return local ? `${local[1]}.${local[2]}` : 'unknown'
}

/** Folders with CUDA's own headers: beside a wheel's torch folder, or a toolkit's. */
function cudaIncludes(root: string): string[] {
  const found: string[] = []
  const nvidia = join(dirname(root), 'nvidia')
  if (existsSync(nvidia)) {
    for (const name of readdirSync(nvidia)) {
      const include = join(nvidia, name, 'include')
      if (existsSync(include)) found.push(include)
    }
  }
  if (found.length > 0) return found
  for (const home of [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda']) {
    if (home && existsSync(join(home, 'include', 'cuda_runtime_api.h'))) return [join(home, 'include')]
  }
  return []
}

/** Whether a version is one that the add-on is written for. */
export function isSupportedVersion(version: string): boolean {
  const parts = version.match(/^(\d+)\.(\d+)\./)
  if (!parts) return false
  const [major, minor] = [Number(parts[1]), Number(parts[2])]
  return major === SUPPORTED.from[0] && minor >= SUPPORTED.from[1] && minor < SUPPORTED.before[1]
}

/** The name of a build in folder names: cpu, cu130. */
export function flavourOf(libtorch: Pick<Libtorch, 'cuda'>): string {
  if (libtorch.cuda === null) return 'cpu'
  return libtorch.cuda === 'unknown' ? 'cuda' : `cu${libtorch.cuda.replaceAll('.', '')}`
}

/**
 * Looks at a folder that should be a libtorch: an unpacked libtorch zip, or the torch folder of a Python package.
 * Returns a sentence saying what is wrong where it is none.
 */
export function inspectLibtorch(folder: string, source: Libtorch['source']): Libtorch | string {
  const root = resolve(folder)
  const libDir = join(root, 'lib')
  const include = join(root, 'include')
  const hint = existsSync(join(root, 'torch', 'lib')) ? ` (did you mean ${join(root, 'torch')}?)` : ''
  if (!existsSync(root)) return `the folder ${root} does not exist`
  if (!existsSync(join(libDir, libraryFile('torch_cpu')))) {
    return `${root} holds no lib/${libraryFile('torch_cpu')}${hint}`
  }
  if (!existsSync(join(include, 'ATen', 'ATen.h'))) return `${root} holds no headers (include/ATen/ATen.h)`
  const version = readVersion(root)
  if (version === null) return `${root} does not say its version (version.py, build-version or torch/version.h)`
  if (!isSupportedVersion(version)) return `${root} is libtorch ${version}, and libtorch ${SUPPORTED_TEXT} is supported`
  const cuda = readCuda(root, libDir, version)
  const includeDirs = [include, join(include, 'torch', 'csrc', 'api', 'include')]
  return {
    root,
    includeDirs: cuda === null ? includeDirs : [...includeDirs, ...cudaIncludes(root)],
    libDir,
    version,
    cuda,
    source,
  }
}

// With `find_spec` nothing of torch is imported, which takes seconds. The empty entry stands for the working folder,
// where a folder of ours named torch would be taken for the package.
const PYTHON_LOOKUP = `
import importlib.util, sys
sys.path = [p for p in sys.path if p]
s = importlib.util.find_spec("torch")
print(s.submodule_search_locations[0] if s and s.origin and s.submodule_search_locations else "")
`

/** The Python that a shell would start. */
export function findPython(): string | null {
  return findExecutable('python3') ?? findExecutable('python')
}

/** What decides which packages a Python sees; a pyenv shim is one file for many Pythons. */
function pythonKey(python: string): string {
  const names = ['VIRTUAL_ENV', 'CONDA_PREFIX', 'PYENV_VERSION', 'PYTHONPATH', 'PYTHONHOME']
  return [python, ...names.map((name) => process.env[name] ?? '')].join('|')
}

function modifiedAt(file: string): number {
  try {
    return statSync(file).mtimeMs
  } catch {
    return 0
  }
}

/**
 * The torch folder of the active Python, or null. Asking costs a child process, so that the answer is kept, and
 * believed as long as that torch's version file is untouched.
 */
function findPythonTorch(python: string, cache: string): string | null {
  const file = join(cache, 'python.json')
  const key = pythonKey(python)
  const records = readRecord(file) ?? {}
  const known = records[key]
  if (typeof known === 'object' && known !== null && 'torch' in known && 'modified' in known) {
    const { torch, modified } = known
    if (typeof torch === 'string' && modified !== 0 && modifiedAt(join(torch, 'version.py')) === modified) return torch
  }
  let torch: string
  try {
    torch = execFileSync(python, ['-c', PYTHON_LOOKUP], {
      cwd: homedir(),
      encoding: 'utf8',
      timeout: 20_000,
      stdio: ['ignore', 'pipe', 'ignore'],
      windowsHide: true,
    }).trim()
  } catch {
    return null
  }
  if (torch === '') return null
  try {
    writeRecord(file, { ...records, [key]: { torch, modified: modifiedAt(join(torch, 'version.py')) } })
  } catch {
    // A cache that cannot be written to only means that we ask again.
  }
  return torch
}

/**
 * The one place that decides which libtorch is used: the LIBTORCH folder, what `cleft setup` installed, the active
 * Python's torch. Throws with all that was tried where there is none.
 */
export function resolveLibtorch(): Libtorch {
  const wanted = process.env.LIBTORCH
  if (wanted) {
    const found = inspectLibtorch(wanted, 'LIBTORCH')
    // Somebody who set LIBTORCH means it: going on to another libtorch would hide the mistake.
    if (typeof found === 'string') {
      throw new SetupError(
        `LIBTORCH must name a libtorch folder with include/ and lib/, but ${found}; correct it, or unset it and run: npx cleft setup`,
      )
    }
    return found
  }
  const tried = ['LIBTORCH: not set']
  const cache = cacheFolder()
  const record = readRecord(setupRecordFile(cache))
  if (record === null) {
    tried.push(`cleft setup: nothing installed in ${cache}`)
  } else {
    const found = typeof record.root === 'string' ? inspectLibtorch(record.root, 'setup') : 'its record names no folder'
    if (typeof found !== 'string') return found
    tried.push(`cleft setup: ${found}`)
  }
  const python = findPython()
  if (python === null) {
    tried.push('Python: no python3 on PATH')
  } else {
    const torch = findPythonTorch(python, cache)
    const found = torch === null ? `${basename(python)} (${python}) has no torch` : inspectLibtorch(torch, 'python')
    if (typeof found !== 'string') return found
    tried.push(`Python: ${found}`)
  }
  throw new SetupError(
    `a libtorch (${SUPPORTED_TEXT}) was expected and none was found; run: npx cleft setup\n${tried.map((line) => `  tried ${line}`).join('\n')}`,
  )
}

/** One line about a libtorch for people. */
export function describeLibtorch(libtorch: Libtorch): string {
  const kind = libtorch.cuda === null ? 'CPU' : `CUDA ${libtorch.cuda}`
  const from = { LIBTORCH: 'LIBTORCH', setup: 'cleft setup', python: 'the active Python' }[libtorch.source]
  return `${libtorch.version}, ${kind}, ${libtorch.root} (from ${from})`
}
