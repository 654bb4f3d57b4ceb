// The cost of a call, of a training step, and of memory. Peer: peer_ops.py.
import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as torch from '../../dist/torch/index.js'
import { findPython, median, Peer, report, takeTurns } from './rows.mjs'

const { nn, optim } = torch

class Block extends nn.Module {
  constructor(width, heads) {
    super()
    this.heads = heads
    this.norm1 = new nn.LayerNorm(width)
    this.norm2 = new nn.LayerNorm(width)
    this.qkv = new nn.Linear(width, 3 * width)
    this.proj = new nn.Linear(width, width)
    this.fc1 = new nn.Linear(width, 4 * width)
    this.fc2 = new nn.Linear(4 * width, width)
  }
  forward(x) {
    const [B, T, C] = x.shape
    const [q, k, v] = this.qkv
      .forward(this.norm1.forward(x))
      .view(B, T, 3, this.heads, C / this.heads)
      .permute(2, 0, 3, 1, 4)
      .unbind(0)
    const attended = torch.scaledDotProductAttention(q, k, v).transpose(1, 2).reshape(B, T, C)
    const y = x.add(this.proj.forward(attended))
    return y.add(this.fc2.forward(this.fc1.forward(this.norm2.forward(y)).gelu()))
  }
}

const perScope = 100

function addTime(left, right, calls) {
  const started = process.hrtime.bigint()
  for (let done = 0; done < calls; done += perScope) {
    torch.scope(() => {
      for (let k = 0; k < perScope; k += 1) left.add(right)
    })
  }
  return Number(process.hrtime.bigint() - started) / calls / 1000
}

function makeStep() {
  const net = new nn.Sequential(...Array.from({ length: 12 }, () => new Block(192, 3)))
  const adamw = new optim.AdamW(net.parameters(), { lr: 1e-4, weightDecay: 0.05 })
  const x = torch.randn([8, 197, 192])
  return () => {
    const started = performance.now()
    torch.scope(() => {
      const loss = net.forward(x).square().mean()
      adamw.zeroGrad()
      loss.backward()
      adamw.step()
      loss.item()
    })
    return performance.now() - started
  }
}

/** Runs a part of this file in a process of its own, whose memory is its own. */
function inChild(part, args = [], flags = []) {
  const child = spawnSync(process.execPath, [...flags, fileURLToPath(import.meta.url), part, ...args], {
    encoding: 'utf8',
  })
  if (child.status !== 0) throw new Error(`${part} failed: ${child.stderr}`)
  return JSON.parse(child.stdout)
}

function growth() {
  const net = new nn.Sequential(new nn.Linear(64, 128), new nn.GELU(), new nn.Linear(128, 10))
  const adamw = new optim.AdamW(net.parameters(), { lr: 1e-3 })
  const x = torch.randn([32, 64])
  const y = torch.randint(10, [32])
  const step = () =>
    torch.scope(() => {
      const loss = nn.functional.crossEntropy(net.forward(x), y)
      adamw.zeroGrad()
      loss.backward()
      adamw.step()
      return loss.item()
    })
  for (let k = 0; k < 500; k += 1) step()
  const before = { memory: process.memoryUsage().rss, live: torch.memory.counters().live }
  for (let k = 0; k < 9500; k += 1) step()
  console.log(
    JSON.stringify({
      megabytes: (process.memoryUsage().rss - before.memory) / 1e6,
      live: torch.memory.counters().live - before.live,
    }),
  )
}

/** Writes a safetensors file of 1 GB without writing its data: 256 tensors of 4 MB. */
function writeLargeFile(path) {
  const entries = {}
  const bytes = 4_000_000
  for (let k = 0; k < 250; k += 1) {
    entries[`layers.${k}.weight`] = { dtype: 'F32', shape: [1000, 1000], data_offsets: [k * bytes, (k + 1) * bytes] }
  }
  let header = JSON.stringify(entries)
  header = header.padEnd(Math.ceil(header.length / 8) * 8)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  const file = openSync(path, 'w')
  writeSync(file, length)
  writeSync(file, header)
  ftruncateSync(file, 8 + header.length + 250 * bytes)
  closeSync(file)
}

function openFile(path) {
  torch.scope(() => torch.ones(1).sum().item())
  const before = process.memoryUsage().rss
  const started = performance.now()
  torch.scope(() => torch.openSafetensors(path).tensor('layers.100.weight').sum().item())
  const milliseconds = performance.now() - started
  console.log(JSON.stringify({ milliseconds, megabytes: (process.memoryUsage().rss - before) / 1e6 }))
}

export async function run({ json }) {
  const python = findPython()
  if (python === null) console.error('no Python with torch was found: rows that need the peer are left out')
  const peer = python === null ? null : new Peer(python, './peer_ops.py')
  const ask = peer === null ? null : (command) => async () => (await peer.ask(command)).value
  const right = torch.ones(4)
  if (peer !== null) {
    for (const [name, left, command] of [
      ['4-element add', torch.ones(4), 'add'],
      ['4-element add, with gradient', torch.ones(4, { requiresGrad: true }), 'add_grad'],
    ]) {
      addTime(left, right, 50_000)
      await ask(`${command} 50000`)()
      const times = await takeTurns(15, () => addTime(left, right, 50_000), ask(`${command} 50000`))
      report({ name, unit: 'µs', ...times, goal: 0.75 }, json)
    }
    const step = makeStep()
    const several = () => median(Array.from({ length: 5 }, step))
    several()
    await ask('step 5')()
    const times = await takeTurns(7, several, ask('step 5'))
    report({ name: 'transformer step, 12 x 192, batch 8', unit: 'ms', ...times, goal: 1.05 }, json)
    peer.close()
  }
  // Left alone, V8 enlarges the space of its young objects by some 18 MB over the first thousands of steps, whatever they
  // do: held at 1 MiB, what grows is ours.
  const flags = ['--max-semi-space-size=1']
  const grown = inChild('growth', [], flags)
  report({ name: 'memory growth over 9,500 steps', unit: 'MB', ours: grown.megabytes, limit: 20, goal: 1, flags }, json)
  report({ name: 'live tensors after 9,500 steps', unit: 'tensors', ours: grown.live, limit: 1, goal: 0 }, json)
  const folder = mkdtempSync(join(tmpdir(), 'cleft-bench-'))
  try {
    const path = join(folder, 'large.safetensors')
    writeLargeFile(path)
    const opened = Array.from({ length: 5 }, () => inChild('open', [path]))
    const milliseconds = median(opened.map((each) => each.milliseconds))
    const megabytes = median(opened.map((each) => each.megabytes))
    report(
      { name: 'open 1 GB safetensors, touch one tensor', unit: 'ms', ours: milliseconds, limit: 50, goal: 1 },
      json,
    )
    report({ name: 'the same, resident memory', unit: 'MB', ours: megabytes, limit: 10, goal: 1 }, json)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === 'growth') growth()
  else openFile(process.argv[3])
}
