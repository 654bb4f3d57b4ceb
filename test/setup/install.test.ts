import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { readRecord } from '../../src/setup/files.js'
import { obtainLibtorch } from '../../src/setup/install.js'
import { type Reporter, silentReporter } from '../../src/setup/report.js'
import { chooseWheel, parseIndex } from '../../src/setup/sources.js'
import { fakeProgram, temporaryFolder } from './folder.js'
import { sendBytes, serve } from './server.js'
import { torchFiles, type WheelOptions, writeWheel } from './zip.js'

let folder: string
let programs: string

beforeEach(() => {
  folder = temporaryFolder()
  programs = join(folder, 'bin')
  mkdirSync(programs)
  vi.stubEnv('CLEFT_CACHE', join(folder, 'cache'))
  vi.stubEnv('LIBTORCH', undefined)
  // No Python and no nvidia-smi, unless a test puts one here.
  vi.stubEnv('PATH', programs)
})

afterEach(() => {
  vi.unstubAllEnvs()
})

const TAG = 'manylinux_2_28_x86_64'

function wheel(file: string, options: WheelOptions): string {
  const path = join(folder, 'wheels', file)
  writeWheel(path, options)
  return path
}

function cpuWheel(file = `torch-2.13.0+cpu-cp312-cp312-${TAG}.whl`): string {
  return wheel(file, { name: 'torch', version: '2.13.0+cpu', files: torchFiles('2.13.0+cpu', null) })
}

function cudaWheels(): string[] {
  const requires = [
    'filelock',
    'triton==3.6.0',
    'cuda-toolkit[cublas]==13.0.2; platform_system == "Linux"',
    'nvidia-nccl-cu13==2.28.9; platform_system == "Linux"',
    'nvidia-never==1; platform_system == "Windows"',
  ]
  const library = (name: string, version: string, path: string, needs: string[] = []) =>
    wheel(`${name.replaceAll('-', '_')}-${version}-py3-none-${TAG}.whl`, {
      name,
      version,
      requires: needs,
      files: { [path]: name },
    })
  return [
    wheel(`torch-2.13.0+cu130-cp312-cp312-${TAG}.whl`, {
      name: 'torch',
      version: '2.13.0+cu130',
      requires,
      files: torchFiles('2.13.0+cu130', '13.0'),
    }),
    wheel('cuda_toolkit-13.0.2-py3-none-any.whl', {
      name: 'cuda-toolkit',
      version: '13.0.2',
      requires: [
        'nvidia-cublas==13.1.*; extra == "cublas"',
        'nvidia-cufft==12.*; extra == "cufft"',
        'nvidia-cuda-crt==13.0.*; extra == "crt"',
        'nvidia-cuda-cccl==13.0.*; extra == "cccl"',
      ],
      files: {},
    }),
    library('nvidia-cuda-crt', '13.0.88', 'nvidia/cu13/include/crt/host_config.h'),
    library('nvidia-cuda-cccl', '13.0.85', 'nvidia/cu13/include/nv/target'),
    library('nvidia-nccl-cu13', '2.28.9', 'nvidia/nccl/lib/libnccl.so.2'),
    library('nvidia-cublas', '13.1.0.3', 'nvidia/cu13/lib/libcublas.so.13', ['nvidia-cuda-nvrtc']),
    library('nvidia-cublas', '13.2.0.1', 'nvidia/cu13/lib/libcublas.so.13', []),
    library('nvidia-cuda-nvrtc', '13.0.88', 'nvidia/cu13/lib/libnvrtc.so.13'),
  ]
}

/** PyTorch's archive in small: an index page for each package, wheels that can break off. */
function serveArchive(wheels: readonly string[], options: { flavour: string; breakAfter?: number; sum?: string }) {
  const asked: string[] = []
  const broken = new Set<string>()
  const address = serve((request, response) => {
    const path = decodeURIComponent(request.url ?? '')
    asked.push(path)
    const page = path.match(new RegExp(`^/whl/${options.flavour}/([^/]+)/$`))?.[1]
    if (page !== undefined) {
      const links = wheels
        .filter((file) => basename(file).replaceAll('_', '-').startsWith(`${page}-`))
        .map(
          (file) =>
            `<a href="/whl/${encodeURIComponent(basename(file))}#sha256=${options.sum ?? createHash('sha256').update(readFileSync(file)).digest('hex')}">${basename(file)}</a><br/>`,
        )
      response
        .writeHead(links.length > 0 ? 200 : 404, { 'content-type': 'text/html' })
        .end(`<html><body>${links.join('\n')}</body></html>`)
      return
    }
    const file = wheels.find((each) => path === `/whl/${basename(each)}`)
    if (file === undefined) {
      response.writeHead(404).end()
      return
    }
    const breakAfter = broken.has(file) ? undefined : options.breakAfter
    broken.add(file)
    sendBytes(request, response, readFileSync(file), { breakAfter })
  })
  return { asked, address: address.then((base) => `${base}/whl`) }
}

/** A python3 whose pip "downloads" given wheels: those whose requirement is in the table. */
function fakePip(answers: Readonly<Record<string, string>>): void {
  fakeProgram(
    programs,
    'python3',
    `const [,, ...a] = process.argv
    if (a.includes('--version')) { console.log('pip 25.2 from somewhere'); process.exit(0) }
    require('node:fs').appendFileSync(${JSON.stringify(join(folder, 'pip.log'))}, a.join(' ') + '\\n')
    const file = a.includes('--index-url') ? undefined : ${JSON.stringify(answers)}[a.at(-1)]
    if (!file) { console.error('ERROR: No matching distribution found for ' + a.at(-1)); process.exit(1) }
    require('node:fs').copyFileSync(file, require('node:path').join(a[a.indexOf('--dest') + 1], require('node:path').basename(file)))`,
  )
}

const pipLog = () => readFileSync(join(folder, 'pip.log'), 'utf8').trim().split('\n')

describe("from PyTorch's archive, without a Python", () => {
  test('the CPU build, over a connection that breaks', async () => {
    const { address } = serveArchive([cpuWheel(), cpuWheel(`torch-2.13.0+cpu-cp312-cp312-win_amd64.whl`)], {
      flavour: 'cpu',
      breakAfter: 200,
    })
    const libtorch = await obtainLibtorch({ cuda: 'cpu', archive: await address }, silentReporter)
    expect(libtorch).toMatchObject({
      root: join(folder, 'cache/libtorch/2.13.0-cpu/torch'),
      version: '2.13.0+cpu',
      cuda: null,
    })
    const manifest = readRecord(join(folder, 'cache/libtorch/2.13.0-cpu/manifest.json'))
    expect(manifest).toMatchObject({
      torch: '2.13.0+cpu',
      flavour: 'cpu',
      wheels: [{ file: `torch-2.13.0+cpu-cp312-cp312-${TAG}.whl`, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }],
    })
    expect(existsSync(join(folder, 'cache/downloads/torch-2.13.0-cpu'))).toBe(false)
  })

  test('what is installed already is not fetched again', async () => {
    const { address, asked } = serveArchive([cpuWheel()], { flavour: 'cpu' })
    await obtainLibtorch({ cuda: 'cpu', archive: await address }, silentReporter)
    const before = asked.length
    await obtainLibtorch({ cuda: 'cpu', archive: await address }, silentReporter)
    expect(asked.length).toBe(before)
  })

  test('a CUDA build with the libraries that it names, beside each other', async () => {
    const { address, asked } = serveArchive(cudaWheels(), { flavour: 'cu130' })
    const libtorch = await obtainLibtorch({ cuda: 'cu130', archive: await address }, silentReporter)
    expect(libtorch).toMatchObject({ cuda: '13.0', version: '2.13.0+cu130' })
    const root = join(folder, 'cache/libtorch/2.13.0-cu130')
    expect(readFileSync(join(root, 'nvidia/cu13/lib/libcublas.so.13'), 'utf8')).toBe('nvidia-cublas')
    expect(readdirSync(join(root, 'nvidia/cu13/lib')).sort()).toEqual(['libcublas.so.13', 'libnvrtc.so.13'])
    expect(existsSync(join(root, 'nvidia/nccl/lib/libnccl.so.2'))).toBe(true)
    // torch does not ask for them, and nothing of CUDA's own compiles without
    expect(existsSync(join(root, 'nvidia/cu13/include/crt/host_config.h'))).toBe(true)
    expect(existsSync(join(root, 'nvidia/cu13/include/nv/target'))).toBe(true)
    expect(existsSync(join(root, 'nvidia_cublas-13.1.0.3.dist-info'))).toBe(true)
    expect(asked.some((path) => /triton|never|cufft|filelock/.test(path))).toBe(false)
  })

  test('a wrong checksum ends it, and nothing is installed', async () => {
    const { address } = serveArchive([cpuWheel()], { flavour: 'cpu', sum: 'b'.repeat(64) })
    await expect(obtainLibtorch({ cuda: 'cpu', archive: await address }, silentReporter)).rejects.toThrow(
      /expected to have the SHA-256 b{64}/,
    )
    expect(existsSync(join(folder, 'cache/libtorch'))).toBe(false)
  })

  test('a wheel that RECORD contradicts leaves no half installation and no wheel', async () => {
    const file = wheel(`torch-2.13.0+cpu-cp312-cp312-${TAG}.whl`, {
      name: 'torch',
      version: '2.13.0+cpu',
      files: torchFiles('2.13.0+cpu', null),
      sums: { 'torch/lib/libc10.so': 'wrong' },
    })
    const { address } = serveArchive([file], { flavour: 'cpu' })
    await expect(obtainLibtorch({ cuda: 'cpu', archive: await address }, silentReporter)).rejects.toThrow(
      /libc10\.so was expected to have the SHA-256 wrong/,
    )
    expect(readdirSync(join(folder, 'cache/libtorch'))).toEqual([])
    expect(readdirSync(join(folder, 'cache/downloads/torch-2.13.0-cpu'))).toEqual([])
  })
})

describe('through pip', () => {
  test("the user's index is asked first, for the exact build", async () => {
    fakePip({ 'torch==2.13.0+cpu': cpuWheel() })
    const libtorch = await obtainLibtorch({ cuda: 'cpu', archive: 'http://127.0.0.1:9/whl' }, silentReporter)
    expect(libtorch.version).toBe('2.13.0+cpu')
    expect(pipLog()).toHaveLength(1)
    expect(pipLog()[0]).toMatch(
      /^-m pip download --no-deps --only-binary=:all: .*--resume-retries 20 torch==2\.13\.0\+cpu$/,
    )
  })

  test('an index that answers with the other kind is seen through', async () => {
    const [cuda = ''] = cudaWheels()
    fakePip({ 'torch==2.13.0': cuda })
    await expect(obtainLibtorch({ cuda: 'cpu', archive: 'http://127.0.0.1:9/whl' }, silentReporter)).rejects.toThrow(
      /pip answered with the cu130 build of torch 2\.13\.0\+cu130, and cpu was asked for/,
    )
  })

  test('an index that names no build in its file name is looked into', async () => {
    const plain = cpuWheel(`torch-2.13.0-cp312-cp312-${TAG}.whl`)
    fakePip({ 'torch==2.13.0': plain })
    const libtorch = await obtainLibtorch({ cuda: 'cpu', archive: 'http://127.0.0.1:9/whl' }, silentReporter)
    expect(libtorch).toMatchObject({ version: '2.13.0+cpu', cuda: null })
    expect(pipLog().some((line) => line.includes('--python-version 3.12 --platform'))).toBe(true)
  })

  test("PyTorch's archive takes over where the user's index has none", async () => {
    fakePip({})
    const { address } = serveArchive([cpuWheel()], { flavour: 'cpu' })
    expect((await obtainLibtorch({ cuda: 'cpu', archive: await address }, silentReporter)).version).toBe('2.13.0+cpu')
    expect(pipLog().some((line) => /--index-url http:\/\/127\.0\.0\.1:\d+\/whl\/cpu/.test(line))).toBe(true)
  })
})

describe('auto', () => {
  test('without a GPU the CPU build, whatever toolkit is there', async () => {
    fakeProgram(programs, 'nvcc', 'console.log("release 13.0")')
    const lines: string[] = []
    const reporter: Reporter = { ...silentReporter, line: (text) => lines.push(text) }
    const { address } = serveArchive([cpuWheel()], { flavour: 'cpu' })
    expect((await obtainLibtorch({ archive: await address }, reporter)).cuda).toBeNull()
    expect(lines[0]).toMatch(/no NVIDIA GPU/)
  })

  test('with a GPU the build that its driver runs', async () => {
    fakeProgram(
      programs,
      'nvidia-smi',
      `console.log(process.argv[2] ? 'NVIDIA H100, 580.65.06, 9.0' : '| Driver Version: 580.65.06  CUDA Version: 13.0 |')`,
    )
    const { address } = serveArchive(cudaWheels(), { flavour: 'cu130' })
    expect((await obtainLibtorch({ archive: await address }, silentReporter)).cuda).toBe('13.0')
  })
})

test.each([
  [{ cuda: 'cuda' }, /--cuda must be auto, cpu or a build such as .* but it is cuda/],
  [{ torch: '2.9.0' }, /--torch must be a version of libtorch 2\.11 to 2\.14 with three numbers, but it is 2\.9\.0/],
  [{ torch: '2.13' }, /--torch must be a version/],
])('what nobody can mean is refused: %o', async (options, message) => {
  await expect(obtainLibtorch(options, silentReporter)).rejects.toThrow(message)
})

test('of an index the newest fitting wheel for this platform is taken', () => {
  const page = [
    'torch-2.13.0%2Bcpu-cp314-cp314t-manylinux_2_28_x86_64.whl',
    'torch-2.13.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl#sha256=AB',
    'torch-2.12.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl',
    'torch-2.13.0%2Bcpu-cp312-cp312-win_amd64.whl',
  ]
    .map((name) => `<a href="${name}">x</a>`)
    .join('')
  const wheels = parseIndex(page, 'http://127.0.0.1/whl/cpu/torch/')
  expect(wheels).toHaveLength(4)
  expect(chooseWheel(wheels, 'torch', '>=2.12')?.url).toBe(
    'http://127.0.0.1/whl/cpu/torch/torch-2.13.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl',
  )
  expect(chooseWheel(wheels, 'torch', '==2.14.0')).toBeNull()
})
