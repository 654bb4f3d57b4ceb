// The training step at CLEFT's own size on a GPU: DINOv2 ViT-B/14 with registers, a GPT-2 of BioMedLM's shape (2.7 billion
// parameters) with LoRA, random weights, bf16, the shared captions; against the same in Python (peer_step.py) in its styles.
//   npm run bench -- gpu [--batch 72,288,1024] [--size full|small|tiny] [--steps 10] [--no-compile] [--device cuda|cpu] [--json]
// --device cpu with --size tiny tries the script itself where no GPU is.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { TextTower } from '../../dist/clip/text-tower.js'
import { buildModel, freeze, TextTokenizer } from '../../dist/models/index.js'
import { lowerMatrices } from '../../dist/models/text/index.js'
import { addAdapter } from '../../dist/peft/index.js'
import * as torch from '../../dist/torch/index.js'
import { contrastiveStep } from '../../dist/train/contrastive-step.js'
import { runFigures } from '../../dist/train/figures.js'
import { RandomStream } from '../../dist/train/random-stream.js'
import { parseOptions } from '../../dist/train/train.js'
import { findPython, median, Peer, report } from './rows.mjs'

const here = (name) => fileURLToPath(new URL(name, import.meta.url))
/** Width, layers, heads of both: peer_step.py's. */
const sizes = { tiny: [192, 6, 3, 256, 4, 4], small: [384, 12, 6, 512, 6, 8], full: [768, 12, 12, 2560, 32, 20] }
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
  if (sizes[size] === undefined)
    throw new Error(`expected --size ${Object.keys(sizes).join(', ')}, but received ${size}`)
  if (device.startsWith('cuda') && !torch.cuda.isAvailable()) {
    console.error('no GPU here: nothing was measured; --device cpu --size tiny tries the script')
    process.exitCode = 1
    return
  }
  const rate = productRate(device)
  console.error(`a product of matrices in bf16: ${(rate * 1e-12).toPrecision(4)} TFLOP/s`)
  const python = findPython(['torch', 'transformers', 'peft', 'safetensors'])
  if (python === null) console.error('no Python with torch, transformers and peft was found: rows have no peer')
  for (const batch of values.batch.split(',').map(Number)) {
    const ours = await measure(sizes[size], batch, Number(values.steps), device, rate)
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

/** Operations a second of a bf16 product of square matrices: the best of some. */
function productRate(device) {
  const n = device.startsWith('cuda') ? 8192 : 1024
  const wait = () => device.startsWith('cuda') && torch.cuda.synchronize()
  return torch.scope(() => {
    const [a, b] = [0, 1].map(() => torch.randn([n, n], { dtype: 'bfloat16', device }))
    let best = 0
    for (let round = 0; round < 20; round += 1) {
      wait()
      const started = performance.now()
      torch.scope(() => {
        a.mm(b)
      })
      wait()
      best = Math.max(best, (2 * n ** 3) / ((performance.now() - started) * 1e-3))
    }
    return best
  })
}

async function build([width, layers, heads, textWidth, textLayers, textHeads], device) {
  torch.manualSeed(0)
  const image = await buildModel(
    {
      model_type: 'dinov2_with_registers',
      hidden_size: width,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      patch_size: 14,
      image_size: 224,
      num_register_tokens: 4,
    },
    { device },
  )
  const language = await buildModel(
    {
      model_type: 'gpt2',
      n_embd: textWidth,
      n_layer: textLayers,
      n_head: textHeads,
      vocab_size: 28896,
      n_positions: 1024,
      eos_token_id: 0,
      scale_attn_by_inverse_layer_idx: true,
    },
    { device },
  )
  freeze(language, { ownDropout: false })
  // the peer holds the frozen model in bf16 too
  torch.scope(() => lowerMatrices(language, 'bfloat16'))
  const text = torch.scope(() => addAdapter(language, { kind: 'lora', r: 8, alpha: 32, dropout: 0.1 }))
  return torch.nn.construct({ device }, () =>
    torch.scope(() => new TextTower({ image, text, embeddingWidth: 512, pooling: 'last-token', maximumLength: 64 })),
  )
}

/** Our step, timed and counted. */
async function measure(shape, batch, steps, device, rate) {
  const isGpu = device.startsWith('cuda')
  const model = await build(shape, device)
  model.train()
  freezeNorm(model)
  const tokenizer = TextTokenizer.open(here('./tokenizer.json'))
  const captions = readFileSync(here('./captions.txt'), 'utf8').split('\n').filter(Boolean)
  const options = parseOptions({
    stage: 'pretrain',
    data: { kind: 'chexpert', root: '.' },
    image: { model: {} },
    text: { model: {} },
    batchSize: batch,
    precision: 'bfloat16',
    out: 'none',
  })
  const figures = await runFigures({ model, tokenizer }, options, captions)
  const trains = model.parameters().filter(({ requiresGrad }) => requiresGrad)
  const adamw = new torch.optim.AdamW(trains, { lr: 4e-5, weightDecay: 0.1 })
  const random = new RandomStream(1, device)
  const pixels = torch.keep(torch.randn([batch, 3, 224, 224], { device }))
  const all = await tokenizer.encode(captions, { maximumLength: 64 })
  const wait = () => isGpu && torch.cuda.synchronize()
  const step = async (index) => {
    const rows = Array.from({ length: batch }, (_, k) => (index * batch + k) % all.length)
    adamw.zeroGrad()
    const result = await contrastiveStep(
      model,
      {
        pixels,
        texts: rows.map((row) => all[row]),
        targets: 'same-caption',
        captions: rows.map((row) => captions[row]),
      },
      { random, precision: 'bfloat16' },
    )
    torch.scope(() => {
      torch.optim.stepIfFinite(adamw)
    })
    torch.dispose(result)
  }
  for (let k = 0; k < WARM_UP; k += 1) await step(k)
  wait()
  if (isGpu) torch.cuda.resetPeakMemory()
  const times = []
  for (let k = 0; k < steps; k += 1) {
    const started = performance.now()
    await step(WARM_UP + k)
    wait()
    times.push(performance.now() - started)
  }
  const peak = isGpu ? torch.cuda.memoryStatistics().peakAllocated : process.resourceUsage().maxRSS * 1024
  const milliseconds = median(times)
  for (const each of [adamw, model, pixels]) each.dispose()
  random[Symbol.dispose]()
  await torch.memory.collect()
  return {
    step: milliseconds,
    peakMiB: peak / 2 ** 20,
    samplesPerSecond: (batch / milliseconds) * 1e3,
    tokens: figures.texts.tokens,
    utilisation: figures.flops.total / (milliseconds * 1e-3) / rate,
    device: torch.info().devices[0]?.name ?? 'cpu',
  }
}

/** What the feature does not come through. */
function freezeNorm({ image }) {
  for (const [name, module] of image.namedChildren()) if (name === 'layernorm') module.requiresGrad_(false)
}

/** The peer's time and memory, or null where it did not run (out of memory, say). */
async function askPeer(python, args, { size, batch, steps, device }) {
  const given = ['--size', size, '--batch', String(batch), '--device', device, '--dtype', 'bf16']
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
