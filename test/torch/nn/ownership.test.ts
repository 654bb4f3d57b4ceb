import { describe, expect, it } from 'vitest'
import * as torch from '../../../src/torch/index.js'
import { inScope, liveTensors } from '../helpers.js'

const { nn } = torch
// small tensors: threads would only wait for each other
torch.setNumThreads(1)

describe('who owns what a module holds', () => {
  it('keeps parameters and buffers of a module that is built inside a scope and not returned', () => {
    let held: torch.nn.BatchNorm1d | undefined
    torch.scope(() => {
      held = new nn.BatchNorm1d(3)
    })
    const net = held!
    expect(net.weight!.toArray()).toEqual([1, 1, 1])
    expect(net.running_mean!.toArray()).toEqual([0, 0, 0])
    net.dispose()
    expect(net.weight!.isAlive).toBe(false)
    expect(net.running_mean!.isAlive).toBe(false)
    expect(() => net.weight!.add(1)).toThrow(TypeError)
  })

  it('keeps what a returned module has in plain fields', () => {
    class WithTensor extends nn.Module {
      plain = torch.ones([2])
      inner = new nn.Sequential(new nn.Linear(2, 2))
      forward(x: torch.Tensor) {
        return x
      }
    }
    let lost: WithTensor | undefined
    const kept = torch.scope(() => {
      lost = new WithTensor()
      return { deep: [new WithTensor()] }
    }).deep[0]!
    expect(kept.plain.toArray()).toEqual([1, 1])
    expect(lost!.plain.isAlive).toBe(false)
    expect(lost!.inner.parameters().every((each) => each.isAlive)).toBe(true)
    torch.dispose([kept, lost])
    expect(kept.parameters().some((each) => each.isAlive) || kept.plain.isAlive).toBe(false)
  })

  it('makes nothing but parameters and buffers, also outside of every scope', () => {
    const before = liveTensors()
    const net = new nn.Sequential(new nn.Linear(4, 4), new nn.BatchNorm1d(4), new nn.Embedding(3, 2, { paddingIdx: 0 }))
    expect(liveTensors() - before).toBe(net.parameters().length + net.buffers().length)
    net.to('float64').to('float32')
    expect(liveTensors() - before).toBe(net.parameters().length + net.buffers().length)
    net.dispose()
    expect(liveTensors()).toBe(before)
  })

  it('stays flat over training steps, moves and loads', () => {
    using net = new nn.Sequential(new nn.Linear(4, 4), new nn.BatchNorm1d(4), new nn.Dropout(0.1))
    using saved = nn.onMeta(() => new nn.Sequential(new nn.Linear(4, 4), new nn.BatchNorm1d(4), new nn.Dropout(0.1)))
    const step = () =>
      inScope(() => {
        net.zeroGrad()
        net
          .forward(torch.randn([8, 4]))
          .square()
          .mean()
          .backward()
        saved.loadStateDict(net.stateDict(), { assign: true })
        saved.to('float64').toEmpty('meta')
      })
    step()
    const { live, bytes } = torch.memory.counters()
    for (let k = 0; k < 20; k += 1) step()
    expect(torch.memory.counters()).toMatchObject({ live, bytes })
  })

  it('lets a parameter made from a scoped tensor outlive it', () => {
    const parameter = { current: undefined as torch.nn.Parameter | undefined }
    torch.scope(() => {
      parameter.current = new nn.Parameter(torch.full([2], 3).mul(2))
    })
    const { current } = parameter
    expect(current!.toArray()).toEqual([6, 6])
    expect(current!.isLeaf && current!.requiresGrad).toBe(true)
    expect(current).toBeInstanceOf(torch.Tensor)
    expect(String(current)).toMatch(/^Parameter containing:\ntensor/)
    current!.dispose()
  })

  it('replaces a buffer under its name', () => {
    using layer = new nn.Identity()
    torch.scope(() => {
      layer.registerBuffer('state', torch.zeros([1]))
      layer.registerBuffer('state', torch.ones([2]))
    })
    expect(layer.buffers().map((each) => each.toArray())).toEqual([[1, 1]])
  })
})
