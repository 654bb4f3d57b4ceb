import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { locateAddon } from '../../src/setup/addon.js'
import { findExecutable, writeRecord } from '../../src/setup/files.js'
import { resolveLibtorch } from '../../src/setup/libtorch.js'
import { packageRoot } from '../../src/setup/paths.js'
import { fittingPrebuilt, hashOfSources, listPrebuilt, whyNoPrebuilt } from '../../src/setup/prebuilt.js'
import { temporaryFolder } from './folder.js'

interface Locked {
  readonly dev?: boolean
  readonly optional?: boolean
  readonly link?: boolean
  readonly os?: readonly string[]
  readonly cpu?: readonly string[]
  readonly libc?: readonly string[]
}

interface Prune {
  packageFits(entry: Locked): boolean
  productionPackages(packages: Readonly<Record<string, Locked>>): { path: string; optional: boolean }[]
  keepFile(path: string): boolean
}

const script = (name: string) => pathToFileURL(join(packageRoot(), 'scripts', 'bundle', name)).href
const { keepFile, packageFits, productionPackages } = (await import(
  /* @vite-ignore */ script('prune.mjs')
)) as unknown as Prune
const { readArguments } = (await import(/* @vite-ignore */ script('arguments.mjs'))) as unknown as {
  readArguments(words: readonly string[]): { folders: string[]; prebuilt: boolean }
}

describe('what goes into a bundle', () => {
  test('of packages: what runs, for this one system', () => {
    expect(packageFits({})).toBe(true)
    expect(packageFits({ os: ['linux'], cpu: ['x64'], libc: ['glibc'] })).toBe(true)
    expect(packageFits({ os: ['!win32'] })).toBe(true)
    expect(packageFits({ os: ['!linux'] })).toBe(false)
    expect(packageFits({ os: ['darwin'] })).toBe(false)
    expect(packageFits({ cpu: ['arm64'] })).toBe(false)
    expect(packageFits({ os: ['linux'], cpu: ['x64'], libc: ['musl'] })).toBe(false)

    const { packages } = JSON.parse(readFileSync(join(packageRoot(), 'package-lock.json'), 'utf8')) as {
      packages: Record<string, Locked>
    }
    const paths = productionPackages(packages).map(({ path }) => path)
    for (const wanted of ['sharp', '@img/sharp-linux-x64', '@img/sharp-libvips-linux-x64', 'tokenizers', 'yargs']) {
      expect(paths).toContain(`node_modules/${wanted}`)
    }
    for (const unwanted of ['typescript', 'vitest', '@biomejs/biome', '@img/sharp-darwin-arm64']) {
      expect(paths).not.toContain(`node_modules/${unwanted}`)
    }
    expect(paths.filter((path) => /musl|win32|darwin|arm64/.test(path))).toEqual([])
  })

  test('of their files: no binaries of other systems, no sources, all licences', () => {
    for (const kept of [
      'tokenizers.linux-x64-gnu.node',
      'lib/libvips-cpp.so.8.18.3',
      'index.js',
      'types/index.d.ts',
      'LICENSE',
      'LICENSE.md',
      'THIRD-PARTY-NOTICES.md',
      'dist/alarm.js',
      'data.json',
    ]) {
      expect([kept, keepFile(kept)]).toEqual([kept, true])
    }
    for (const left of [
      'tokenizers.linux-x64-musl.node',
      'tokenizers.linux-arm64-gnu.node',
      'tokenizers.linux-arm-gnueabihf.node',
      'tokenizers.darwin-universal.node',
      'tokenizers.win32-x64-msvc.node',
      'tokenizers.android-arm64.node',
      'index.js.map',
      'src/index.ts',
      'README.md',
      'tsconfig.json',
    ]) {
      expect([left, keepFile(left)]).toEqual([left, false])
    }
  })

  test('of folders: those after --with', () => {
    const folder = temporaryFolder()
    mkdirSync(join(folder, 'a', 'b'), { recursive: true })
    mkdirSync(join(folder, 'b'))
    expect(readArguments([])).toEqual({ folders: [], prebuilt: true })
    expect(readArguments(['--with', join(folder, 'a'), join(folder, 'b'), '--no-prebuilt'])).toEqual({
      folders: [join(folder, 'a'), join(folder, 'b')],
      prebuilt: false,
    })
    expect(() => readArguments(['here'])).toThrow(/'here' came/)
    expect(() => readArguments(['--with'])).toThrow(/a folder was expected after --with/)
    expect(() => readArguments(['--with', join(folder, 'none')])).toThrow(/is none/)
    expect(() => readArguments(['--with', join(folder, 'b'), join(folder, 'a', 'b')])).toThrow(/two are called b/)
  })
})

/** A package folder whose sources are this package's, with add-ons that came built for the given libtorches. */
function packageWith(
  root: string,
  prebuilt: readonly { torch: string; cuda: string | null; sources?: string }[],
): void {
  for (const name of ['native', 'CMakeLists.txt', 'binding.gyp', 'package.json']) {
    cpSync(join(packageRoot(), name), join(root, name), { recursive: true })
  }
  for (const [index, each] of prebuilt.entries()) {
    const folder = join(root, 'prebuilt', String(index))
    mkdirSync(folder, { recursive: true })
    copyFileSync(locateAddon(), join(folder, 'cleft.node'))
    const system = `${process.platform}-${process.arch}`
    writeRecord(join(folder, 'record.json'), { system, sources: hashOfSources(root), ...each })
  }
}

test('an add-on that came built fits by release, CUDA and sources', () => {
  const libtorch = { ...resolveLibtorch(), version: '2.13.0+cpu', cuda: null }
  const [good, bad, none] = [temporaryFolder(), temporaryFolder(), temporaryFolder()]
  packageWith(good, [
    { torch: '2.14.1+cu130', cuda: '13.0' },
    { torch: '2.13.0', cuda: null },
  ])
  expect(listPrebuilt(good).length).toBe(2)
  expect(fittingPrebuilt(libtorch, good)?.torch).toBe('2.13.0')
  expect(fittingPrebuilt({ ...libtorch, version: '2.14.1', cuda: '13.0' }, good)?.torch).toBe('2.14.1+cu130')
  expect(fittingPrebuilt({ ...libtorch, version: '2.14.1', cuda: '12.8' }, good)).toBeNull()
  expect(fittingPrebuilt({ ...libtorch, version: '2.13.1' }, good)).toBeNull()
  expect(whyNoPrebuilt({ ...libtorch, version: '2.13.1' }, good)).toMatch(
    /for libtorch 2\.14\.1\+cu130 \(CUDA 13\.0, .*\) and 2\.13\.0 \(CPU, .*\), do not fit: this libtorch is 2\.13\.1/,
  )
  packageWith(bad, [{ torch: '2.13.0', cuda: null, sources: 'others' }])
  expect(fittingPrebuilt(libtorch, bad)).toBeNull()
  expect(whyNoPrebuilt(libtorch, bad)).toMatch(/are of other sources/)
  packageWith(none, [])
  expect(whyNoPrebuilt(libtorch, none)).toBe('')
})

/** What runs a command with the network cut off, where this machine lets us. */
function withoutNetwork(): string[] {
  const ways = [
    ['unshare', '-n'],
    ['unshare', '-rn'],
  ]
  return ways.find(([command = '', ...parameters]) => spawnSync(command, [...parameters, 'true']).status === 0) ?? []
}

/** A bundle in small: the compiled package as it is here, this Node by a link, the built add-on as one that came along. */
function smallBundle(folder: string): void {
  const root = packageRoot()
  const inside = join(folder, 'lib', 'node_modules', 'cleft')
  mkdirSync(join(folder, 'bin'), { recursive: true })
  mkdirSync(inside, { recursive: true })
  symlinkSync(process.execPath, join(folder, 'bin', 'node'))
  for (const [name, to] of [
    ['install.sh', 'install.sh'],
    ['cleft', 'bin/cleft'],
  ] as const) {
    copyFileSync(join(root, 'scripts', 'bundle', name), join(folder, to))
    chmodSync(join(folder, to), 0o755)
  }
  cpSync(join(root, 'dist'), join(inside, 'dist'), { recursive: true, filter: (path) => !path.includes('.tar.xz') })
  symlinkSync(join(root, 'node_modules'), join(inside, 'node_modules'))
  packageWith(inside, [{ torch: resolveLibtorch().version, cuda: resolveLibtorch().cuda }])
  mkdirSync(join(folder, 'tools'))
  for (const name of ['sh', 'dirname', 'readlink', 'uname', 'ldd', 'cat', 'head']) {
    const found = findExecutable(name)
    if (found !== null) symlinkSync(found, join(folder, 'tools', name))
  }
}

describe.runIf(process.platform === 'linux' && process.arch === 'x64')('install.sh', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'cleft-bundle-'))
    smallBundle(folder)
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  /** Runs it with neither compiler nor network, and a cache of its own. */
  function install(more: NodeJS.ProcessEnv = {}) {
    const [program = '', ...parameters] = [
      ...withoutNetwork(),
      findExecutable('sh') ?? 'sh',
      join(folder, 'install.sh'),
    ]
    const cache = temporaryFolder()
    const PATH = join(folder, 'tools')
    return spawnSync(findExecutable(program) ?? program, parameters, {
      env: { HOME: cache, PATH, CLEFT_CACHE: cache, LIBTORCH: resolveLibtorch().root, ...more },
      encoding: 'utf8',
    })
  }

  test('takes the add-on that came built, without compiler and network, and all is well', () => {
    const { status, stdout, stderr } = install()
    expect(`${status} ${status === 0 ? '' : stdout + stderr}`).toBe('0 ')
    expect(stderr).toMatch(/using the add-on that came built for libtorch/)
    expect(stdout).toMatch(/ok {3}compiler +no C\+\+ compiler on PATH; only needed to build the add-on/)
    expect(stdout).toMatch(/everything that cleft needs is here/)
  })

  test('takes the libtorch in the bundle, for later too', () => {
    mkdirSync(join(folder, 'with'))
    symlinkSync(resolveLibtorch().root, join(folder, 'with', 'libtorch'))
    const { status, stdout, stderr } = install({ LIBTORCH: '' })
    rmSync(join(folder, 'with'), { recursive: true })
    expect(`${status} ${status === 0 ? '' : stdout + stderr}`).toBe('0 ')
    // the doctor was asked without LIBTORCH
    expect(stdout).toMatch(/ok {3}libtorch +.*with\/libtorch \(from cleft setup\)/)
    expect(stderr).toMatch(/what came along:\n {2}.*with\/libtorch\n/)
  })

  test('without a libtorch, in it or on the machine, is an error with what was tried', () => {
    const { status, stderr } = install({ LIBTORCH: '' })
    expect(status).toBe(1)
    expect(stderr).toMatch(/a libtorch \(2\.11 to 2\.14\) was expected and none was found/)
  })

  test('refuses an add-on that does not fit, and says what is there', () => {
    const file = join(folder, 'lib', 'node_modules', 'cleft', 'prebuilt', '0', 'record.json')
    writeRecord(file, { ...JSON.parse(readFileSync(file, 'utf8')), torch: '2.11.0+cpu' })
    const { status, stderr } = install()
    expect(status).toBe(1)
    expect(stderr).toMatch(
      /^cleft: CMake, or make and Python .* came built, for libtorch 2\.11\.0\+cpu \(.*\), do not fit: this libtorch is /m,
    )
    expect(stderr).not.toMatch(/^\s+at /m)
  })

  test('refuses parameters', () => {
    const { status, stderr } = spawnSync('sh', [join(folder, 'install.sh'), '--prefix'], { encoding: 'utf8' })
    expect([status, stderr]).toEqual([
      1,
      'install.sh: no parameters were expected, and --prefix came; LIBTORCH=FOLDER chooses a libtorch\n',
    ])
  })
})
