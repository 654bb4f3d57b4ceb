import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { TextTower } from '../../src/clip/text-tower.js'
import { freeze } from '../../src/models/freeze.js'
import { buildModel, type ImageEncoder, type TextEncoder } from '../../src/models/index.js'
import * as torch from '../../src/torch/index.js'
import { contrastiveStep } from '../../src/train/contrastive-step.js'
import type { TrainEvent } from '../../src/train/events.js'
import { GraphedContrastiveStep } from '../../src/train/graphed-step.js'
import { lowerFrozen } from '../../src/train/lower-frozen.js'
import { planStep } from '../../src/train/plan/index.js'
import { RandomStream } from '../../src/train/random-stream.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { image, type Tiny, tiny, tinyRun } from '../train/tiny.js'
import { device, isGpu, testOnGpu } from './device.js'

let data: Tiny
beforeAll(async () => {
  data = await tiny(60)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

async function eventsOf(options: TrainOptions): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  for await (const event of train(options)) events.push(event)
  return events
}
const lossesOf = (events: readonly TrainEvent[]) => events.flatMap((each) => (each.type === 'step' ? each.loss : []))

describe('train()', () => {
  test('in bfloat16 keeps float32 masters, its losses fall, and it goes on from its checkpoint', async () => {
    const options = { ...tinyRun(data, 'masters'), device, precision: 'bfloat16', logEvery: 1, steps: 12 } as const
    const events = await eventsOf(options)
    const losses = lossesOf(events)
    expect(losses.length).toBe(12)
    expect(losses.every(Number.isFinite)).toBe(true)
    expect(losses.at(-1)!).toBeLessThan(losses[0]!)
    expect(events[0]).toMatchObject({ type: 'start', device })
  })

  test('on a GPU has the losses that it has on the CPU', async () => {
    const options = {
      ...tinyRun(data, 'cpu'),
      logEvery: 1,
      augment: false,
      validation: null,
      peft: { type: 'ia3' },
    } as const
    const cpu = lossesOf(await eventsOf({ ...options, device: 'cpu' }))
    const here = lossesOf(await eventsOf({ ...options, device, out: join(data.folder, 'here') }))
    for (const [index, loss] of here.entries()) expect(loss).toBeCloseTo(cpu[index]!, 3)
  })

  test('with CUDA graphs has the losses that it has without, and says where there are none', async () => {
    const { microBatch: _, ...run } = tinyRun(data, 'plain')
    const options = {
      ...run,
      device,
      precision: 'bfloat16',
      text: { model: data.language, execution: 'padded' },
      peft: { type: 'ia3' },
      augment: false,
      validation: null,
      steps: 16,
      logEvery: 1,
    } as const
    const plain = lossesOf(await eventsOf(options))
    const events = await eventsOf({ ...options, cudaGraph: true, out: join(data.folder, 'graph') })
    const warnings = events.flatMap((each) => (each.type === 'warning' ? each.message : []))
    expect(warnings).toEqual(isGpu ? [] : [expect.stringMatching(/expected a GPU, but the run is on cpu$/)])
    for (const [index, loss] of lossesOf(events).entries()) expect(loss).toBeCloseTo(plain[index]!, 1)
  })

  testOnGpu('goes on where memory has run out once, and stops with a checkpoint where it does not fit', async () => {
    const options = { ...tinyRun(data, 'limit'), device, validation: null, logEvery: 1 }
    torch.cuda.setMemoryFraction(1e-4)
    try {
      await expect(train(options)).rejects.toThrow(/memory/)
    } finally {
      torch.cuda.setMemoryFraction(1)
    }
    await torch.memory.collect()
    const after = await eventsOf({ ...options, out: join(data.folder, 'after') })
    expect(after.some(({ type }) => type === 'checkpoint')).toBe(true)
  })
})

async function towers(): Promise<TextTower> {
  torch.manualSeed(1)
  const text = {
    model_type: 'gpt2',
    n_embd: 64,
    n_layer: 2,
    n_head: 2,
    n_positions: 64,
    vocab_size: 300,
    eos_token_id: 0,
  }
  const [imageModel, textModel] = [await buildModel(image, { device }), await buildModel(text, { device })]
  return torch.nn.construct(
    { device },
    () =>
      new TextTower({
        image: imageModel as ImageEncoder,
        text: textModel as unknown as TextEncoder,
        embeddingWidth: 32,
      }),
  )
}

const texts = [
  [5, 6, 7],
  [5, 6, 8, 9],
  [5, 6, 7],
  [5, 10],
]

describe('frozen matrices', () => {
  test('are on the device in bfloat16, and what checkpoints have of them in float32 on the host', async () => {
    const model = await towers()
    for (const tower of [model.image, model.text!]) freeze(tower)
    const before = isGpu ? torch.cuda.memoryStatistics().allocated : 0
    const masters = lowerFrozen(model, { precision: 'bfloat16', files: { textWeights: { name: '', fingerprint: '' } } })
    const names = [...masters.keys()]
    expect(names.length).toBeGreaterThan(4)
    expect(names.filter((name) => !name.startsWith('image.'))).toEqual([])
    for (const [name, { dtype, device: place }] of model.namedParameters()) {
      if (!masters.has(name)) continue
      expect([name, dtype, place.startsWith(device)]).toEqual([name, 'bfloat16', true])
      expect([masters.get(name)!.device, masters.get(name)!.dtype]).toEqual(['cpu', 'float32'])
    }
    if (isGpu) expect(torch.cuda.memoryStatistics().allocated).toBeLessThan(before)
  })
})

describe('a step', () => {
  test('as CUDA graphs has the loss and the gradients of the step itself, one graph a length of texts', async () => {
    const model = await towers()
    const random = new RandomStream(1, device)
    const pixels = torch.keep(torch.randn([4, 3, 56, 56], { device }))
    const gradients = () => {
      const found = model.parameters().flatMap(({ grad }) => grad?.cpu().clone() ?? [])
      model.zeroGrad()
      return found
    }
    const reasons: string[] = []
    using graphed = new GraphedContrastiveStep(model, {
      precision: 'float32',
      onFallback: (reason) => reasons.push(reason),
    })
    const long = texts.map((ids, row) => [...ids, ...Array.from({ length: 20 }, (_, k) => 20 + ((3 * k + row) % 90))])
    for (const given of [texts, texts, texts, texts, texts, long, long, long, long, long]) {
      const batch = { pixels, texts: given, targets: 'same-caption' as const, captions: given.map(String) }
      const wanted = await contrastiveStep(model, batch, { random })
      const exact = gradients()
      const found = graphed.run(batch, random)
      expect(found.loss.item()).toBeCloseTo(wanted.loss.item(), 4)
      for (const [index, each] of gradients().entries()) {
        const difference = torch.scope(() => each.sub(exact[index]!).norm().item())
        expect(difference).toBeLessThan(1e-3 * (1 + torch.scope(() => exact[index]!.norm().item())))
      }
      torch.dispose([found, wanted, exact])
    }
    expect(graphed.recorded).toBe(isGpu ? 2 : 0)
    expect(reasons.length).toBe(isGpu ? 0 : 1)
  })

  test('of forward, backward, clipping and fused AdamW never waits for the device', async () => {
    const model = await towers()
    const parameters = model.parameters().filter(({ requiresGrad }) => requiresGrad)
    const adamw = new torch.optim.AdamW(parameters, { lr: 1e-3 })
    const random = new RandomStream(1, device)
    const pixels = torch.keep(torch.randn([4, 3, 56, 56], { device }))
    const step = async () => {
      adamw.zeroGrad()
      const { loss, scores } = await contrastiveStep(model, { pixels, texts }, { random, precision: 'bfloat16' })
      scores.dispose()
      const skipped = torch.scope(() => {
        torch.optim.clipGradNorm_(parameters, 1)
        return torch.optim.stepIfFinite(adamw)
      })
      return { loss, skipped }
    }
    // what is made once is made by the first
    await step()
    if (isGpu) torch.cuda.setSyncDebug('error')
    const { loss, skipped } = await step().finally(() => {
      if (isGpu) torch.cuda.setSyncDebug('off')
    })
    expect(skipped.item()).toBe(0)
    expect(Number.isFinite(loss.item())).toBe(true)
  })

  test('that is not finite is left out by the device: nothing moves', () =>
    torch.scope(() => {
      const weight = torch.ones([8], { device, requiresGrad: true })
      const adamw = new torch.optim.AdamW([weight], { lr: 1 })
      weight.mul(Number.NaN).sum().backward()
      expect(torch.optim.stepIfFinite(adamw).item()).toBe(1)
      expect(weight.detach().toArray()).toEqual(Array(8).fill(1))
      adamw.zeroGrad()
      weight.sum().backward()
      expect(torch.optim.stepIfFinite(adamw).item()).toBe(0)
      expect(weight.detach().at(0).item()).toBeLessThan(1)
      adamw.dispose()
    }))

  test('over the prefix tree on the device equals padded texts', async () => {
    const model = await towers()
    model.eval()
    const featuresBy = (execution: 'tree' | 'padded') => {
      model.encoding.execution = execution
      return torch.noGrad(() => model.encodeText(texts))
    }
    const tree = featuresBy('tree')
    expect(tree.device.startsWith(device)).toBe(true)
    expect(torch.scope(() => tree.sub(featuresBy('padded')).abs().max().item())).toBeLessThan(1e-4)
  })

  test('takes the memory that was planned, within 15 %', async () => {
    const vit = { ...image, hidden_size: 192, num_hidden_layers: 6, num_attention_heads: 3, image_size: 112 }
    const options = {
      recipe: 'cleft-small',
      data: data.data,
      image: { model: vit, pooling: 'mean-prenorm' },
      imageSize: 112,
      batchSize: 48,
      validation: null,
      steps: 3,
      logEvery: 1,
      checkpointEvery: 3,
      device,
      out: join(data.folder, 'planned'),
    } as unknown as TrainOptions
    const { memory } = await planStep(options)
    const count = new torch.memory.Count(device)
    let peak = 0
    for await (const event of train(options)) {
      const since = count.read({ resetPeak: true })
      if (event.type === 'step') peak = Math.max(peak, since.peak)
    }
    count[Symbol.dispose]()
    expect(memory.total / peak).toBeGreaterThan(0.85)
    expect(memory.total / peak).toBeLessThan(1.15)
  })
})
