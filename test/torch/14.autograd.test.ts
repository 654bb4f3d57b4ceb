import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

const { grad } = torch.autograd

describe('backward', () => {
  it('adds to the gradients of the leaves', () => {
    inScope(() => {
      const x = torch.tensor([1, 2, 3], { requiresGrad: true })
      expect(x.grad).toBeNull()
      x.mul(x).sum().backward()
      expect(x.grad!.toArray()).toEqual([2, 4, 6])
      x.mul(3).sum().backward()
      expect(x.grad!.toArray()).toEqual([5, 7, 9])
      x.grad = null
      expect(x.grad).toBeNull()
      x.sum().backward()
      expect(x.grad!.toArray()).toEqual([1, 1, 1])
    })
  })

  it('takes the gradient of a tensor that is not one number', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      const y = x.mul(2)
      y.backward(torch.tensor([1, 10]))
      expect(x.grad!.toArray()).toEqual([2, 20])
      expect(() => x.mul(2).backward()).toThrow(torch.TorchError)
      expect(() => x.mul(2).backward()).toThrow(/grad can be implicitly created only for scalar outputs/)
      expect(() => x.mul(2).backward(torch.ones([3]))).toThrow(torch.TorchError)
      expect(() => x.mul(2).backward(1 as unknown as torch.Tensor)).toThrow(TypeError)
      expect(() => x.mul(2).backward(1 as unknown as torch.Tensor)).toThrow(
        'backward: expected gradient to be a Tensor, but received 1',
      )
    })
  })

  it('frees the graph unless it is retained', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const kept = x.mul(x)
      kept.backward(null, { retainGraph: true })
      kept.backward()
      expect(x.grad!.toArray()).toEqual([4])
      expect(() => kept.backward()).toThrow(torch.TorchError)
      expect(() => kept.backward()).toThrow(/backward through the graph a second time/)
    })
  })

  it('accumulates into the inputs that are named only', () => {
    inScope(() => {
      const a = torch.ones([1], { requiresGrad: true })
      const b = torch.ones([1], { requiresGrad: true })
      a.mul(b).backward(null, { inputs: [a] })
      expect(a.grad!.toArray()).toEqual([1])
      expect(b.grad).toBeNull()
    })
  })

  it('of several outputs at once', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      torch.autograd.backward([x.sum(), x.mul(2)], [null, torch.tensor([1, 10])])
      expect(x.grad!.toArray()).toEqual([3, 21])
      torch.autograd.backward([x.sum(), x.sum()])
      expect(x.grad!.toArray()).toEqual([5, 23])
    })
  })

  it('says where there is no graph', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      for (const y of [torch.ones([1]), torch.noGrad(() => x.mul(2)), x.mul(2).detach()]) {
        expect(() => y.backward()).toThrow(TypeError)
        expect(() => y.backward()).toThrow(/^backward: expected a tensor that depends on one with requiresGrad/)
      }
    })
  })

  it('finds a tensor that was changed in place after it was saved', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      const y = x.mul(2)
      const z = y.sum()
      y.add_(1)
      expect(() => z.backward()).not.toThrow()
      const w = x.exp()
      const squares = w.mul(w)
      w.add_(1)
      expect(() => squares.sum().backward()).toThrow(/modified by an inplace operation/)
      expect(() => x.add_(1)).toThrow(/leaf Variable that requires grad is being used in an in-place operation/)
      torch.noGrad(() => x.add_(1))
      expect(x.toArray()).toEqual([2, 2])
    })
  })

  it('works in several scopes: the graph holds its own references', () => {
    inScope(() => {
      const x = torch.tensor([2], { requiresGrad: true })
      const loss = torch.scope(() => {
        const hidden = x.mul(3)
        return hidden.mul(hidden)
      })
      torch.scope(() => loss.backward())
      expect(x.grad!.toArray()).toEqual([36])
    })
  })
})

describe('grad of a tensor', () => {
  it('is settable, of its shape only', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      x.grad = torch.tensor([5, 6])
      x.sum().backward()
      expect(x.grad!.toArray()).toEqual([6, 7])
      expect(() => {
        x.grad = torch.ones([3])
      }).toThrow(RangeError)
    })
  })

  it('belongs to its tensor, whatever scope it was made in', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      torch.scope(() => {
        x.mul(2).sum().backward()
        x.grad!.dispose()
      })
      expect(x.grad!.toArray()).toEqual([2, 2])
      const before = liveTensors()
      torch.scope(() => {
        for (let repeat = 0; repeat < 5; repeat += 1) x.mul(2).sum().backward()
      })
      expect(liveTensors()).toBe(before)
    })
  })

  it('is kept for a tensor that is not a leaf where that is asked for', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const without = x.mul(2)
      const kept = without.mul(3)
      expect(kept.retainGrad()).toBe(kept)
      kept.mul(4).backward()
      expect(kept.grad!.item()).toBe(4)
      expect(without.grad).toBeNull()
      expect(() => torch.ones([1]).retainGrad()).toThrow(TypeError)
    })
  })
})

describe('autograd.grad', () => {
  it('gives gradients and touches none', () => {
    inScope(() => {
      const a = torch.tensor([2], { requiresGrad: true })
      const b = torch.tensor([3], { requiresGrad: true })
      const [ga, gb] = grad(a.mul(a).mul(b), [a, b])
      expect([ga!.item(), gb!.item()]).toEqual([12, 4])
      expect([a.grad, b.grad]).toEqual([null, null])
      const inner = a.mul(2)
      expect(grad(inner.mul(inner), inner)[0]!.item()).toBe(8)
    })
  })

  it('takes gradients of the outputs', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      const [gx] = grad([x.mul(2), x.sum()], x, { gradOutputs: [torch.tensor([1, 10]), null] })
      expect(gx!.toArray()).toEqual([3, 21])
    })
  })

  it('of higher orders', () => {
    inScope(() => {
      const x = torch.tensor([2], { requiresGrad: true })
      const first = grad(x.pow(4), x, { createGraph: true })[0]!
      const second = grad(first, x, { createGraph: true })[0]!
      const third = grad(second, x)[0]!
      expect([first.item(), second.item(), third.item()]).toEqual([32, 48, 48])
      expect([first.requiresGrad, third.requiresGrad]).toEqual([true, false])
    })
  })

  it('of inputs that do not matter is null only where that is allowed', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const other = torch.ones([1], { requiresGrad: true })
      expect(grad(x.mul(2), [x, other], { allowUnused: true })[1]).toBeNull()
      expect(() => grad(x.mul(2), [x, other])).toThrow(torch.TorchError)
      expect(() => grad(x.mul(2), torch.ones([1]))).toThrow(TypeError)
      expect(() => grad(x.mul(2), torch.ones([1]))).toThrow(/^grad: expected inputs that require a gradient/)
      expect(() => grad(x.mul(2), [1 as unknown as torch.Tensor])).toThrow(
        'grad: expected inputs to be a Tensor, but received 1',
      )
      expect(() => grad(torch.ones([1]), x)).toThrow(/^grad: expected a tensor that depends on one with requiresGrad/)
    })
  })
})

describe('modes', () => {
  it('noGrad records nothing', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      expect(torch.isGradEnabled()).toBe(true)
      const y = torch.noGrad(() => {
        expect(torch.isGradEnabled()).toBe(false)
        return x.mul(2)
      })
      expect([y.requiresGrad, y.isLeaf, y.gradFn]).toEqual([false, true, null])
      expect(torch.isGradEnabled()).toBe(true)
    })
  })

  it('enableGrad records inside of it', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const y = torch.noGrad(() => torch.enableGrad(() => x.mul(2)))
      expect(y.requiresGrad).toBe(true)
      expect(torch.isGradEnabled()).toBe(true)
    })
  })

  it('inferenceMode makes tensors that never take part', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const y = torch.inferenceMode(() => {
        expect([torch.isInferenceModeEnabled(), torch.isGradEnabled()]).toEqual([true, false])
        return x.mul(2)
      })
      expect(torch.isInferenceModeEnabled()).toBe(false)
      expect(y.requiresGrad).toBe(false)
      expect(() => x.mul(y)).toThrow(/Inference tensors cannot be saved for backward/)
    })
  })

  it('end where the function throws', () => {
    const fail = () => {
      throw new Error('mine')
    }
    for (const mode of [torch.noGrad, torch.enableGrad, torch.inferenceMode]) {
      expect(() => mode(fail)).toThrow('mine')
      expect([torch.isGradEnabled(), torch.isInferenceModeEnabled()]).toEqual([true, false])
    }
  })

  it('refuse asynchronous functions and leave the mode', async () => {
    for (const [name, mode] of Object.entries({
      noGrad: torch.noGrad,
      enableGrad: torch.enableGrad,
      inferenceMode: torch.inferenceMode,
    })) {
      expect(() => mode(async () => 1), name).toThrow(TypeError)
      expect(() => mode(() => Promise.reject(new Error('unheard'))), name).toThrow(
        `${name}: expected a synchronous function`,
      )
      expect(torch.isGradEnabled()).toBe(true)
    }
  })

  it('setGradEnabled says what was', () => {
    expect(torch.setGradEnabled(false)).toBe(true)
    expect(torch.setGradEnabled(true)).toBe(false)
  })
})

describe('requiresGrad', () => {
  it('is set, read and refused', () => {
    inScope(() => {
      const x = torch.ones([1])
      expect(x.requiresGrad_()).toBe(x)
      expect([x.requiresGrad, x.isLeaf, x.gradFn]).toEqual([true, true, null])
      const y = x.mul(x)
      expect([y.requiresGrad, y.isLeaf, y.gradFn]).toEqual([true, false, 'MulBackward0'])
      x.requiresGrad = false
      expect(x.requiresGrad).toBe(false)
      expect(() => y.requiresGrad_(false)).toThrow(TypeError)
      expect(() => torch.tensor([1n]).requiresGrad_()).toThrow(TypeError)
      expect(() => torch.tensor([1n]).requiresGrad_()).toThrow('received one of int64')
    })
  })

  it('ends at detach and data', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      const detached = x.mul(2).detach()
      expect([detached.requiresGrad, detached.isLeaf]).toEqual([false, true])
      expect(x.data.sharesStorage(x)).toBe(true)
      x.data.fill_(7)
      expect(x.toArray()).toEqual([7, 7])
      x.data = torch.zeros([3], { dtype: 'float64' })
      expect([x.shape, x.dtype, x.requiresGrad]).toEqual([[3], 'float64', true])
    })
  })
})

describe('hooks', () => {
  it('see the gradient', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      const seen: unknown[] = []
      x.mul(3).registerHook((gradient) => {
        seen.push(gradient.toArray())
      })
      const y = x.mul(3)
      y.registerHook((gradient) => {
        seen.push(gradient.toArray())
      })
      x.registerHook((gradient) => {
        seen.push(gradient.toArray())
      })
      y.mul(2).sum().backward()
      expect(seen).toEqual([
        [2, 2],
        [6, 6],
      ])
      expect(x.grad!.toArray()).toEqual([6, 6])
    })
  })

  it('replace it, one after the other', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      x.registerHook((gradient) => gradient.mul(10))
      x.registerHook((gradient) => gradient.add(1))
      x.registerHook(() => null)
      x.mul(2).backward()
      expect(x.grad!.item()).toBe(21)
    })
  })

  it('are removed', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const first = x.registerHook((gradient) => gradient.mul(10))
      x.registerHook((gradient) => gradient.mul(2))
      first.remove()
      x.sum().backward()
      expect(x.grad!.item()).toBe(2)
      first.remove()
    })
  })

  it('are removed also where their tensor was disposed of', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      const y = x.mul(2)
      const removable = y.registerHook((gradient) => gradient.mul(10))
      const z = y.mul(3)
      y.dispose()
      removable.remove()
      removable.remove()
      z.backward()
      expect(x.grad!.item()).toBe(6)
    })
  })

  it('free what they make, and keep what they return', () => {
    inScope(() => {
      const x = torch.ones([1], { requiresGrad: true })
      let inside: torch.Tensor | undefined
      x.registerHook((gradient) => {
        inside = gradient.mul(5)
        return inside.add(1)
      })
      const y = x.sum()
      const before = liveTensors()
      y.backward()
      expect(liveTensors()).toBe(before)
      expect(inside!.isAlive).toBe(false)
      expect(x.grad!.item()).toBe(6)
    })
  })

  it('that throw end backward with their own error', () => {
    inScope(() => {
      class MyError extends Error {}
      const mine = new MyError('mine')
      const x = torch.ones([1], { requiresGrad: true })
      const removable = x.registerHook(() => {
        throw mine
      })
      let caught: unknown
      try {
        x.mul(2).backward()
      } catch (error) {
        caught = error
      }
      expect(caught).toBe(mine)
      removable.remove()
      for (const thrown of ['a string', undefined, null, 7]) {
        const each = x.registerHook(() => {
          throw thrown
        })
        let found: unknown = 'nothing'
        try {
          x.mul(2).backward()
        } catch (error) {
          found = error
        }
        expect(found).toBe(thrown)
        each.remove()
      }
      // and everything goes on as before
      x.mul(2).backward()
      expect(x.grad!.item()).toBe(2)
      expect(() => torch.ones([2]).add(torch.ones([3]))).toThrow(torch.TorchError)
    })
  })

  it('must return a gradient of the same shape', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      x.registerHook(() => torch.ones([3]))
      expect(() => x.mul(2).sum().backward()).toThrow(Error)
    })
  })

  it('must return a tensor or nothing', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      x.registerHook(() => 5 as unknown as torch.Tensor)
      expect(() => x.mul(2).sum().backward()).toThrow(TypeError)
      expect(() => x.mul(2).sum().backward()).toThrow(
        'registerHook: expected what the hook returns to be a Tensor, but received 5',
      )
    })
  })

  it('are refused where there is no gradient', () => {
    using x = torch.ones([1])
    expect(() => x.registerHook(() => undefined)).toThrow(TypeError)
    expect(() => x.registerHook(() => undefined)).toThrow(/^registerHook: expected a tensor that requires a gradient/)
  })

  it('run on the thread of JavaScript', () => {
    inScope(() => {
      const x = torch.ones([64, 64], { requiresGrad: true })
      const order: string[] = []
      x.registerHook(() => {
        order.push('hook')
      })
      x.matmul(x).sum().backward()
      order.push('after')
      expect(order).toEqual(['hook', 'after'])
    })
  })

  it('may run backward themselves', () => {
    inScope(() => {
      const x = torch.tensor([3], { requiresGrad: true })
      const other = torch.tensor([5], { requiresGrad: true })
      x.registerHook(() => torch.enableGrad(() => grad(other.mul(other), other)[0]))
      x.mul(2).backward()
      expect(x.grad!.item()).toBe(10)
    })
  })
})

describe('anomaly detection', () => {
  it('names the operation whose gradient is not a number', () => {
    inScope(() => {
      torch.setDetectAnomaly(true)
      try {
        const x = torch.tensor([0], { requiresGrad: true })
        expect(() => x.div(x).mul(0).sum().backward()).toThrow(/DivBackward0.*returned nan/)
      } finally {
        torch.setDetectAnomaly(false)
      }
    })
  })
})
