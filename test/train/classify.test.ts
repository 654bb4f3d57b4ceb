import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isClassifierFolder, loadClassifier } from '../../src/clip/classifier-files.js'
import * as torch from '../../src/torch/index.js'
import { checkpointFolder } from '../../src/train/checkpoint.js'
import type { StepEvent, TrainEvent } from '../../src/train/events.js'
import type { FineTuneOptions, ProbeOptions } from '../../src/train/options/index.js'
import { parseOptions, type TrainContext, type TrainOptions, train } from '../../src/train/train.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

let data: Tiny
let checkpoint: string
beforeAll(async () => {
  // with an image of each class
  data = await tiny(40, 2)
  const splits = { fractions: { train: 0.6, valid: 0.2, test: 0.2 } }
  const run = { ...tinyRun(data, 'pretrained'), data: { ...data.data, splits }, steps: 2, validation: null }
  checkpoint = (await train(run)).checkpoint
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

type Inherited<Options extends { data: unknown }> = Omit<Options, 'data'> & { data?: Partial<Options['data']> }

const shared = (name: string) => ({
  from: checkpoint,
  batchSize: 4,
  steps: 6,
  logEvery: 1,
  checkpointEvery: 2,
  seed: 5,
  workers: 1,
  out: join(data.folder, name),
})
const probe = (name: string): Inherited<ProbeOptions> => ({ stage: 'linear-probe', ...shared(name) })
const tune = (name: string): Inherited<FineTuneOptions> => ({
  stage: 'fine-tune',
  ...shared(name),
  microBatch: 2,
  optimizer: { lr: 1e-3 },
})
const stages = { 'linear-probe': probe, 'fine-tune': tune }

async function eventsOf(options: TrainOptions, context: TrainContext = {}): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  for await (const event of train(options, context)) events.push(event)
  return events
}
const steps = (events: readonly TrainEvent[]) => events.filter((event): event is StepEvent => event.type === 'step')
const curve = (events: readonly TrainEvent[]) =>
  steps(events).map(({ step, loss, accuracy, gradientNorm }) => [step, loss, accuracy, gradientNorm])

/** Which tensors of a checkpoint differ from another's. */
function changed(before: string, after: string): string[] {
  using a = torch.openSafetensors(join(before, 'trainable.safetensors'))
  using b = torch.openSafetensors(join(after, 'trainable.safetensors'))
  return torch.scope(() => b.names.filter((name) => !a.has(name) || !torch.equal(a.tensor(name), b.tensor(name))))
}

describe.each(['linear-probe', 'fine-tune'] as const)('%s', (stage) => {
  const optionsOf = stages[stage] as (name: string) => Inherited<ProbeOptions>

  it('takes all images of a small part at once where no batch was asked for', async () => {
    const { batchSize: _, ...options } = optionsOf(`${stage}-few`)
    const events = await eventsOf({ ...options, data: { fraction: 0.01 }, steps: 2 } as TrainOptions)
    // one of each class
    expect(events.find((event) => event.type === 'start')).toMatchObject({ images: 5 })
    expect(steps(events).map(({ epoch }) => epoch)).toEqual([0, 1])
  })

  it('trains, is validated, and leaves checkpoints that are whole classifiers', async () => {
    const options = optionsOf(`${stage}-whole`)
    const job = train(options)
    const events: TrainEvent[] = []
    for await (const event of job) events.push(event)
    const result = await job
    expect(steps(events).length).toBe(6)
    const validation = events.find((event) => event.type === 'validation')
    expect(Object.keys(validation!.metrics).slice(0, 2)).toEqual(['loss', 'accuracy'])
    expect(isClassifierFolder(result.checkpoint)).toBe(true)
    const { model } = await loadClassifier(result.checkpoint)
    expect(model.classes.length).toBe(5)
    expect(model.task).toBe('single')
    model.dispose()
    // what is frozen stays to the bit; what trains changes, all of it
    const different = changed(checkpoint, result.checkpoint)
    const start = events.find((event) => event.type === 'start')!
    // beside its checkpoint's run, where nothing else is said
    const { out: _, ...rest } = options
    expect(parseOptions(rest as TrainOptions).out).toBe(join(data.folder, 'pretrained', stage))
    if (stage === 'linear-probe') {
      expect(different).toEqual(['head.bias', 'head.weight'])
      expect(start.trainable).toBe(33 * 5)
    } else {
      using file = torch.openSafetensors(join(result.checkpoint, 'trainable.safetensors'))
      const unused = /mask_token|^image\.layernorm/
      expect(file.names.filter((name) => !different.includes(name) && !unused.test(name))).toEqual([])
    }
  })

  it('repeats itself to the bit, and goes on exactly after a stop', async () => {
    const whole = curve(await eventsOf(optionsOf(`${stage}-a`)))
    expect(curve(await eventsOf({ ...optionsOf(`${stage}-b`), workers: 2 }))).toEqual(whole)
    for (const stop of [1, 3]) {
      const options = optionsOf(`${stage}-stop-${stop}`)
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
      const after = await eventsOf({ ...options, resume: true } as TrainOptions)
      expect([...curve(before), ...curve(after)]).toEqual(whole)
      expect(curve(after).length).toBeLessThan(6)
    }
  })

  it.each([
    ['several labels', { labels: 'multi', findings: ['Edema', 'Cardiomegaly', 'Support Devices'], blank: 'negative' }],
    ['averages, clipping, layer-wise rates', { ema: { decay: 0.9 }, optimizer: { clipNorm: 0.5, layerDecay: 0.5 } }],
    ['bfloat16 and SGD', { precision: 'bfloat16', optimizer: { type: 'sgd', lr: 1e-2 } }],
    ['every class drawn as often', { data: { balance: true }, validation: { metric: 'auc' } }],
    ['a repeated fraction', { data: { fraction: 0.5, keepSize: true }, labels: 'multi', findings: ['Edema'] }],
  ] as const)('with %s learns and resumes exactly', async (name, change) => {
    const options = { ...optionsOf(`${stage}-${name}`), ...change } as unknown as TrainOptions & { out: string }
    const events = await eventsOf(options)
    const whole = curve(events)
    expect(whole.length).toBe(6)
    rmSync(checkpointFolder(options.out, 6), { recursive: true })
    expect(curve(await eventsOf({ ...options, resume: true }))).toEqual(whole.slice(4))
  })

  it('refuses before the first step what does not go together', async () => {
    const options = optionsOf(`${stage}-wrong`)
    const refuse = (change: object) => expect(eventsOf({ ...options, ...change } as TrainOptions)).rejects
    await refuse({ from: join(data.folder, 'none') }).toThrow(/from: expected a checkpoint/)
    const none = mkdtempSync(join(tmpdir(), 'cleft-none-'))
    await refuse({ from: none, data: data.data }).toThrow(/config.json/)
    writeFileSync(join(none, 'config.json'), '{"format": "other"}')
    await refuse({ from: none, data: data.data }).toThrow(/is this a model folder of ours/)
    rmSync(none, { recursive: true })
    await refuse({ batchSize: 10_000 }).toThrow(/batchSize: .*received 10000/)
    await refuse({ data: { labels: 'all' } }).toThrow(/expected an image of each class, but of .* there is none/)
    await refuse({ data: { fraction: 0 } }).toThrow(/data.fraction: .* received 0/)
    await refuse({ labels: 'multi', findings: ['Edema', 'Colour'] }).toThrow(/'Colour'/)
    await refuse({ labels: 'multi', findings: ['Edema'], data: { balance: true } }).toThrow(/data.balance/)
    expect(existsSync(options.out)).toBe(false)
    const { checkpoint: classifier } = await train({ ...options, steps: 1 })
    await expect(eventsOf({ ...options, from: classifier, out: `${options.out}-2` })).rejects.toThrow(
      stage === 'linear-probe'
        ? /is a classifier already/
        : /or a linear probe of .* \(single\), but .* is a fine-tune of .*give the one that it began with/,
    )
  })
})

describe('fine-tune', () => {
  it("begins with a linear probe's layer, where it begins with one", async () => {
    const probed = await train({ ...probe('to-tune'), steps: 30, optimizer: { lr: 0.1 }, validation: null })
    const options = { ...stages['fine-tune']('from-probe'), from: probed.checkpoint, validation: null }
    const { checkpoint: tuned } = await train({
      ...options,
      steps: 1,
      optimizer: { lr: 1e-8, lrMin: 0 },
    } as TrainOptions)
    using before = torch.openSafetensors(join(probed.checkpoint, 'trainable.safetensors'))
    using after = torch.openSafetensors(join(tuned, 'trainable.safetensors'))
    torch.scope(() => {
      for (const name of before.names) {
        expect(after.tensor(name).sub(before.tensor(name)).abs().max().item(), name).toBeLessThan(1e-6)
      }
    })
    expect((await loadClassifier(tuned)).stage).toBe('fine-tune')
    const others = { ...options, out: `${options.out}-others`, labels: 'multi', findings: ['Edema'] }
    await expect(eventsOf(others as TrainOptions)).rejects.toThrow(/linear probe of Edema \(multi\), but/)
  })
})

describe('linear-probe', () => {
  it('computes features once, and others for another fraction', async () => {
    const files = async (change: object) => {
      const options = { ...probe('features'), validation: null, ...change } as TrainOptions & { out: string }
      const events = await eventsOf(options)
      rmSync(join(options.out, 'checkpoints'), { recursive: true })
      return {
        computed: events.some(({ type }) => type === 'progress'),
        count: readdirSync(join(options.out, 'features')).length,
      }
    }
    expect(await files({})).toEqual({ computed: true, count: 1 })
    expect(await files({ batchSize: 2, seed: 9 })).toEqual({ computed: false, count: 1 })
    expect(await files({ data: { captions: { style: 'negative' } } })).toEqual({ computed: true, count: 2 })
    const edema = { labels: 'multi', findings: ['Edema'] }
    expect(await files(edema)).toEqual({ computed: true, count: 3 })
    expect(await files({ ...edema, data: { fraction: 0.5 } })).toEqual({ computed: true, count: 4 })
  })
})

describe('fine-tune', () => {
  it('has the gradients of the whole batch, however it is split', async () => {
    const options = { ...tune('split'), validation: null, augment: false, steps: 2 }
    const whole = curve(await eventsOf({ ...options, microBatch: 4 }))
    const split = curve(await eventsOf({ ...options, microBatch: 3, out: `${options.out}-3` }))
    for (const [k, values] of whole.entries()) {
      for (const [j, value] of values.entries()) expect(split[k]![j]).toBeCloseTo(value, 3)
    }
    const again = curve(await eventsOf({ ...options, microBatch: 4, checkpointing: true, out: `${options.out}-4` }))
    for (const [k, values] of whole.entries()) {
      for (const [j, value] of values.entries()) expect(again[k]![j]).toBeCloseTo(value, 4)
    }
  })

  it('uses the layers’ rates', async () => {
    // one step of SGD without momentum moves a weight by its rate times its gradient
    const moved = async (layerDecay: number) => {
      const optimizer = { type: 'sgd', lr: 1, momentum: 0, weightDecay: 0, warmupSteps: 0, layerDecay } as const
      const options = { ...tune(`rates-${layerDecay}`), optimizer, steps: 1, validation: null }
      const { checkpoint: after } = await train(options)
      using a = torch.openSafetensors(join(checkpoint, 'trainable.safetensors'))
      using b = torch.openSafetensors(join(after, 'trainable.safetensors'))
      return torch.scope(() =>
        [0, 1].map((layer) => {
          const name = b.names.find((each) => new RegExp(`^image\\..*layer\\.${layer}\\..*weight$`).test(each))!
          return b.tensor(name).sub(a.tensor(name)).norm().item()
        }),
      )
    }
    const [plain, decayed] = [await moved(1), await moved(0.5)]
    expect(decayed[1]! / plain[1]!).toBeCloseTo(0.5, 3)
    expect(decayed[0]! / plain[0]!).toBeCloseTo(0.25, 3)
  })
})
