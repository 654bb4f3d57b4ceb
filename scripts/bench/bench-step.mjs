// The training step on the shared workload: DINOv2 with registers from scratch and a frozen GPT-2 with LoRA, on random
// pixels and CheXpert-style captions, against transformers and peft in three styles (peer_step.py).
//   npm run bench -- step [--size tiny|small] [--batch 16] [--dtype float32|bfloat16] [--rounds N] [--json]
import { fileURLToPath } from 'node:url'
import { TextTower } from '../../dist/clip/text-tower.js'
import { buildModel, freeze } from '../../dist/models/index.js'
import { lowerMatrices } from '../../dist/models/text/index.js'
import { addAdapter } from '../../dist/peft/index.js'
import * as torch from '../../dist/torch/index.js'
import { contrastiveStep } from '../../dist/train/contrastive-step.js'
import { imageWork } from '../../dist/train/figures.js'
import { parameterGroups } from '../../dist/train/parameter-groups.js'
import { RandomStream } from '../../dist/train/random-stream.js'
import { findPython, median, Peer, report, reportProfile, takeTurns } from './rows.mjs'
import { productRate } from './task-steps.mjs'

// width, layers and heads of the image encoder, and of the language model
const sizes = { tiny: [192, 6, 3, 256, 4, 4], small: [384, 12, 6, 512, 6, 8] }
const goals = {
  float32: { official: 0.55, tuned: 0.95, dedup: 0.95 },
  bfloat16: { official: 0.55, tuned: 0.65, dedup: 0.65 },
}
const names = { official: 'the published style', tuned: 'the tuned style', dedup: 'equal captions once' }

export async function run({ json, args }) {
  const option = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const size = option('--size') ?? 'small'
  if (!Object.hasOwn(sizes, size)) throw new Error(`--size: expected ${Object.keys(sizes)}, but received '${size}'`)
  const [batch, rounds] = [Number(option('--batch') ?? 16), Number(option('--rounds') ?? 3)]
  const python = findPython(['torch', 'transformers', 'peft', 'safetensors'])
  if (python === null) console.error('no Python with torch, transformers and peft was found: rows have no peer')
  for (const dtype of [option('--dtype') ?? ['float32', 'bfloat16']].flat()) {
    await measure({ size, batch, dtype, rounds, python, json })
  }
}

async function measure({ size, batch, dtype, rounds, python, json }) {
  const ours = await Steps.build(size, batch, dtype)
  const rate = productRate(dtype)
  const peers = []
  await ours.take(2)
  try {
    for (const [style, goal] of Object.entries(goals[dtype])) {
      const short = dtype === 'bfloat16' ? 'bf16' : 'fp32'
      const peer =
        python &&
        new Peer(python, './peer_step.py', ['--size', size, '--style', style, '--batch', batch, '--dtype', short])
      if (peer) peers.push(peer)
      await peer?.ask('step')
      const times = await takeTurns(
        rounds,
        async () => median(await ours.take(3)),
        peer && (async () => (await peer.ask('step')).value),
      )
      const ofProductRate = ours.imageFlops / (times.ours * 1e-3) / rate
      const name = `step ${size}, ${dtype}, against ${names[style]}`
      report({ name, unit: 'ms', ...times, goal, batch, ofProductRate }, json)
      if (style !== 'official') {
        const memory = { ours: process.resourceUsage().maxRSS / 1024, peer: peer && (await peer.ask('peak')).value }
        const name = `peak memory ${size}, ${dtype}, against ${names[style]}`
        report({ name, unit: 'MiB', ...memory, goal: 0.8, batch }, json)
      }
      peer?.close()
    }
    await reportProfile(`step ${size}, ${dtype}`, () => ours.take(1), json)
  } finally {
    for (const peer of peers) peer.close()
    ours.dispose()
  }
}

/** Our model in the peer's shapes, and its steps. */
class Steps {
  static async build(size, batch, dtype) {
    const [width, layers, heads, textWidth, textLayers, textHeads] = sizes[size]
    torch.manualSeed(0)
    const image = await buildModel({
      model_type: 'dinov2_with_registers',
      hidden_size: width,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      patch_size: 14,
      image_size: 224,
      num_register_tokens: 4,
    })
    const plain = await buildModel({
      model_type: 'gpt2',
      n_embd: textWidth,
      n_layer: textLayers,
      n_head: textHeads,
      vocab_size: 28896,
      n_positions: 1024,
      scale_attn_by_inverse_layer_idx: true,
    })
    freeze(plain)
    if (dtype === 'bfloat16') lowerMatrices(plain, 'bfloat16')
    const lora = { kind: 'lora', r: 8, alpha: 32, dropout: 0.1, targetModules: ['c_attn'] }
    const text = torch.scope(() => addAdapter(plain, lora))
    const model = torch.scope(() => new TextTower({ image, text, padToken: 0, maximumLength: 64 }))
    return new Steps(model.train(), batch, dtype)
  }

  constructor(model, batch, dtype) {
    this.model = model
    this.batch = batch
    this.dtype = dtype
    this.texts = workload()
    this.pixels = torch.randn([batch, 3, 224, 224])
    this.random = new RandomStream(0)
    this.imageFlops = 3 * batch * imageWork(model.image, { imageSize: 224, image: { checkpointing: false } }).forward
    const groups = parameterGroups(model, { weightDecay: 0.1 }).map(({ rateScale, ...group }) => group)
    this.optimizer = new torch.optim.AdamW(groups, { lr: 4e-5 })
    this.number = 0
  }

  /** Milliseconds of each of so many steps. */
  async take(count) {
    const times = []
    for (let k = 0; k < count; k += 1) {
      const first = (this.number * this.batch) % (this.texts.length - this.batch + 1)
      this.number += 1
      const started = performance.now()
      await this.one(this.texts.slice(first, first + this.batch))
      times.push(performance.now() - started)
    }
    return times
  }

  async one(texts) {
    const { model, pixels, optimizer, random, dtype } = this
    optimizer.zeroGrad()
    const pause = () => new Promise(setImmediate)
    const { loss, scores } = await contrastiveStep(model, { pixels, texts }, { random, precision: dtype, pause })
    torch.optim.stepIfFinite(optimizer)
    loss.item()
    torch.dispose([loss, scores])
  }

  dispose() {
    this.optimizer.dispose()
    this.random[Symbol.dispose]()
    this.pixels.dispose()
    this.model.dispose()
  }
}

function workload() {
  return torch.scope(() => {
    const file = torch.openSafetensors(fileURLToPath(new URL('./workload.safetensors', import.meta.url)))
    const ids = file.tensor('input_ids').toArray()
    return file
      .tensor('length')
      .toArray()
      .map((length, row) => ids[row].slice(0, length))
  })
}
