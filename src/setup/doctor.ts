import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { locateAddon } from './addon.js'
import { chooseBuilder, findCompiler } from './builders.js'
import { messageOf } from './errors.js'
import { onEarlyExit } from './exit.js'
import { findExecutable } from './files.js'
import { detectGpu, flavoursFor } from './gpu.js'
import { describeLibtorch, findPython, type Libtorch, resolveLibtorch } from './libtorch.js'
import { type AddonInfo, probeAddon } from './probe.js'
import { compareVersions } from './requirements.js'
import { run } from './run.js'

export interface Check {
  readonly name: string
  readonly ok: boolean
  /** What is there, or what is wrong. */
  readonly found: string
  /** The command or action that mends it; null where nothing has to be mended. */
  readonly fix: string | null
}

export interface Diagnosis {
  readonly ok: boolean
  readonly checks: readonly Check[]
}

const SETUP = 'npx cleft setup'
const NODE = '20.19.0'

function good(name: string, found: string): Check {
  return { name, ok: true, found, fix: null }
}

function bad(name: string, found: string, fix: string): Check {
  return { name, ok: false, found, fix }
}

function checkNode(): Check {
  const found = `${process.versions.node} (${process.platform} ${process.arch})`
  if (compareVersions(process.versions.node, NODE) >= 0) return good('node', found)
  return bad('node', found, `install Node.js ${NODE} or newer`)
}

/** Python is only a way to get libtorch, so that its absence is no fault. */
async function checkPython(): Promise<Check> {
  const python = findPython()
  if (python === null) return good('python', 'not found; it is only needed for setup through pip')
  const [version, pip] = await Promise.all([
    run(python, ['--version'], { timeout: 30_000 }),
    run(python, ['-m', 'pip', '--version'], { timeout: 30_000 }),
  ])
  const pipVersion = pip.status === 0 ? (pip.stdout.match(/^pip \S+/)?.[0] ?? 'pip') : 'no pip'
  return good('python', `${(version.stdout || version.stderr).trim()}, ${pipVersion}, ${python}`)
}

async function checkCompiler(): Promise<Check> {
  const install =
    process.platform === 'darwin' ? 'xcode-select --install' : "apt-get install g++   (or your system's C++ compiler)"
  if (process.platform === 'win32') return good('compiler', 'Visual Studio is searched for at the build')
  const compiler = findCompiler()
  if (compiler === null) return bad('compiler', 'no C++ compiler on PATH', install)
  const folder = mkdtempSync(join(tmpdir(), 'cleft-doctor-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  const forget = onEarlyExit(remove)
  try {
    const source = join(folder, 'check.cpp')
    writeFileSync(
      source,
      '#include <concepts>\n#include <span>\ntemplate <std::integral T> T same(T x) { return x; }\nint main() { int a[1] = {0}; return same(std::span<int>(a)[0]); }\n',
    )
    const [program = '', ...parameters] = compiler.split(' ')
    const [compiled, version] = await Promise.all([
      run(program, [...parameters, '-std=c++20', source, '-o', join(folder, 'check')], { timeout: 60_000 }),
      run(program, [...parameters, '--version'], { timeout: 30_000 }),
    ])
    const name = `${compiler}: ${version.stdout.split('\n')[0]?.trim() ?? 'unknown'}`
    if (compiled.status === 0) return good('compiler', `${name}, compiles C++20`)
    return bad(
      'compiler',
      `${name}, does not compile C++20: ${compiled.stderr.split('\n')[0]}`,
      `${install}, GCC 11 or Clang 14 or newer`,
    )
  } finally {
    forget()
    remove()
  }
}

async function checkBuildTool(): Promise<Check> {
  const builder = chooseBuilder()
  if (builder === null)
    return bad('cmake', 'neither CMake nor what node-gyp needs (make, Python)', 'apt-get install cmake ninja-build')
  if (builder === 'node-gyp') return good('cmake', 'not found; node-gyp builds instead')
  const { stdout } = await run('cmake', ['--version'], { timeout: 30_000 })
  const version = stdout.match(/version (\S+)/)?.[1] ?? 'unknown'
  if (compareVersions(version, '3.18') < 0)
    return bad('cmake', `${version}, and 3.18 is the least`, 'install CMake 3.18 or newer')
  return good('cmake', `${version}${findExecutable('ninja') ? ', with Ninja' : ', without Ninja'}`)
}

function checkLibtorch(): { check: Check; libtorch: Libtorch | null } {
  try {
    const libtorch = resolveLibtorch()
    return { check: good('libtorch', describeLibtorch(libtorch)), libtorch }
  } catch (error) {
    const fix = process.env.LIBTORCH ? `unset LIBTORCH && ${SETUP}` : SETUP
    return { check: bad('libtorch', messageOf(error), fix), libtorch: null }
  }
}

async function checkAddon(libtorch: Libtorch | null): Promise<{ check: Check; info: AddonInfo | null }> {
  if (libtorch === null) return { check: bad('addon', 'not built: there is no libtorch', SETUP), info: null }
  let file: string
  try {
    file = locateAddon()
  } catch (error) {
    return { check: bad('addon', messageOf(error), SETUP), info: null }
  }
  try {
    const info = await probeAddon(file, libtorch)
    const found = `${file}, loads libtorch ${info.torchVersion}`
    if (libtorch.cuda === null || info.cudaHeaders !== false) return { check: good('addon', found), info }
    const without = `${found}; built without CUDA's headers (crt/, nv/): no graphs and no NCCL`
    return { check: { name: 'addon', ok: true, found: without, fix: `${SETUP} --cuda auto --force` }, info }
  } catch (error) {
    return { check: bad('addon', messageOf(error), `${SETUP} --force`), info: null }
  }
}

async function checkDevices(libtorch: Libtorch | null, info: AddonInfo | null): Promise<Check> {
  const gpu = await detectGpu()
  const gigabytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`
  if (info?.cudaAvailable) {
    const each = info.devices.map(
      (device, index) =>
        `cuda:${index} ${device.name}, ${gigabytes(device.freeMemory)} free of ${gigabytes(device.totalMemory)}`,
    )
    return good('devices', each.join('; '))
  }
  if (gpu === null) return good('devices', 'cpu; no NVIDIA GPU with a driver')
  const described = `${gpu.names.join(', ')} (driver ${gpu.driver}, CUDA ${gpu.cuda})`
  if (libtorch?.cuda === null) {
    // Somebody may want it so, and everything works; but nobody should miss it.
    const fix = flavoursFor(gpu).length > 0 ? `${SETUP} --cuda auto` : 'install a newer NVIDIA driver'
    return { name: 'devices', ok: true, found: `${described} is not used: this libtorch is a CPU build`, fix }
  }
  if (info === null) return good('devices', `${described}; the add-on has to load first`)
  return bad(
    'devices',
    `${described} is not usable with CUDA ${libtorch?.cuda}`,
    `${SETUP} --cuda auto   (or install a newer NVIDIA driver)`,
  )
}

/** The flags of the processor that make matrix products in bfloat16 fast. */
export function matrixUnits(cpuinfo: string): string[] {
  const flags = new Set(cpuinfo.match(/^(?:flags|Features)\s*:\s*(.*)$/m)?.[1]?.split(/\s+/) ?? [])
  const known = {
    'AVX-512': 'avx512f',
    'AVX-512 BF16': 'avx512_bf16',
    'AMX BF16': 'amx_bf16',
    'AMX INT8': 'amx_int8',
    AVX2: 'avx2',
    'Arm BF16': 'bf16',
  }
  return Object.entries(known).flatMap(([name, flag]) => (flags.has(flag) ? [name] : []))
}

function checkProcessor(): Check {
  const model = cpus()[0]?.model.trim() || process.arch
  let cpuinfo = ''
  try {
    cpuinfo = readFileSync('/proc/cpuinfo', 'utf8')
  } catch {
    return good('processor', `${model}; its matrix units are only looked up on Linux`)
  }
  const units = matrixUnits(cpuinfo)
  return good('processor', `${model}: ${units.length > 0 ? units.join(', ') : 'no AVX2, AVX-512 or AMX'}`)
}

/** Looks at everything that cleft needs. Changes nothing. */
export async function diagnose(): Promise<Diagnosis> {
  const { check: libtorchCheck, libtorch } = checkLibtorch()
  const [python, compiler, tool, addon] = await Promise.all([
    checkPython(),
    checkCompiler(),
    checkBuildTool(),
    checkAddon(libtorch),
  ])
  const devices = await checkDevices(libtorch, addon.info)
  const threads = addon.info
    ? good('threads', `${addon.info.threads} of ${cpus().length} processors, kernels for ${addon.info.cpuCapability}`)
    : good('threads', `${cpus().length} processors; libtorch's own number is known when the add-on loads`)
  // Where the add-on loads, nothing has to be built.
  const needless = (check: Check): Check =>
    check.ok || !addon.check.ok
      ? check
      : { ...check, ok: true, found: `${check.found}; only needed to build the add-on` }
  const building = [compiler, tool].map(needless)
  const checks = [checkNode(), python, ...building, libtorchCheck, addon.check, devices, threads, checkProcessor()]
  return { ok: checks.every((check) => check.ok), checks }
}

/** The same for people: a line a check, what to do below it, a last line that sums up. */
export function formatDiagnosis(diagnosis: Diagnosis): string {
  const width = Math.max(...diagnosis.checks.map((check) => check.name.length))
  const lines = diagnosis.checks.flatMap((check) => {
    const indent = ' '.repeat(width + 6)
    const found = check.found.replaceAll('\n', `\n${indent}`)
    const fix = check.fix === null ? [] : [`${indent}fix: ${check.fix}`]
    return [
      `${check.ok ? ' ok ' : 'FAIL'}  ${check.name.padEnd(width)}${found.startsWith('\n') ? '' : ' '}${found}`,
      ...fix,
    ]
  })
  const failing = diagnosis.checks.filter((check) => !check.ok).length
  return `${lines.join('\n')}\n${failing === 0 ? 'everything that cleft needs is here' : `${failing} of ${diagnosis.checks.length} checks failed`}\n`
}
