import { spawnSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadModel } from '../../src/clip/model-files.js'
import { packageRoot } from '../../src/setup/paths.js'
import * as torch from '../../src/torch/index.js'
import { planStep } from '../../src/train/plan/index.js'
import { type TrainOptions, train } from '../../src/train/train.js'
import { collectGarbage } from '../torch/helpers.js'
import { type Tiny, tiny } from './tiny.js'

let data: Tiny
beforeAll(async () => {
  // with an image of each class
  data = await tiny(60, 2)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

const vit = {
  model_type: 'dinov2_with_registers',
  hidden_size: 96,
  num_hidden_layers: 6,
  num_attention_heads: 3,
  patch_size: 14,
  image_size: 112,
  num_register_tokens: 4,
  mlp_ratio: 4,
}

const resnet = { recipe: 'cleft-small', batchSize: 48 }
const transformer = { recipe: 'cleft-small', image: { model: vit, pooling: 'mean-prenorm' }, imageSize: 112 }

/** The most that three steps take, start and end of the run left out. */
async function measured(options: TrainOptions): Promise<number> {
  // what tests before left would be taken off, when the collector finds it
  await collectGarbage()
  const count = new torch.memory.Count('cpu')
  let [isTraining, peak] = [false, 0]
  try {
    for await (const event of train(options, { logger: { warn() {} } })) {
      const since = count.read({ resetPeak: true })
      // whatever is told after the start: another event may be read between a step and its own
      if (isTraining) peak = Math.max(peak, since.peak)
      if (event.type === 'start') isTraining = true
    }
  } finally {
    count[Symbol.dispose]()
  }
  return peak
}

describe('the memory of a step', () => {
  it.each([
    ['of a ResNet', resnet],
    ['of a ViT', { ...transformer, batchSize: 24 }],
    ['of a few images, where gradients and state are most of it', { ...transformer, batchSize: 4 }],
    ['in bfloat16', { ...transformer, batchSize: 24, precision: 'bfloat16' }],
    ['in parts', { ...transformer, batchSize: 24, microBatch: 6 }],
    [
      'with checkpointing',
      { ...transformer, batchSize: 24, image: { model: vit, pooling: 'mean-prenorm', checkpointing: true } },
    ],
    ['with padded texts', { ...transformer, batchSize: 16, text: { model: 'cleft-report-lm', execution: 'padded' } }],
    ['of a BERT that trains', { recipe: 'clip-bert-small', batchSize: 24 }],
    ['with a learned prompt', { ...transformer, batchSize: 16, peft: { type: 'prompt', tokens: 4 } }],
    ['with SGD and averages', { ...transformer, batchSize: 8, optimizer: { type: 'sgd' }, ema: { decay: 0.99 } }],
  ])('%s is predicted within 15 %%', async (name, given) => {
    const options = {
      ...given,
      data: data.data,
      validation: null,
      steps: 3,
      workers: 1,
      logEvery: 1,
      checkpointEvery: 3,
      out: join(data.folder, name.replaceAll(' ', '-')),
    } as unknown as TrainOptions
    const { memory, notes } = await planStep(options)
    expect(notes).toEqual([])
    const { total, ...parts } = memory
    expect(Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBeCloseTo(total)
    const ratio = total / (await measured(options))
    expect(ratio).toBeGreaterThan(0.85)
    expect(ratio).toBeLessThan(1.15)
  })
})

describe('suggestions', () => {
  const options = { ...transformer, batchSize: 512, data: null } as unknown as TrainOptions
  const at = (available: number) => planStep({ ...options, data: data.data } as TrainOptions, { available })

  it('fit, are the largest that do, and keep the batch by accumulation', async () => {
    const available = 256 * 2 ** 20
    const { fits, suggestions } = await at(available)
    expect(fits).toBe(false)
    expect(suggestions.map(({ checkpointing }) => checkpointing)).toEqual([false, true, false])
    for (const { total } of suggestions) expect(total).toBeLessThanOrEqual(available)
    const [whole, again, parts] = suggestions
    expect(again!.batchSize).toBeGreaterThan(whole!.batchSize)
    expect(parts!.batchSize).toBe(512)
    expect(parts!.microBatch).toBeLessThanOrEqual(256)
    const larger = await planStep(
      { ...options, data: data.data, batchSize: whole!.batchSize + 1 } as unknown as TrainOptions,
      { available },
    )
    expect(larger.fits).toBe(false)
  })

  it('of nothing, where the weights alone are too much', async () => {
    const { fits, suggestions } = await at(2 ** 20)
    expect([fits, suggestions]).toEqual([false, []])
  })

  it('assume texts and tokens where neither data nor tokenizer are here, and say so', async () => {
    const text = { model_type: 'gpt2', n_embd: 64, n_layer: 5, n_head: 2, vocab_size: 300 }
    const { notes, tokens, memory, available } = await planStep({
      ...transformer,
      text: { model: text, pretrained: false },
      batchSize: 4,
      data: { kind: 'chexpert', root: join(data.folder, 'nowhere') },
    } as unknown as TrainOptions)
    expect(notes.length).toBe(2)
    expect(notes[0]).toMatch(/^captions: the data could not be read/)
    expect(notes[1]).toMatch(/^tokens: the tokenizer is not here/)
    expect(tokens).toBeGreaterThan(14)
    expect(memory.total).toBeGreaterThan(0)
    expect(available).toBeNull()
  })
})

const main = join(packageRoot(), 'dist', 'cli', 'main.js')
const plan = (...parameters: string[]) =>
  spawnSync(process.execPath, [main, 'plan', ...parameters], { encoding: 'utf8', env: { ...process.env, DEBUG: '' } })

/** What a run takes beside its weights: the most of three steps over what there was at its start. */
async function measuredAbove(options: TrainOptions): Promise<number> {
  // what tests before left would be taken off, when the collector finds it
  await collectGarbage()
  const count = new torch.memory.Count('cpu')
  let [isTraining, before, peak] = [false, 0, 0]
  try {
    for await (const event of train(options, { logger: { warn() {} } })) {
      const since = count.read({ resetPeak: true })
      if (isTraining) peak = Math.max(peak, since.peak - before)
      if (event.type === 'start') {
        isTraining = true
        before = since.current
      }
    }
  } finally {
    count[Symbol.dispose]()
  }
  return peak
}

describe('the memory of a step of a stage that begins with a checkpoint', () => {
  let from: string
  beforeAll(async () => {
    const text = { model: 'cleft-report-lm' }
    const run = { ...transformer, text, data: data.data, validation: null, steps: 1, batchSize: 8 }
    from = (await train({ ...run, out: join(data.folder, 'from') } as unknown as TrainOptions)).checkpoint
  }, 60_000)

  const tune = { stage: 'fine-tune' }
  const prompt = { stage: 'prompt', contextLength: 8 }
  const contrastive = { ...prompt, objective: 'contrastive' }
  it.each([
    ['fine-tuning', { ...tune, batchSize: 24 }],
    ['fine-tuning in parts', { ...tune, batchSize: 24, microBatch: 8 }],
    ['fine-tuning with checkpointing', { ...tune, batchSize: 24, checkpointing: true }],
    ['fine-tuning in bfloat16', { ...tune, batchSize: 24, precision: 'bfloat16' }],
    ['fine-tuning of the last layers', { ...tune, batchSize: 8, freeze: ['image.*'], unfreeze: ['image.*.layer.5.*'] }],
    ['a linear probe', { stage: 'linear-probe', batchSize: 80, labels: 'multi', findings: ['Edema', 'Pneumonia'] }],
    ['prompt tuning', { ...prompt, batchSize: 24 }],
    ['prompt tuning of findings', { ...prompt, batchSize: 24, labels: 'multi', findings: ['Edema', 'Pneumonia'] }],
    ['prompt tuning in bfloat16', { ...prompt, batchSize: 24, precision: 'bfloat16' }],
    ['prompt tuning on captions', { ...contrastive, batchSize: 24 }],
    [
      'prompt tuning on captions in parts, in bfloat16',
      { ...contrastive, batchSize: 24, microBatch: 8, precision: 'bfloat16' },
    ],
  ])('%s is predicted within 15 %%', async (name, given) => {
    const options = {
      ...given,
      from,
      data: data.data,
      validation: null,
      steps: 3,
      workers: 1,
      logEvery: 1,
      checkpointEvery: 3,
      out: join(data.folder, `stage-${name.replaceAll(' ', '-')}`),
    } as unknown as TrainOptions
    const { memory, notes, features } = await planStep(options)
    expect(notes).toEqual([])
    expect(features === null).toBe(!/^a linear probe|^prompt tuning($| of| in)/.test(name))
    const ratio = (memory.total - memory.weights) / (await measuredAbove(options))
    expect(ratio).toBeGreaterThan(0.85)
    expect(ratio).toBeLessThan(1.15)
  })

  it('counts the weights of the whole model, and suggests batches that fit', async () => {
    const model = await loadModel(from)
    const bytes = (module: torch.nn.Module) =>
      [...module.stateDict().values()].reduce((sum, each) => sum + each.numel() * each.elementSize(), 0)
    const at = (stage: object, available: number) =>
      planStep({ ...stage, from, data: data.data, out: 'x' } as unknown as TrainOptions, { available })
    const tuned = await at({ ...tune, batchSize: 24 }, 24 * 2 ** 20)
    expect(tuned.memory.weights / bytes(model.image)).toBeCloseTo(1, 2)
    expect(tuned.suggestions.map(({ checkpointing }) => checkpointing)).toContain(true)
    for (const { total } of tuned.suggestions) expect(total).toBeLessThanOrEqual(24 * 2 ** 20)
    const prompted = await at({ ...prompt, batchSize: 8 }, 2 ** 30)
    expect(prompted.memory.weights / bytes(model)).toBeCloseTo(1, 1)
    expect([prompted.fits, prompted.shape.checkpointing]).toEqual([true, false])
    expect(prompted.features).toBeGreaterThan(prompted.memory.weights)
    model.dispose()
  })

  it('is printed, with what there is before the first step', () => {
    const config = join(data.folder, 'probe.yaml')
    const stage = { stage: 'linear-probe', from, data: data.data, labels: 'multi', findings: ['Edema'], batchSize: 16 }
    writeFileSync(config, JSON.stringify(stage))
    const { status, stdout, stderr } = plan(config, '--memory', '64MiB')
    expect(`${status} ${stderr}`).toBe('0 ')
    expect(stdout).toMatch(/^a step on a GPU of batchSize 16\n {2}weights +\d+\.\d MiB\n/)
    expect(stdout).toMatch(/\nbefore the first step, where features are computed once: \d+\.\d MiB\n/)
    expect(stdout).toMatch(/\nthe largest batch in one piece: batchSize \d+, /)
  })

  it('assumes classes where the data are not here, and says what is no checkpoint', async () => {
    const nowhere = { kind: 'chexpert', root: join(data.folder, 'nowhere') }
    const { notes } = await planStep({ ...tune, from, data: nowhere, out: 'x', batchSize: 4 } as never)
    expect(notes).toEqual([expect.stringMatching(/^classes: the data are not here .*; 14 are assumed$/)])
    const wrong = { ...tune, from: data.folder, data: data.data, out: 'x' } as never
    await expect(planStep(wrong)).rejects.toThrow()
  })
})

describe('cleft plan', () => {
  it('prints a table, and one JSON object where it is asked for', () => {
    const config = join(data.folder, 'plan.yaml')
    writeFileSync(config, JSON.stringify({ recipe: 'cleft-small', data: data.data, batchSize: 16 }))
    const table = plan(config, '--memory', '64MiB')
    expect(`${table.status} ${table.stderr}`).toBe('0 ')
    expect(table.stdout).toMatch(/^a step on a GPU of batchSize 16, [\d,]+ tokens of text\n {2}weights +\d+\.\d MiB\n/)
    expect(table.stdout).toMatch(
      / {2}at the peak +\d+\.\d MiB: fits into 64\.0 MiB\nthe largest batch in one piece: batchSize \d+/,
    )
    const json = plan(config, '--json', '--set', 'batchSize=24')
    expect(`${json.status} ${json.stderr}`).toBe('0 ')
    expect(JSON.parse(json.stdout)).toMatchObject({
      device: 'cpu',
      shape: { batchSize: 24 },
      fits: null,
      suggestions: [],
    })
  })

  it.each([
    [[], /^cleft: expected a configuration file, --recipe or --set, but received none; see: npx cleft plan --help\n$/],
    [
      ['--recipe', 'cleft-small', '--memory', 'much'],
      /^cleft: --memory: expected a size as 24GiB, but received 'much'\n$/,
    ],
    [['--recipe', 'cleft-small', '--set', 'batchSize=-1'], /^cleft: train: expected options of a run, but data.*\n$/],
    [['nowhere.json'], /^cleft: expected a configuration file, but there is none at 'nowhere.json'\n$/],
  ])('%j is an error of one line', (parameters, message) => {
    const { status, stdout, stderr } = plan(...parameters)
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(message)
  })
})
