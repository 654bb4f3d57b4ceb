// The training step on the shared workload, on a CPU, against transformers and peft in three styles (peer_step.py).
//   npm run bench -- step [--size tiny|small] [--batch 16] [--dtype float32|bfloat16] [--rounds N] [--json]
import {
  findPython,
  forgetPeakMemory,
  Peer,
  peakMemory,
  peerDtype,
  productRate,
  report,
  reportProfile,
  takeSteps,
} from './rows.mjs'
import { SharedStep } from './shared-step.mjs'

const goals = {
  float32: { official: 0.55, tuned: 0.95, dedup: 0.95 },
  bfloat16: { official: 0.55, tuned: 0.65, dedup: 0.65 },
}
const names = { official: 'the published style', tuned: 'the tuned style', dedup: 'equal captions once' }

export async function run({ json, args }) {
  const option = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const size = option('--size') ?? 'small'
  const [batch, rounds] = [Number(option('--batch') ?? 16), Number(option('--rounds') ?? 3)]
  const python = findPython(['torch', 'transformers', 'peft', 'safetensors'])
  if (python === null) console.error('no Python with torch, transformers and peft was found: rows have no peer')
  for (const dtype of [option('--dtype') ?? ['float32', 'bfloat16']].flat()) {
    await measure({ size, batch, dtype, rounds, python, json })
  }
}

async function measure({ size, batch, dtype, rounds, python, json }) {
  forgetPeakMemory()
  const ours = await SharedStep.build(size, batch, { dtype })
  const rate = productRate({ dtype })
  const peers = []
  await ours.take(2)
  try {
    for (const [style, goal] of Object.entries(goals[dtype])) {
      const given = ['--size', size, '--style', style, '--batch', batch, '--dtype', peerDtype(dtype)]
      const peer = python && new Peer(python, './peer_step.py', given)
      if (peer) peers.push(peer)
      await peer?.ask('step')
      const times = await takeSteps(rounds, ours, peer)
      const extra = { batch, ofProductRate: ours.ofRate(rate, times.ours) }
      report({ name: `step ${size}, ${dtype}, against ${names[style]}`, unit: 'ms', ...times, goal, ...extra }, json)
      if (style !== 'official') {
        const memory = { ours: peakMemory(), peer: peer && (await peer.ask('peak')).value }
        const name = `peak memory ${size}, ${dtype}, against ${names[style]}`
        report({ name, unit: 'MiB', ...memory, goal: 0.8, batch }, json)
      }
      peer?.close()
    }
    await reportProfile(`step ${size}, ${dtype}`, () => ours.take(1), json)
  } finally {
    for (const peer of peers) peer.close()
    await ours.dispose()
  }
}
