// The training step at CLEFT's own size on a GPU: DINOv2 ViT-B/14 with registers, a GPT-2 of BioMedLM's shape (2.7 billion
// parameters) with LoRA, random weights, bf16, the shared captions; against the same in Python (peer_step.py) in its styles.
//   npm run bench -- gpu [--batch 72,288,1024] [--size full|small|tiny] [--steps 10] [--no-compile] [--device cuda|cpu] [--json]
// --device cpu with --size tiny tries the script itself where no GPU is.
import { parseArgs } from 'node:util'
import * as torch from '../../dist/torch/index.js'
import { findPython, forgetPeakMemory, median, Peer, peakMemory, productRate, report } from './rows.mjs'
import { SharedStep } from './shared-step.mjs'

/** The peer's styles, and what part of their time and memory ours should take. */
const styles = [
  { name: 'the published style', args: ['--style', 'official'], time: 1 / 6, memory: 0.5 },
  { name: 'the tuned style', args: ['--style', 'tuned'], time: 1 / 1.5, memory: 0.5 },
  { name: 'the tuned style, compiled', args: ['--style', 'tuned', '--compile'], time: 1 / 1.5, memory: 0.5 },
  { name: 'equal captions once', args: ['--style', 'dedup'], time: 1, memory: 0.5 },
]
const UTILISATION = 0.45
const WARM_UP = 3

export async function run({ json, args }) {
  const { values } = parseArgs({
    args,
    options: {
      batch: { type: 'string', default: '72,288,1024' },
      size: { type: 'string', default: 'full' },
      steps: { type: 'string', default: '10' },
      device: { type: 'string', default: 'cuda' },
      compile: { type: 'boolean', default: true },
      json: { type: 'boolean', default: false },
    },
    allowNegative: true,
    allowPositionals: true,
  })
  const { size, device } = values
  if (device.startsWith('cuda') && !torch.cuda.isAvailable()) {
    console.error('no GPU here: nothing was measured; --device cpu --size tiny tries the script')
    process.exitCode = 1
    return
  }
  const rate = productRate({ dtype: 'bfloat16', device })
  console.error(`a product of matrices in bf16: ${(rate * 1e-12).toPrecision(4)} TFLOP/s`)
  const python = findPython(['torch', 'transformers', 'peft', 'safetensors'])
  if (python === null) console.error('no Python with torch, transformers and peft was found: rows have no peer')
  for (const batch of values.batch.split(',').map(Number)) {
    const ours = await measure(size, batch, Number(values.steps), device, rate)
    const { step, peakMiB, ...extra } = ours
    for (const style of styles.filter(({ args }) => values.compile || !args.includes('--compile'))) {
      const peer = python && (await askPeer(python, style.args, { size, batch, steps: Number(values.steps), device }))
      const against = `batch ${batch}, against ${style.name}`
      report(
        { name: `step, ${against}`, unit: 'ms', ours: step, peer: peer?.step ?? null, goal: style.time, ...extra },
        json,
      )
      report(
        { name: `memory, ${against}`, unit: 'MiB', ours: peakMiB, peer: peer?.peakMiB ?? null, goal: style.memory },
        json,
      )
    }
    // as unused time against the most that may be unused, so that less is better here too
    const { utilisation } = ours
    const unused = { ours: 1 - utilisation, limit: 1 - UTILISATION, goal: 1 }
    report({ name: `unused of the product rate, batch ${batch}`, unit: 'of 1', ...unused, ...extra }, json)
  }
}

/** Our step, timed and counted. */
async function measure(size, batch, steps, device, rate) {
  const isGpu = device.startsWith('cuda')
  forgetPeakMemory()
  const ours = await SharedStep.build(size, batch, { device, dtype: 'bfloat16' })
  await ours.take(WARM_UP)
  if (isGpu) torch.cuda.resetPeakMemory()
  const milliseconds = median(await ours.take(steps))
  const peakMiB = isGpu ? torch.cuda.memoryStatistics().peakAllocated / 2 ** 20 : peakMemory()
  await ours.dispose()
  return {
    step: milliseconds,
    peakMiB,
    samplesPerSecond: (batch / milliseconds) * 1e3,
    tokens: ours.figures.texts.tokens,
    utilisation: ours.ofRate(rate, milliseconds),
    device: torch.info().devices[0]?.name ?? 'cpu',
  }
}

/** The peer's, in a process of its own that has the device to itself; null where it does not run. */
async function askPeer(python, args, { size, batch, steps, device }) {
  const given = ['--size', size, '--batch', batch, '--device', device, '--dtype', 'bf16']
  const peer = new Peer(python, './peer_step.py', [...args, ...given])
  try {
    for (let k = 0; k < WARM_UP; k += 1) await peer.ask('step')
    const times = []
    for (let k = 0; k < steps; k += 1) times.push((await peer.ask('step')).value)
    return { step: median(times), peakMiB: (await peer.ask('peak')).value }
  } catch (error) {
    console.error(`the peer (${args.join(' ')}, batch ${batch}) did not run: ${error.message}`)
    return null
  } finally {
    peer.close()
  }
}
