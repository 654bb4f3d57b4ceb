import { spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { locateAddon } from '../../src/setup/addon.js'
import { findExecutable } from '../../src/setup/files.js'
import { resolveLibtorch } from '../../src/setup/libtorch.js'
import { packageRoot } from '../../src/setup/paths.js'
import { probeAddon } from '../../src/setup/probe.js'
import { temporaryFolder, writeFiles } from './folder.js'
import { SMALL_SOURCE } from './small-addon.js'

afterEach(() => {
  vi.unstubAllEnvs()
})

describe('locating', () => {
  beforeEach(() => {
    vi.stubEnv('CLEFT_ADDON', undefined)
  })

  test('takes a few milliseconds', () => {
    locateAddon()
    const started = performance.now()
    locateAddon()
    expect(performance.now() - started).toBeLessThan(50)
  })

  test('an add-on that is not built is an error with the next command', () => {
    const { root } = resolveLibtorch()
    vi.stubEnv('LIBTORCH', root)
    vi.stubEnv('CLEFT_CACHE', temporaryFolder())
    expect(() => locateAddon()).toThrow(
      /the native add-on for libtorch .* was expected at .*cleft\.node and is not built; run: npx cleft setup$/,
    )
  })

  test('CLEFT_ADDON wins, and has to exist', () => {
    const file = join(temporaryFolder(), 'my.node')
    vi.stubEnv('CLEFT_ADDON', file)
    expect(() => locateAddon()).toThrow(/CLEFT_ADDON must name a built add-on/)
    writeFileSync(file, '')
    expect(locateAddon()).toBe(file)
  })
})

describe('probing', () => {
  test('the built add-on says what it is', async () => {
    const libtorch = resolveLibtorch()
    const info = await probeAddon(locateAddon(), libtorch)
    expect(libtorch.version.startsWith(info.torchVersion.split('+')[0] ?? '?')).toBe(true)
    expect(info).toMatchObject({
      cudaBuild: libtorch.cuda !== null,
      threads: expect.any(Number),
      devices: expect.any(Array),
    })
  })

  test('what does not load is an error and not a crash', async () => {
    const folder = temporaryFolder()
    writeFiles(folder, { 'cleft.node': 'no library' })
    await expect(probeAddon(join(folder, 'cleft.node'), resolveLibtorch())).rejects.toThrow(
      /was expected to load, and did not \(status 1\): .*(invalid ELF header|too short)/,
    )
  })
})

/** The package in small, with one source file, in a folder of its own, whose name has a space. */
function smallPackage(source: string): string {
  const root = join(realpathSync(temporaryFolder()), 'small package')
  mkdirSync(join(root, 'native'), { recursive: true })
  for (const name of ['CMakeLists.txt', 'binding.gyp', 'package.json', 'tsconfig.json', 'dist/setup']) {
    cpSync(join(packageRoot(), name), join(root, name), { recursive: true })
  }
  symlinkSync(join(packageRoot(), 'node_modules'), join(root, 'node_modules'), 'dir')
  writeFileSync(join(root, 'native', 'addon.cpp'), source)
  return root
}

/** A PATH with everything of the present one but some programs. */
function pathWithout(names: RegExp): string {
  const folder = temporaryFolder()
  const linked = new Set<string>()
  for (const from of (process.env.PATH ?? '').split(delimiter)) {
    if (!existsSync(from)) continue
    for (const name of readdirSync(from)) {
      if (names.test(name) || linked.has(name)) continue
      linked.add(name)
      symlinkSync(join(from, name), join(folder, name))
    }
  }
  return folder
}

/** The step that npm runs when somebody installs the package. */
function install(root: string, cache: string, libtorch: string) {
  cpSync(join(packageRoot(), 'scripts', 'install.mjs'), join(root, 'scripts', 'install.mjs'))
  const env = { ...process.env, LIBTORCH: libtorch, CLEFT_CACHE: cache, CLEFT_ADDON: '' }
  return spawnSync(process.execPath, ['scripts/install.mjs'], { cwd: root, env, encoding: 'utf8' })
}

function build(root: string, cache: string, path = process.env.PATH) {
  const module = pathToFileURL(join(root, 'dist', 'setup', 'addon.js')).href
  const program = `
    import { buildAddon, locateAddon } from ${JSON.stringify(module)}
    import { resolveLibtorch } from ${JSON.stringify(new URL('libtorch.js', module).href)}
    try {
      const { file, info, built } = await buildAddon(resolveLibtorch())
      console.log(JSON.stringify({ info, built, same: file === locateAddon() }))
    } catch (error) { console.error(error.message); process.exit(1) }`
  const env = { ...process.env, LIBTORCH: resolveLibtorch().root, CLEFT_CACHE: cache, CLEFT_ADDON: '', PATH: path }
  return spawnSync(process.execPath, ['--input-type=module', '-e', program], { env, encoding: 'utf8' })
}

describe('building', { timeout: 300_000 }, () => {
  test.each([
    ['CMake', undefined],
    ['node-gyp where CMake is missing', /^(cmake|ctest|cpack|ninja)/],
  ])('with %s', (_name, hidden) => {
    const root = smallPackage(SMALL_SOURCE)
    const cache = temporaryFolder()
    const path = hidden === undefined ? process.env.PATH : pathWithout(hidden)
    if (hidden !== undefined) expect(findExecutable('cmake', path)).toBeNull()
    const first = build(root, cache, path)
    expect(first.stderr).toBe('')
    expect(JSON.parse(first.stdout)).toMatchObject({ info: { cpuCapability: 'EXTRA' }, built: true, same: true })
    expect(JSON.parse(build(root, cache, path).stdout)).toMatchObject({ built: false, same: true })
    const [key = ''] = readdirSync(join(cache, 'addon'))
    expect(readdirSync(join(cache, 'addon', key)).sort()).toEqual(['cleft.node', 'record.json'])
    expect(JSON.parse(readFileSync(join(cache, 'addon', key, 'record.json'), 'utf8'))).toMatchObject({
      package: root,
      builder: hidden ? 'node-gyp' : 'cmake',
    })
  })

  test('a source that does not compile is shown by its first error, and nothing is left', () => {
    const root = smallPackage('#include <napi.h>\nint broken = "text";\n')
    const cache = temporaryFolder()
    const { status, stderr } = build(root, cache)
    expect(status).toBe(1)
    expect(stderr).toMatch(
      /CMake was expected to build the add-on, and failed with status 1; the whole output is in .*build\.log, its first error:\n[\s\S]*addon\.cpp:2:14: error/,
    )
    expect(existsSync(join(cache, 'addon'))).toBe(false)
  })

  test('without a build tool the error says what to install', () => {
    const root = smallPackage(SMALL_SOURCE)
    const { status, stderr } = build(root, temporaryFolder(), temporaryFolder())
    expect(status).toBe(1)
    expect(stderr).toMatch(/neither was found on PATH; install CMake/)
  })

  test('the installation builds at once where a libtorch is there, and never in a clone', () => {
    const cache = temporaryFolder()
    const root = smallPackage(SMALL_SOURCE)
    expect(install(root, cache, resolveLibtorch().root)).toMatchObject({ status: 0, stderr: '' })
    expect(existsSync(join(cache, 'addon'))).toBe(false)
    rmSync(join(root, 'tsconfig.json'))
    const { status, stderr } = install(root, cache, resolveLibtorch().root)
    expect(status).toBe(0)
    expect(stderr).toMatch(/built and loaded the add-on/)
    expect(readdirSync(join(cache, 'addon'))).toHaveLength(1)
  })

  test('the installation does not fail for a build that fails, nor for want of libtorch', () => {
    const root = smallPackage('int broken = "text";\n')
    rmSync(join(root, 'tsconfig.json'))
    const failing = install(root, temporaryFolder(), resolveLibtorch().root)
    expect(failing.status).toBe(0)
    expect(failing.stderr).toMatch(/warning: the add-on could not be built yet: CMake was expected/)
    expect(failing.stderr).toMatch(/run: npx cleft setup\n$/)
    const without = install(root, temporaryFolder(), join(root, 'nowhere'))
    expect(without).toMatchObject({
      status: 0,
      stderr: 'cleft: no libtorch was found yet; get one with: npx cleft setup\n',
    })
  })
})
