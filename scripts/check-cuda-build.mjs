// node scripts/check-cuda-build.mjs [--torch 2.14.1] [--cuda cu130] [--folder FOLDER]: compiles and links native/ against a CUDA
// build of libtorch, and loads what came out, on a machine without a GPU. Gigabytes are fetched (through pip, or PyTorch's
// archive) into the folder, which is kept: a second run only compiles. Not a part of `npm test`.
import { existsSync, mkdirSync, readFileSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const { values } = parseArgs({
  options: {
    torch: { type: 'string', default: '2.14.1' },
    cuda: { type: 'string', default: 'cu130' },
    folder: { type: 'string', default: join(tmpdir(), 'cleft-cuda') },
  },
})
if (!existsSync(join(root, 'dist', 'setup', 'install.js'))) {
  console.error('check-cuda-build: compiled TypeScript was expected in dist/; run: npm run build')
  process.exit(1)
}
const folder = resolve(values.folder)
mkdirSync(folder, { recursive: true })
process.env.CLEFT_CACHE = folder
delete process.env.LIBTORCH

const { obtainLibtorch } = await import('../dist/setup/install.js')
const { buildWithCMake } = await import('../dist/setup/builders.js')
const { probeAddon } = await import('../dist/setup/probe.js')
const { terminalReporter } = await import('../dist/setup/report.js')
const { run } = await import('../dist/setup/run.js')
const reporter = terminalReporter()

/** The text of a compiled file says which guarded parts went in: their names are in it. */
function partsOf(addon) {
  const text = readFileSync(addon).toString('latin1')
  const known = {
    'process groups of NCCL': 'ProcessGroupNCCL',
    'captured graphs': 'CUDAGraph',
    'the caching allocator': 'CUDACachingAllocator',
  }
  return Object.entries(known).map(([name, symbol]) => ({ name, isThere: text.includes(symbol) }))
}

/** Symbols that no library has, but for those of Node, which come from the program that loads the add-on. */
async function unresolved(addon) {
  const { stdout, stderr } = await run('ldd', ['-r', addon], { timeout: 120_000 })
  const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => /undefined symbol|not found/.test(line))
  return lines.map((line) => line.trim()).filter((line) => !/\bnapi_|\bnode_api_/.test(line))
}

async function main() {
  const { bavail, bsize } = statfsSync(folder)
  if (!existsSync(join(folder, 'libtorch')) && bavail * bsize < 15e9) {
    throw new Error(
      `15 GB were expected to be free in ${folder}, and ${(bavail * bsize * 1e-9).toFixed(0)} GB are; see --folder`,
    )
  }
  const libtorch = await obtainLibtorch({ torch: values.torch, cuda: values.cuda }, reporter)
  const started = performance.now()
  const addon = await buildWithCMake(root, join(folder, 'build'), libtorch, reporter)
  const seconds = Math.round((performance.now() - started) / 1000)
  reporter.line(`compiled and linked ${addon} in ${seconds} s`)
  const missing = partsOf(addon).filter(({ isThere }) => !isThere)
  if (missing.length > 0) {
    throw new Error(
      `${missing.map(({ name }) => name).join(' and ')} were expected to be compiled in, and are not: headers are missing`,
    )
  }
  const open = await unresolved(addon)
  if (open.length > 0)
    throw new Error(`all symbols were expected to be found, and are not:\n  ${open.slice(0, 20).join('\n  ')}`)
  const info = await probeAddon(addon, libtorch)
  process.stdout.write(
    `native/ compiles, links and loads with libtorch ${info.torchVersion} (CUDA ${libtorch.cuda}): ${partsOf(addon)
      .map(({ name }) => name)
      .join(', ')}; ${info.cudaAvailable ? 'a GPU is here too: npm run test:gpu' : 'no GPU here'}\n`,
  )
}

try {
  await main()
} catch (error) {
  console.error(`check-cuda-build: ${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
}
