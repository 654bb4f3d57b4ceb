// CLEFT's training step on the shared workload, in the shapes of peer_step.py: DINOv2 with registers from scratch, a frozen
// GPT-2 with LoRA, random weights and pixels, CheXpert-style captions.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { TextTower } from '../../dist/clip/text-tower.js'
import { buildModel, freeze, TextTokenizer } from '../../dist/models/index.js'
import { lowerMatrices } from '../../dist/models/text/index.js'
import { addAdapter } from '../../dist/peft/index.js'
import * as torch from '../../dist/torch/index.js'
import { contrastiveStep } from '../../dist/train/contrastive-step.js'
import { runFigures } from '../../dist/train/figures.js'
import { parameterGroups } from '../../dist/train/parameter-groups.js'
import { RandomStream } from '../../dist/train/random-stream.js'
import { freezeUnusedOfImage } from '../../dist/train/towers.js'
import { parseOptions } from '../../dist/train/train.js'

/** Width, layers and heads of the image encoder, and of the language model. */
export const SHAPES = {
  tiny: [192, 6, 3, 256, 4, 4],
  small: [384, 12, 6, 512, 6, 8],
  full: [768, 12, 12, 2560, 32, 20],
}

const here = (name) => fileURLToPath(new URL(name, import.meta.url))

async function buildTower([width, layers, heads, textWidth, textLayers, textHeads], { device, dtype }) {
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
  freezeUnusedOfImage(image, 'mean-prenorm')
  const language = await buildModel(
    {
      model_type: 'gpt2',
      n_embd: textWidth,
      n_layer: textLayers,
      n_head: textHeads,
      vocab_size: 28896,
      n_positions: 1024,
      scale_attn_by_inverse_layer_idx: true,
    },
    { device },
  )
  freeze(language, { ownDropout: false })
  // the peer holds the frozen model in bf16 too
  if (dtype === 'bfloat16') torch.scope(() => lowerMatrices(language, 'bfloat16'))
  const lora = { kind: 'lora', r: 8, alpha: 32, dropout: 0.1, targetModules: ['c_attn'] }
  const text = torch.scope(() => addAdapter(language, lora))
  return torch.nn.construct({ device }, () =>
    torch.scope(() => new TextTower({ image, text, embeddingWidth: 512, pooling: 'last-token', maximumLength: 64 })),
  )
}

export class SharedStep {
  static async build(size, batch, { device = 'cpu', dtype = 'float32' } = {}) {
    if (!Object.hasOwn(SHAPES, size)) {
      throw new Error(`--size: expected ${Object.keys(SHAPES).join(', ')}, but received '${size}'`)
    }
    const model = (await buildTower(SHAPES[size], { device, dtype })).train()
    const tokenizer = TextTokenizer.open(here('./tokenizer.json'))
    const captions = readFileSync(here('./captions.txt'), 'utf8').split('\n').filter(Boolean)
    const options = parseOptions({
      stage: 'pretrain',
      data: { kind: 'chexpert', root: '.' },
      image: { model: {} },
      text: { model: {} },
      batchSize: batch,
      precision: dtype,
      out: 'none',
    })
    const step = new SharedStep(model, { batch, device, dtype })
    step.figures = await runFigures({ model, tokenizer }, options, captions)
    step.texts = await tokenizer.encode(captions, { maximumLength: 64 })
    return step
  }

  constructor(model, { batch, device, dtype }) {
    Object.assign(this, { model, batch, device, dtype, number: 0 })
    this.pixels = torch.keep(torch.randn([batch, 3, 224, 224], { device }))
    this.random = new RandomStream(1, device)
    const groups = parameterGroups(model, { weightDecay: 0.1 }).map(({ rateScale, ...group }) => group)
    this.optimizer = new torch.optim.AdamW(groups, { lr: 4e-5 })
  }

  /** Milliseconds of each of so many steps. */
  async take(count) {
    const times = []
    for (let k = 0; k < count; k += 1) {
      const started = performance.now()
      await this.one()
      if (this.device.startsWith('cuda')) torch.cuda.synchronize()
      times.push(performance.now() - started)
    }
    return times
  }

  async one() {
    const { model, pixels, optimizer, random, dtype, batch, texts } = this
    const own = Array.from({ length: batch }, (_, k) => texts[(this.number * batch + k) % texts.length])
    this.number += 1
    optimizer.zeroGrad()
    const pause = () => new Promise(setImmediate)
    const result = await contrastiveStep(model, { pixels, texts: own }, { random, precision: dtype, pause })
    torch.scope(() => {
      torch.optim.stepIfFinite(optimizer)
    })
    torch.dispose(result)
  }

  /** The part of a rate of matrix products that a step of so many milliseconds is. */
  ofRate(rate, milliseconds) {
    return this.figures.flops.total / (milliseconds * 1e-3) / rate
  }

  async dispose() {
    for (const each of [this.optimizer, this.model, this.pixels]) each.dispose()
    this.random[Symbol.dispose]()
    await torch.memory.collect()
  }
}
