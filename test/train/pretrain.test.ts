import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel, readModelFiles, saveModel } from '../../src/clip/model-files.js'
import * as torch from '../../src/torch/index.js'
import { checkpointFolder, checkpointSteps } from '../../src/train/checkpoint.js'
import type { StepEvent, TrainEvent } from '../../src/train/events.js'
import { parseOptions, type TrainContext, type TrainOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

const vit = {
  model_type: 'vit',
  hidden_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  intermediate_size: 48,
  patch_size: 14,
  image_size: 56,
}

let data: Tiny
beforeAll(async () => {
  data = await tiny()
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

async function eventsOf(options: TrainOptions, context: TrainContext = {}): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  for await (const event of train(options, context)) events.push(event)
  return events
}

const steps = (events: readonly TrainEvent[]) => events.filter((event): event is StepEvent => event.type === 'step')
const curve = (events: readonly TrainEvent[]) =>
  steps(events).map(({ step, loss, logScale, gradientNorm }) => [step, loss, logScale, gradientNorm])

describe('pre-training', () => {
  it('runs, tells, validates, and leaves checkpoints that are models', async () => {
    const options = tinyRun(data, 'whole')
    const job = train(options)
    const events: TrainEvent[] = []
    for await (const event of job) events.push(event)
    const result = await job
    expect(events[0]).toMatchObject({ type: 'start', step: 0, steps: 6 })
    expect(steps(events).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6])
    expect(events.filter(({ type }) => type === 'validation').length).toBe(3)
    // the two latest, and the best where it is another
    expect(checkpointSteps(options.out).slice(-2)).toEqual([4, 6])
    expect(result.checkpoint).toBe(checkpointFolder(options.out, 6))
    const model = await loadModel(result.checkpoint)
    const text = torch.scope(() =>
      torch.noGrad(() =>
        model
          .encodeText([[1, 2, 3]])
          .norm()
          .item(),
      ),
    )
    expect(text).toBeCloseTo(1, 5)
    // the frozen language model is not in the checkpoint
    const names = torch.openSafetensors(join(result.checkpoint, 'trainable.safetensors')).names
    expect(names.filter((name) => name.startsWith('text') && !/lora_|text_projection/.test(name))).toEqual([])
  })

  it('repeats itself to the bit, whatever else draws random numbers', async () => {
    const first = curve(await eventsOf(tinyRun(data, 'a')))
    torch.manualSeed(99)
    const noise = setInterval(() => torch.rand([3]).dispose(), 1)
    const second = curve(await eventsOf({ ...tinyRun(data, 'b'), workers: 2 }))
    clearInterval(noise)
    expect(second).toEqual(first)
  })

  it('with averages saves those: what was validated, statistics of batches included', async () => {
    const resnet = { model_type: 'resnet', embedding_size: 8, hidden_sizes: [8, 8, 8, 8], depths: [1, 1, 1, 1] }
    const small = { ...resnet, layer_type: 'basic', num_channels: 3, hidden_act: 'relu' }
    const options = { microBatch: 8, steps: 3, checkpointEvery: 1, keep: 9, image: { model: small, pooling: 'pooled' } }
    const run = (name: string, more: object) =>
      eventsOf({ ...tinyRun(data, `small-${name}`), ...options, ...more } as TrainOptions)
    const plain = await run('plain', {})
    const averaged = await run('averaged', { ema: { decay: 0.75 } })
    expect(curve(averaged)).toEqual(curve(plain))
    torch.scope(() => {
      const weights = (name: string, step: number) =>
        torch.openSafetensors(join(checkpointFolder(join(data.folder, `small-${name}`), step), 'trainable.safetensors'))
      const [before, after, last] = [weights('averaged', 2), weights('averaged', 3), weights('plain', 3)]
      const moved: string[] = []
      for (const name of after.names) {
        if (name.endsWith('num_batches_tracked')) continue
        const [tensor, raw] = [after.tensor(name), last.tensor(name)]
        const expected = before.tensor(name).mul(0.75).add(raw.mul(0.25))
        expect(tensor.sub(expected).abs().max().item()).toBeLessThan(1e-5)
        if (!tensor.equal(raw)) moved.push(name)
      }
      for (const file of [before, after, last]) file[Symbol.dispose]()
      expect(moved.some((name) => name.endsWith('running_mean'))).toBe(true)
      expect(moved.some((name) => name.includes('lora_B'))).toBe(true)
    })
    // and goes on from what trains, not from its average
    rmSync(checkpointFolder(join(data.folder, 'small-averaged'), 3), { recursive: true })
    const again = await run('averaged', { ema: { decay: 0.75 }, resume: true })
    expect(curve(again)).toEqual(curve(plain).slice(2))
  })

  it.each([1, 3, 4])('that is stopped after step %i goes on exactly', async (stop) => {
    const whole = curve(await eventsOf(tinyRun(data, `whole-${stop}`)))
    const options = tinyRun(data, `stopped-${stop}`)
    const abort = new AbortController()
    const before: TrainEvent[] = []
    await expect(
      (async () => {
        for await (const event of train(options, { signal: abort.signal })) {
          before.push(event)
          if (event.type === 'step' && event.step === stop) abort.abort(new Error('enough'))
        }
      })(),
    ).rejects.toThrow('enough')
    const reached = checkpointSteps(options.out).at(-1)!
    expect(reached).toBeGreaterThanOrEqual(stop)
    const after = await eventsOf({ ...options, resume: true })
    expect(after[0]).toMatchObject({ type: 'start', step: reached })
    expect([...curve(before), ...curve(after)]).toEqual(whole)
    expect(curve(after).length).toBe(6 - reached)
  })

  it('that was killed between two files goes on from the last whole checkpoint', async () => {
    const whole = curve(await eventsOf(tinyRun(data, 'kill-whole')))
    const options = tinyRun(data, 'kill')
    await eventsOf(options)
    // as a kill in the middle of the last checkpoint leaves it
    rmSync(join(checkpointFolder(options.out, 6), 'training.json'))
    const after = await eventsOf({ ...options, resume: true })
    expect(curve(after)).toEqual(whole.slice(4))
    expect(readdirSync(join(options.out, 'checkpoints')).filter((name) => name.endsWith('.part'))).toEqual([])
  })

  it.each([
    ['sgd', { optimizer: { type: 'sgd', lr: 1e-2 } }],
    [
      'EMA, clipping, layer-wise rates',
      { ema: { decay: 0.9 }, optimizer: { lr: 1e-3, clipNorm: 0.5, layerDecay: 0.5 } },
    ],
    ['bfloat16', { precision: 'bfloat16' }],
    ['AdaLoRA', { peft: { type: 'adalora', initR: 4, targetR: 2, tinit: 1, tfinal: 1 } }],
    ['IA3', { peft: { type: 'ia3' } }],
    ['prefix', { peft: { type: 'prefix', tokens: 3 } }],
    ['prefix from a projection', { peft: { type: 'prefix', tokens: 3, projection: true } }],
    ['prompt', { peft: { type: 'prompt', tokens: 3 } }],
    ['a language model that is trained as a whole', { peft: null }],
    ['a frozen image encoder', { image: { frozen: true } }],
    ['a decoder behind the encoder', { image: { model: vit, decoder: {}, pooling: 'mean-patches' } }],
    ['projections with BatchNorm', { image: { projection: { kind: 'mlp', hiddenWidth: 16 } }, microBatch: 8 }],
  ] as const)('with %s learns and resumes exactly', async (name, change) => {
    const base = tinyRun(data, `option-${name}`)
    const merged = {
      ...base,
      ...change,
      image: { ...(base.image as object), ...('image' in change ? change.image : {}) },
    } as TrainOptions
    const whole = curve(await eventsOf(merged))
    expect(whole.length).toBe(6)
    rmSync(checkpointFolder(base.out, 6), { recursive: true })
    const resumed = await eventsOf({ ...merged, resume: true })
    expect(curve(resumed)).toEqual(whole.slice(4))
  })

  it('in float16 finds the factor of its loss, keeps float32, learns and resumes exactly', async () => {
    const options = { ...tinyRun(data, 'half'), precision: 'float16', steps: 12, validation: null } as const
    const events = await eventsOf(options)
    const whole = curve(events)
    // the first steps overflow, which is named, and no reason to stop
    const skipped = events.flatMap((event) => (event.type === 'skipped' ? [event.step] : []))
    expect(whole.length + skipped.length).toBe(12)
    expect(whole.length).toBeGreaterThan(6)
    expect(whole.every(([, loss]) => Number.isFinite(loss))).toBe(true)
    using state = torch.openSafetensors(join(checkpointFolder(options.out, 12), 'trainable.safetensors'))
    expect(new Set(state.names.map((name) => state.tensor(name).dtype))).toEqual(new Set(['float32']))
    rmSync(checkpointFolder(options.out, 12), { recursive: true })
    const resumed = curve(await eventsOf({ ...options, resume: true }))
    expect(resumed.length).toBeGreaterThan(0)
    expect(resumed).toEqual(whole.slice(-resumed.length))
  })

  it('freezes and unfreezes by name, and keeps what was trained of the language model', async () => {
    const options = {
      ...tinyRun(data, 'names'),
      freeze: ['image.encoder.*', 'image.embeddings.*'],
      unfreeze: ['image.encoder.layer.1.*', 'text.model.ln_f.*', 'text.model.wte.weight'],
      keep: 9,
      validation: null,
    }
    const whole = curve(await eventsOf(options))
    const state = async (step: number) => {
      const model = await loadModel(checkpointFolder(options.out, step), { trainable: true })
      const values = new Map(model.namedParameters().map(([name, each]) => [name, torch.noGrad(() => each.clone())]))
      model.dispose()
      return values
    }
    const [first, last] = [await state(2), await state(6)]
    const still = [...first].filter(([name, each]) => torch.equal(each, last.get(name)!)).map(([name]) => name)
    const isStill = (name: string) => still.includes(name)
    expect(isStill('image.encoder.layer.0.mlp.fc1.weight')).toBe(true)
    expect(isStill('image.embeddings.cls_token')).toBe(true)
    expect(isStill('image.encoder.layer.1.mlp.fc1.weight')).toBe(false)
    expect(isStill('text.model.ln_f.weight')).toBe(false)
    expect(isStill('text.model.wte.weight')).toBe(false)
    expect(isStill('text.model.h.0.mlp.c_fc.weight')).toBe(true)
    rmSync(checkpointFolder(options.out, 6), { recursive: true })
    expect(curve(await eventsOf({ ...options, resume: true }))).toEqual(whole.slice(4))
    const { names } = torch.openSafetensors(join(checkpointFolder(options.out, 6), 'trainable.safetensors'))
    const own = names.filter((name) => /^text\./.test(name))
    // a stage that goes on from it, with all of it frozen, writes it again
    const next = await loadModel(checkpointFolder(options.out, 6))
    saveModel(join(data.folder, 'next'), next, readModelFiles(checkpointFolder(options.out, 6)))
    next.dispose()
    const [before, after] = [checkpointFolder(options.out, 6), join(data.folder, 'next')].map((folder) =>
      readFileSync(join(folder, 'trainable.safetensors')),
    )
    expect(after!.equals(before!)).toBe(true)
    expect(own.sort()).toEqual(['text.model.ln_f.bias', 'text.model.ln_f.weight', 'text.model.wte.weight'])
  })

  it('validates what was averaged, where it averages', async () => {
    const options = { ...tinyRun(data, 'averaged'), optimizer: { lr: 1e-2, warmupSteps: 0 }, augment: false }
    const found = async (name: string, change: object) =>
      (await eventsOf({ ...options, ...change, out: join(data.folder, name) } as TrainOptions)).flatMap((event) =>
        event.type === 'validation' ? [event.metrics.loss!] : [],
      )
    const plain = await found('plain', {})
    // at once what it is, and hardly ever moved
    expect(await found('following', { ema: { decay: 0 } })).toEqual(plain)
    const slow = await found('slow', { ema: { decay: 0.9999 } })
    const range = (losses: readonly number[]) => Math.max(...losses) - Math.min(...losses)
    expect(range(slow)).toBeLessThan(range(plain) / 2)
  })

  it('names what is wrong before anything is loaded', async () => {
    const options = tinyRun(data, 'wrong')
    const refuse = (change: Record<string, unknown>) =>
      expect(eventsOf({ ...options, ...change } as TrainOptions)).rejects
    await refuse({ batchSize: 0 }).toThrow(/batchSize/)
    await refuse({ steps: 1.5 }).toThrow(/steps/)
    await refuse({ peft: { type: 'lora', rank: 3 } }).toThrow(/peft.*rank/i)
    await refuse({ colour: 'blue' }).toThrow(/colour/)
    await refuse({ data: { kind: 'chexpert', root: join(data.folder, 'none') } }).toThrow(/none/)
    await refuse({ batchSize: 10_000 }).toThrow(/expected enough images for a batch of 10000/)
    await refuse({ text: { model: join(data.folder, 'none') } }).toThrow()
    await refuse({ freeze: ['image.nothing.*'] }).toThrow(/'image.nothing.\*' fits none/)
    await refuse({ peft: { type: 'lora', targetModules: ['nowhere'] } }).toThrow(/nowhere/)
    const { image } = options as { image: object }
    await refuse({ image: { ...image, decoder: {} } }).toThrow(/image.pooling: expected 'mean-patches' with a decoder/)
    const decoded = { decoder: {}, pooling: 'mean-patches' }
    await refuse({ image: { ...image, ...decoded } }).toThrow(/image.decoder: expected a plain ViT/)
    await refuse({ image: { model: vit, ...decoded, maskRatio: 0.5 } }).toThrow(
      /image.maskRatio: expected 0 with a dec/,
    )
    expect(existsSync(join(options.out, 'checkpoints'))).toBe(false)
  })

  it('does not write over a run, and resumes only the same one', async () => {
    const options = tinyRun(data, 'again')
    await eventsOf({ ...options, steps: 2 })
    await expect(eventsOf(options)).rejects.toThrow(/expected a folder without a run/)
    await expect(eventsOf({ ...options, steps: 2, seed: 6, resume: true })).rejects.toThrow(/seed are others/)
    const file = join(checkpointFolder(options.out, 2), 'training.json')
    writeFileSync(file, readFileSync(file, 'utf8').replace('cleft-checkpoint', 'other'))
    await expect(eventsOf({ ...options, steps: 2, resume: true })).rejects.toThrow(/checkpoint of ours/)
  })

  it('skips a step that is not finite, names it, and stops after too many', async () => {
    const options = { ...tinyRun(data, 'overflow'), optimizer: { lr: 1e30, warmupSteps: 0 }, validation: null }
    await expect(eventsOf({ ...options, maxSkipped: 3 } as TrainOptions)).rejects.toThrow(/3 steps in a row/)
  })

  it('has the published recipe for defaults', () => {
    const full = parseOptions({
      stage: 'pretrain',
      data: data.data,
      image: 'dinov2_vitb14_reg',
      text: 'biomedlm',
      out: 'x',
    })
    expect(full).toMatchObject({
      batchSize: 72,
      steps: 40_000,
      embeddingWidth: 512,
      peft: { type: 'lora', r: 8, alpha: 32 },
    })
    expect(full.optimizer).toMatchObject({ lr: 4e-5, weightDecay: 0.1, betas: [0.9, 0.999], lrMin: 1e-8 })
  })
})
