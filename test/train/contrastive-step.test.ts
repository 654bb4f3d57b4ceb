import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadPublished } from '../../src/clip/published.js'
import { TextTower } from '../../src/clip/text-tower.js'
import { openCase } from '../../src/eval/verify/case.js'
import { Comparison } from '../../src/eval/verify/comparison.js'
import { ragged } from '../../src/eval/verify/encoders.js'
import { compareGradients } from '../../src/eval/verify/parameters.js'
import { buildModel, type ImageEncoder, imageEncoderFromPretrained, type TextEncoder } from '../../src/models/index.js'
import * as torch from '../../src/torch/index.js'
import { contrastiveStep, type StepOptions } from '../../src/train/contrastive-step.js'
import { RandomStream } from '../../src/train/random-stream.js'
import { numbersOf, referenceCase } from '../models/reference.js'

const reference = referenceCase('cleft-step')
const towers = { image: join(reference.folder, 'image'), text: join(reference.folder, 'text') }
const texts = [[5, 6, 7, 8], [5, 6], [9], [5, 6, 7, 11], [5, 6]]
const captions = [0, 1, 2, 3, 1]

async function model(kind: 'linear' | 'mlp'): Promise<TextTower> {
  const { model: published } = await loadPublished(join(reference.folder, 'official.ckpt'), {
    ...towers,
    trainable: true,
  })
  if (kind === 'linear') return published.train()
  torch.manualSeed(4)
  return new TextTower({
    image: published.image,
    text: published.text as never,
    embeddingWidth: 16,
    imageProjection: { kind, hiddenWidth: 24 },
    textProjection: { kind, hiddenWidth: 24 },
  }).train()
}

/** Our names, and the case's. */
const projections = {
  'image_projection.weight': 'image_proj.weight',
  'text_projection.weight': 'text_proj.weight',
  logit_scale: 'logit_scale',
}

/** Every caption there is, the batch's among them. */
const all = { texts: [[9], [5, 6], [5, 6, 12], [5, 6, 7, 8], [5, 6, 7, 11], [4, 3]], owners: [3, 1, 0, 4, 1] }

async function gradients(
  kind: 'linear' | 'mlp',
  { isCorpus = false, ...options }: Partial<StepOptions> & { isCorpus?: boolean } = {},
): Promise<Map<string, number[]>> {
  const tower = await model(kind)
  using random = new RandomStream(3)
  const { loss } = await contrastiveStep(
    tower,
    {
      pixels: reference.tensor('in.pixel_values'),
      texts: isCorpus ? all.texts : texts,
      corpus: isCorpus ? { owners: all.owners } : null,
      targets: 'same-caption',
      captions,
    },
    { random, ...options },
  )
  const found = new Map<string, number[]>([['loss', [loss.item()]]])
  for (const [name, parameter] of tower.namedParameters()) {
    if (parameter.grad !== null) found.set(name, numbersOf(parameter.grad))
  }
  for (const [name, buffer] of tower.namedBuffers()) found.set(name, numbersOf(buffer))
  // what is drawn after the step is the same too
  found.set('next', [random.run(() => torch.rand([]).item())])
  return found
}

describe('a training step', () => {
  // BatchNorm over five features that are nearly equal makes rounding larger
  it.each([
    ['linear', 2e-5, false],
    ['mlp', 5e-4, false],
    ['linear', 2e-5, true],
  ] as const)(
    'in parts has the gradients of the whole, dropout included (%s projections, %f, a corpus: %s)',
    async (kind, tolerance, isCorpus) => {
      const whole = await gradients(kind, { isCorpus })
      expect([...whole.keys()].filter((name) => name.includes('lora_B')).length).toBeGreaterThan(0)
      for (const microBatch of isCorpus ? [2] : [1, 2, 4]) {
        const parts = await gradients(kind, { microBatch, isCorpus })
        expect([...parts.keys()].sort()).toEqual([...whole.keys()].sort())
        for (const [name, wanted] of whole) {
          const size = Math.max(...wanted.map(Math.abs), 1e-3)
          for (const [index, value] of parts.get(name)!.entries()) {
            expect(Math.abs(value - wanted[index]!), `${name} ${index}`).toBeLessThan(tolerance * size)
          }
        }
      }
    },
  )

  it.each(['padded', 'packed', 'tree'] as const)(
    'has the gradients of the published step, also in parts (%s)',
    async (execution) => {
      const { model: tower } = await loadPublished(join(reference.folder, 'official.ckpt'), {
        ...towers,
        trainable: true,
      })
      Object.assign(tower.encoding, { execution, maximumLength: reference.tensor('in.input_ids').size(1) })
      const published = openCase(reference.folder)
      const sequences = ragged(reference.tensor('in.input_ids'), reference.tensor('in.attention_mask'))
      using random = new RandomStream(3)
      for (const microBatch of [sequences.length, 1, 2]) {
        tower.eval().zeroGrad()
        const batch = { pixels: reference.tensor('in.pixel_values'), texts: sequences }
        const { loss } = await contrastiveStep(tower, batch, { random, microBatch })
        const comparison = new Comparison(reference.rtol, reference.atol)
        comparison.output('loss', loss, reference.tensor('out.loss'))
        compareGradients(comparison, published, tower.image, 'image.')
        compareGradients(comparison, published, tower.text!, 'text.')
        const own = new Map(tower.namedParameters())
        for (const [ours, theirs] of Object.entries(projections)) {
          comparison.gradient(theirs, own.get(ours)!.grad, reference.tensor(`grad.${theirs}`))
        }
        expect(comparison.problems).toEqual([])
        // the loss, and every gradient that the case has
        expect(comparison.count).toBe(1 + published.names('grad.').length)
      }
    },
  )

  it('gives the event loop its turn, and what is drawn then changes nothing', async () => {
    const quiet = await gradients('linear', { microBatch: 2 })
    let turns = 0
    const noisy = await gradients('linear', {
      microBatch: 2,
      pause: async () => {
        turns += 1
        torch.rand([turns]).dispose()
        await new Promise(setImmediate)
      },
    })
    expect(turns).toBeGreaterThan(3)
    expect(noisy).toEqual(quiet)
  })

  it('runs a frozen image encoder once for each part, not twice', async () => {
    const tower = await model('linear')
    let calls = 0
    const hook = tower.image.registerForwardHook(() => {
      calls += 1
    })
    using random = new RandomStream(3)
    const batch = () => ({ pixels: reference.tensor('in.pixel_values'), texts })
    await contrastiveStep(tower, batch(), { random, microBatch: 2 })
    expect(calls).toBe(6)
    tower.image.requiresGrad_(false)
    calls = 0
    await contrastiveStep(tower, batch(), { random, microBatch: 2 })
    expect(calls).toBe(3)
    hook.remove()
  })

  it('leaves no tensor behind', async () => {
    const tower = await model('linear')
    using random = new RandomStream(3)
    const step = async () => {
      const batch = { pixels: reference.tensor('in.pixel_values'), texts }
      const found = await contrastiveStep(tower, batch, { random, microBatch: 2 })
      torch.dispose([found.loss, found.scores, batch.pixels])
    }
    await step()
    const before = torch.memory.counters().live
    await step()
    expect(torch.memory.counters().live).toBe(before)
  })

  it('is refused in parts where BatchNorm would see parts', async () => {
    const published = await model('linear')
    const image = await imageEncoderFromPretrained(join(reference.folder, '..', 'resnet50', 'model'))
    const tower = new TextTower({
      image,
      text: published.text as never,
      embeddingWidth: 8,
      imagePooling: 'pooled',
    }).train()
    using random = new RandomStream(0)
    const pixels = torch.randn([5, 3, 64, 64])
    await expect(contrastiveStep(tower, { pixels, texts }, { random, microBatch: 2 })).rejects.toThrow(
      /without BatchNorm/,
    )
    await contrastiveStep(tower, { pixels, texts }, { random })
  })

  it('frees what a layer left as soon as the backward has passed it', async () => {
    torch.manualSeed(1)
    const vit = { model_type: 'vit', hidden_size: 96, num_hidden_layers: 8, num_attention_heads: 2, image_size: 28 }
    const image = await buildModel({ ...vit, intermediate_size: 384, patch_size: 14 })
    const text = await buildModel({ model_type: 'gpt2', n_embd: 16, n_layer: 1, n_head: 1, vocab_size: 20 })
    const tower = new TextTower({
      image: image as ImageEncoder,
      text: text.requiresGrad_(false) as unknown as TextEncoder,
      embeddingWidth: 8,
    })
    const pixels = torch.randn([4, 3, 28, 28])
    using random = new RandomStream(3)
    const count = new torch.memory.Count('cpu')
    let kept = 0
    const pause = async () => {
      kept = count.read().current
    }
    await contrastiveStep(tower, { pixels, texts: texts.slice(0, 4) }, { random, pause })
    const { current: gradients, peak } = count.read()
    count[Symbol.dispose]()
    // gradients are more than what is kept, so that a peak of both would show
    expect(gradients).toBeGreaterThan(kept)
    expect(peak).toBeLessThan(kept + 0.85 * gradients)
  })
})
