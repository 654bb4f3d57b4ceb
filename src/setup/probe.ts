import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { SetupError } from './errors.js'
import { findExecutable } from './files.js'
import { type Libtorch, libraryFile } from './libtorch.js'
import { run } from './run.js'

export interface AddonInfo {
  readonly torchVersion: string
  /** Whether the add-on was compiled for a CUDA build of libtorch. */
  readonly cudaBuild: boolean
  /** Whether what needs CUDA's own headers is built in: graphs, NCCL. Add-ons from before it have no word of it. */
  readonly cudaHeaders?: boolean
  readonly cudaAvailable: boolean
  readonly devices: readonly { name: string; totalMemory: number; freeMemory: number }[]
  readonly threads: number
  readonly cpuCapability: string
}

// A library that does not fit may end the process that loads it, so that the first load happens in a child. The list
// of loaded libraries is Linux's; elsewhere the add-on's own word has to do.
const PROGRAM = `
const info = require(process.argv[1]).info()
let cudaLoaded = null
try { cudaLoaded = require('node:fs').readFileSync('/proc/self/maps', 'utf8').includes('libtorch_cuda.so') } catch {}
process.stdout.write('\\ncleft-probe:' + JSON.stringify({ info, cudaLoaded }) + '\\n')
`

interface ProbeAnswer {
  readonly info: AddonInfo
  readonly cudaLoaded: boolean | null
}

function readAnswer(stdout: string): ProbeAnswer | null {
  const line = stdout.split('\n').find((text) => text.startsWith('cleft-probe:'))
  if (line === undefined) return null
  return JSON.parse(line.slice('cleft-probe:'.length)) as ProbeAnswer
}

/** The libraries that the loader would not find for these files, each named once. */
export async function missingLibraries(files: readonly string[]): Promise<string[]> {
  if (process.platform !== 'linux' || findExecutable('ldd') === null) return []
  const missing = new Set<string>()
  for (const file of files) {
    if (!existsSync(file)) continue
    const { stdout } = await run('ldd', [file], { timeout: 60_000 })
    for (const match of stdout.matchAll(/^\s*(\S+) => not found/gm)) missing.add(match[1] ?? '')
  }
  return [...missing].sort()
}

function lastWords(text: string): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !/^\s+at |^Node\.js v/.test(line))
  return lines.find((line) => /^\w*Error: /.test(line)) ?? lines.at(-1) ?? 'it said nothing'
}

/**
 * Loads an add-on in a child process and returns what it says of itself. For a CUDA libtorch it also has to have loaded
 * CUDA's libraries; each one that is missing is named.
 */
export async function probeAddon(addon: string, libtorch: Libtorch): Promise<AddonInfo> {
  const finished = await run(process.execPath, ['-e', PROGRAM, addon], { timeout: 120_000 })
  const answer = finished.status === 0 ? readAnswer(finished.stdout) : null
  const cudaFiles =
    libtorch.cuda === null ? [] : ['torch_cuda', 'c10_cuda'].map((name) => join(libtorch.libDir, libraryFile(name)))
  if (answer === null) {
    const missing = await missingLibraries([addon, join(libtorch.libDir, libraryFile('torch_cpu')), ...cudaFiles])
    const cause =
      missing.length > 0 ? `these libraries were not found: ${missing.join(', ')}` : lastWords(finished.stderr)
    throw new SetupError(
      `the add-on ${addon} was expected to load, and did not (status ${finished.status}): ${cause}; mend that, then run: npx cleft setup`,
    )
  }
  if (libtorch.cuda !== null && (!answer.info.cudaBuild || answer.cudaLoaded === false)) {
    const missing = await missingLibraries([addon, ...cudaFiles])
    const cause = missing.length > 0 ? `; not found: ${missing.join(', ')}` : ''
    throw new SetupError(
      `the CUDA build of libtorch at ${libtorch.root} was expected to load its CUDA libraries, and libtorch_cuda did not load${cause}; install it anew with: npx cleft setup --cuda auto`,
    )
  }
  return answer.info
}
