import { utimesSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { readRecord, writeRecord } from '../../src/setup/files.js'
import {
  flavourOf,
  inspectLibtorch,
  isSupportedVersion,
  resolveLibtorch,
  setupRecordFile,
} from '../../src/setup/libtorch.js'
import { fakeProgram, temporaryFolder, writeFiles } from './folder.js'

let folder: string
let programs: string

beforeEach(() => {
  folder = temporaryFolder()
  programs = join(folder, 'bin')
  vi.stubEnv('CLEFT_CACHE', join(folder, 'cache'))
  vi.stubEnv('LIBTORCH', undefined)
  vi.stubEnv('PATH', programs)
})

afterEach(() => {
  vi.unstubAllEnvs()
})

/** A torch folder as in a Python package. */
function makeTorch(name: string, version = '2.13.0+cpu', more: Record<string, string> = {}): string {
  writeFiles(join(folder, name), {
    'version.py': `__version__ = '${version}'\n`,
    'include/ATen/ATen.h': '',
    'lib/libtorch_cpu.so': '',
    ...more,
  })
  return join(folder, name)
}

function makePython(torch: string): void {
  const counter = join(folder, 'asked')
  fakeProgram(
    programs,
    'python3',
    `require('node:fs').appendFileSync(${JSON.stringify(counter)}, 'x'); console.log(${JSON.stringify(torch)})`,
  )
}

async function timesAsked(): Promise<number> {
  const { readFile } = await import('node:fs/promises')
  return (await readFile(join(folder, 'asked'), 'utf8').catch(() => '')).length
}

describe('the order of the resolver', () => {
  test('LIBTORCH comes before what was set up, which comes before Python', () => {
    makePython(makeTorch('python'))
    expect(resolveLibtorch()).toMatchObject({ root: join(folder, 'python'), source: 'python' })
    writeRecord(setupRecordFile(), { root: makeTorch('installed') })
    expect(resolveLibtorch()).toMatchObject({ root: join(folder, 'installed'), source: 'setup' })
    vi.stubEnv('LIBTORCH', makeTorch('given'))
    expect(resolveLibtorch()).toMatchObject({ root: join(folder, 'given'), source: 'LIBTORCH' })
  })

  test('a LIBTORCH that is wrong is an error and not passed over', () => {
    makePython(makeTorch('python'))
    vi.stubEnv('LIBTORCH', join(folder, 'nowhere'))
    expect(() => resolveLibtorch()).toThrow(
      /LIBTORCH must name a libtorch folder .*nowhere does not exist; correct it, or unset it/,
    )
    makeTorch('site-packages/torch')
    vi.stubEnv('LIBTORCH', join(folder, 'site-packages'))
    expect(() => resolveLibtorch()).toThrow(`did you mean ${join(folder, 'site-packages', 'torch')}?`)
  })

  test('an installation that was removed is passed over', () => {
    writeRecord(setupRecordFile(), { root: join(folder, 'removed') })
    makePython(makeTorch('python'))
    expect(resolveLibtorch().source).toBe('python')
  })

  test('where there is none, everything that was tried and the next command are named', () => {
    expect(() => resolveLibtorch()).toThrow(
      /was expected and none was found; run: npx cleft setup\n {2}tried LIBTORCH: not set\n {2}tried cleft setup: nothing installed in .*\n {2}tried Python: no python3 on PATH/,
    )
    makePython('')
    expect(() => resolveLibtorch()).toThrow(/tried Python: python3 .* has no torch/)
    makePython(makeTorch('old', '2.4.1'))
    expect(() => resolveLibtorch()).toThrow(/is libtorch 2\.4\.1, and libtorch 2\.11 to 2\.14 is supported/)
  })

  test('a damaged record counts as none', () => {
    writeFiles(join(folder, 'cache'), { 'libtorch.json': '{"root": ' })
    expect(() => resolveLibtorch()).toThrow(/nothing installed/)
  })
})

test('Python is asked once, and again when its torch changed', async () => {
  const torch = makeTorch('python')
  makePython(torch)
  resolveLibtorch()
  resolveLibtorch()
  expect(await timesAsked()).toBe(1)
  utimesSync(join(torch, 'version.py'), new Date(), new Date(Date.now() + 5000))
  resolveLibtorch()
  expect(await timesAsked()).toBe(2)
  expect(Object.keys(readRecord(join(folder, 'cache', 'python.json')) ?? {})).toHaveLength(1)
})

describe('what a folder is', () => {
  test('the layout of a zip: build-version', () => {
    const root = makeTorch('zip')
    writeFiles(root, { 'version.py': '', 'build-version': '2.12.1+cu126\n', 'lib/libtorch_cuda.so': '' })
    const found = inspectLibtorch(root, 'LIBTORCH')
    expect(found).toMatchObject({ version: '2.12.1+cu126', cuda: '12.6', libDir: join(root, 'lib') })
    expect(typeof found === 'string' ? '' : flavourOf(found)).toBe('cu126')
  })

  test('the version from the headers alone, and CUDA without a version', () => {
    const root = makeTorch('headers')
    const header = '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 2\n'
    writeFiles(root, { 'version.py': '', 'include/torch/headeronly/version.h': header, 'lib/libtorch_cuda.so': '' })
    expect(inspectLibtorch(root, 'LIBTORCH')).toMatchObject({ version: '2.11.2', cuda: 'unknown' })
  })

  test('the headers of the nvidia wheels beside a CUDA torch are found', () => {
    const root = makeTorch('site/torch', '2.13.0+cu130', { 'lib/libtorch_cuda.so': '' })
    writeFiles(join(folder, 'site', 'nvidia'), { 'cu13/include/cuda_runtime_api.h': '' })
    expect(inspectLibtorch(root, 'setup')).toMatchObject({
      cuda: '13.0',
      includeDirs: expect.arrayContaining([join(folder, 'site', 'nvidia', 'cu13', 'include')]),
    })
  })

  test('what is missing is named', () => {
    writeFiles(join(folder, 'half'), { 'lib/libtorch_cpu.so': '' })
    expect(inspectLibtorch(join(folder, 'half'), 'LIBTORCH')).toMatch(/holds no headers/)
    expect(inspectLibtorch(folder, 'LIBTORCH')).toMatch(/holds no lib\/libtorch_cpu\.so/)
    writeFiles(join(folder, 'half'), { 'include/ATen/ATen.h': '' })
    expect(inspectLibtorch(join(folder, 'half'), 'LIBTORCH')).toMatch(/does not say its version/)
  })

  test('supported are 2.11 to 2.14', () => {
    expect(['2.10.0', '2.11.0', '2.13.0+cpu', '2.14.9', '2.15.0', '3.12.0', 'x'].map(isSupportedVersion)).toEqual([
      false,
      true,
      true,
      true,
      false,
      false,
      false,
    ])
  })
})
