import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packageRoot } from '../../src/setup/paths.js'
import { freePort } from '../../src/torch/distributed/launch.js'
import * as torch from '../../src/torch/index.js'
import { checkpointFolder, checkpointSteps, readProgress } from '../../src/train/checkpoint.js'
import type { TrainEvent } from '../../src/train/events.js'
import type { PretrainOptions } from '../../src/train/options/index.js'
import { type TrainContext, train } from '../../src/train/train.js'
import { signalRank } from './ranks.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

/*
 * Two processes that are stopped, end or hang, and go on.
 */

const STEPS = 16

let data: Tiny
let whole: string
beforeAll(async () => {
  data = await tiny(40)
  whole = join(data.folder, 'whole')
  const events = await eventsOf(run('whole'))
  expect(events.map(({ type }) => type).slice(0, 3)).toEqual(['start', 'image', 'step'])
  expect(events[0]).toMatchObject({ processes: 2, step: 0 })
  expect(events[1]).toMatchObject({ width: expect.any(Number), png: expect.any(Uint8Array) })
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

/** With dropout, so that each process' random numbers count. */
const run = (name: string): PretrainOptions => ({
  ...tinyRun(data, name),
  steps: STEPS,
  checkpointEvery: 5,
  ema: { decay: 0.9 },
  processes: 2,
  timeout: 20,
})

async function eventsOf(
  options: PretrainOptions,
  each: (event: TrainEvent) => void = () => {},
  context: TrainContext = {},
): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  const job = train(options, context)
  for await (const event of job) {
    events.push(event)
    each(event)
  }
  await job
  return events
}

/** Does something to a run after its seventh step. */
const late =
  (work: () => void): ((event: TrainEvent) => void) =>
  (event) => {
    if (event.type === 'step' && event.step === 7) work()
  }

function expectWhole(out: string): void {
  for (const name of ['trainable.safetensors', 'optimizer.safetensors']) {
    const [found, expected] = [out, whole].map((each) => readFileSync(join(checkpointFolder(each, STEPS), name)))
    expect([name, found!.equals(expected!)]).toEqual([name, true])
  }
}

describe('two processes', () => {
  it('leave what one does, each file once', () => {
    expect(readdirSync(whole).sort()).toEqual(['checkpoints', 'config.json', 'events.jsonl', 'tensorboard'])
    expect(readdirSync(join(whole, 'tensorboard')).length).toBe(1)
    const events = readFileSync(join(whole, 'events.jsonl'), 'utf8').trim().split('\n')
    expect(events.filter((line) => line.includes('"type":"step"')).length).toBe(STEPS)
    expect(readProgress(checkpointFolder(whole, STEPS)).processes).toBe(2)
    // each process draws its own
    using saved = torch.openSafetensors(join(checkpointFolder(whole, STEPS), 'optimizer.safetensors'))
    const [first, second] = ['random.0', 'random-of-1.0'].map((name) => saved.tensor(name).toArray())
    expect(first).not.toEqual(second)
  })

  it('of which one is killed: the other stops, and they go on exactly', async () => {
    const out = join(data.folder, 'killed')
    const killed = eventsOf(
      run('killed'),
      late(() => signalRank(1, 'SIGKILL')),
    )
    await expect(killed).rejects.toThrow('rank 1 of 2 was ended by SIGKILL; the others were stopped')
    expect(checkpointSteps(out)).toEqual([5])
    await train({ ...run('killed'), resume: true })
    expectWhole(out)
  })

  it('of which one hangs: the other names it within the time-out, and goes on alone', async () => {
    const out = join(data.folder, 'hangs')
    const hanging = eventsOf(
      { ...run('hangs'), timeout: 1 },
      late(() => signalRank(1, 'SIGSTOP')),
    )
    await expect(hanging).rejects.toThrow(/timed out after 1 s; rank 1 does not answer/)
    expect(checkpointSteps(out)).toEqual([5])
    const { processes: _, ...alone } = run('hangs')
    const events = await eventsOf({ ...alone, batchSize: 16, microBatch: 8, resume: true })
    expect(events.find(({ type }) => type === 'warning')).toMatchObject({
      message: expect.stringMatching(/goes on with one process after 2 processes: at the same place in the data/),
    })
    expect(events.find(({ type }) => type === 'start')).toMatchObject({ step: 5, processes: 1 })
    expect(checkpointSteps(out).at(-1)).toBe(STEPS)
    await expect(train({ ...alone, batchSize: 4, resume: true })).rejects.toThrow(/batchSize, microBatch are others/)
  })

  it('that are asked to stop do it after one step with a checkpoint, and go on exactly', async () => {
    const out = join(data.folder, 'stopped')
    const stop = new AbortController()
    const stopped = eventsOf(
      run('stopped'),
      late(() => stop.abort(new Error('enough'))),
      { signal: stop.signal },
    )
    await expect(stopped).rejects.toThrow('enough')
    const reached = checkpointSteps(out).at(-1)!
    expect([reached >= 7, reached < STEPS]).toEqual([true, true])
    await train({ ...run('stopped'), resume: true })
    expectWhole(out)
  })

  it('that Slurm starts stop together where one of them is told to', async () => {
    const out = join(data.folder, 'slurm')
    const config = join(data.folder, 'slurm.json')
    const { processes: _, ...options } = run('slurm')
    writeFileSync(config, JSON.stringify({ ...options, steps: 100_000, checkpointEvery: 100_000 }))
    const port = String(await freePort())
    const ranks = [0, 1].map((rank) => {
      const place = { SLURM_PROCID: `${rank}`, SLURM_LOCALID: `${rank}`, SLURM_NTASKS: '2' }
      const env = { ...process.env, ...place, SLURM_STEP_NODELIST: 'localhost', MASTER_PORT: port }
      const program = join(packageRoot(), 'dist', 'cli', 'main.js')
      const child = spawn(process.execPath, [program, 'train', config, '--json'], { env })
      const texts = { out: '', error: '' }
      child.stdout.on('data', (chunk) => {
        texts.out += chunk
      })
      child.stderr.on('data', (chunk) => {
        texts.error += chunk
      })
      return { child, texts, ended: once(child, 'close') }
    })
    const [first, second] = ranks as [(typeof ranks)[0], (typeof ranks)[0]]
    let told = false
    first.child.stdout.on('data', () => {
      if (told || !first.texts.out.includes('"type":"step"')) return
      told = second.child.kill('SIGTERM')
    })
    expect((await Promise.all(ranks.map(({ ended }) => ended))).map(([status]) => status)).toEqual([143, 143])
    expect(first.texts.error).toMatch(/stopped; go on with --resume/)
    expect([second.texts.out, second.texts.error]).toEqual(['', ''])
    expect(checkpointSteps(out).length).toBe(1)
  })
})

describe('several processes are refused', () => {
  const from = () => checkpointFolder(whole, STEPS)
  const out = () => join(data.folder, 'refused')

  it('for stages on frozen features', async () => {
    for (const stage of ['prompt', 'linear-probe'] as const) {
      await expect(train({ stage, from: from(), out: out(), processes: 2 })).rejects.toThrow(
        `processes: expected one for the stage '${stage}', but there are 2`,
      )
    }
    expect(existsSync(out())).toBe(false)
  })

  it('where the launcher started another number', async () => {
    Object.assign(process.env, { RANK: '0', WORLD_SIZE: '2', MASTER_ADDR: '127.0.0.1', MASTER_PORT: '1' })
    try {
      await expect(train({ ...run('refused'), processes: 3 })).rejects.toThrow(
        'processes: expected the 2 that the launcher started, but received 3; leave it out',
      )
    } finally {
      for (const name of ['RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT']) delete process.env[name]
    }
  })

  it('for an image encoder with BatchNorm of its own', async () => {
    const resnet = {
      model_type: 'resnet',
      embedding_size: 8,
      hidden_sizes: [8, 8, 8, 8],
      depths: [1, 1, 1, 1],
      layer_type: 'basic',
    }
    const options = { ...run('refused'), image: { model: resnet, pooling: 'pooled' as const }, microBatch: 8 }
    await expect(train(options)).rejects.toThrow(/expected an image encoder without BatchNorm for several processes/)
    expect(existsSync(join(out(), 'checkpoints'))).toBe(false)
  })

  it('for a parameter without a gradient, as one process is', async () => {
    const [labels, findings, unfreeze] = ['multi' as const, ['Edema'], ['image.embeddings.mask_token']]
    const running = { steps: 1, batchSize: 4, workers: 1, processes: 2, timeout: 20 }
    const place = { stage: 'fine-tune' as const, from: from(), out: join(data.folder, 'unreached') }
    const options = { ...place, labels, findings, unfreeze, ...running }
    await expect(train(options)).rejects.toThrow(
      /expected each of \d+ trainable tensors to have a gradient .* but 1 have none: image\.embeddings\.mask_token;/,
    )
  })
})
