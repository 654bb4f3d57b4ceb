import { describe, expect, test } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { device, isGpu, testOnGpu } from './device.js'

const { nn, optim } = torch
const functional = nn.functional

class Net extends nn.Module {
  readonly hidden = new nn.Linear(32, 64)
  readonly out = new nn.Linear(64, 8)
  constructor(private readonly p: number) {
    super()
  }
  forward(x: torch.Tensor): torch.Tensor {
    return this.out.forward(functional.dropout(this.hidden.forward(x).gelu(), this.p))
  }
}

function setUp(p: number) {
  torch.manualSeed(1)
  const net = torch.nn.construct({ device }, () => new Net(p))
  const adamw = new optim.AdamW(net.parameters(), { lr: 1e-2 })
  const step = ([x, y]: readonly torch.Tensor[]) => {
    adamw.zeroGrad()
    const loss = functional.mseLoss(net.forward(x!), y!)
    loss.backward()
    return [loss.detach()]
  }
  return { net, adamw, step }
}

const batch = (seed: number, rows = 16) => {
  const generator = new torch.Generator(device).manualSeed(seed)
  return [torch.randn([rows, 32], { device, generator }), torch.randn([rows, 8], { device, generator })] as const
}

/** Losses of some steps, each with a rate of its own as a schedule has it. */
function losses(
  take: (inputs: readonly torch.Tensor[]) => readonly torch.Tensor[],
  adamw: torch.optim.AdamW,
): number[] {
  return Array.from({ length: 8 }, (_, k) =>
    torch.scope(() => {
      const [loss] = take(batch(k))
      adamw.paramGroups[0]!.lr = 1e-2 / (k + 1)
      adamw.step()
      return loss!.item() as number
    }),
  )
}

describe('a step as a graph', () => {
  test('trains as the step itself does, and says where it cannot be recorded', () => {
    const plain = setUp(0)
    const expected = losses(plain.step, plain.adamw)
    const { net, adamw, step } = setUp(0)
    const reasons: string[] = []
    using graphed = new torch.cuda.GraphedStep(step, {
      parameters: [...net.parameters()],
      onFallback: (reason) => reasons.push(reason),
    })
    const found = losses((inputs) => graphed.run(inputs), adamw)
    for (const [index, loss] of found.entries()) expect(loss).toBeCloseTo(expected[index]!, 4)
    if (isGpu) {
      expect([graphed.reason, graphed.recorded, reasons]).toEqual([null, 1, []])
    } else {
      expect(graphed.recorded).toBe(0)
      expect(reasons).toEqual(['expected inputs on a GPU, and one is on cpu'])
    }
  })

  testOnGpu('is recorded once for each shape, up to a limit', () => {
    const { net, adamw, step } = setUp(0)
    using graphed = new torch.cuda.GraphedStep(step, { parameters: [...net.parameters()], maximum: 2, warmUp: 1 })
    for (const rows of [8, 16, 8, 16, 8, 16]) {
      torch.scope(() => graphed.run(batch(rows, rows)))
      adamw.step()
    }
    expect([graphed.recorded, graphed.reason]).toEqual([2, null])
    torch.scope(() => graphed.run(batch(4, 4)))
    expect(graphed.reason).toMatch(/expected at most 2 shapes/)
  })

  testOnGpu('draws new random numbers at each replay, and the same ones after the same seed', () => {
    const { net, step } = setUp(0.5)
    using graphed = new torch.cuda.GraphedStep(step, { parameters: [...net.parameters()], warmUp: 1 })
    const inputs = batch(1)
    const next = () => torch.scope(() => graphed.run(inputs)[0]!.item())
    next()
    next()
    expect(graphed.recorded).toBe(1)
    torch.manualSeed(9)
    const [a, b] = [next(), next()]
    expect(a).not.toBe(b)
    torch.manualSeed(9)
    expect([next(), next()]).toEqual([a, b])
  })

  testOnGpu('that waits for the GPU runs as it is, with the reason, and nothing is lost by it', () => {
    const { net, adamw, step } = setUp(0)
    using graphed = new torch.cuda.GraphedStep(
      (inputs) => {
        const [loss] = step(inputs)
        if (!Number.isFinite(loss!.item())) throw new Error('not finite')
        return [loss!]
      },
      { parameters: [...net.parameters()], warmUp: 1 },
    )
    const first = torch.scope(() => graphed.run(batch(1))[0]!.item() as number)
    for (let k = 0; k < 4; k += 1) {
      torch.scope(() => graphed.run(batch(1)))
      adamw.step()
    }
    expect(graphed.reason).toMatch(/^the step could not be recorded: /)
    expect(torch.scope(() => graphed.run(batch(1))[0]!.item() as number)).toBeLessThan(first)
  })
})
