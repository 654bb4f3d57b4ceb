// One rank: what Processes tells, gathers and averages. Prints what came, as JSON.
import * as torch from '../../../../dist/torch/index.js'

const { Processes } = torch.distributed
const processes = await Processes.join({ device: 'cpu', timeout: 20_000 })
const { rank, size, isFirst } = processes
const found = { rank, size, isFirst, device: processes.deviceOf('cpu') }

// messages of all lengths: what fits into one collective, and what does not
found.messages = await processes.gather({ rank, text: 'ä'.repeat(rank) })
const long = await processes.gather('x'.repeat(10_000 * rank))
found.lengths = long.map((each) => each.length)
found.nothing = await processes.gather(null)

// rows: as many as a rank has, none too
const rows = (count) => (count === 0 ? null : torch.full([count, 2], rank, { dtype: 'float32' }))
found.rows = (await processes.gatherRows(rows(rank))).toArray()
found.noRows = await processes.gatherRows(null)
const numbers = Array.from({ length: 2 }, (_, k) => k * size + (size - 1 - rank))
const ordered = await processes.gatherInOrder(numbers, torch.tensor(numbers.map((each) => [each, 10 * each])))
found.ordered = [ordered.numbers, ordered.rows.toArray()]

// means of gradients, of several dtypes, and of values
const parameters = [
  new torch.nn.Parameter(torch.zeros([3])),
  new torch.nn.Parameter(torch.zeros([2], { dtype: 'float64' })),
  new torch.nn.Parameter(torch.zeros([])),
]
const names = ['first', 'second', 'third']
const means = processes.gradientMean(parameters.map((each, k) => [names[k], each]))
const clear = () => {
  for (const parameter of parameters) parameter.grad = null
}
const gradients = () => parameters.map(({ grad }) => grad.toArray())
found.before = parameters.map(({ grad }) => grad)
const [first, second, third] = parameters
const terms = [first.mul(rank).sum(), second.mul(3 * rank * rank).sum(), third.mul(3)]
means.backward(torch.stack(terms.map((each) => each.float())), torch.tensor([1, 1, 2]))
found.means = gradients()
// some of it in backwards before the last, which does not come to all
for (let step = 0; step < 2; step++) {
  clear()
  first.mul(rank).sum().backward()
  third.mul(rank).backward()
  means.backward(first.sum().add(second.mul(rank).sum()))
  found.addedUp = gradients()
}
// all of it before
clear()
for (const parameter of parameters) parameter.mul(rank).sum().backward()
means.reduce()
found.reduced = gradients()
// one that no backward has come to
clear()
third.backward()
try {
  means.backward(first.sum())
} catch (error) {
  found.without = error.message
}
const value = torch.tensor(rank)
await processes.average([value])
found.value = value.item()

// what is not finite in one is so in all, so that all leave the step out
clear()
means.backward(
  torch
    .stack(
      parameters.map((each) =>
        each
          .sum()
          .float()
          .mul(rank === 1 ? Number.NaN : 1),
      ),
    )
    .sum(),
)
const sgd = new torch.optim.SGD(parameters.slice(0, 1), { lr: 1 })
found.skipped = torch.optim.stepIfFinite(sgd).item()
means[Symbol.dispose]()

// the first backward sums in the order of those after it, so that a run that goes on is exact
{
  const own = Array.from({ length: 5 }, (_, k) => new torch.nn.Parameter(torch.zeros([1000 + 7 * k])))
  const mean = processes.gradientMean(own.map((each, k) => [`${k}`, each]))
  const generator = new torch.Generator().manualSeed(rank)
  const factors = own.map(({ shape }) => torch.randn(shape, { generator }))
  const sums = [0, 1].map(() => {
    for (const parameter of own) parameter.grad = null
    // backward comes to the first parameter first
    const terms = own.map((each, k) => each.mul(factors[k]).sum()).toReversed()
    mean.backward(terms.reduce((sum, each) => sum.add(each)))
    return own.map(({ grad }) => grad.clone())
  })
  found.exact = sums[0].every((each, k) => torch.equal(each, sums[1][k]))
  mean[Symbol.dispose]()
}

// what has been reduced by the time that backward comes to the first of three layers, each more than the first bucket
{
  const layers = [0, 1, 2].map(() => new torch.nn.Linear(640, 640, { bias: false }))
  const mean = processes.gradientMean(layers.map(({ weight }, k) => [`${k}`, weight]))
  let profiler = null
  const reductions = () => profiler.stop().find(({ name }) => name === 'c10d::allreduce_')?.calls ?? 0
  layers[0].weight.registerHook(() => {
    found.duringBackward = reductions()
    profiler = new torch.profiler.Profiler()
  })
  const output = () => layers.reduce((x, layer) => layer.forward(x), torch.ones([2, 640])).sum()
  profiler = new torch.profiler.Profiler()
  output().backward()
  found.beforeTheLast = [found.duringBackward, reductions()]
  profiler = new torch.profiler.Profiler()
  mean.backward(output())
  found.afterwards = reductions()
  mean[Symbol.dispose]()
}

// the first one's values for all
const shared = torch.full([2], rank + 7)
await processes.share([shared])
found.shared = shared.toArray()

// own rows of what all have
const features = torch.full([2, 1], rank, { dtype: 'bfloat16' })
const all = processes.gatherFeatures(features)
found.features = [all.dtype, all.flatten().toArray(), processes.ownRows(all).flatten().toArray()]

// a second piece of work goes on with the same group
const again = await Processes.join({ device: 'cpu' })
await again.meet()
found.again = again.size
console.log(JSON.stringify(found))
