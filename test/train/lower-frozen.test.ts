import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, saveModel, TRAINABLE } from '../../src/clip/model-files.js'
import * as torch from '../../src/torch/index.js'
import { checkpointFolder } from '../../src/train/checkpoint.js'
import { contrastiveStep } from '../../src/train/contrastive-step.js'
import { lowerFrozen } from '../../src/train/lower-frozen.js'
import type { FullPretrainOptions } from '../../src/train/options/index.js'
import { pretrainTask } from '../../src/train/pretrain.js'
import { RandomStream } from '../../src/train/random-stream.js'
import { buildTowers, type Towers } from '../../src/train/towers.js'
import { parseOptions, type TrainOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
beforeAll(async () => {
  data = await tiny(24)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const lora = { type: 'lora', r: 4, dropout: 0 } as const
const optionsOf = (given: object): FullPretrainOptions =>
  parseOptions({
    ...tinyRun(data, 'none'),
    precision: 'bfloat16',
    peft: lora,
    ...given,
  } as TrainOptions) as FullPretrainOptions

/** One seed, one model; with adapters that do something. */
async function towersOf(options: FullPretrainOptions): Promise<Towers> {
  torch.manualSeed(3)
  const towers = await buildTowers(options, 'cpu')
  torch.noGrad(() =>
    torch.scope(() => {
      for (const [name, each] of towers.model.namedParameters()) {
        if (name.startsWith('text.') && each.requiresGrad) each.add_(torch.randn(each.shape).mul(0.02))
      }
    }),
  )
  return towers
}

const texts = [
  [5, 6, 7],
  [5, 6, 8, 9],
  [5, 6, 7],
  [5, 10],
]

async function gradientsOf({ model }: Towers, precision: FullPretrainOptions['precision']) {
  using random = new RandomStream(7)
  const pixels = torch.keep(
    torch.scope(() => torch.randn([4, 3, 56, 56], { generator: new torch.Generator().manualSeed(2) })),
  )
  const { loss, scores } = await contrastiveStep(model, { pixels, texts }, { random, precision })
  const gradients = new Map(
    model
      .namedParameters()
      .flatMap(([name, { grad }]) => (grad === null ? [] : ([[name, grad.toTypedArray() as Float32Array]] as const))),
  )
  const value = loss.item()
  torch.dispose([loss, scores, pixels])
  return { loss: value, gradients }
}

const distance = (a: Float32Array, b: Float32Array): number => {
  let [difference, size] = [0, 0]
  for (const [index, value] of a.entries()) {
    difference += (value - b[index]!) ** 2
    size += value ** 2
  }
  return Math.sqrt(difference / Math.max(size, 1e-30))
}

describe('frozen matrices in the precision of autocast', () => {
  it.each([
    ['below LoRA, bfloat16', { precision: 'bfloat16' }],
    ['below LoRA, float16', { precision: 'float16' }],
    ['below DoRA', { peft: { ...lora, dora: true } }],
    ['below (IA)3', { peft: { type: 'ia3' } }],
    ['below a prefix', { peft: { type: 'prefix', tokens: 3 } }],
    ['of both towers', { image: { frozen: true } }],
    ['with checkpointing', { text: { checkpointing: true } }],
    ['below a layer that trains', { unfreeze: ['text.*.h.1.*'] }],
  ])('%s: the loss and the gradients are those of casts at each use', async (_, given) => {
    const text = { model: data.language, ...('text' in given ? { checkpointing: true } : {}) }
    const image = { ...(tinyRun(data, 'none').image as object), ...('image' in given ? { frozen: true } : {}) }
    const options = optionsOf({ ...given, text, image })
    const { precision, peft } = options
    // whose magnitudes are of the weights: of the lowered ones then
    const isDora = peft?.type === 'lora' && peft.dora
    const plain = await towersOf(options)
    const cast = await gradientsOf(plain, precision)
    const exact = await gradientsOf(await towersOf(options), 'float32')
    const towers = await towersOf(options)
    const masters = lowerFrozen(towers.model, { precision, files: towers.files })
    const lowered = await gradientsOf(towers, precision)
    for (const [name, { dtype, requiresGrad }] of towers.model.namedParameters()) {
      if (requiresGrad) expect([name, dtype]).toEqual([name, 'float32'])
      if (/^text\..*(attn|mlp).*(base_layer|c_fc|c_proj)\.weight$/.test(name) && !requiresGrad)
        expect([name, dtype]).toEqual([name, precision])
    }
    expect([...masters.keys()].every((name) => name.startsWith('image.'))).toBe(true)
    expect(masters.size > 0).toBe('image' in given)
    expect([...lowered.gradients.keys()]).toEqual([...cast.gradients.keys()])
    expect(Math.abs(lowered.loss - cast.loss)).toBeLessThan(1e-3)
    for (const [name, gradient] of cast.gradients) {
      const rounding = distance(gradient, exact.gradients.get(name)!)
      const found = distance(gradient, lowered.gradients.get(name)!)
      expect(found, `${name}, whose rounding is ${rounding}`).toBeLessThanOrEqual(isDora ? rounding : 1e-6)
    }
    torch.dispose([...masters.values()])
    for (const { model } of [plain, towers]) model.dispose()
  })

  it('leaves checkpoints as they are: in float32, to the bit', async () => {
    const image = { ...(tinyRun(data, 'none').image as object), frozen: true }
    const options = optionsOf({ image })
    const { model, files } = await towersOf(options)
    const [before, after] = [join(data.folder, 'before'), join(data.folder, 'after')]
    saveModel(before, model, files)
    const masters = lowerFrozen(model, { precision: 'bfloat16', files })
    saveModel(after, model, { ...files, masters })
    using a = torch.openSafetensors(join(before, TRAINABLE))
    using b = torch.openSafetensors(join(after, TRAINABLE))
    expect(b.names).toEqual(a.names)
    for (const name of a.names) {
      torch.scope(() => {
        expect(b.tensor(name).dtype).toBe('float32')
        expect(b.tensor(name).equal(a.tensor(name))).toBe(true)
      })
    }
    const again = await loadModel(after)
    expect(again.parameters().every(({ dtype }) => dtype === 'float32')).toBe(true)
    torch.dispose([...masters.values()])
    for (const each of [model, again]) each.dispose()
  })

  it('leaves float32 alone', async () => {
    const options = optionsOf({ precision: 'float32' })
    const { model, files } = await towersOf(options)
    expect(lowerFrozen(model, { precision: 'float32', files }).size).toBe(0)
    expect(model.parameters().every(({ dtype }) => dtype === 'float32')).toBe(true)
    model.dispose()
  })
})

describe('a run in bfloat16', () => {
  const run = (name: string, given: object = {}) =>
    ({
      ...tinyRun(data, name),
      precision: 'bfloat16',
      validation: { split: 'train', every: 2, maximumImages: 16 },
      ...given,
    }) as TrainOptions

  it('has a model whose frozen matrices are bfloat16', async () => {
    const options = optionsOf({ validation: null })
    const task = await pretrainTask(options, { emit() {}, beginning: null }, null)
    const dtypes = new Set(
      task.model.namedParameters().map(([name, { dtype, requiresGrad, ndim }]) => {
        const isLinear = name.startsWith('text.') && !/\.(wte|wpe)\./.test(name)
        return requiresGrad ? `trained ${dtype}` : ndim === 2 && isLinear ? `frozen matrix ${dtype}` : 'other'
      }),
    )
    expect([...dtypes].sort()).toEqual(['frozen matrix bfloat16', 'other', 'trained float32'])
    await task.close()
  })

  it.each([
    ['a frozen text tower', {}],
    ['both frozen, and averages', { frozen: true }],
  ])('of %s validates, and goes on to the bit', async (name, { frozen = false }: { frozen?: boolean }) => {
    const image = { ...(tinyRun(data, 'none').image as object), frozen }
    const given = { image, ...(frozen && { ema: { decay: 0.9 } }) }
    const options = run(name, given)
    const whole = await train(options)
    expect(Number.isFinite(whole.metrics.loss)).toBe(true)
    const weights = () => {
      using file = torch.openSafetensors(join(whole.checkpoint, TRAINABLE))
      return torch.scope(() => file.names.map((each) => [each, file.tensor(each).toTypedArray()]))
    }
    const wanted = weights()
    rmSync(whole.checkpoint, { recursive: true })
    await train({ ...options, resume: true })
    expect(weights()).toEqual(wanted)
    const { data: images, validation, precision, out = '' } = options
    const tuned = await train({
      stage: 'prompt',
      from: checkpointFolder(out, 6),
      data: images,
      validation,
      precision,
      contextLength: 2,
      steps: 2,
      labels: 'multi',
      findings: ['Edema', 'Pneumonia'],
      workers: 1,
      out: `${out}-tuned`,
    } as TrainOptions)
    expect(Number.isFinite(tuned.metrics.trainLoss)).toBe(true)
  })
})
