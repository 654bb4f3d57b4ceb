import { describe, expect, test } from 'vitest'
import { optim, parameter, seeded, tensorOf, torch, valuesOf } from './helpers.js'

type Make = (
  params: Iterable<torch.Tensor>,
  implementation?: optim.Implementation,
) => {
  step(): void
  zeroGrad(options?: { setToNone?: boolean }): void
  stateDict(): optim.OptimizerStateDict
  loadStateDict(saved: optim.OptimizerStateDict): void
  dispose(): void
  state: ReadonlyMap<torch.Tensor, optim.ParameterState>
}

const makers: Readonly<Record<string, Make>> = {
  sgd: (params, implementation) => new optim.SGD(params, { lr: 0.1, momentum: 0.9, nesterov: true, implementation }),
  adam: (params, implementation) => new optim.Adam(params, { lr: 0.1, amsgrad: true, implementation }),
  adamw: (params, implementation) => new optim.AdamW(params, { lr: 0.1, implementation }),
  adafactor: (params, implementation) => new optim.Adafactor(params, { beta1: 0.9, implementation }),
}
const implementations: readonly (optim.Implementation | undefined)[] = [undefined, 'single', 'foreach', 'fused']
const all = Object.entries(makers).flatMap(([name, make]) =>
  implementations.map((implementation) => ({
    name,
    make,
    implementation,
    title: `${name}, ${implementation ?? 'default'}`,
  })),
)

const live = () => torch.memory.counters().live

function makeParameters(seed = 1): torch.Tensor[] {
  const random = seeded(seed)
  return [[4, 3], [5], []].map((shape) => {
    const count = shape.reduce((a, b) => a * b, 1)
    return parameter(
      Array.from({ length: count }, () => random() - 0.5),
      shape,
    )
  })
}

function setGradients(params: readonly torch.Tensor[], random: () => number): void {
  torch.scope(() => {
    for (const each of params) {
      each.grad = tensorOf(
        Array.from({ length: each.numel() }, () => random() - 0.5),
        each.shape,
        each.dtype,
      )
    }
  })
}

describe.each(all)('$title', ({ make, implementation }) => {
  test('its state belongs to it from the first step on, also inside a scope', () => {
    const params = makeParameters()
    const before = live()
    const optimizer = torch.scope(() => {
      const made = make(params, implementation)
      setGradients(params, seeded(2))
      torch.scope(() => made.step())
      return made
    })
    const held = [...torch.scope(() => [...optimizer.state.values()]).flatMap((state) => Object.values(state))]
    const tensors = held.filter((each) => each instanceof torch.Tensor)
    expect(tensors.length).toBeGreaterThan(0)
    for (const each of tensors) expect(each.isAlive).toBe(true)
    expect(live() - before).toBe(tensors.length)
    torch.scope(() => optimizer.step())
    optimizer.dispose()
    expect(live()).toBe(before)
    expect(params.every((each) => each.isAlive)).toBe(true)
    torch.dispose(params)
  })

  test('50 steps leave nothing behind', () => {
    const params = makeParameters()
    const optimizer = make(params, implementation)
    const random = seeded(3)
    const step = () => {
      setGradients(params, random)
      optimizer.step()
      optimizer.zeroGrad()
    }
    step()
    const { live: before, bytes } = torch.memory.counters()
    for (let k = 0; k < 50; k += 1) step()
    expect(live()).toBe(before)
    expect(torch.memory.counters().bytes).toBe(bytes)
    optimizer.dispose()
    torch.dispose(params)
  })

  test('goes on bit for bit from a state dict', () => {
    const [first, second] = [makeParameters(), makeParameters()]
    const one = make(first, implementation)
    const random = seeded(4)
    for (let k = 0; k < 3; k += 1) {
      setGradients(first, random)
      one.step()
    }
    torch.noGrad(() => {
      for (const [index, each] of second.entries()) each.copy_(first[index]!)
    })
    const other = torch.scope(() => {
      const made = make(second, implementation)
      made.loadStateDict(one.stateDict())
      return made
    })
    const [a, b] = [seeded(5), seeded(5)]
    for (let k = 0; k < 3; k += 1) {
      setGradients(first, a)
      one.step()
      setGradients(second, b)
      other.step()
    }
    expect(second.map(valuesOf)).toEqual(first.map(valuesOf))
    // copies: what one does is not seen by the other
    one.dispose()
    setGradients(second, b)
    other.step()
    // from its own
    other.loadStateDict(other.stateDict())
    setGradients(second, b)
    other.step()
    expect(second.every((each) => valuesOf(each).every(Number.isFinite))).toBe(true)
    other.dispose()
    torch.dispose([first, second])
  })

  test('gradients, parameters and state that lie in memory in other ways', () => {
    const random = seeded(6)
    const values = Array.from({ length: 12 }, random)
    const gradient = Array.from({ length: 12 }, () => random() - 0.5)
    const results: number[][] = []
    for (const [flipParameter, flipGradient] of [
      [false, false],
      [false, true],
      [true, false],
      [true, true],
    ]) {
      torch.scope(() => {
        const asGiven = tensorOf(values, [3, 4])
        const leaf = (flipParameter ? asGiven.t().contiguous().t() : asGiven).detach().requiresGrad_()
        expect(leaf.stride()).toEqual(flipParameter ? [1, 3] : [4, 1])
        const optimizer = make([leaf], implementation)
        for (let k = 0; k < 2; k += 1) {
          const asGradient = tensorOf(gradient, [3, 4])
          leaf.grad = flipGradient ? asGradient.t().contiguous().t() : asGradient
          optimizer.step()
        }
        // state of another layout
        torch.noGrad(() => {
          leaf.data = leaf.t().contiguous().t()
        })
        leaf.grad = tensorOf(gradient, [3, 4])
        optimizer.step()
        results.push(valuesOf(leaf.contiguous()))
        optimizer.dispose()
      })
    }
    for (const each of results)
      for (const [index, value] of each.entries()) expect(value).toBeCloseTo(results[0]![index]!, 6)
  })

  test('a parameter that is part of something larger, one with nothing in it, and one without gradient', () => {
    torch.scope(() => {
      const whole = torch.ones([4, 4])
      const part = whole.at('...', ':2').detach().requiresGrad_()
      const empty = torch.zeros([0, 3]).requiresGrad_()
      const without = torch.ones([3]).requiresGrad_()
      const optimizer = make([part, without, empty], implementation)
      part.grad = torch.ones([4, 2])
      empty.grad = torch.zeros([0, 3])
      optimizer.step()
      optimizer.step()
      expect(valuesOf(whole.at('...', '2:').contiguous())).toEqual(new Array(8).fill(1))
      expect(valuesOf(part.contiguous()).every((each) => each < 1)).toBe(true)
      expect(valuesOf(without)).toEqual([1, 1, 1])
      optimizer.dispose()
    })
  })

  test('parameters whose dtype changes after the first step', () => {
    const params = makeParameters()
    const optimizer = make(params, implementation)
    setGradients(params, seeded(2))
    optimizer.step()
    torch.scope(() => {
      for (const each of params) {
        each.grad = null
        each.data = each.detach().double()
      }
    })
    setGradients(params, seeded(3))
    optimizer.step()
    expect(params[0]!.dtype).toBe('float64')
    expect(params.every((each) => valuesOf(each).every(Number.isFinite))).toBe(true)
    optimizer.dispose()
    torch.dispose(params)
  })
})

test('implementations agree on many steps', () => {
  for (const [name, make] of Object.entries(makers)) {
    const results = (['single', 'foreach', 'fused'] as const).map((implementation) => {
      const params = makeParameters()
      const optimizer = make(params, implementation)
      const random = seeded(7)
      for (let k = 0; k < 30; k += 1) {
        setGradients(params, random)
        optimizer.step()
      }
      const values = params.flatMap(valuesOf)
      optimizer.dispose()
      torch.dispose(params)
      return values
    })
    expect(results[1], name).toEqual(results[0])
    for (const [index, value] of results[2]!.entries()) expect(value, name).toBeCloseTo(results[0]![index]!, 5)
  }
})

test('complex parameters, as PyTorch has it: pairs of real numbers', () => {
  torch.scope(() => {
    for (const implementation of [undefined, 'single', 'foreach'] as const) {
      const complex = torch.tensor([{ re: 1, im: -2 }]).requiresGrad_()
      const real = torch.tensor([1, -2]).requiresGrad_()
      const optimizers = [complex, real].map((each) => new optim.AdamW([each], { lr: 0.1, implementation }))
      complex.grad = torch.tensor([{ re: 0.5, im: 3 }])
      real.grad = torch.tensor([0.5, 3])
      for (const each of optimizers) each.step()
      for (const each of optimizers) each.step()
      const found = torch.noGrad(() => valuesOf(torch.keep(complex.detach().viewAsReal())))
      for (const [index, value] of valuesOf(real).entries()) expect(found[index]).toBeCloseTo(value, 6)
      for (const each of optimizers) each.dispose()
    }
  })
})

test('step(closure) computes with gradients and returns the loss', () => {
  torch.scope(() => {
    const x = torch.tensor([3]).requiresGrad_()
    const optimizer = new optim.SGD([x], { lr: 0.1 })
    const loss = torch.noGrad(() =>
      optimizer.step(() => {
        optimizer.zeroGrad()
        const y = x.mul(x).sum()
        y.backward()
        return y
      }),
    )
    expect(loss.item()).toBe(9)
    expect(x.item()).toBeCloseTo(2.4, 6)
  })
})

test('zeroGrad', () => {
  torch.scope(() => {
    const x = torch.tensor([3]).requiresGrad_()
    const without = torch.tensor([3]).requiresGrad_()
    const optimizer = new optim.SGD([x, without])
    x.mul(2).sum().backward()
    optimizer.zeroGrad({ setToNone: false })
    expect(x.grad?.item()).toBe(0)
    expect(without.grad).toBe(null)
    optimizer.zeroGrad()
    expect(x.grad).toBe(null)
  })
})

test('groups: options of their own, added later, changed between steps', () => {
  torch.scope(() => {
    const [a, b, c] = [1, 1, 1].map((value) => torch.tensor([value]).requiresGrad_()) as [
      torch.Tensor,
      torch.Tensor,
      torch.Tensor,
    ]
    const optimizer = new optim.SGD(
      [
        { params: [a], lr: 0.5 },
        { params: b, name: 'rest' },
      ],
      { lr: 0.25 },
    )
    optimizer.addParamGroup({ params: new Set([c]), lr: 0 })
    for (const each of [a, b, c]) each.grad = torch.tensor([1])
    optimizer.step()
    expect([a, b, c].map((each) => each.item())).toEqual([0.5, 0.75, 1])
    optimizer.paramGroups[2]!.lr = 0.125
    optimizer.step()
    expect([a, b, c].map((each) => each.item())).toEqual([0, 0.5, 0.875])
    expect(optimizer.stateDict().param_groups.map((group) => group.params)).toEqual([[0], [1], [2]])
    expect([...optimizer.parameters()]).toEqual([a, b, c])
    optimizer.paramGroups[1]!.lr = NaN
    expect(() => optimizer.step()).toThrow(/SGD.step: expected lr/)
  })
})

describe('bad input', () => {
  const leaf = () => torch.zeros([2]).requiresGrad_()

  test.each<[string, () => unknown, RegExp]>([
    ['no parameters', () => new optim.SGD([]), /SGD: expected parameters, but the list is empty/],
    ['one tensor', () => new optim.SGD(leaf() as never), /SGD: expected an array/],
    ['no tensors', () => new optim.SGD([1] as never), /group 0: expected \{ params/],
    ['a mixture', () => new optim.SGD([leaf(), { params: [leaf()] }] as never), /parameters alone or groups alone/],
    ['a group without params', () => new optim.SGD([{ lr: 1 }] as never), /expected \{ params/],
    [
      'no gradient wanted',
      () => new optim.SGD([torch.zeros([2])]),
      /parameter 0: expected a tensor that requires a gradient/,
    ],
    ['no leaf', () => new optim.SGD([leaf().mul(2)]), /parameter 0: expected a leaf/],
    [
      'twice',
      () => {
        const a = leaf()
        return new optim.SGD([a, a])
      },
      /parameter 1: expected each parameter once/,
    ],
    [
      'twice in groups',
      () => {
        const a = leaf()
        return new optim.SGD([{ params: [a] }, { params: [a] }])
      },
      /group 1, parameter 0: expected each/,
    ],
    [
      'an unknown option',
      () => new optim.AdamW([leaf()], { learningRate: 1 } as never),
      /expected options from lr, betas.*learningRate/,
    ],
    [
      'an unknown option of a group',
      () => new optim.AdamW([{ params: [leaf()], beta1: 1 } as never]),
      /group 0: expected options.*beta1/,
    ],
    ['lr', () => new optim.AdamW([leaf()], { lr: -1 }), /AdamW: expected lr to be a number from 0 on, but received -1/],
    ['lr NaN', () => new optim.SGD([leaf()], { lr: NaN }), /received NaN/],
    ['lr of a group', () => new optim.SGD([{ params: [leaf()], lr: Infinity }]), /group 0: expected lr.*Infinity/],
    ['betas', () => new optim.Adam([leaf()], { betas: [0.9, 1] }), /betas.*\[0.9, 1\]/],
    ['eps', () => new optim.Adam([leaf()], { eps: -1e-8 }), /eps/],
    ['weightDecay', () => new optim.Adam([leaf()], { weightDecay: -1 }), /weightDecay/],
    ['amsgrad', () => new optim.Adam([leaf()], { amsgrad: 1 as never }), /amsgrad to be true or false/],
    ['nesterov', () => new optim.SGD([leaf()], { nesterov: true }), /momentum above 0/],
    ['implementation', () => new optim.SGD([leaf()], { implementation: 'fast' as never }), /implementation.*'fast'/],
    [
      'fused complex',
      () => new optim.Adam([torch.tensor([{ re: 1, im: 1 }]).requiresGrad_()], { implementation: 'fused' }),
      /complex64 on cpu/,
    ],
    ['adafactor lr', () => new optim.Adafactor([leaf()], { lr: 1 }), /lr to be null with relativeStep/],
    ['adafactor without lr', () => new optim.Adafactor([leaf()], { relativeStep: false }), /lr to be a number/],
    [
      'adafactor warm-up',
      () => new optim.Adafactor([leaf()], { lr: 1, relativeStep: false, warmupInit: true }),
      /warmupInit/,
    ],
  ])('%s', (_, run, message) => {
    torch.scope(() => expect(run).toThrow(message))
  })

  test('a group that was refused leaves nothing', () => {
    torch.scope(() => {
      const [a, b] = [leaf(), leaf()]
      const optimizer = new optim.SGD([a])
      expect(() => optimizer.addParamGroup({ params: [b, a] })).toThrow(/each parameter once/)
      optimizer.addParamGroup({ params: [b] })
      expect(optimizer.paramGroups.length).toBe(2)
    })
  })

  test('state dicts that do not fit change nothing', () => {
    torch.scope(() => {
      const x = leaf()
      const optimizer = new optim.AdamW([x], { lr: 0.5 })
      x.grad = torch.ones([2])
      optimizer.step()
      const before = live()
      const good = optimizer.stateDict()
      const group = good.param_groups[0]!
      const with_ = (state: object) => ({
        state: new Map([[0, state as optim.ParameterState]]),
        param_groups: [{ ...group, lr: 9 }],
      })
      const entry = good.state.get(0)!
      const bad: [unknown, RegExp][] = [
        [null, /expected \{ state, param_groups \}/],
        [{ state: {}, param_groups: [] }, /expected 1 parameter groups/],
        [{ state: {}, param_groups: [{ ...group, params: [0, 1] }] }, /expected 1 parameters in group 0/],
        [{ state: {}, param_groups: [{ params: [0] }] }, /expected options with lr/],
        [{ state: {}, param_groups: [{ ...group, betas: [2, 3] }] }, /group 0: expected betas/],
        [{ ...good, state: new Map([[7, {}]]) }, /number 7/],
        [
          with_({ ...entry, exp_avg_sq: torch.zeros([3]) }),
          /exp_avg_sq: expected a tensor of shape \[2\], but received one of \[3\]/,
        ],
        [with_({ ...entry, exp_avg: undefined }), /exp_avg: expected a tensor/],
        [with_({ ...entry, step: 'x' }), /step to be a number/],
      ]
      for (const [saved, message] of bad) {
        expect(() => optimizer.loadStateDict(saved as optim.OptimizerStateDict)).toThrow(message)
      }
      expect(optimizer.paramGroups[0]!.lr).toBe(0.5)
      expect(optimizer.state.get(x)!.exp_avg.isAlive).toBe(true)
      // the tensors that the test made are there until the end of its scope
      expect(live() - before).toBe(1)
    })
  })
})

test('an implementation in a state dict', () => {
  torch.scope(() => {
    const x = torch.ones([2]).requiresGrad_()
    const optimizer = new optim.AdamW([x], { implementation: 'single' })
    const group = optimizer.stateDict().param_groups[0]!
    optimizer.loadStateDict({ state: new Map(), param_groups: [{ ...group, foreach: null, fused: null }] })
    expect(optimizer.paramGroups[0]!.implementation).toBe('single')
    optimizer.loadStateDict({ state: new Map(), param_groups: [{ ...group, foreach: null, fused: true }] })
    expect(optimizer.paramGroups[0]!.implementation).toBe('fused')
    optimizer.loadStateDict({ state: new Map(), param_groups: [{ ...group, foreach: true, fused: null }] })
    expect(optimizer.paramGroups[0]!.implementation).toBe('foreach')
  })
})
