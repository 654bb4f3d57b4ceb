// What every benchmark shares: rows of one JSON object a line, the Python peer as a process that is asked again and
// again (so that ours and theirs take turns on a noisy machine), medians, and what it was measured on.
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import * as torch from '../../dist/torch/index.js'

export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

export const machine = () => ({
  cpu: cpus()[0].model.trim(),
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  threads: torch.getNumThreads(),
  torch: torch.info().torchVersion,
  node: process.version,
})

/** Prints a row. `limit` stands in for a peer where the goal is a fixed figure. */
export function report({ name, unit, ours, peer = null, limit = null, goal, ...rest }, json) {
  const ratio = peer !== null ? ours / peer : limit !== null ? ours / limit : null
  const row = { name, unit, ours, peer, ...(limit === null ? {} : { limit }), ratio, goal, ...rest, machine: machine() }
  if (json) {
    console.log(JSON.stringify(row))
    return
  }
  const against = peer !== null ? `peer ${peer.toPrecision(4)}` : limit !== null ? `limit ${limit}` : 'no peer'
  const verdict = ratio === null ? '' : `  ratio ${ratio.toFixed(3)}, goal ${goal}: ${ratio <= goal ? 'met' : 'missed'}`
  console.log(`${name.padEnd(42)} ${ours.toPrecision(4)} ${unit}, ${against}${verdict}`)
}

/** Memory counts from here on: what was measured before, in this process, is none of what is measured next. */
export const forgetPeakMemory = () => writeFileSync('/proc/self/clear_refs', '5')

/** The most memory that this process held at once, in MiB. */
export const peakMemory = () => Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024

/** Operations a second of a product of square matrices: the best of some, to hold a step's operations against. */
export function productRate({ dtype, device = 'cpu' }) {
  const isGpu = device.startsWith('cuda')
  const n = isGpu ? 8192 : 1024
  return torch.scope(() => {
    const [a, b] = [0, 1].map(() => torch.randn([n, n], { dtype, device }))
    let best = 0
    for (let round = 0; round < 20; round += 1) {
      if (isGpu) torch.cuda.synchronize()
      const started = performance.now()
      torch.scope(() => {
        a.mm(b)
      })
      if (isGpu) torch.cuda.synchronize()
      best = Math.max(best, (2 * n ** 3) / ((performance.now() - started) * 1e-3))
    }
    return best
  })
}

/** Where the time of some work goes: the operators that take the most themselves. */
export async function reportProfile(name, work, json) {
  const profiler = new torch.profiler.Profiler()
  let operators
  try {
    await work()
  } finally {
    operators = profiler.stop()
  }
  if (json) console.log(JSON.stringify({ name: `${name}, profile`, operators: operators.slice(0, 20) }))
  else console.log(torch.profiler.describe(operators))
}

/** A Python with torch in it, or null: CLEFT_PYTHON, else python3. */
export function findPython(modules = ['torch']) {
  for (const python of [process.env.CLEFT_PYTHON, 'python3', 'python'].filter(Boolean)) {
    const check = spawnSync(python, ['-c', modules.map((module) => `import ${module}`).join(';')], { stdio: 'ignore' })
    if (check.status === 0) return python
  }
  return null
}

/** A peer: a Python script that reads a command a line and answers each with a line of JSON. */
export class Peer {
  constructor(python, script, args = []) {
    this.process = spawn(python, [fileURLToPath(new URL(script, import.meta.url)), ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]()
  }

  async ask(command) {
    this.process.stdin.write(`${command}\n`)
    const { value, done } = await this.lines.next()
    if (done) throw new Error(`expected the Python peer to answer '${command}', but it ended`)
    return JSON.parse(value)
  }

  close() {
    this.process.stdin.end()
  }
}

/** Lets ours and the peer take turns; the medians, and the ratio of each turn. */
export async function takeTurns(rounds, ours, peer) {
  const found = { ours: [], peer: [] }
  for (let round = 0; round < rounds; round += 1) {
    found.ours.push(await ours())
    if (peer !== null) found.peer.push(await peer())
  }
  return { ours: median(found.ours), peer: peer === null ? null : median(found.peer) }
}

/** What the peers call our dtypes. */
export const peerDtype = (dtype) => (dtype === 'bfloat16' ? 'bf16' : 'fp32')

/** Turns of training steps: three of ours, one of the peer's. */
export const takeSteps = (rounds, ours, peer) =>
  takeTurns(rounds, async () => median(await ours.take(3)), peer && (async () => (await peer.ask('step')).value))
