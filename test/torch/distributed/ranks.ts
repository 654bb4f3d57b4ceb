import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../../src/torch/distributed/launch.js'

/** What one rank's process left behind. */
export interface Rank<Found> {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stderr: string
  /** What it printed; undefined where that is no JSON, as of one that was ended. */
  readonly found: Found
}

function textOf(stream: NodeJS.ReadableStream | null): () => string {
  const parts: Buffer[] = []
  stream?.on('data', (part: Buffer) => parts.push(part))
  return () => Buffer.concat(parts).toString('utf8')
}

function foundIn(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/**
 * Runs a program beside the tests in several processes, with torchrun's environment, each to its own end: nobody stops
 * the others when one fails. `ends` says which ranks end by themselves; the others are killed then. Default: all.
 */
export async function runRanks<Found>(
  size: number,
  program: string,
  values: readonly string[] = [],
  ends: (rank: number) => boolean = () => true,
): Promise<Rank<Found>[]> {
  const port = await freePort()
  const path = fileURLToPath(new URL(`./programs/${program}`, import.meta.url))
  const children: ChildProcess[] = []
  const results = Array.from({ length: size }, (_, rank) => {
    const child = spawn(process.execPath, [path, ...values], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        RANK: String(rank),
        WORLD_SIZE: String(size),
        LOCAL_RANK: String(rank),
        MASTER_ADDR: '127.0.0.1',
        MASTER_PORT: String(port),
      },
    })
    children.push(child)
    const [stdout, stderr] = [textOf(child.stdout), textOf(child.stderr)]
    return new Promise<Rank<Found>>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (status, signal) =>
        resolve({ status, signal, stderr: stderr(), found: foundIn(stdout()) as Found }),
      )
    })
  })
  // A rank that waits forever fails the test, and does not outlive it.
  const kill = () => {
    for (const child of children) child.kill('SIGKILL')
  }
  const end = setTimeout(kill, 50_000)
  try {
    await Promise.all(results.filter((_, rank) => ends(rank)))
  } finally {
    clearTimeout(end)
    kill()
  }
  return Promise.all(results)
}
