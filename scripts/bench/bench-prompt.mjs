// A step of prompt tuning on cached features, against the same that runs the frozen image encoder again on every batch.
// Small size (ViT 384 x 12 on 224 px, GPT-2 512 x 6 with LoRA), batch 72, five classes, a context of 30.
//   npm run bench -- prompt [--rounds N] [--json]
import { classificationLoss } from '../../dist/clip/classifier.js'
import { addContext, contextVectors } from '../../dist/clip/context.js'
import { similarityScores } from '../../dist/clip/loss.js'
import { TextTower } from '../../dist/clip/text-tower.js'
import { imageFeature } from '../../dist/clip/two-tower.js'
import { buildModel } from '../../dist/models/index.js'
import { addAdapter } from '../../dist/peft/index.js'
import * as torch from '../../dist/torch/index.js'
import { median, report, takeTurns } from './rows.mjs'

const batchSize = 72
const classes = 5

async function smallModel() {
  torch.manualSeed(0)
  const image = await buildModel({
    model_type: 'dinov2_with_registers',
    hidden_size: 384,
    num_hidden_layers: 12,
    num_attention_heads: 6,
    patch_size: 14,
    image_size: 224,
    num_register_tokens: 4,
  })
  const text = await buildModel({ model_type: 'gpt2', n_embd: 512, n_layer: 6, n_head: 8, vocab_size: 28_896 })
  text.requiresGrad_(false)
  const adapted = addAdapter(text, { kind: 'lora', r: 8, alpha: 32, dropout: 0.1 })
  const model = new TextTower({ image, text: adapted, padToken: 0, maximumLength: 63 })
  await addContext(
    model,
    { encode: async () => [[11, 12, 13, 14, 15, 16, 17, 18, 19]] },
    { length: 30, init: 'caption' },
  )
  model.requiresGrad_(false)
  contextVectors(model).requiresGrad_(true)
  return model.eval()
}

export async function run({ json, args }) {
  const rounds = Number(args.includes('--rounds') ? args[args.indexOf('--rounds') + 1] : 5)
  const model = await smallModel()
  const texts = Array.from({ length: classes }, (_, k) => [100 + k, 200 + k, 300 + k].slice(0, 1 + (k % 3)))
  const labels = torch.tensor(
    Array.from({ length: batchSize }, (_, k) => k % classes),
    { dtype: 'int64' },
  )
  const pixels = torch.randn(batchSize, 3, 224, 224)
  const optimizer = new torch.optim.SGD([contextVectors(model)], { lr: 1e-4, momentum: 0.9 })
  const encode = () => torch.noGrad(() => imageFeature(model.image, pixels, 'mean-prenorm'))
  const cached = torch.keep(encode())
  const step = (feature) => {
    const started = performance.now()
    torch.scope(() => {
      optimizer.zeroGrad()
      const image = model.projectImage(feature())
      const scores = similarityScores(image, model.encodeText(texts), model.logit_scale)
      classificationLoss(scores, { task: 'single', labels }).div(batchSize).backward()
      optimizer.step()
    })
    return performance.now() - started
  }
  step(() => cached)
  const times = await takeTurns(
    rounds,
    () => median(Array.from({ length: 5 }, () => step(() => cached))),
    () => step(encode),
  )
  report(
    {
      name: 'prompt step, cached features',
      unit: 'ms',
      ...times,
      goal: 1 / 30,
      batch: batchSize,
      peerIs: 'ours, features computed again',
    },
    json,
  )
}
