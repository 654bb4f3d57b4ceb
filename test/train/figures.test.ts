import { rmSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildModel, type ImageEncoder, readNamedConfig } from '../../src/models/index.js'
import * as torch from '../../src/torch/index.js'
import type { StartEvent } from '../../src/train/events.js'
import { describeFigures, imageWork, type RunFigures } from '../../src/train/figures.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
beforeAll(async () => {
  data = await tiny(20)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const encoderOf = async (name: string) => (await buildModel(readNamedConfig(name))) as unknown as ImageEncoder

let runs = 0
/** What a run of one step tells of itself. */
async function figuresOf(change: Record<string, unknown> = {}): Promise<RunFigures> {
  runs += 1
  const base = { ...tinyRun(data, `run-${runs}`), steps: 1, validation: null }
  const options = { ...base, ...change, image: { ...(base.image as object), ...(change.image as object) } }
  let start: StartEvent | undefined
  for await (const event of train(options as TrainOptions)) if (event.type === 'start') start = event
  return start!.figures!
}

describe('operations of an image encoder', () => {
  // multiplications with their additions, in 10^9, as the papers and torchvision have them
  it.each([
    ['resnet50', 4.09],
    ['swin_tiny_patch4_window7_224', 4.5],
    ['deit_base_patch16_224', 17.6],
  ])('%s: %f thousand millions', async (name, published) => {
    const encoder = (await encoderOf(name)).train()
    const before = encoder.namedBuffers().map(([, buffer]) => torch.noGrad(() => buffer.clone()))
    const { forward } = imageWork(encoder, { imageSize: 224, image: { checkpointing: false } })
    expect(forward / 2e9 / published).toBeGreaterThan(0.985)
    expect(forward / 2e9 / published).toBeLessThan(1.015)
    // no statistics were changed, and nothing stays behind
    expect([...encoder.modules()].every(({ training }) => training)).toBe(true)
    const changed = encoder.namedBuffers().filter(([, buffer], index) => !torch.equal(buffer, before[index]!))
    expect(changed).toEqual([])
    torch.dispose(before)
    encoder.dispose()
  })

  it.each(['clip_vitb32', 'dinov2_vits14_reg'])('%s is counted', async (name) => {
    const encoder = await encoderOf(name)
    const { forward, frozen, kept } = imageWork(encoder, { imageSize: 224, image: { checkpointing: false } })
    expect(forward).toBeGreaterThan(1e9)
    expect(frozen).toBeLessThan(0.2 * forward)
    const less = imageWork(encoder, { imageSize: 224, image: { checkpointing: true } })
    expect(less.forward).toBe(forward)
    expect(less.kept).toBeLessThan(kept / 3)
    encoder.requiresGrad_(false)
    const none = imageWork(encoder, { imageSize: 224, image: { checkpointing: false } })
    expect(none.frozen).toBe(none.forward)
    encoder.dispose()
  })
})

describe('figures of a run', () => {
  // of test/train/tiny.ts: 16 patches, a class token and 2 registers; width 32, two layers
  const [tokens, width, layers] = [19, 32, 2]
  const matrices = layers * 12 * width ** 2
  const patches = 2 * 16 * width * 3 * 14 ** 2
  const attention = 4 * tokens ** 2 * width * layers
  const image = 2 * matrices * tokens + patches + attention

  it('count what is known by hand', async () => {
    const { image: part, flops, texts, memory, text, projections } = await figuresOf({ microBatch: 8 })
    // forward, and the gradients of both factors of each product
    expect(flops.image).toBe(8 * 3 * image)
    expect(flops.total).toBe(flops.image + flops.text)
    // LoRA on two layers' c_attn: A [8, 32], B [96, 8]
    expect(text.trainable).toBe(2 * (8 * 32 + 96 * 8))
    expect(projections.trainable).toBe(2 * (32 * 16 + 16) + 1)
    expect(texts.tokens).toBeLessThanOrEqual(texts.paddedTokens)
    expect(texts.maximumTokens).toBe(8 * 64)
    const trained = part.trainable + text.trainable + projections.trainable
    expect(memory).toMatchObject({ gradients: 4 * trained, optimizer: 8 * trained, averages: 0 })
    const parts = Object.entries(memory).filter(([name]) => name !== 'total')
    expect(memory.total).toBe(parts.reduce((sum, [, bytes]) => sum + bytes, 0))
  })

  it('follow the options', async () => {
    const plain = await figuresOf({ microBatch: 8 })
    const split = await figuresOf({ microBatch: 2 })
    expect(split.flops.image - plain.flops.image).toBe(8 * image)
    expect(split.memory.activations).toBeLessThan(plain.memory.activations)
    const frozen = await figuresOf({ image: { frozen: true } })
    expect(frozen.flops.image).toBe(8 * image)
    expect(frozen.image.trainable).toBe(0)
    const sgd = await figuresOf({ optimizer: { type: 'sgd', lr: 1e-3 }, ema: { decay: 0.9 } })
    expect(sgd.memory.optimizer).toBe(sgd.memory.gradients)
    expect(sgd.memory.averages).toBe(sgd.memory.gradients)
    const whole = await figuresOf({ peft: null })
    expect(whole.text.trainable).toBe(whole.text.parameters)
    const masked = await figuresOf({ microBatch: 8, image: { maskRatio: 0.5 } })
    expect(masked.flops.image).toBeLessThan(0.75 * plain.flops.image)
    const padded = { model: data.language, execution: 'padded' }
    const slower = await figuresOf({ text: padded })
    expect(slower.texts.tokens).toBe(slower.texts.paddedTokens)
  })

  it('of a text encoder are those of its matrices and its pairs', async () => {
    const { flops, texts } = await figuresOf({ text: { model: data.language, execution: 'padded' } })
    const frozen = layers * 12 * width ** 2
    const lora = layers * (8 * 32 + 96 * 8)
    const rows = 8
    // all batches are padded to their own longest: between the extremes
    const products = texts.tokens * (4 * frozen + 6 * lora)
    const least = (3 * 4 * texts.tokens ** 2 * width * layers) / rows
    expect(flops.text).toBeGreaterThanOrEqual(products + least)
    expect(flops.text).toBeLessThan(products + 1.5 * least)
  })

  it('are told in three lines', async () => {
    const lines = describeFigures(await figuresOf())
    expect(lines.length).toBe(3)
    expect(lines[0]).toMatch(/^trains [\d,]+ of [\d,]+ parameters/)
    expect(lines[1]).toMatch(/^a step: \d+ distinct captions, \d+ tokens of text .* MFLOP/)
    expect(lines[2]).toMatch(/^memory, an estimate: .* MiB/)
  })
})
