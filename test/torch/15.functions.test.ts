import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { collectGarbage, gradcheck, gradgradcheck, inScope, liveTensors, randomDouble } from './helpers.js'

type Context = torch.autograd.FunctionContext

class Cube extends torch.autograd.Function {
  static forward(context: Context, x: torch.Tensor) {
    context.saveForBackward(x)
    return x.mul(x).mul(x)
  }
  static backward(context: Context, gradient: torch.Tensor) {
    const [x] = context.saved
    return gradient.mul(x!).mul(x!).mul(3)
  }
}

/** exp() by its own output. */
class Exponential extends torch.autograd.Function {
  static forward(context: Context, x: torch.Tensor) {
    const y = x.exp()
    context.saveForBackward(y)
    return y
  }
  static backward(context: Context, gradient: torch.Tensor) {
    return gradient.mul(context.saved[0]!)
  }
}

class SumAndProduct extends torch.autograd.Function {
  static forward(context: Context, a: torch.Tensor, b: torch.Tensor) {
    context.saveForBackward(a, b)
    return [a.add(b), a.mul(b)]
  }
  static backward(context: Context, sum: torch.Tensor, product: torch.Tensor) {
    const [a, b] = context.saved
    return [sum.add(product.mul(b!)), sum.add(product.mul(a!))]
  }
}

describe('a function of the user', () => {
  it('has the gradients it says', () => {
    inScope(() => {
      const x = torch.tensor([2, 3], { requiresGrad: true })
      const y = Cube.apply(x)
      expect(y.toArray()).toEqual([8, 27])
      expect([y.requiresGrad, y.isLeaf]).toEqual([true, false])
      y.sum().backward()
      expect(x.grad!.toArray()).toEqual([12, 27])
    })
  })

  it('against finite differences, twice', () => {
    inScope(() => {
      gradcheck((x) => Cube.apply(x!), [randomDouble([3])])
      gradgradcheck((x) => Cube.apply(x!), [randomDouble([3])])
      gradcheck((x) => Exponential.apply(x!), [randomDouble([3])])
      gradgradcheck((x) => Exponential.apply(x!), [randomDouble([3])])
      gradcheck((a, b) => SumAndProduct.apply(a!, b!), [randomDouble([2]), randomDouble([2], 1)])
      gradgradcheck((a, b) => SumAndProduct.apply(a!, b!)[1]!, [randomDouble([2]), randomDouble([2], 1)])
    })
  })

  it('of several outputs', () => {
    inScope(() => {
      const a = torch.tensor([2], { requiresGrad: true })
      const b = torch.tensor([5], { requiresGrad: true })
      const [sum, product] = SumAndProduct.apply(a, b)
      expect([sum!.item(), product!.item()]).toEqual([7, 10])
      product!.backward(null, { retainGraph: true })
      expect([a.grad!.item(), b.grad!.item()]).toEqual([5, 2])
      sum!.add(product!).backward()
      expect([a.grad!.item(), b.grad!.item()]).toEqual([11, 5])
    })
  })

  it('takes arguments that are no tensors', () => {
    class Scale extends torch.autograd.Function {
      static forward(context: Context & { factor?: number }, x: torch.Tensor, factor: number, label: string) {
        expect(label).toBe('label')
        context.factor = factor
        return x.mul(factor)
      }
      static backward(context: Context & { factor?: number }, gradient: torch.Tensor) {
        return gradient.mul(context.factor!)
      }
    }
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      Scale.apply(x, 4, 'label').backward()
      expect(x.grad!.item()).toBe(4)
    })
  })

  it('is told which arguments need a gradient, and may give null', () => {
    const seen: unknown[] = []
    class Product extends torch.autograd.Function {
      static forward(context: Context, a: torch.Tensor, b: torch.Tensor) {
        context.saveForBackward(b, null)
        return a.mul(b)
      }
      static backward(context: Context, gradient: torch.Tensor) {
        seen.push(context.needsInputGrad, context.saved[1])
        return [gradient.mul(context.saved[0]!), null]
      }
    }
    inScope(() => {
      const a = torch.ones([1], { requiresGrad: true })
      Product.apply(a, torch.tensor([5])).backward()
      expect(a.grad!.item()).toBe(5)
      expect(seen).toEqual([[true, false], null])
      const b = torch.ones([1], { requiresGrad: true })
      Product.apply(a, b).backward()
      expect(b.grad).toBeNull()
      expect(torch.autograd.grad(Product.apply(a, b), [a, b], { allowUnused: true })[1]).toBeNull()
    })
  })

  it('gets zeros for outputs that are not used, or null where it wants to know', () => {
    const seen: unknown[] = []
    const twoOutputs = (materialize: boolean) =>
      class extends torch.autograd.Function {
        static forward(context: Context, x: torch.Tensor) {
          context.setMaterializeGrads(materialize)
          return [x.mul(1), x.mul(2)]
        }
        static backward(_context: Context, first: torch.Tensor, second: torch.Tensor | null) {
          seen.push(second === null ? null : second.toArray())
          return first
        }
      }
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      for (const materialize of [true, false]) twoOutputs(materialize).apply(x)[0]!.sum().backward()
      expect(seen).toEqual([[0, 0], null])
    })
  })

  it('marks outputs without gradient', () => {
    class Sorted extends torch.autograd.Function {
      static forward(context: Context, x: torch.Tensor) {
        const [values, indices] = x.sort()
        const mask = values.gt(0).to(x.dtype)
        context.markNonDifferentiable(mask, indices)
        context.saveForBackward(indices)
        return [values, mask, indices]
      }
      static backward(context: Context, gradient: torch.Tensor) {
        return torch.zerosLike(gradient).scatter(0, context.saved[0]!, gradient)
      }
    }
    inScope(() => {
      const x = torch.tensor([3, 1, 2], { requiresGrad: true })
      const [values, mask, indices] = Sorted.apply(x)
      expect([values!.requiresGrad, mask!.requiresGrad, indices!.requiresGrad]).toEqual([true, false, false])
      values!
        .mul(torch.tensor([1, 10, 100]))
        .sum()
        .backward()
      expect(x.grad!.toArray()).toEqual([100, 1, 10])
    })
  })

  it('changes its input in place', () => {
    class AddInPlace extends torch.autograd.Function {
      static forward(context: Context, x: torch.Tensor) {
        x.mul_(2)
        context.markDirty(x)
        return x
      }
      static backward(_context: Context, gradient: torch.Tensor) {
        return gradient.mul(2)
      }
    }
    inScope(() => {
      const leaf = torch.ones([2], { requiresGrad: true })
      const x = leaf.mul(3)
      const y = AddInPlace.apply(x)
      expect(y.isSame(x)).toBe(true)
      expect([x.toArray(), y.toArray()]).toEqual([
        [6, 6],
        [6, 6],
      ])
      x.mul(5).sum().backward()
      expect(leaf.grad!.toArray()).toEqual([30, 30])
      expect(() => AddInPlace.apply(leaf)).toThrow(/leaf Variable that requires grad/)
    })
  })

  it('returns its input unchanged', () => {
    class Reverse extends torch.autograd.Function {
      static forward(_context: Context, x: torch.Tensor) {
        return x
      }
      static backward(_context: Context, gradient: torch.Tensor) {
        return gradient.neg()
      }
    }
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      Reverse.apply(x).mul(3).backward()
      expect(x.grad!.item()).toBe(-3)
    })
  })

  it('is not recorded where no input needs it', () => {
    inScope(() => {
      expect(Cube.apply(torch.ones([1])).requiresGrad).toBe(false)
      const x = torch.ones([1], { requiresGrad: true })
      expect(torch.noGrad(() => Cube.apply(x)).requiresGrad).toBe(false)
    })
  })

  it('inside another', () => {
    class Outer extends torch.autograd.Function {
      static forward(context: Context, x: torch.Tensor) {
        const y = torch.enableGrad(() => {
          const inner = x.detach().requiresGrad_()
          const cube = Cube.apply(inner)
          return { cube: cube.detach(), slope: torch.autograd.grad(cube.sum(), inner)[0]! }
        })
        context.saveForBackward(y.slope)
        return y.cube
      }
      static backward(context: Context, gradient: torch.Tensor) {
        return gradient.mul(context.saved[0]!)
      }
    }
    inScope(() => gradcheck((x) => Outer.apply(x!), [randomDouble([3])]))
  })

  it('notices that what it saved was changed in place', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const y = x.mul(1)
      const z = Cube.apply(y)
      y.add_(1)
      expect(() => z.backward()).toThrow(/modified by an inplace operation/)
    })
  })

  it('passes exceptions of forward and backward on unchanged', () => {
    const mine = new Error('mine')
    let where: 'forward' | 'backward' = 'forward'
    class Fails extends torch.autograd.Function {
      static forward(_context: Context, x: torch.Tensor) {
        if (where === 'forward') throw mine
        return x.mul(2)
      }
      static backward(_context: Context, gradient: torch.Tensor): torch.Tensor {
        gradient.mul(2)
        throw mine
      }
    }
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const caught = (run: () => unknown): unknown => {
        try {
          run()
        } catch (error) {
          return error
        }
        return undefined
      }
      const before = liveTensors()
      expect(caught(() => Fails.apply(x))).toBe(mine)
      expect(liveTensors()).toBe(before)
      where = 'backward'
      const y = Fails.apply(x)
      const beforeBackward = liveTensors()
      expect(caught(() => y.backward(null, { retainGraph: true }))).toBe(mine)
      expect(liveTensors()).toBe(beforeBackward)
      // a libtorch error inside is a TorchError outside
      class Wrong extends torch.autograd.Function {
        static forward(_context: Context, input: torch.Tensor) {
          return input.add(1)
        }
        static backward(_context: Context, gradient: torch.Tensor) {
          return gradient.view(7)
        }
      }
      expect(caught(() => Wrong.apply(x).backward())).toBeInstanceOf(torch.TorchError)
      x.mul(2).backward()
      expect(x.grad!.item()).toBe(2)
    })
  })

  it('refuses wrong numbers, kinds and shapes of gradients', () => {
    let result: unknown
    class Loose extends torch.autograd.Function {
      static forward(_context: Context, a: torch.Tensor, b: torch.Tensor) {
        return a.add(b)
      }
      static backward(): torch.Tensor[] {
        return result as torch.Tensor[]
      }
    }
    inScope(() => {
      const a = torch.ones([2], { requiresGrad: true })
      const run = () =>
        Loose.apply(a, torch.ones([2]))
          .sum()
          .backward()
      result = [torch.ones([2])]
      expect(run).toThrow(TypeError)
      expect(run).toThrow(
        'Function.backward: expected a gradient or null for each of the 2 tensor arguments, but received 1',
      )
      result = [torch.ones([3]), null]
      expect(run).toThrow(/invalid gradient|expected shape/)
      result = undefined
      expect(run).toThrow(TypeError)
      result = [1, null]
      expect(run).toThrow(TypeError)
    })
  })

  it('refuses what forward must not return', () => {
    let result: unknown
    class Loose extends torch.autograd.Function {
      static forward(): torch.Tensor {
        return result as torch.Tensor
      }
      static backward() {
        return null
      }
    }
    inScope(() => {
      const apply = () => (Loose.apply as unknown as (x: torch.Tensor) => unknown).call(Loose, torch.ones([1]))
      for (const value of [undefined, null, 1, 'a', {}, [1]]) {
        result = value
        expect(apply, String(value)).toThrow(TypeError)
      }
    })
  })

  it('frees what forward and backward make', () => {
    inScope(() => {
      const x = torch.ones([4], { requiresGrad: true })
      const before = liveTensors()
      torch.scope(() => {
        Cube.apply(x).sum().backward()
      })
      expect(liveTensors()).toBe(before)
      const y = Cube.apply(x)
      expect(liveTensors()).toBe(before + 1)
      y.dispose()
    })
  })

  it('does not keep its graph alive by an output that it saved', async () => {
    const released: string[] = []
    const registry = new FinalizationRegistry<string>((name) => released.push(name))
    const once = (index: number): void => {
      const witness = { index }
      registry.register(witness, `graph ${index}`)
      class Held extends torch.autograd.Function {
        static forward(context: Context & { witness?: object }, x: torch.Tensor) {
          context.witness = witness
          const y = x.exp()
          context.saveForBackward(y)
          return y
        }
        static backward(context: Context, gradient: torch.Tensor) {
          return gradient.mul(context.saved[0]!)
        }
      }
      inScope(() => {
        const x = torch.ones([1], { requiresGrad: true })
        Held.apply(x)
        if (index % 2 === 0) Held.apply(x).backward()
      })
    }
    for (let index = 0; index < 20; index += 1) once(index)
    // references of dead graphs are dropped at the next call into native code
    for (let turn = 0; turn < 5 && released.length < 20; turn += 1) {
      torch.zeros([1]).dispose()
      await collectGarbage()
    }
    expect(released.length).toBeGreaterThanOrEqual(19)
  })
})
