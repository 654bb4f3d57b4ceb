import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { type AdaptedModel, addAdapter, RankAllocator } from '../../src/peft/index.js'
import * as torch from '../../src/torch/index.js'

const { nn } = torch

type Matrix = number[] | number[][]

interface Numbers {
  cases: Record<string, { settings: Record<string, number>; start: Record<string, Matrix>; steps: Step[] }>
}

interface Step {
  loss: number
  budget: number
  kept: Record<string, string> | null
  e: Record<string, number[]>
}

// made by make_numbers.py with Python's peft
const numbers = JSON.parse(readFileSync(new URL('adalora.json', import.meta.url), 'utf8')) as Numbers

class Net extends nn.Module {
  first: torch.nn.Layer = new nn.Linear(6, 5)
  second: torch.nn.Layer = new nn.Linear(5, 7)
  third: torch.nn.Layer = new nn.Linear(7, 3)

  forward(x: torch.Tensor): torch.Tensor {
    return this.third.forward(this.second.forward(this.first.forward(x).tanh()).tanh())
  }
}

function build({ settings, start }: Numbers['cases'][string]): AdaptedModel<Net> {
  const net = new Net()
  const names = ['first', 'second', 'third']
  torch.scope(() => {
    const own = [...net.stateDict().keys()]
    net.loadStateDict(new Map(own.map((name) => [name, torch.tensor(start[name]!)])))
  })
  const adapted = addAdapter(net, {
    kind: 'adalora',
    targetModules: names,
    initR: settings.init_r,
    targetR: settings.target_r,
    tinit: settings.tinit,
    tfinal: settings.tfinal,
    deltaT: settings.deltaT,
    totalStep: settings.total_step!,
    beta1: settings.beta1,
    beta2: settings.beta2,
    orthRegWeight: settings.orth_reg_weight,
    alpha: settings.lora_alpha,
  })
  torch.noGrad(() =>
    torch.scope(() => {
      for (const [name, parameter] of adapted.adapterParameters()) parameter.copy_(torch.tensor(start[name]!))
    }),
  )
  return adapted
}

function batch(step: number): { x: torch.Tensor; y: torch.Tensor } {
  const x = torch
    .arange(48)
    .double()
    .view([8, 6])
    .mul(0.37 + 0.01 * step)
    .add(step)
    .sin()
  const y = x
    .narrow(1, 0, 3)
    .mul(2)
    .add(x.narrow(1, 3, 3))
    .cos()
  return { x: x.float(), y: y.float() }
}

const path = (name: string) => `${name}.lora_E`

describe('RankAllocator', () => {
  it.each(Object.keys(numbers.cases))('reallocates ranks as Python does: %s', (name) => {
    const numbersOfCase = numbers.cases[name]!
    const adapted = build(numbersOfCase)
    let allocator = new RankAllocator(adapted)
    const sgd = new torch.optim.SGD(
      adapted.parameters().filter((each) => each.requiresGrad),
      { lr: 0.2 },
    )
    for (const [step, expected] of numbersOfCase.steps.entries()) {
      torch.scope(() => {
        const { x, y } = batch(step)
        const loss = nn.functional.mseLoss(adapted.forward(x), y).add(allocator.orthogonalLoss())
        expect(loss.item()).toBeCloseTo(expected.loss, 4)
        loss.backward()
      })
      sgd.step()
      expect(allocator.budget(step).budget).toBe(expected.budget)
      allocator.afterBackward(step)
      sgd.zeroGrad()
      const kept = allocator.rankPattern()
      const bits = (pattern: readonly boolean[]) => pattern.map(Number).join('')
      expect(
        kept === null ? null : Object.fromEntries(Object.entries(kept).map(([key, each]) => [key, bits(each)])),
      ).toEqual(
        expected.kept === null
          ? null
          : Object.fromEntries(Object.entries(expected.kept).map(([key, each]) => [path(key), each])),
      )
      for (const [key, values] of Object.entries(expected.e)) {
        const own = Array.from(adapted.adapterParameters().get(path(key))!.toTypedArray(), Number)
        for (const [index, value] of values.entries()) expect(own[index], `step ${step} ${key}`).toBeCloseTo(value, 4)
      }
      if (step === 30) {
        // an interruption changes nothing
        const state = allocator.state()
        const saved = {
          tensors: new Map([...state.tensors].map(([key, each]) => [key, each.clone()])),
          masks: state.masks,
        }
        allocator = new RankAllocator(adapted)
        allocator.loadState(saved)
      }
    }
  })

  it('learns nothing from a step that was left out for its gradients', () => {
    const adapted = build(numbers.cases.every!)
    const allocator = new RankAllocator(adapted)
    const importances = () =>
      [...allocator.state().tensors.values()].flatMap((each) => Array.from(each.toTypedArray(), Number))
    const run = (step: number, factor: number, skipped: number) =>
      torch.scope(() => {
        const { x, y } = batch(step)
        nn.functional.mseLoss(adapted.forward(x), y).add(allocator.orthogonalLoss()).mul(factor).backward()
        allocator.afterBackward(step, torch.tensor(skipped))
        for (const parameter of adapted.parameters()) parameter.grad?.zero_()
      })
    run(0, 1, 0)
    const before = importances()
    expect(before.some((each) => each > 0)).toBe(true)
    run(1, Number.NaN, 1)
    expect(importances()).toEqual(before)
    run(2, 1, 0)
    expect(importances()).not.toEqual(before)
    expect(importances().every(Number.isFinite)).toBe(true)
  })

  it('frees what it makes', () => {
    const adapted = build(numbers.cases.every!)
    const allocator = new RankAllocator(adapted)
    const run = (step: number) =>
      torch.scope(() => {
        const { x, y } = batch(step)
        nn.functional.mseLoss(adapted.forward(x), y).add(allocator.orthogonalLoss()).backward()
        allocator.afterBackward(step)
      })
    for (let step = 0; step < 12; step += 1) run(step)
    const before = torch.memory.counters().live
    for (let step = 12; step < 58; step += 1) run(step)
    expect(torch.memory.counters().live).toBe(before)
  })

  it('keeps all where nothing is to be dropped', () => {
    const net = addAdapter(new Net(), { kind: 'adalora', targetModules: ['first'], initR: 3, targetR: 3, totalStep: 4 })
    const allocator = new RankAllocator(net)
    for (let step = 0; step < 4; step += 1) {
      torch.scope(() =>
        net
          .forward(torch.ones([2, 6]))
          .sum()
          .backward(),
      )
      allocator.afterBackward(step)
    }
    expect(allocator.rankPattern()).toEqual({ 'first.lora_E': [true, true, true] })
  })

  it('refuses what cannot be', () => {
    const lora = addAdapter(new Net(), { kind: 'lora', targetModules: ['first'] })
    expect(() => new RankAllocator(lora)).toThrow(/expected an adalora adapter, but 'default' is of kind lora/)
    const adapted = build(numbers.cases.every!)
    expect(() => new RankAllocator(adapted).afterBackward(0)).toThrow(
      /expected gradients, but lora_A of first has none/,
    )
    const schedule = { kind: 'adalora', targetModules: ['first'], totalStep: 10, tinit: 8, tfinal: 4 } as const
    expect(() => addAdapter(new Net(), schedule)).toThrow(/expected tinit below totalStep - tfinal/)
  })
})
