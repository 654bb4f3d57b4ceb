// node --expose-gc finalizers.mjs: drops 3,000 tensors of 1 MB outside of every scope, and prints what is left.
import * as torch from '../../../dist/torch/index.js'

const drop = () => {
  for (let index = 0; index < 3000; index += 1) torch.empty([1 << 18])
}
const before = torch.memory.counters()
drop()
const dropped = torch.memory.counters().live - before.live
globalThis.gc()
await new Promise((resolve) => setImmediate(resolve))
globalThis.gc()
await new Promise((resolve) => setImmediate(resolve))
console.log(JSON.stringify({ dropped, left: torch.memory.counters().live - before.live }))
