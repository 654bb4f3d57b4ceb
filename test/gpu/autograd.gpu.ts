import { describe, expect, test } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { device, testOnGpu } from './device.js'

const { nn } = torch
const functional = nn.functional

/*
 * With a GPU libtorch's engine would run backward on threads of its own, where TypeScript cannot be called: what is in
 * TypeScript has to be called all the same, on its own thread.
 */
describe('backward calls TypeScript', () => {
  test('for a custom function', () =>
    torch.scope(() => {
      class Cube extends torch.autograd.Function {
        static forward(context: torch.autograd.FunctionContext, x: torch.Tensor): torch.Tensor {
          context.saveForBackward(x)
          return x.pow(3)
        }
        static backward(context: torch.autograd.FunctionContext, gradient: torch.Tensor): torch.Tensor {
          return gradient.mul(context.saved[0]!.square().mul(3))
        }
      }
      const x = torch.tensor([1, 2, 3], { device, requiresGrad: true })
      Cube.apply(x).sum().backward()
      expect(x.grad!.toArray()).toEqual([3, 12, 27])
    }))

  test('for a hook', () =>
    torch.scope(() => {
      const x = torch.ones([3], { device, requiresGrad: true })
      const seen: number[] = []
      const y = x.mul(2)
      y.registerHook((gradient) => {
        seen.push(gradient.sum().item() as number)
        return gradient.mul(10)
      })
      y.sum().backward()
      expect(seen).toEqual([3])
      expect(x.grad!.toArray()).toEqual([20, 20, 20])
    }))

  test('for what checkpointing computes again, with the same dropout', () =>
    torch.scope(() => {
      const weight = torch.randn([64, 64], { device, requiresGrad: true })
      const x = torch.randn([16, 64], { device })
      const run = (input: torch.Tensor) => functional.dropout(input.mm(weight).gelu(), 0.5)
      const gradientOf = (forward: () => torch.Tensor) => {
        weight.grad = null
        torch.manualSeed(5)
        forward().square().sum().backward()
        return weight.grad!.clone()
      }
      const plain = gradientOf(() => run(x))
      const again = gradientOf(() => torch.autograd.checkpoint(run, [x]))
      expect(again.sub(plain).abs().max().item()).toBe(0)
    }))
})

describe('switches', () => {
  testOnGpu('of TF32 change what a product rounds to', () =>
    torch.scope(() => {
      const before = torch.backends.tf32MatrixProducts.enabled
      try {
        const x = torch.randn([512, 512], { device })
        const exact = x.to('float64').mm(x.to('float64'))
        const errorOf = (enabled: boolean) => {
          torch.backends.tf32MatrixProducts.enabled = enabled
          return x.mm(x).to('float64').sub(exact).abs().max().item() as number
        }
        expect(errorOf(false)).toBeLessThan(errorOf(true))
      } finally {
        torch.backends.tf32MatrixProducts.enabled = before
      }
    }),
  )

  test('of attention choose a kernel, and all agree', () =>
    torch.scope(() => {
      const names = ['flashAttention', 'memoryEfficientAttention', 'mathAttention', 'cudnnAttention'] as const
      const before = names.map((name) => torch.backends[name].enabled)
      const [q, k, v] = [0, 1, 2].map(() => torch.randn([2, 4, 64, 32], { device, dtype: 'bfloat16' }))
      try {
        const only = (wanted: (typeof names)[number]) => {
          for (const name of names) torch.backends[name].enabled = name === wanted
          return torch.scaledDotProductAttention(q!, k!, v!).to('float32')
        }
        const math = only('mathAttention')
        const flash = only('flashAttention')
        expect(flash.sub(math).abs().max().item()).toBeLessThan(0.05)
      } finally {
        for (const [index, name] of names.entries()) torch.backends[name].enabled = before[index]!
      }
    }))

  test('of determinism make a step the same to the bit', () => {
    torch.useDeterministicAlgorithms(true)
    try {
      expect(torch.areDeterministicAlgorithmsEnabled()).toBe(true)
      const once = () =>
        torch.scope(() => {
          torch.manualSeed(3)
          const table = torch.randn([100, 64], { device, requiresGrad: true })
          const rows = torch.randint(100, [5000], { device })
          functional.embedding(rows, table).square().sum().backward()
          return table.grad!.toTypedArray()
        })
      expect(once()).toEqual(once())
    } finally {
      torch.useDeterministicAlgorithms(false)
    }
  })
})
