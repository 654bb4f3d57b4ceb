// Several workers with the package in one process. Prints one JSON object of what was seen: 22.workers.test.ts reads it.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import * as torch from '../../../dist/torch/index.js'

/** What a function throws, as 'Name: message', or 'nothing'. */
function thrownBy(run) {
  try {
    run()
    return 'nothing'
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`
  }
}

const tasks = {
  /** Works on tensors, gradients and hooks of its own. */
  compute(seed) {
    const before = torch.memory.counters().live
    const gradient = torch.scope(() => {
      const generator = new torch.Generator().manualSeed(seed)
      const x = torch.randn([32, 32], { generator, requiresGrad: true })
      const seen = []
      x.registerHook((each) => {
        seen.push(each.shape)
        return each.mul(2)
      })
      torch.autograd
        .checkpoint((y) => y.matmul(y).tanh(), [x])
        .sum()
        .backward()
      return [x.grad.sum().item(), seen]
    })
    return { gradient, leaked: torch.memory.counters().live - before, version: torch.info().torchVersion }
  },
  /** Changes a tensor of another thread. */
  change({ token, handle }) {
    const x = torch.receive(token)
    const result = {
      values: x.toArray(),
      requiresGrad: x.requiresGrad,
      again: thrownBy(() => torch.receive(token)),
      foreign: thrownBy(() => new torch.Tensor(handle).shape),
    }
    x.add_(100)
    return result
  },
  /** Sends tensors and keeps one that nobody collects. */
  give() {
    const tokens = [torch.send(torch.tensor([1, 2])), torch.send(torch.zeros([1000]))]
    return { tokens }
  },
  /** Stops in the middle of work, with tensors, a scope and a read-back open. */
  leave() {
    const s = new torch.Scope()
    s.run(() => torch.ones([100]).requiresGrad_().mul(2))
    torch.zeros([1 << 20]).toTypedArrayAsync()
    torch.autograd.checkpoint((y) => y.exp(), [torch.ones([4], { requiresGrad: true })])
    process.exit(0)
  },
  /** Fails inside a scope. */
  fail() {
    return torch.scope(() => {
      torch.ones([2]).add(torch.ones([3]))
    })
  },
  /** Works until it is ended from outside. */
  forever() {
    parentPort.postMessage('working')
    for (;;) torch.scope(() => torch.ones([64, 64]).matmul(torch.ones([64, 64])))
  },
}

/** A worker that runs a task, and its first message; or how it ended before it had one. */
async function start(task, value) {
  const worker = new Worker(new URL(import.meta.url), { workerData: { task, value } })
  const message = await new Promise((resolve) => {
    worker.once('message', resolve)
    worker.once('error', (error) => resolve({ error: `${error.name}: ${error.message}` }))
    worker.once('exit', (code) => resolve({ exit: code }))
  })
  return { worker, message }
}

async function main() {
  const results = {}
  const alone = tasks.compute(7)
  const several = await Promise.all([7, 7, 8, 7].map((seed) => start('compute', seed)))
  results.compute = [alone, ...several.map((each) => each.message)]
  await Promise.all(several.map((each) => each.worker.terminate()))

  const x = torch.tensor([1, 2, 3], { requiresGrad: true }).mul(1)
  const token = torch.send(x)
  results.inTransitBefore = torch.memory.counters().inTransit
  const changed = await start('change', { token, handle: x.handle })
  results.change = changed.message
  results.seenHere = x.toArray()
  results.inTransitAfter = torch.memory.counters().inTransit
  results.collectedByAnother = thrownBy(() => torch.receive(token))
  await changed.worker.terminate()

  const giver = await start('give')
  const received = torch.receive(giver.message.tokens[0])
  results.inTransitOfGiver = torch.memory.counters().inTransit
  await giver.worker.terminate()
  results.inTransitAfterExit = torch.memory.counters().inTransit
  results.receivedLives = received.toArray()
  results.afterExit = thrownBy(() => torch.receive(giver.message.tokens[1]))

  results.leave = (await start('leave')).message
  results.fail = (await start('fail')).message
  const endless = await start('forever')
  results.terminated = await endless.worker.terminate()
  results.stillWorks = torch.ones([2]).add(1).toArray()
  results.wrongTokens = [undefined, {}, { cleftTensor: 1 }, { cleftTensor: -1n }, { cleftTensor: 10n ** 30n }].map(
    (each) => thrownBy(() => torch.receive(each)),
  )
  console.log(JSON.stringify(results))
}

if (isMainThread) await main()
else parentPort.postMessage(tasks[workerData.task](workerData.value))
