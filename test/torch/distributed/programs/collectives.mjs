// One rank: every collective on numbers. Prints what came, as JSON.
import * as torch from '../../../../dist/torch/index.js'

const dist = torch.distributed
const { rank, size } = await dist.initProcessGroup({ backend: 'gloo', timeout: 20_000 })
const own = rank + 1
const found = {}
const numbers = (value) => (Array.isArray(value) ? value.map((each) => each.toArray()) : value.toArray())
const zeros = (count, length) => Array.from({ length: count }, () => torch.zeros([length]))
const each = (make) => Array.from({ length: size }, (_, index) => make(index))

const sent = torch.tensor([own, 10 * own])
await dist.broadcast(sent, { source: 1 })
found.broadcast = numbers(sent)

for (const op of ['sum', 'product', 'min', 'max']) {
  const value = torch.tensor([own, 2 * own])
  dist.allReduce(value, { op }).wait()
  found[op] = numbers(value)
}
for (const op of ['band', 'bor', 'bxor']) {
  const value = torch.tensor([own, 12], { dtype: 'int32' })
  await dist.allReduce(value, { op })
  found[op] = numbers(value)
}
for (const dtype of ['float64', 'int64', 'uint8']) {
  const value = torch.tensor([own], { dtype })
  await dist.allReduce(value)
  found[dtype] = [value.dtype, Number(value.item())]
}

const reduced = torch.tensor([own])
await dist.reduce(reduced, { destination: 1, op: 'sum' })
found.reduce = rank === 1 ? numbers(reduced) : null

const lists = zeros(size, 2)
await dist.allGather(lists, torch.tensor([own, -own]))
found.allGather = numbers(lists)
const stacked = torch.zeros([size * 2, 1])
await dist.allGatherIntoTensor(stacked, torch.tensor([[own], [-own]]))
found.allGatherIntoTensor = numbers(stacked)

const gathered = rank === 1 ? zeros(size, 2) : []
await dist.gather(gathered, torch.tensor([own, 5 * own]), { destination: 1 })
found.gather = numbers(gathered)
const part = torch.zeros([2])
await dist.scatter(part, rank === 0 ? each((index) => torch.tensor([index, index + 10])) : [])
found.scatter = numbers(part)

const mine = torch.zeros([2])
await dist.reduceScatter(
  mine,
  each((index) => torch.tensor([index * own, own])),
)
found.reduceScatter = numbers(mine)
const slice = torch.zeros([2])
// a transposed, so not contiguous, input is read as it is indexed
const whole = torch
  .arange(2 * size)
  .mul(own)
  .to('float32')
  .reshape([2, size])
  .t()
await dist.reduceScatterTensor(slice, whole, { op: 'max' })
found.reduceScatterTensor = numbers(slice)

// rank r sends r + k + 1 numbers to rank k
const outputs = each((index) => torch.zeros([rank + index + 1]))
await dist.allToAll(
  outputs,
  each((index) => torch.full([rank + index + 1], 10 * own + index)),
)
found.allToAll = numbers(outputs)

if (rank === 0) {
  const works = [
    dist.send(torch.tensor([1, 2, 3]), 1, { tag: 3 }),
    dist.send(torch.tensor([7]), 1),
    dist.send(torch.tensor([8]), 1),
  ]
  for (const work of works) await work
} else if (rank === 1) {
  const [a, b, c] = [torch.zeros([1]), torch.zeros([1]), torch.zeros([3])]
  // two with one tag come in order, and one with another tag is not in their way
  const first = dist.recv(a, 0)
  const second = dist.recv(b, 0)
  dist.recv(c, 0, { tag: 3 }).wait()
  await first
  second.wait()
  found.messages = [a, b, c].map(numbers)
}

// many on their way at once, and the event loop turns meanwhile
let turns = 0
const ticking = setInterval(() => turns++, 1)
const many = each(() => 0)
  .flatMap(() => [1, 2, 3, 4])
  .map((factor) => torch.full([1000], own * factor))
await Promise.all(many.map((value) => dist.allReduce(value)))
found.many = many.map((value) => value.sum().item())
if (rank === 0) await new Promise((resolve) => setTimeout(resolve, 100))
turns = 0
await dist.barrier()
found.turns = turns
clearInterval(ticking)

const pair = await dist.newGroup([1, 0])
if (pair !== null) {
  const value = torch.tensor([rank])
  await dist.broadcast(value, { group: pair, source: 0 })
  found.subgroup = [pair.rank, pair.size, numbers(value)]
  await pair.destroy()
}

// what is wrong is said before anything is sent
found.wrong = [
  () => dist.allGather(zeros(size + 1, 2), torch.zeros([2])),
  () => dist.allGather(zeros(size, 3), torch.zeros([2])),
  () => dist.broadcast(torch.zeros([2, 3]).t()),
  () => dist.broadcast(torch.zeros([2]), { source: size }),
  () => dist.allReduce(torch.zeros([2]), { op: 'avg' }),
  () => dist.allReduce(torch.zeros([2]), { op: 'bor' }),
  () => dist.send(torch.zeros([2]), rank),
  () => dist.allReduce(torch.zeros([2]).toSparse()),
].map((run) => {
  try {
    run()
    return 'nothing'
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`
  }
})

// and spoils nothing
const last = torch.tensor([own])
await dist.allReduce(last)
found.last = numbers(last)
await dist.destroyProcessGroup()
console.log(JSON.stringify(found))
