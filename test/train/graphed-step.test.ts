import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { encodeText, encodeUploaded, type TextEncoder, uploadTexts } from '../../src/models/text/index.js'
import * as torch from '../../src/torch/index.js'
import { contrastiveStep } from '../../src/train/contrastive-step.js'
import type { TrainEvent } from '../../src/train/events.js'
import { bucketOf, GraphedContrastiveStep, whyNoGraph } from '../../src/train/graphed-step.js'
import type { FullPretrainOptions, PretrainOptions } from '../../src/train/options/index.js'
import { RandomStream } from '../../src/train/random-stream.js'
import { buildTowers } from '../../src/train/towers.js'
import { parseOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
beforeAll(async () => {
  data = await tiny(24)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const optionsOf = (given: Partial<PretrainOptions> = {}) => {
  const { microBatch: _, ...run } = tinyRun(data, 'none')
  return parseOptions({ ...run, peft: { type: 'lora', dropout: 0 }, ...given }) as FullPretrainOptions
}

async function modelOf(options: FullPretrainOptions) {
  torch.manualSeed(3)
  const { model } = await buildTowers(options, 'cpu')
  torch.noGrad(() =>
    torch.scope(() => {
      for (const [name, each] of model.namedParameters()) {
        if (name.startsWith('text.') && each.requiresGrad) each.add_(torch.randn(each.shape).mul(0.02))
      }
    }),
  )
  return model
}

const words = (count: number, first: number) => Array.from({ length: count }, (_, k) => 5 + ((first + 7 * k) % 200))
const texts = [words(3, 1), words(9, 2), words(17, 3), words(3, 1), [], words(30, 4)]

describe('whether a step can be a CUDA graph', () => {
  const on = (given: object = {}, device = 'cuda:0', processes = 1, execution = 'auto') =>
    whyNoGraph(optionsOf(given as Partial<PretrainOptions>), {
      device,
      processes,
      model: { encoding: { pool: 'last-token', execution: execution as 'auto' } },
    })

  it('is known before it is tried, with the reason', () => {
    expect(on()).toBeNull()
    expect(on({ precision: 'bfloat16', targets: 'identity' })).toBeNull()
    expect(on({}, 'cuda', 1, 'padded')).toBeNull()
    expect(on({}, 'cpu')).toBe('expected a GPU, but the run is on cpu')
    expect(on({}, 'cuda', 2)).toMatch(/^expected one process, but 2 /)
    expect(on({ precision: 'float16' })).toMatch(/factor of a float16 loss/)
    expect(on({ negatives: 'corpus' })).toMatch(/'corpus' shares prefixes/)
    expect(on({}, 'cuda', 1, 'tree')).toMatch(/'tree' has other shapes at each step/)
    expect(on({}, 'cuda', 1, 'packed')).toMatch(/'packed' has other shapes/)
    expect(on({ microBatch: 2 })).toMatch(/microBatch 2/)
    expect(on({ text: { model: data.language, checkpointing: true } })).toMatch(/but text have it/)
    expect(on({ peft: { type: 'adalora', tinit: 1, tfinal: 1 } })).toMatch(/AdaLoRA/)
  })

  it('is told by a run on the CPU, which goes on', async () => {
    const events: TrainEvent[] = []
    const run = { ...tinyRun(data, 'warned'), cudaGraph: true, steps: 2, validation: null, device: 'cpu' }
    for await (const event of train(run)) events.push(event)
    expect(events.filter(({ type }) => type === 'warning')).toEqual([
      {
        type: 'warning',
        message: 'cudaGraph: the run goes on without CUDA graphs: expected a GPU, but the run is on cpu',
      },
    ])
    expect(events.filter(({ type }) => type === 'step').length).toBe(2)
  })
})

describe('padding to a few lengths', () => {
  it.each([
    [8, [8]],
    [64, [16, 32, 48, 64]],
    [77, [24, 48, 72, 77]],
    [512, [128, 256, 384, 512]],
  ])('has at most four of them for %i tokens', (maximum, lengths) => {
    const found = new Set(
      Array.from({ length: maximum }, (_, k) =>
        Math.min(maximum, Math.ceil((k + 1) / bucketOf(maximum)) * bucketOf(maximum)),
      ),
    )
    expect([...found]).toEqual(lengths)
  })

  it.each(['first-pad', 'last-token', 'cls', 'mean'] as const)(
    'leaves features and gradients of pooling %s as they are, and makes shapes the same',
    async (pool) => {
      const options = optionsOf({ peft: { type: 'prompt', tokens: 2 } })
      const model = await modelOf(options)
      const text = model.text as TextEncoder
      const encoding = { ...model.encoding, pool, execution: 'padded' as const }
      const given = (padTo: 'longest' | 'maximum' | number) => ({ ...encoding, padTo })
      const run = (padTo: 'longest' | 'maximum' | number) => {
        const feature = encodeText(text, texts, given(padTo))
        feature.square().sum().backward()
        const gradients = text.parameters().flatMap(({ grad }) => grad?.clone() ?? [])
        text.zeroGrad()
        return [feature.detach(), ...gradients]
      }
      torch.scope(() => {
        const exact = run('longest')
        expect(exact.length).toBeGreaterThan(1)
        for (const padTo of [16, 'maximum'] as const) {
          for (const [index, tensor] of run(padTo).entries()) {
            expect(tensor.sub(exact[index]!).norm().item() / exact[index]!.norm().item()).toBeLessThan(1e-5)
          }
        }
        const shapes = [texts.slice(0, 3), [words(20, 8), words(1, 9), words(23, 5)]].map((each) =>
          Object.entries(uploadTexts(text, each, given(32)).tensors).map(([name, { shape }]) => [name, shape]),
        )
        if (pool !== 'mean') expect(shapes[1]).toEqual(shapes[0])
        const uploaded = uploadTexts(text, texts, given(16))
        expect(uploaded.length % 16).toBe(2)
        expect(encodeUploaded(text, uploaded, given(16)).sub(exact[0]!).abs().max().item()).toBeLessThan(1e-5)
        expect(() => encodeText(text, texts, given(0))).toThrow(/a number of tokens, but received 0/)
      })
      model.dispose()
    },
  )

  it.each(['identity', 'same-caption'] as const)('leaves a step with targets %s as it is', async (targets) => {
    const model = await modelOf(optionsOf())
    const pixels = torch.keep(torch.scope(() => torch.randn([6, 3, 56, 56])))
    const batch = { pixels, texts, targets, captions: texts.map(String) }
    using random = new RandomStream(1)
    const gradients = () => {
      const found = model.parameters().flatMap(({ grad }) => grad?.clone() ?? [])
      model.zeroGrad()
      return found
    }
    const wanted = await contrastiveStep(model, batch, { random })
    const exact = gradients()
    const reasons: string[] = []
    using graphed = new GraphedContrastiveStep(model, {
      precision: 'float32',
      onFallback: (reason) => reasons.push(reason),
    })
    const found = graphed.run(batch, random)
    torch.scope(() => {
      expect(found.loss.sub(wanted.loss).abs().item()).toBeLessThan(1e-5)
      expect(found.scores.sub(wanted.scores).abs().max().item()).toBeLessThan(1e-4)
      const other = gradients()
      expect(other.length).toBe(exact.length)
      for (const [index, each] of other.entries()) {
        expect(each.sub(exact[index]!).norm().item()).toBeLessThan(1e-4 * (1 + exact[index]!.norm().item()))
      }
    })
    // what the GPU's own part says of tensors elsewhere
    expect(reasons).toEqual(['expected inputs on a GPU, and one is on cpu'])
    torch.dispose([found, wanted, exact, pixels])
    model.dispose()
  })
})
