// The tour: tensors, autograd, and a small network that learns: npm run tour
import * as torch from '../dist/torch/index.js'

const { nn, optim } = torch

console.log(
  `libtorch ${torch.info().torchVersion}, ${torch.getNumThreads()} threads, ${torch.cuda.deviceCount()} GPUs\n`,
)

console.log("Tensors are made from data and indexed like PyTorch's:")
const table = torch.arange(12).view(3, 4)
console.log("torch.arange(12).view(3, 4).at(':', '1:3') =")
console.log(table.at(':', '1:3'))

console.log('\nGradients of f(x) = sum(x³) at x = 1, 2, 3:')
const x = torch.tensor([1, 2, 3], { requiresGrad: true })
x.pow(3).sum().backward()
console.log(x.grad)

console.log('\nA network learns which of two interleaved spirals a point belongs to:')

/** Points of two spirals, [2 n, 2], and the spiral of each, [2 n]. */
function spirals(n) {
  const turn = torch.linspace(0.5, 3.5, n).mul(Math.PI)
  const radius = torch.linspace(0.15, 1, n)
  const one = torch.stack([radius.mul(turn.cos()), radius.mul(turn.sin())], 1)
  const points = torch.cat([one, one.neg()]).add(torch.randn(2 * n, 2).mul(0.02))
  return { points, labels: torch.cat([torch.zeros(n, { dtype: 'int64' }), torch.ones(n, { dtype: 'int64' })]) }
}

class Net extends nn.Module {
  hidden = new nn.Linear(2, 64)
  middle = new nn.Linear(64, 64)
  out = new nn.Linear(64, 2)
  forward(input) {
    return this.out.forward(this.middle.forward(this.hidden.forward(input).gelu()).gelu())
  }
}

torch.manualSeed(0)
const train = torch.scope(() => spirals(500))
const test = torch.scope(() => spirals(200))
const net = new Net()
const adamw = new optim.AdamW(net.parameters(), { lr: 1e-2 })
const accuracy = ({ points, labels }) =>
  torch.scope(() => torch.noGrad(() => net.forward(points).argmax(1).eq(labels).float().mean().item()))

const steps = 400
const started = performance.now()
for (let step = 0; step < steps; step += 1) {
  const loss = torch.scope(() => {
    const value = nn.functional.crossEntropy(net.forward(train.points), train.labels)
    adamw.zeroGrad()
    value.backward()
    adamw.step()
    return value.item()
  })
  if (step % 50 === 0 || step === steps - 1) {
    console.log(
      `  step ${String(step).padStart(3)}  loss ${loss.toFixed(4)}  accuracy on new points ${(100 * accuracy(test)).toFixed(1)} %`,
    )
  }
}
const seconds = (performance.now() - started) / 1000
console.log(
  `\n${steps} steps in ${seconds.toFixed(1)} s; ${torch.memory.counters().live} tensors alive, the same after every step.`,
)
