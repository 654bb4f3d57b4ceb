import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { gradcheck, gradgradcheck, inScope, liveTensors, randomDouble, runProgram } from './helpers.js'

const { checkpoint, grad } = torch.autograd

/** A block with a parameter of its own. */
function makeBlock() {
  const weight = torch.randn([4, 4]).requiresGrad_()
  return { weight, run: (x: torch.Tensor) => x.matmul(weight).tanh().matmul(weight).relu() }
}

describe('checkpoint', () => {
  it('has the outputs and gradients of the function', () => {
    inScope(() => {
      torch.manualSeed(1)
      const { weight, run } = makeBlock()
      const x = torch.randn([3, 4]).requiresGrad_()
      const plain = run(x)
      const [expectedX, expectedWeight] = grad(plain.sum(), [x, weight])
      const output = checkpoint(run, [x])
      expect(output.equal(plain)).toBe(true)
      const [foundX, foundWeight] = grad(output.sum(), [x, weight])
      expect(foundX!.equal(expectedX!)).toBe(true)
      expect(foundWeight!.equal(expectedWeight!)).toBe(true)
    })
  })

  it('against finite differences, twice', () => {
    inScope(() => {
      const weight = randomDouble([3, 3], 5)
      const run = (x: torch.Tensor) => x.matmul(weight).sin().mul(x)
      gradcheck((x) => checkpoint(run, [x!]), [randomDouble([2, 3])])
      gradgradcheck((x) => checkpoint(run, [x!]), [randomDouble([2, 3])])
      gradgradcheck((x) => checkpoint((y: torch.Tensor) => checkpoint(run, [y]).exp(), [x!]), [randomDouble([2, 3])])
    })
  })

  it('draws the same random numbers again, and goes on from where it was', () => {
    inScope(() => {
      const run = (x: torch.Tensor) => torch.dropout(x.mul(x), 0.5, true)
      const x = torch.ones([200], { requiresGrad: true })
      torch.manualSeed(3)
      const plain = run(x)
      const [expected] = grad(plain.sum(), x)
      const next = torch.rand([1]).item()
      torch.manualSeed(3)
      const output = checkpoint(run, [x])
      const state = torch.getRngState()
      const [found] = grad(output.sum(), x)
      expect(output.equal(plain)).toBe(true)
      expect(found!.equal(expected!)).toBe(true)
      expect(torch.getRngState().equal(state)).toBe(true)
      expect(torch.rand([1]).item()).toBe(next)
    })
  })

  it('draws others where the state is not to be kept', () => {
    inScope(() => {
      torch.manualSeed(3)
      const draws: number[] = []
      const run = (x: torch.Tensor) => {
        draws.push(torch.rand([1]).item())
        return x.mul(x)
      }
      const x = torch.ones([1], { requiresGrad: true })
      checkpoint(run, [x], { preserveRandomState: false }).backward()
      checkpoint(run, [x]).backward()
      expect(draws.length).toBe(4)
      expect(draws[0]).not.toBe(draws[1])
      expect(draws[2]).toBe(draws[3])
    })
  })

  it('gives gradients to parameters also where no input requires one', () => {
    inScope(() => {
      const { weight, run } = makeBlock()
      const x = torch.randn([2, 4])
      const [expected] = grad(run(x).sum(), weight)
      checkpoint(run, [x]).sum().backward()
      expect(weight.grad!.equal(expected!)).toBe(true)
      const [alone] = grad(
        checkpoint(() => weight.mul(weight).sum(), []),
        weight,
      )
      expect(alone!.allclose(weight.mul(2))).toBe(true)
    })
  })

  it('runs once more in a backward, once for all that it saved', () => {
    inScope(() => {
      let runs = 0
      const { weight, run } = makeBlock()
      const counted = (x: torch.Tensor) => {
        runs += 1
        return run(x).exp().sin()
      }
      const output = checkpoint(counted, [torch.randn([2, 4])])
      expect(runs).toBe(1)
      output.sum().backward()
      expect(runs).toBe(2)
      expect(weight.grad).not.toBeNull()
    })
  })

  it('does not run again where nothing asks for it', () => {
    inScope(() => {
      let runs = 0
      const counted = (x: torch.Tensor) => {
        runs += 1
        return x.mul(x)
      }
      const x = torch.ones([1], { requiresGrad: true })
      expect(torch.noGrad(() => checkpoint(counted, [x])).requiresGrad).toBe(false)
      checkpoint(counted, [torch.ones([1])])
      const sum = checkpoint(
        (y: torch.Tensor) => {
          runs += 1
          return y.add(1)
        },
        [x],
      )
      sum.backward()
      expect(runs).toBe(3)
    })
  })

  it('may be nested', () => {
    inScope(() => {
      const runs = { outer: 0, inner: 0 }
      const { weight, run } = makeBlock()
      const inner = (x: torch.Tensor) => {
        runs.inner += 1
        return run(x)
      }
      const outer = (x: torch.Tensor) => {
        runs.outer += 1
        return checkpoint(inner, [checkpoint(inner, [x.mul(2)])]).tanh()
      }
      const x = torch.randn([2, 4]).requiresGrad_()
      const plain = run(run(x.mul(2))).tanh()
      const expected = grad(plain.sum(), [x, weight])
      const output = checkpoint(outer, [x])
      const found = grad(output.sum(), [x, weight])
      expect(output.equal(plain)).toBe(true)
      for (const [index, each] of found.entries()) expect(each.allclose(expected[index]!)).toBe(true)
      expect(runs).toEqual({ outer: 2, inner: 6 })
    })
  })

  it('one after the other', () => {
    inScope(() => {
      const { run } = makeBlock()
      const x = torch.randn([2, 4]).requiresGrad_()
      const chain = (step: (y: torch.Tensor) => torch.Tensor) => [1, 2, 3, 4].reduce((y) => step(y), x)
      const [expected] = grad(chain(run).sum(), x)
      const [found] = grad(chain((y) => checkpoint(run, [y])).sum(), x)
      expect(found!.equal(expected!)).toBe(true)
    })
  })

  it('of several inputs and outputs', () => {
    inScope(() => {
      const a = torch.tensor([2], { requiresGrad: true })
      const b = torch.tensor([3], { requiresGrad: true })
      const [product, square] = checkpoint((x: torch.Tensor, y: torch.Tensor) => [x.mul(y), x.mul(x)], [a, b])
      product!.add(square!).backward()
      expect([a.grad!.item(), b.grad!.item()]).toEqual([7, 2])
    })
  })

  it('backward twice over a retained graph', () => {
    inScope(() => {
      let runs = 0
      const x = torch.tensor([3], { requiresGrad: true })
      const y = checkpoint(
        (input: torch.Tensor) => {
          runs += 1
          return input.mul(input).exp().log()
        },
        [x],
      )
      y.backward(null, { retainGraph: true })
      y.backward(null, { retainGraph: true })
      y.backward()
      expect(runs).toBe(4)
      expect(x.grad!.item()).toBeCloseTo(18)
      expect(() => y.backward()).toThrow(torch.TorchError)
    })
  })

  it('under autocast: the second run is as the first', () => {
    inScope(() => {
      const { weight, run } = makeBlock()
      const seen: string[] = []
      const noted = (x: torch.Tensor) => {
        const y = run(x)
        seen.push(y.dtype)
        return y
      }
      const x = torch.randn([2, 4])
      const output = torch.autocast({ dtype: 'bfloat16' }, () => checkpoint(noted, [x]))
      expect(torch.isAutocastEnabled()).toBe(false)
      output.sum().backward()
      expect(seen).toEqual(['bfloat16', 'bfloat16'])
      expect(weight.grad!.dtype).toBe('float32')
      expect(torch.isAutocastEnabled()).toBe(false)
      const inside = checkpoint((y: torch.Tensor) => torch.autocast({ dtype: 'bfloat16' }, () => noted(y)), [x])
      inside.sum().backward()
      expect(seen.slice(2)).toEqual(['bfloat16', 'bfloat16'])
      expect(torch.isAutocastEnabled()).toBe(false)
    })
  })

  it('under autocast: keeps no casts of weights that change', () => {
    inScope(() => {
      const weight = torch.ones([2, 2], { requiresGrad: true })
      const x = torch.ones([1, 2])
      const seen: number[] = []
      for (let step = 0; step < 3; step += 1) {
        const y = torch.autocast({ dtype: 'bfloat16' }, () =>
          checkpoint((input: torch.Tensor) => input.matmul(weight), [x]),
        )
        seen.push(y.at(0, 0).item())
        y.sum().backward()
        torch.noGrad(() => weight.mul_(2))
      }
      expect(seen).toEqual([2, 4, 8])
    })
  })

  it('of a function that takes gradients itself', () => {
    inScope(() => {
      const x = torch.tensor([2], { requiresGrad: true })
      const slope = (input: torch.Tensor) => grad(input.pow(3).sum(), input, { createGraph: true })[0]!.mul(input)
      const y = checkpoint(slope, [x])
      expect(y.item()).toBe(24)
      y.backward()
      expect(x.grad!.item()).toBe(36)
    })
  })

  it('finds inputs that were changed in place since', () => {
    inScope(() => {
      const x = torch.tensor([3], { requiresGrad: true })
      const between = x.mul(1)
      const y = checkpoint((input: torch.Tensor) => input.mul(input), [between])
      between.add_(1)
      expect(() => y.backward()).toThrow(TypeError)
      expect(() => y.backward()).toThrow(/^checkpoint: expected input 0 to be as it was when the function ran first/)
    })
  })

  it('keeps inputs that were disposed of since', () => {
    inScope(() => {
      const x = torch.tensor([3], { requiresGrad: true })
      const between = x.mul(1)
      const y = checkpoint((input: torch.Tensor) => input.mul(input), [between])
      between.dispose()
      y.backward()
      expect(x.grad!.item()).toBe(6)
    })
  })

  it('is found out where the function is another the second time', () => {
    inScope(() => {
      const x = torch.ones([3], { requiresGrad: true })
      let runs = 0
      const more = checkpoint(
        (y: torch.Tensor) => {
          runs += 1
          return runs === 1 ? y.mul(y) : y.mul(y).exp().sin()
        },
        [x],
      )
      expect(() => more.sum().backward()).toThrow(TypeError)
      runs = 0
      expect(() =>
        checkpoint(
          (y: torch.Tensor) => {
            runs += 1
            return runs === 1 ? y.mul(y).exp() : y.mul(1)
          },
          [x],
        )
          .sum()
          .backward(),
      ).toThrow(
        /^checkpoint: expected the function to save \d tensors when it ran again, as it did at first, but it saved \d/,
      )
      runs = 0
      const otherShape = checkpoint(
        (y: torch.Tensor) => {
          runs += 1
          return runs === 1 ? y.exp() : torch.cat([y, y]).exp().at(':3')
        },
        [x],
      )
      expect(() => otherShape.sum().backward()).toThrow(/^checkpoint: expected/)
      // and what follows is not disturbed
      const good = checkpoint((y: torch.Tensor) => y.mul(y), [x])
      good.sum().backward()
      expect(x.grad!.toArray()).toEqual([2, 2, 2])
    })
  })

  it('passes exceptions of the first and of the second run on unchanged', () => {
    inScope(() => {
      const mine = new Error('mine')
      let runs = 0
      let failing = 1
      const run = (x: torch.Tensor) => {
        runs += 1
        const y = x.mul(x)
        if (runs === failing) throw mine
        return y
      }
      const x = torch.ones([1], { requiresGrad: true })
      const caught = (action: () => unknown) => {
        try {
          action()
        } catch (error) {
          return error
        }
        return undefined
      }
      const before = liveTensors()
      expect(caught(() => checkpoint(run, [x]))).toBe(mine)
      expect(liveTensors()).toBe(before)
      runs = 0
      failing = 2
      const y = checkpoint(run, [x])
      expect(caught(() => y.backward(null, { retainGraph: true }))).toBe(mine)
      expect([torch.isGradEnabled(), liveTensors()]).toEqual([true, before + 1])
      y.backward()
      expect(x.grad!.item()).toBe(2)
    })
  })

  it('refuses functions that return no tensors', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      for (const value of [undefined, 1, { x }, [1], [x, null]]) {
        expect(() => checkpoint((() => value) as unknown as () => torch.Tensor, [])).toThrow(TypeError)
        expect(() => checkpoint((() => value) as unknown as () => torch.Tensor, [])).toThrow(/^checkpoint: expected/)
      }
      expect(() => checkpoint((async () => x) as never, [])).toThrow(TypeError)
      expect(() => checkpoint((y: torch.Tensor) => y, [1 as unknown as torch.Tensor])).toThrow(TypeError)
      expect(() => checkpoint((y: torch.Tensor) => y, x as unknown as [torch.Tensor])).toThrow(
        'checkpoint: expected inputs to be an array of Tensors',
      )
      expect(() => checkpoint(5 as unknown as () => torch.Tensor, [])).toThrow(
        'checkpoint: expected a function, but received 5',
      )
    })
  })

  it('frees what the function makes', () => {
    inScope(() => {
      const x = torch.ones([3], { requiresGrad: true })
      const before = liveTensors()
      const y = checkpoint((input: torch.Tensor) => input.mul(2).exp().sin(), [x])
      expect(liveTensors()).toBe(before + 1)
      y.sum().backward()
      expect(liveTensors()).toBe(before + 2)
    })
  })

  it('keeps activations out of memory', { timeout: 60_000 }, () => {
    // each activation in pages of its own: otherwise glibc's heap keeps what was freed, and the peak is its luck
    const environment = { MALLOC_MMAP_THRESHOLD_: '1048576' }
    const peak = (mode: string) => Number(runProgram('checkpoint-memory.mjs', [mode], { environment }))
    const plain = peak('plain')
    const checkpointed = peak('checkpoint')
    // 24 layers save two activations of 8 MB each, 384 MB; a checkpoint keeps its input alone, 192 MB
    expect(plain - checkpointed).toBeGreaterThan(100)
  })
})
