// One rank of a group in which another fails. Prints what this one is told, as JSON.
// node failures.mjs KIND TIMEOUT
import * as torch from '../../../../dist/torch/index.js'

const dist = torch.distributed
const [kind, timeout] = process.argv.slice(2)
const told = []
const telling = async (run) => {
  try {
    await run()
    told.push('nothing')
  } catch (error) {
    told.push(`${error.name}: ${error.message}`)
  }
}
const value = () => torch.tensor([1, 2, 3])

const start = Date.now()
await telling(async () => {
  const { rank, size } = await dist.initProcessGroup({ backend: 'gloo', timeout: Number(timeout) })
  const isLast = rank === size - 1
  dist.allReduce(value()).wait()
  const kinds = {
    async dies() {
      if (isLast) process.kill(process.pid, 'SIGKILL')
    },
    async firstDies() {
      if (rank === 0) process.kill(process.pid, 'SIGKILL')
    },
    async hangs() {
      if (isLast) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000)
    },
    async stops() {
      if (isLast) process.kill(process.pid, 'SIGSTOP')
    },
    async leaves() {
      if (isLast) await dist.destroyProcessGroup()
    },
    async differs() {
      if (isLast) await dist.broadcast(torch.zeros([2, 2]))
    },
    async sizes() {
      if (isLast) await dist.allReduce(torch.zeros([5]))
    },
    async gathers() {
      await dist.allGatherWithGradient(torch.zeros([rank + 1, 2]))
    },
    async message() {
      if (rank === 0) await dist.send(torch.zeros([5]), 1)
      else if (rank === 1) dist.recv(torch.zeros([3]), 0).wait()
    },
    async aborts() {
      if (isLast) await dist.worldGroup().abort('the loss is not finite')
    },
  }
  await kinds[kind]()
  // some wait blocking, some turn the event loop
  if (rank === 0) dist.allReduce(value()).wait()
  else await dist.allReduce(value())
})
const elapsed = Date.now() - start
await telling(() => dist.allReduce(value()))
await dist.destroyProcessGroup()
console.log(JSON.stringify({ told, elapsed }))
