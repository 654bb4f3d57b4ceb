import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packageRoot } from '../../src/setup/paths.js'
import { checkpointSteps } from '../../src/train/checkpoint.js'
import type { StepEvent, TrainEvent } from '../../src/train/events.js'
import { signalRank } from './ranks.js'
import { type Tiny, tiny, tinyRun } from './tiny.js'

const main = join(packageRoot(), 'dist', 'cli', 'main.js')
const STEPS = 14

let data: Tiny
let config: string
let whole: unknown[]
beforeAll(async () => {
  data = await tiny(20)
  config = join(data.folder, 'run.json')
  writeFileSync(config, JSON.stringify({ ...tinyRun(data, 'whole'), steps: STEPS }))
  const { status } = await cleft(['train', config])
  expect(status).toBe(0)
  whole = curveOf(join(data.folder, 'whole'))
  expect(whole.length).toBe(STEPS)
})
afterAll(() => rmSync(data.folder, { recursive: true, force: true }))

type Told = TrainEvent | { type: 'result'; checkpoint: string; steps: number }

interface Ended {
  status: number | null
  signal: string | null
  out: string
  error: string
  events: Told[]
}

/** Runs the command line; `each` is called with every event of --json. */
async function cleft(
  parameters: string[],
  each: (event: Told, child: ChildProcess) => void = () => {},
  begun: (child: ChildProcess) => void = () => {},
): Promise<Ended> {
  const child = spawn(process.execPath, [main, ...parameters], { stdio: ['ignore', 'pipe', 'pipe'] })
  begun(child)
  let [out, error] = ['', '']
  const events: Told[] = []
  child.stderr.on('data', (chunk) => {
    error += chunk
  })
  const lines = createInterface(child.stdout)
  lines.on('line', (line) => {
    out += `${line}\n`
    if (!line.startsWith('{"')) return
    const event = JSON.parse(line) as Told
    events.push(event)
    each(event, child)
  })
  const [status, signal] = (await once(child, 'close')) as [number | null, string | null]
  return { status, signal, out, error, events }
}

/** Of the table, below the data set's folder. */
function firstImage(): string {
  const [, row = ''] = readFileSync(join(data.data.root, 'train.csv'), 'utf8').split('\n')
  return row.split(',')[0]!.replace(/^[^/]*\//, '')
}

/** What the log of a run says of its steps. */
function curveOf(out: string): unknown[] {
  return readFileSync(join(out, 'events.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as TrainEvent)
    .filter((event): event is StepEvent => event.type === 'step')
    .map(({ step, loss, accuracy, logScale, gradientNorm }) => [step, loss, accuracy, logScale, gradientNorm])
}

describe('cleft train', () => {
  it('tells events as lines of JSON on standard output, all else on standard error, the result last', async () => {
    const out = join(data.folder, 'json')
    const { status, error, events } = await cleft(['train', config, '--out', out, '--set', 'steps=2', '--json'])
    expect(status).toBe(0)
    expect(events.map(({ type }) => type)).toEqual('start image step step validation checkpoint result'.split(' '))
    expect(events.at(-1)).toMatchObject({
      type: 'result',
      steps: 2,
      checkpoint: join(out, 'checkpoints/step-00000002'),
    })
    expect(error).toMatch(/2 steps, \d+ images/)
    expect(error).toMatch(/memory, an estimate/)
  })

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('that gets %s writes a checkpoint, ends with %i, and goes on exactly', async (signal, code) => {
    const out = join(data.folder, signal)
    const stopped = await cleft(['train', config, '--out', out, '--json'], (event, child) => {
      if (event.type === 'step' && event.step === 3) child.kill(signal)
    })
    expect([stopped.status, stopped.signal]).toEqual([code, null])
    expect(stopped.error).toMatch(/stopped; go on with --resume/)
    expect(stopped.error).not.toMatch(/Error|at .*\.js/)
    const reached = checkpointSteps(out).at(-1)!
    expect(reached).toBeGreaterThanOrEqual(3)
    expect(reached).toBeLessThan(STEPS)
    expect(curveOf(out)).toEqual(whole.slice(0, reached))
    const resumed = await cleft(['train', config, '--out', out, '--resume'])
    expect(resumed.status).toBe(0)
    expect(resumed.out).toBe(`${join(out, 'checkpoints', `step-000000${STEPS}`)}\n`)
    expect(resumed.error).toContain(`goes on after step ${reached} of ${STEPS}`)
    expect(curveOf(out)).toEqual(whole)
  })

  it('that is killed at any moment, three times, goes on exactly', async () => {
    const out = join(data.folder, 'killed')
    for (let kill = 0; kill < 3; kill += 1) {
      // some events after the start, and then anywhere in what follows
      let left = Math.floor(Math.random() * 6)
      const { signal, status } = await cleft(['train', config, '--out', out, '--resume', '--json'], (event, child) => {
        if (event.type === 'image' || event.type === 'start') return
        if (left === 0) setTimeout(() => child.kill('SIGKILL'), Math.random() * 40)
        left -= 1
      })
      // where it was through before the kill came, the rest has nothing to go on with
      if (status === 0) break
      expect(signal).toBe('SIGKILL')
    }
    const { status } = await cleft(['train', config, '--out', out, '--resume'])
    expect(status).toBe(0)
    expect(curveOf(out)).toEqual(whole)
    for (const name of ['trainable.safetensors', 'optimizer.safetensors']) {
      const last = join('checkpoints', `step-000000${STEPS}`, name)
      expect(readFileSync(join(out, last)).equals(readFileSync(join(data.folder, 'whole', last)))).toBe(true)
    }
  })

  it('trains a classifier without a file, whose images are then told without prompts', async () => {
    const from = join(data.folder, 'whole', 'checkpoints', `step-000000${STEPS}`)
    const out = join(data.folder, 'probe')
    const set = ['stage=linear-probe', `from=${from}`, 'labels=multi', 'findings=["Edema"]', 'steps=2', 'batchSize=4']
    const trained = await cleft(['train', ...set.flatMap((each) => ['--set', each]), '--out', out])
    expect([trained.status, trained.error]).toEqual([0, expect.stringMatching(/^features: .*images/)])
    const file = join(data.data.root, firstImage())
    const told = await cleft(['predict', trained.out.trim(), file, '--json'])
    expect(JSON.parse(told.out)).toMatchObject({ file, label: 'Edema', probabilities: { Edema: expect.any(Number) } })
    const asked = await cleft(['predict', trained.out.trim(), file, '--prompts', 'a', '--prompts', 'b'])
    expect([asked.status, asked.out]).toEqual([1, ''])
    expect(asked.error).toMatch(/^cleft: expected no --prompts, .*classifier of Edema\n$/)
    const without = await cleft(['predict', from, file])
    expect([without.status, without.error]).toEqual([1, expect.stringMatching(/^cleft: expected --prompts, .*\n$/)])
  })

  it('in two processes of this machine, and so does cleft eval', async () => {
    const out = join(data.folder, 'two')
    const one = ['--set', 'batchSize=4', '--set', 'steps=2', '--processes', '2']
    const { status, error, events } = await cleft(['train', config, '--out', out, ...one, '--json'])
    expect(status).toBe(0)
    expect(events.map(({ type }) => type)).toEqual('start image step step validation checkpoint result'.split(' '))
    expect(events[0]).toMatchObject({ type: 'start', processes: 2 })
    expect(error).toMatch(/2 steps, \d+ images/)
    const from = join(out, 'checkpoints', 'step-00000002')
    const spec = JSON.stringify({ split: 'train', holdout: null })
    const words = ['eval', from, data.data.root, '--spec', spec, '--labels', 'multi', '--resamples', '5']
    const evaluated = await cleft([...words, '--json', '--processes', '2'])
    expect([evaluated.status, JSON.parse(evaluated.out)]).toEqual([
      0,
      JSON.parse((await cleft([...words, '--json'])).out),
    ])
    const died = await cleft(
      ['train', config, '--out', join(data.folder, 'died'), ...one, '--json'],
      (event, child) => {
        if (event.type === 'step' && event.step === 1) signalRank(1, 'SIGKILL', child.pid)
      },
    )
    expect(died.status).toBe(1)
    expect(died.error).toMatch(/\ncleft: rank 1 of 2 was ended by SIGKILL; the others were stopped\n$/)
    let wait: NodeJS.Timeout | undefined
    const ended = cleft([...words, '--processes', '2'], undefined, ({ pid }) => {
      wait = setInterval(() => signalRank(1, 'SIGKILL', pid) && clearInterval(wait), 10)
    })
    expect(await ended.finally(() => clearInterval(wait))).toMatchObject({
      ...{ status: 1, out: '', error: 'cleft: rank 1 of 2 was ended by SIGKILL; the others were stopped\n' },
    })
  })

  it('says in one line what is wrong, and touches nothing', async () => {
    const out = join(data.folder, 'wrong')
    const cases = [
      [[], /^cleft: expected a configuration file, --recipe, --from or --set, .*\n$/],
      [['--recipe', 'nothing'], /^cleft: recipe: expected one of .*\n$/],
      [[config, '--set', 'steps'], /^cleft: --set: expected key.path=value, .*\n$/],
      [[config, '--set', 'steps=many'], /^cleft: train: expected options of a run, but steps: .*\n$/],
      [[config, '--data', '/no/data'], /^cleft: .*\/no\/data.*\n$/],
      [[config, '--set', 'batchSize=5000'], /^cleft: .*enough images for a batch of 5000.*\n$/],
    ] as const
    for (const [parameters, message] of cases) {
      const { status, error, out: printed } = await cleft(['train', ...parameters, '--out', out])
      expect([status, printed]).toEqual([1, ''])
      expect(error).toMatch(message)
    }
    expect(existsSync(join(out, 'checkpoints'))).toBe(false)
    const again = await cleft(['train', config])
    expect([again.status, again.out]).toEqual([1, ''])
    expect(again.error).toMatch(/^cleft: out: expected a folder without a run, .*\n$/)
  })
})
