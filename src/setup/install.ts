import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type BuiltAddon, buildAddon, locateAddon } from './addon.js'
import type { Builder } from './builders.js'
import { messageOf, SetupError } from './errors.js'
import { onEarlyExit } from './exit.js'
import { readRecord, writeRecord } from './files.js'
import { detectGpu, flavoursFor } from './gpu.js'
import {
  describeLibtorch,
  flavourOf,
  inspectLibtorch,
  isSupportedVersion,
  type Libtorch,
  resolveLibtorch,
  SUPPORTED_TEXT,
  setupRecordFile,
} from './libtorch.js'
import { cacheFolder } from './paths.js'
import { type Reporter, silentReporter } from './report.js'
import { isCudaLibrary, normalizeName, parseRequirements, type Requirement } from './requirements.js'
import { archiveSource, findPip, pipSource, TORCH_ARCHIVE, type Wheel, type WheelSource } from './sources.js'
import { inspectWheel, unpackWheel, type WheelContents } from './wheel.js'

export const DEFAULT_TORCH = '2.13.0'

export interface SetupOptions {
  /** auto, cpu, or a CUDA build such as cu130. Unless this or `torch` is given, a libtorch that is there is used. */
  readonly cuda?: string
  /** The version of libtorch to get, such as 2.13.0. */
  readonly torch?: string
  /** A libtorch folder to use from now on: noted as what was installed. */
  readonly libtorch?: string
  /** Fetches nothing: a libtorch has to be there. */
  readonly offline?: boolean
  /** Does nothing where a built add-on is there. */
  readonly ifNeeded?: boolean
  /** Builds the add-on anew. */
  readonly force?: boolean
  readonly builder?: Builder
  readonly reporter?: Reporter
  /** PyTorch's archive, or a copy of it. */
  readonly archive?: string
}

export interface SetupResult {
  readonly libtorch: Libtorch
  readonly addon: BuiltAddon
}

/** Gets a libtorch where none is there or another one is asked for, builds the add-on, and checks that it loads. */
export async function setup(options: SetupOptions = {}): Promise<SetupResult | null> {
  const reporter = options.reporter ?? silentReporter
  if (options.ifNeeded && options.cuda === undefined && options.torch === undefined && isBuilt()) return null
  const asked = options.cuda !== undefined || options.torch !== undefined
  if (asked && (options.libtorch !== undefined || options.offline)) {
    throw new SetupError(
      '--cuda and --torch choose what is fetched, and --libtorch and --offline fetch nothing; give one or the other',
    )
  }
  let libtorch: Libtorch | null = null
  if (options.libtorch !== undefined) libtorch = givenLibtorch(options.libtorch)
  else if (options.offline) libtorch = resolveLibtorch()
  else if (!asked) libtorch = resolveOrNull()
  const install = libtorch === null || options.libtorch !== undefined
  if (libtorch === null) libtorch = await obtainLibtorch(options, reporter)
  else reporter.line(`using libtorch ${describeLibtorch(libtorch)}`)
  const addon = await buildAddon(libtorch, { reporter, builder: options.builder, force: options.force })
  // Last of all: a libtorch for which no add-on could be built is not the one that imports should find.
  if (install) {
    writeRecord(setupRecordFile(), { root: libtorch.root, version: libtorch.version, flavour: flavourOf(libtorch) })
    if (process.env.LIBTORCH)
      reporter.line(`LIBTORCH is set and comes first (${process.env.LIBTORCH}): unset it to use what was installed`)
  }
  return { libtorch, addon }
}

function givenLibtorch(folder: string): Libtorch {
  const found = inspectLibtorch(folder, 'setup')
  if (typeof found !== 'string') return found
  throw new SetupError(`--libtorch must name a libtorch folder with include/ and lib/, but ${found}; correct it`)
}

function isBuilt(): boolean {
  try {
    locateAddon()
    return true
  } catch {
    return false
  }
}

/** The libtorch that is there, or null; a LIBTORCH that is wrong stays an error, since it would win over any other. */
function resolveOrNull(): Libtorch | null {
  try {
    return resolveLibtorch()
  } catch (error) {
    if (process.env.LIBTORCH) throw error
    return null
  }
}

/** The builds to try, best first, and whether any other will do where none of them is to be had. */
async function wantedFlavours(cuda: string, reporter: Reporter): Promise<{ flavours: string[]; anyKind: boolean }> {
  if (cuda !== 'auto') {
    if (!/^(cpu|cu\d{3})$/.test(cuda)) {
      throw new SetupError(
        `--cuda must be auto, cpu or a build such as cu126, cu128 or cu130, but it is ${cuda}; see: npx cleft setup --help`,
      )
    }
    return { flavours: [cuda], anyKind: false }
  }
  if (process.platform === 'darwin') return { flavours: ['cpu'], anyKind: true }
  const gpu = await detectGpu()
  if (gpu === null) {
    reporter.line('no NVIDIA GPU with a driver was found: the CPU build of libtorch')
    return { flavours: ['cpu'], anyKind: true }
  }
  const flavours = flavoursFor(gpu)
  const described = `${gpu.names[0]}, driver ${gpu.driver}, CUDA ${gpu.cuda}`
  if (flavours.length === 0) {
    reporter.line(
      `the driver is too old for the CUDA builds of libtorch (${described}): the CPU build; after a newer driver run: npx cleft setup --cuda auto`,
    )
    return { flavours: ['cpu'], anyKind: false }
  }
  reporter.line(`found ${described}: libtorch for ${flavours.join(', else ')}`)
  return { flavours, anyKind: false }
}

function flavourOfWheel(contents: WheelContents): string {
  return flavourOf({ cuda: contents.hasCuda ? (contents.cuda ?? 'unknown') : null })
}

/** A libtorch of the asked kind: the one installed earlier, else fetched. */
export async function obtainLibtorch(options: SetupOptions, reporter: Reporter): Promise<Libtorch> {
  const torch = options.torch ?? DEFAULT_TORCH
  if (!/^\d+\.\d+\.\d+$/.test(torch) || !isSupportedVersion(torch)) {
    throw new SetupError(
      `--torch must be a version of libtorch ${SUPPORTED_TEXT} with three numbers, but it is ${torch}; for example: npx cleft setup --torch ${DEFAULT_TORCH}`,
    )
  }
  const { flavours, anyKind } = await wantedFlavours(options.cuda ?? 'auto', reporter)
  for (const flavour of flavours) {
    const root = join(libtorchFolder(torch, flavour), 'torch')
    const found = existsSync(root) ? inspectLibtorch(root, 'setup') : 'not there'
    if (typeof found !== 'string') {
      reporter.line(`libtorch ${found.version} is installed already: ${found.root}`)
      return found
    }
  }
  const python = await findPip()
  if (python === null) reporter.line("no Python with pip was found: downloading from PyTorch's archive")
  const archive = options.archive ?? process.env.CLEFT_TORCH_ARCHIVE ?? TORCH_ARCHIVE
  const failures: string[] = []
  for (const flavour of flavours) {
    const attempts: { source: WheelSource; specifier: string; loose: boolean }[] = [
      { source: archiveSource(archive, flavour), specifier: `==${torch}+${flavour}`, loose: false },
    ]
    if (python !== null) {
      const pip = pipSource(python, null)
      attempts.unshift({ source: pip, specifier: `==${torch}+${flavour}`, loose: false })
      attempts.splice(1, 0, {
        source: pipSource(python, `${archive}/${flavour}`),
        specifier: `==${torch}+${flavour}`,
        loose: false,
      })
      // Last, since a public index answers with its one build, which may be gigabytes of the wrong kind.
      attempts.push({ source: pip, specifier: `==${torch}`, loose: true })
    }
    for (const { source, specifier, loose } of attempts) {
      try {
        reporter.line(`asking ${source.name} for torch${specifier}`)
        const downloads = downloadFolder(torch, loose ? 'any' : flavour)
        const wheel = await source.fetch('torch', specifier, downloads, reporter)
        const contents = await inspectWheel(wheel.file)
        const came = flavourOfWheel(contents)
        if (came !== flavour && !(loose && anyKind)) {
          failures.push(
            `${source.name} answered with the ${came} build of torch ${contents.version}, and ${flavour} was asked for`,
          )
          continue
        }
        if (came !== flavour) reporter.line(`only the ${came} build was to be had: it runs here too, and is larger`)
        const others = attempts.map((each) => each.source).filter((each) => each !== source)
        return await installWheels(torch, came, wheel, contents, [source, ...others], downloads, reporter)
      } catch (error) {
        if (!(error instanceof SetupError)) throw error
        failures.push(error.message)
      }
    }
  }
  throw new SetupError(
    `libtorch ${torch} for ${flavours.join(' or ')} was expected from pip or ${archive}, and none of them gave it; set LIBTORCH to a libtorch folder, or ask for another build (npx cleft setup --cuda cu130)\n${failures.map((line) => `  tried: ${line.split('\n')[0]}`).join('\n')}`,
  )
}

function libtorchFolder(torch: string, flavour: string): string {
  return join(cacheFolder(), 'libtorch', `${torch}-${flavour}`)
}

function downloadFolder(torch: string, flavour: string): string {
  return join(cacheFolder(), 'downloads', `torch-${torch}-${flavour}`)
}

/** Fetches from the first source that has it. */
async function fetchFromAny(
  sources: readonly WheelSource[],
  requirement: Requirement,
  folder: string,
  reporter: Reporter,
): Promise<Wheel> {
  const failures: string[] = []
  for (const source of new Map(sources.map((each) => [each.name, each])).values()) {
    try {
      return await source.fetch(requirement.name, requirement.specifier, folder, reporter)
    } catch (error) {
      if (!(error instanceof SetupError)) throw error
      failures.push(messageOf(error))
    }
  }
  throw new SetupError(
    `${requirement.name}${requirement.specifier}, which this build of torch needs, was not to be had: ${failures.join('; ')}`,
  )
}

/**
 * torch asks for the libraries of CUDA's toolkit; to compile, headers of two more parts are needed (crt/ and nv/), which
 * come with nvcc up to CUDA 12.
 */
function withHeaders(requirement: Requirement): Requirement {
  if (requirement.name !== 'cuda-toolkit') return requirement
  const compiler = /^==1[0-2]\./.test(requirement.specifier) ? 'nvcc' : 'crt'
  return { ...requirement, extras: [...new Set([...requirement.extras, compiler, 'cccl'])] }
}

/** Fetches what a CUDA wheel needs, and what those need: the wheels name it themselves. */
async function fetchCudaLibraries(
  contents: WheelContents,
  sources: readonly WheelSource[],
  downloads: string,
  reporter: Reporter,
): Promise<Wheel[]> {
  const wheels: Wheel[] = []
  const seen = new Set<string>()
  const queue = parseRequirements(contents.metadata).filter(isCudaLibrary).map(withHeaders)
  for (let requirement = queue.shift(); requirement !== undefined; requirement = queue.shift()) {
    // A name may come again with other extras, as cuda-toolkit[cublas] and cuda-toolkit[cudart].
    const key = `${requirement.name}[${requirement.extras.join()}]`
    if (seen.has(key) || (requirement.extras.length === 0 && seen.has(requirement.name))) continue
    seen.add(key).add(requirement.name)
    reporter.line(`getting ${requirement.name}${requirement.specifier}`)
    const wheel = await fetchFromAny(sources, requirement, downloads, reporter)
    if (!wheels.some((each) => each.file === wheel.file)) wheels.push(wheel)
    const { metadata } = await inspectWheel(wheel.file)
    // What torch itself pins comes before what a library merely allows.
    queue.push(...parseRequirements(metadata, requirement.extras).filter(isCudaLibrary))
  }
  return wheels
}

/** Unpacks the wheels beside one another, as a Python would, under a passing name; then the folder gets its own. */
async function installWheels(
  torch: string,
  flavour: string,
  wheel: Wheel,
  contents: WheelContents,
  sources: readonly WheelSource[],
  downloads: string,
  reporter: Reporter,
): Promise<Libtorch> {
  const libraries = contents.hasCuda ? await fetchCudaLibraries(contents, sources, downloads, reporter) : []
  const wheels = [wheel, ...libraries]
  const folder = libtorchFolder(torch, flavour)
  const beside = `${folder}.${process.pid}`
  mkdirSync(beside, { recursive: true })
  const forget = onEarlyExit(() => rmSync(beside, { recursive: true, force: true }))
  try {
    for (const each of wheels) {
      try {
        await unpackWheel(each.file, beside, { reporter })
      } catch (error) {
        // A damaged wheel would be found finished by the next run, and fail it too.
        rmSync(each.file, { force: true })
        throw error
      }
    }
    const found = inspectLibtorch(join(beside, 'torch'), 'setup')
    if (typeof found === 'string')
      throw new SetupError(
        `a libtorch was expected in ${normalizeName(contents.name)} ${contents.version}, but ${found}; ask for another version with --torch`,
      )
    writeRecord(join(beside, 'manifest.json'), {
      torch: contents.version,
      flavour,
      wheels: wheels.map((each) => ({ file: each.file.split(/[/\\]/).at(-1), sha256: each.sha256, from: each.from })),
    })
    rmSync(folder, { recursive: true, force: true })
    renameSync(beside, folder)
  } finally {
    forget()
    rmSync(beside, { recursive: true, force: true })
  }
  // Only now: until the installation is whole, a second run goes on from these.
  for (const each of [downloads, downloadFolder(torch, 'any')]) rmSync(each, { recursive: true, force: true })
  const installed = inspectLibtorch(join(folder, 'torch'), 'setup')
  if (typeof installed === 'string')
    throw new SetupError(`the new libtorch was expected to be usable, but ${installed}; run the set-up again`)
  reporter.line(`installed libtorch ${installed.version} in ${folder}`)
  return installed
}

/** What an installation was made of, or null. */
export function readManifest(libtorch: Libtorch): Record<string, unknown> | null {
  return readRecord(join(libtorch.root, '..', 'manifest.json'))
}

/** The version of this package. */
export function packageVersion(root: string): string {
  const record = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  return record.version
}
