import { existsSync, readFileSync } from 'node:fs'
import { findExecutable } from './files.js'
import { run } from './run.js'

export interface Gpu {
  readonly names: readonly string[]
  readonly driver: string
  /** The newest CUDA that the driver can run, such as 13.0. */
  readonly cuda: string
  /** The smallest and the largest compute capability, where the driver says. */
  readonly capabilities: readonly number[]
}

// CUDA's release notes: the first Linux driver of each line. Within CUDA 12 a newer library runs on an older driver.
const DRIVERS: readonly (readonly [major: number, cuda: string])[] = [
  [580, '13.0'],
  [570, '12.8'],
  [560, '12.6'],
  [525, '12.0'],
  [450, '11.0'],
]

/** The CUDA that a driver can run, by the driver's version. */
export function cudaOfDriver(driver: string): string {
  const major = Number.parseInt(driver, 10)
  return DRIVERS.find(([least]) => major >= least)?.[1] ?? '0'
}

/**
 * The GPU and its driver, or null. A CUDA toolkit says nothing about either: build machines often have one and no GPU.
 */
export async function detectGpu(): Promise<Gpu | null> {
  const tool = findExecutable('nvidia-smi')
  if (tool !== null) {
    const query = ['--query-gpu=name,driver_version,compute_cap', '--format=csv,noheader']
    const [list, header] = await Promise.all([
      run(tool, query, { timeout: 30_000 }),
      run(tool, [], { timeout: 30_000 }),
    ])
    const rows = list.stdout
      .split('\n')
      .map((line) => line.split(',').map((cell) => cell.trim()))
      .filter((row) => row.length === 3)
    if (list.status === 0 && rows.length > 0) {
      const driver = rows[0]?.[1] ?? ''
      return {
        names: rows.map((row) => row[0] ?? ''),
        driver,
        cuda: header.stdout.match(/CUDA[A-Za-z ]* Version:\s*(\d+\.\d+)/)?.[1] ?? cudaOfDriver(driver),
        capabilities: rows.map((row) => Number(row[2])).filter((value) => value > 0),
      }
    }
  }
  // Containers often have the driver's library and devices without nvidia-smi.
  const version = '/proc/driver/nvidia/version'
  if (existsSync('/dev/nvidia0') && existsSync(version)) {
    const driver = readFileSync(version, 'utf8').match(/Kernel Module[^\d]*([\d.]+)/)?.[1] ?? ''
    return { names: ['NVIDIA GPU'], driver, cuda: cudaOfDriver(driver), capabilities: [] }
  }
  return null
}

/** The builds to try for a GPU, best first; empty where its driver runs none. */
export function flavoursFor(gpu: Gpu): string[] {
  const cuda = Number(gpu.cuda)
  const least = Math.min(...gpu.capabilities, Number.POSITIVE_INFINITY)
  const most = Math.max(...gpu.capabilities, 0)
  return ['cu130', 'cu128', 'cu126'].filter((flavour) => {
    // CUDA 13 dropped what came before Turing, 12.6 does not know Blackwell.
    if (flavour === 'cu130') return cuda >= 13 && least >= 7.5
    if (flavour === 'cu128') return cuda >= 12 && least >= 7.0
    return cuda >= 12 && most < 10
  })
}
