import { afterEach, describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { collectGarbage, inScope, liveTensors } from './helpers.js'

const { scope, keep } = torch

afterEach(() => torch.memory.setDebug(false))

describe('scope', () => {
  it('frees what is made in it', () => {
    const before = liveTensors()
    let inside: torch.Tensor | undefined
    const result = scope(() => {
      inside = torch.ones([2]).add(1).mul(3)
      return inside.sum().item()
    })
    expect(result).toBe(12)
    expect(inside!.isAlive).toBe(false)
    expect(liveTensors()).toBe(before)
  })

  it('counts exactly', () => {
    const before = torch.memory.counters()
    scope(() => {
      const x = torch.ones([256])
      x.add(x).add(x)
      x.add_(1)
      const during = torch.memory.counters()
      expect(during.live - before.live).toBe(3)
      expect(during.bytes - before.bytes).toBe(3 * 1024)
      x.view(2, 128)
      expect(torch.memory.counters().bytes - before.bytes).toBe(3 * 1024)
      expect(torch.memory.counters().live - before.live).toBe(4)
    })
    const after = torch.memory.counters()
    expect(after.made - before.made).toBe(4)
    expect(after.freed - before.freed).toBe(4)
    expect([after.live, after.bytes]).toEqual([before.live, before.bytes])
  })

  it('keeps what is returned, in arrays, objects, Maps, Sets and at any depth', () => {
    const before = liveTensors()
    const make = () => torch.ones([1])
    const results: unknown[] = [
      scope(() => make()),
      scope(() => [make(), [make()]]),
      scope(() => ({ a: make(), b: { c: [make()] } })),
      scope(
        () =>
          new Map<unknown, unknown>([
            ['a', make()],
            [make(), 1],
          ]),
      ),
      scope(() => new Set([make()])),
      scope(() => Object.assign(Object.create(null), { a: make() })),
    ]
    expect(liveTensors() - before).toBe(9)
    torch.dispose(results)
    expect(liveTensors()).toBe(before)
  })

  it('keeps what a holder holds', () => {
    class Holds implements torch.Holder {
      [torch.heldTensors]() {
        return [this.kept]
      }
      readonly kept = torch.ones([1])
      readonly lost = torch.ones([1])
    }
    const holder = scope(() => new Holds())
    expect([holder.kept.isAlive, holder.lost.isAlive]).toEqual([true, false])
    holder.kept.dispose()
  })

  it('keeps results with cycles', () => {
    const result = scope(() => {
      const node: { self?: unknown; x: torch.Tensor } = { x: torch.ones([1]) }
      node.self = [node]
      return node
    })
    expect(result.x.isAlive).toBe(true)
    torch.dispose(result)
    expect(result.x.isAlive).toBe(false)
  })

  it('nests: what an inner scope returns belongs to the one around it', () => {
    const before = liveTensors()
    let inner: torch.Tensor | undefined
    const outer = scope(() => {
      inner = scope(() => {
        torch.zeros([1])
        return torch.ones([1]).add(1)
      })
      expect(inner.isAlive).toBe(true)
      return inner.mul(2)
    })
    expect(inner!.isAlive).toBe(false)
    expect(outer.item()).toBe(4)
    expect(liveTensors()).toBe(before + 1)
    outer.dispose()
  })

  it('leaves alone what was made outside, also where it is returned', () => {
    inScope(() => {
      const outside = torch.ones([1])
      scope(() => outside)
      const again = scope(() => scope(() => [outside, outside]))
      expect(again[0]).toBe(outside)
      expect(outside.isAlive).toBe(true)
    })
    using free = torch.ones([1])
    scope(() => free)
    scope(() => scope(() => free))
    expect(free.isAlive).toBe(true)
  })

  it('frees when the function throws, and passes the error on', () => {
    const before = liveTensors()
    const mine = new Error('mine')
    let caught: unknown
    try {
      scope(() => {
        torch.ones([1])
        scope(() => {
          torch.ones([1])
          throw mine
        })
      })
    } catch (error) {
      caught = error
    }
    expect(caught).toBe(mine)
    expect(() => scope(() => torch.ones([2]).add(torch.ones([3])))).toThrow(torch.TorchError)
    expect(() => scope(() => (torch.ones([2]).add as (value: unknown) => unknown)('x'))).toThrow(TypeError)
    expect(liveTensors()).toBe(before)
  })

  it('refuses a Promise, and frees', async () => {
    const before = liveTensors()
    expect(() => scope(async () => torch.ones([1]))).toThrow(TypeError)
    expect(() => scope(() => Promise.reject(new Error('unheard')))).toThrow(/^scope: expected a synchronous function/)
    // biome-ignore lint/suspicious/noThenProperty: something that can be awaited
    expect(() => scope(() => ({ then: () => 1 }))).toThrow(TypeError)
    expect(liveTensors()).toBe(before)
  })

  it('keeps the graph that a returned tensor needs', () => {
    inScope(() => {
      const x = torch.tensor([3], { requiresGrad: true })
      const loss = scope(() => x.mul(x).mul(x))
      loss.backward()
      expect(x.grad!.item()).toBe(27)
    })
  })

  it('stays flat over many steps', () => {
    inScope(() => {
      const weight = torch.randn([8, 8]).requiresGrad_()
      const before = torch.memory.counters()
      for (let step = 0; step < 200; step += 1) {
        scope(() => {
          weight.grad = null
          weight.matmul(weight).sum().backward()
          torch.noGrad(() => weight.add_(weight.grad!, { alpha: -0.001 }))
        })
      }
      expect(torch.memory.counters().live).toBe(before.live)
      expect(torch.memory.counters().bytes).toBe(before.bytes)
    })
  })

  it('holds many tensors', () => {
    const before = liveTensors()
    scope(() => {
      const x = torch.ones([1])
      for (let index = 0; index < 100_000; index += 1) x.view(1)
      expect(liveTensors() - before).toBe(100_001)
    })
    expect(liveTensors()).toBe(before)
  })
})

describe('keep', () => {
  it('takes tensors out of every scope', () => {
    const before = liveTensors()
    const kept: { a: torch.Tensor; b?: torch.Tensor[] } = scope(() => {
      const holder = scope(() => {
        const value = { a: torch.ones([1]), b: [torch.zeros([1])] }
        expect(keep(value)).toBe(value)
        return { hidden: () => value }
      })
      return holder
    }).hidden()
    expect([kept.a.isAlive, kept.b![0]!.isAlive]).toEqual([true, true])
    expect(liveTensors()).toBe(before + 2)
    torch.dispose(kept)
    expect(liveTensors()).toBe(before)
  })

  it('survives further scopes', () => {
    let kept: torch.Tensor | undefined
    scope(() => {
      kept = keep(torch.ones([1]))
    })
    scope(() => {
      kept!.add_(1)
      return kept
    })
    scope(() => scope(() => [kept]))
    expect(kept!.item()).toBe(2)
    kept!.dispose()
  })

  it('refuses what is disposed', () => {
    const x = torch.ones([1])
    x.dispose()
    expect(() => keep(x)).toThrow(TypeError)
    expect(() => keep(x)).toThrow(/^keep: expected tensor to be a live Tensor/)
  })
})

describe('Scope', () => {
  it('keeps what run() makes until it is disposed of', async () => {
    const before = liveTensors()
    let tensors: torch.Tensor[] = []
    {
      using s = new torch.Scope()
      const x = s.run(() => torch.ones([2]).add(1))
      await Promise.resolve()
      const y = s.run(() => x.mul(2))
      tensors = [x, y]
      expect(y.toArray()).toEqual([4, 4])
      expect(liveTensors()).toBe(before + 3)
    }
    expect(tensors.map((each) => each.isAlive)).toEqual([false, false])
    expect(liveTensors()).toBe(before)
  })

  it('several at once, mixed with scope()', () => {
    const before = liveTensors()
    using a = new torch.Scope()
    using b = new torch.Scope()
    const x = a.run(() => torch.ones([1]))
    const y = b.run(() => scope(() => x.add(1).mul(2)))
    const z = a.run(() => b.run(() => y.add(1)))
    expect(z.item()).toBe(5)
    scope(() => a.run(() => torch.zeros([1])))
    expect(liveTensors()).toBe(before + 4)
    a.dispose()
    expect([x.isAlive, y.isAlive, z.isAlive]).toEqual([false, true, true])
    b.dispose()
    expect(liveTensors()).toBe(before)
  })

  it('refuses a Promise, use after its end, and to end inside itself', () => {
    const s = new torch.Scope()
    expect(() => s.run(async () => 1)).toThrow(/^Scope.run: expected a synchronous function/)
    expect(() => s.run(() => s.dispose())).toThrow(/expected a Scope that is not running/)
    expect(s.run(() => 5)).toBe(5)
    s.dispose()
    s.dispose()
    expect(() => s.run(() => 1)).toThrow(TypeError)
    expect(() => s.run(() => 1)).toThrow('Scope.run: expected a scope that is in use, but it was disposed of')
  })

  it('is left when the function throws', () => {
    const before = liveTensors()
    using s = new torch.Scope()
    expect(() =>
      s.run(() => {
        torch.ones([1])
        throw new Error('mine')
      }),
    ).toThrow('mine')
    using outside = torch.ones([1])
    s.dispose()
    expect(outside.isAlive).toBe(true)
    expect(liveTensors()).toBe(before + 1)
  })
})

describe('a tensor', () => {
  it('is freed by using', () => {
    const before = liveTensors()
    let x: torch.Tensor | undefined
    {
      using y = torch.ones([1])
      x = y
    }
    expect(x.isAlive).toBe(false)
    expect(liveTensors()).toBe(before)
  })

  it('is freed once, however often it is disposed of', () => {
    const before = torch.memory.counters()
    const x = torch.ones([1])
    x.dispose()
    x.dispose()
    x[Symbol.dispose]()
    scope(() => {
      const y = torch.ones([1])
      y.dispose()
    })
    const after = torch.memory.counters()
    expect([after.made - before.made, after.freed - before.freed, after.live - before.live]).toEqual([2, 2, 0])
  })

  it('lives on where another shares its memory', () => {
    const x = torch.ones([2])
    using view = x.view(2, 1)
    x.dispose()
    expect(view.toArray()).toEqual([[1], [1]])
  })

  it('that is disposed of is a TypeError everywhere', () => {
    const x = torch.ones([2], { requiresGrad: true })
    x.dispose()
    using other = torch.ones([2])
    const uses: Record<string, () => unknown> = {
      add: () => x.add(1),
      relu: () => x.relu(),
      matmul: () => other.matmul(x),
      cat: () => torch.cat([other, x]),
      add_: () => other.add_(x),
      shape: () => x.shape,
      dtype: () => x.dtype,
      item: () => x.item(),
      toArray: () => x.toArray(),
      toTypedArray: () => x.toTypedArray(),
      toTypedArrayAsync: () => x.toTypedArrayAsync(),
      at: () => x.at(0),
      setAt: () => other.setAt(0, x),
      to: () => x.to('float64'),
      grad: () => x.grad,
      backward: () => x.backward(),
      requiresGrad_: () => x.requiresGrad_(),
      registerHook: () => x.registerHook(() => undefined),
      'autograd.grad': () => torch.autograd.grad(x, other),
      send: () => torch.send(x),
    }
    for (const [name, use] of Object.entries(uses)) {
      expect(use, name).toThrow(TypeError)
      expect(use, name).toThrow(/disposed of/)
    }
    expect(() => x.add(1)).toThrow(
      'add: expected self to be a live Tensor, but received one that was disposed of (by its scope, dispose() or using) or that belongs to another worker',
    )
    expect(x.isAlive).toBe(false)
  })

  it('never reaches another one through a stale or invented handle', () => {
    const stale = torch.ones([1])
    const { handle } = stale
    stale.dispose()
    using next = torch.zeros([3])
    expect(next.handle).not.toBe(handle)
    expect(() => stale.add(1)).toThrow(TypeError)
    for (const invented of [
      0,
      1,
      -1,
      0.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      2 ** 53,
      next.handle + 1,
      next.handle + 2 ** 22,
      next.handle + 0.5,
    ]) {
      const fake = new torch.Tensor(invented)
      expect(() => fake.shape, String(invented)).toThrow(TypeError)
      fake.dispose()
    }
    for (const invented of ['1', null, undefined, {}, 5n, Symbol('x')]) {
      const fake = new torch.Tensor(invented as unknown as number)
      expect(() => fake.shape).toThrow(TypeError)
      expect(fake.isAlive).toBe(false)
      fake.dispose()
    }
    expect(next.toArray()).toEqual([0, 0, 0])
  })
})

describe('finalizers', () => {
  it('free what was dropped outside of every scope, when the event loop turns', async () => {
    const before = liveTensors()
    const drop = () => {
      for (let index = 0; index < 3000; index += 1) torch.zeros([1])
    }
    drop()
    await collectGarbage()
    expect(liveTensors() - before).toBeLessThan(30)
  })

  it('free what a scope returned and what keep() was called on', async () => {
    const before = liveTensors()
    const drop = () => {
      for (let index = 0; index < 500; index += 1) {
        scope(() => torch.zeros([1]))
        scope(() => [torch.zeros([1])])
        scope(() => {
          keep(torch.zeros([1]))
        })
      }
    }
    drop()
    await collectGarbage()
    expect(liveTensors() - before).toBeLessThan(30)
  })

  it('never free another tensor of the same place', async () => {
    const drop = () => {
      for (let index = 0; index < 500; index += 1) torch.zeros([1]).dispose()
    }
    drop()
    const kept = Array.from({ length: 500 }, () => torch.ones([1]))
    await collectGarbage()
    expect(kept.every((each) => each.isAlive)).toBe(true)
    torch.dispose(kept)
  })
})

describe('memory', () => {
  it('names what leaked and where it was made', () => {
    const leaked: torch.Tensor[] = []
    function makesLeak() {
      leaked.push(torch.ones([2, 3], { dtype: 'float64' }))
    }
    const found = torch.memory.leaks(() => {
      scope(() => {
        torch.zeros([5])
      })
      makesLeak()
      leaked.push(scope(() => torch.ones([4])))
    })
    expect(found.map(({ shape, dtype, device, bytes }) => ({ shape, dtype, device, bytes }))).toEqual(
      expect.arrayContaining([
        { shape: [2, 3], dtype: 'float64', device: 'cpu', bytes: 48 },
        { shape: [4], dtype: 'float32', device: 'cpu', bytes: 16 },
      ]),
    )
    expect(found.length).toBe(2)
    expect(found.find((each) => each.shape.length === 2)!.madeAt).toMatch(/makesLeak.*18\.scopes\.test\.ts/s)
    torch.dispose(leaked)
  })

  it('lists the live tensors; in debug mode with their places', () => {
    using before = torch.ones([7])
    expect(torch.memory.liveTensors().find((each) => each.shape[0] === 7)!.madeAt).toBeUndefined()
    torch.memory.setDebug(true)
    using x = torch.ones([11])
    expect(torch.memory.liveTensors().find((each) => each.shape[0] === 11)!.madeAt).toContain('18.scopes.test.ts')
    torch.memory.setDebug(false)
    expect(before.isAlive && x.isAlive).toBe(true)
  })

  it('counts bytes of a shared block once', () => {
    inScope(() => {
      const { bytes } = torch.memory.counters()
      const x = torch.zeros([1024])
      x.view(32, 32)
      x.at('1:')
      expect(torch.memory.counters().bytes - bytes).toBe(4096)
    })
  })
})
