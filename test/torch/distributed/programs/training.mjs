// One rank: gradients over all ranks against those of one process on the joined batch. Prints what came, as JSON.
import * as torch from '../../../../dist/torch/index.js'

const { nn, optim, distributed: dist } = torch
const { rank, size } = await dist.initProcessGroup({ backend: 'gloo', timeout: 20_000 })
const found = {}

class Net extends nn.Module {
  first = new nn.Linear(6, 16)
  norm = new nn.LayerNorm(16)
  last = new nn.Linear(16, 4)
  scale = this.registerBuffer('scale', torch.full([1], 2))
  forward(x) {
    return this.last.forward(this.norm.forward(this.first.forward(x)).gelu()).mul(this.scale)
  }
}

const batch = 5
const generator = new torch.Generator().manualSeed(7)
const joined = torch.randn([size * batch, 6], { generator })
const targets = torch.randn([size * batch, 4], { generator })
const ownPart = (tensor) => tensor.narrow(0, rank * batch, batch)
const largest = (a, b) => a.sub(b).abs().max().div(b.abs().max()).item()
const furthest = (a, b, of) => Math.max(...a.parameters().map((each, k) => largest(of(each), of(b.parameters()[k]))))
const copyOf = (net) => {
  const copy = new Net()
  copy.loadStateDict(net.stateDict())
  return copy
}
/** 'Name: message' of what is thrown. */
const thrown = (run) => {
  try {
    run()
    return 'nothing'
  } catch (error) {
    return `${error.constructor.name}: ${error.message}`
  }
}

// the gather: a contrastive loss with negatives of all ranks
{
  const clip = (a, b) => {
    const logits = a.matmul(b.t())
    const labels = torch.arange(logits.shape[0])
    return nn.functional.crossEntropy(logits, labels).add(nn.functional.crossEntropy(logits.t(), labels))
  }
  const whole = joined.clone().requiresGrad_()
  const other = joined.sin().requiresGrad_()
  clip(whole, other).backward()
  const a = ownPart(joined).clone().requiresGrad_()
  const b = ownPart(joined).sin().requiresGrad_()
  // every rank has the whole loss: its mean over the ranks is it
  clip(dist.allGatherWithGradient(a), dist.allGatherWithGradient(b)).div(size).backward()
  found.gather = Math.max(largest(a.grad, ownPart(whole.grad)), largest(b.grad, ownPart(other.grad)))
}

// the reducer, with each bucket a parameter and with all in one
for (const options of [{}, { bucketBytes: 1, firstBucketBytes: 1 }, { gradientAsBucketView: true }]) {
  torch.manualSeed(100 + rank)
  const net = new Net()
  net.scale.fill_(2 + rank)
  const model = new dist.DistributedDataParallel(net, options)
  const reference = copyOf(net)
  const result = { buffer: net.scale.item(), gradients: [], parameters: [] }
  const optimizers = [net, reference].map((each) => new optim.SGD(each.parameters(), { lr: 0.1 }))
  for (let step = 0; step < 5; step++) {
    for (const optimizer of optimizers) optimizer.zeroGrad()
    nn.functional.mseLoss(model.forward(ownPart(joined)), ownPart(targets)).backward()
    model.checkReduced()
    nn.functional.mseLoss(reference.forward(joined), targets).backward()
    result.gradients.push(furthest(net, reference, (each) => each.grad))
    for (const optimizer of optimizers) optimizer.step()
    result.parameters.push(furthest(net, reference, (each) => each))
  }
  // gradients that add up over two batches, reduced with the second
  for (const optimizer of optimizers) optimizer.zeroGrad()
  const half = (tensor, index) => ownPart(tensor).narrow(0, index === 0 ? 0 : 2, index === 0 ? 2 : 3)
  const sum = (each, index) => each.forward(half(joined, index)).sub(half(targets, index)).square().sum()
  model.noSync(() => sum(model, 0).backward())
  sum(model, 1).backward()
  reference.forward(joined).sub(targets).square().sum().div(size).backward()
  result.accumulated = furthest(net, reference, (each) => each.grad)
  model.dispose()
  found[JSON.stringify(options)] = result
}

// parameters that are not used
{
  class Two extends Net {
    spare = new nn.Linear(2, 2)
  }
  const model = new dist.DistributedDataParallel(new Two())
  found.unused = thrown(() => model.forward(ownPart(joined)))
  model.dispose()
}
{
  class Pair extends Net {
    other = new nn.Linear(6, 4, { bias: false })
    forward(x) {
      return [super.forward(x), this.other.forward(x)]
    }
  }
  const model = new dist.DistributedDataParallel(new Pair())
  model.forward(ownPart(joined))[0].sum().backward()
  found.unreached = thrown(() => model.checkReduced())
  model.dispose()
}
{
  class Statistics extends nn.Module {
    norm = new nn.BatchNorm1d(6)
    forward(x) {
      return this.norm.forward(x)
    }
  }
  const model = new dist.DistributedDataParallel(new Statistics())
  found.statistics = thrown(() => model.forward(ownPart(joined)))
  model.eval().forward(ownPart(joined)).sum().backward()
  model.checkReduced()
  model.dispose()
}
found.frozen = thrown(() => new dist.DistributedDataParallel(new Net().requiresGrad_(false)))

// models that differ: the last, since the group fails by it
found.different = thrown(() => new dist.DistributedDataParallel(new nn.Linear(3, 2 + rank)))
await dist.destroyProcessGroup()
console.log(JSON.stringify(found))
