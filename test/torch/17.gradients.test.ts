import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { gradcheck, gradgradcheck, inScope, randomDouble } from './helpers.js'

type Operation = (...inputs: torch.Tensor[]) => torch.Tensor | readonly torch.Tensor[]

/** Random numbers that are not near zero, where some functions have no derivative. */
function awayFromZero(shape: readonly number[], seed = 0): torch.Tensor {
  return torch
    .noGrad(() => {
      const x = randomDouble(shape, seed)
      return x.add(x.sign().mul(0.3))
    })
    .requiresGrad_()
}

const positive = (shape: readonly number[], seed = 0): torch.Tensor =>
  torch.noGrad(() => randomDouble(shape, seed).abs().add(0.5)).requiresGrad_()

type Case = [string, Operation, () => torch.Tensor[]]

const cases: Case[] = [
  ['add with alpha, broadcast', (a, b) => a!.add(b!, { alpha: 2 }), () => [randomDouble([2, 3]), randomDouble([3], 1)]],
  ['mul, broadcast', (a, b) => a!.mul(b!), () => [randomDouble([2, 1]), randomDouble([3], 1)]],
  ['div', (a, b) => a!.div(b!), () => [randomDouble([3]), awayFromZero([3], 1)]],
  ['pow', (a, b) => a!.pow(b!), () => [positive([3]), randomDouble([3], 1)]],
  ['matmul', (a, b) => a!.matmul(b!), () => [randomDouble([2, 3]), randomDouble([3, 2], 1)]],
  ['batched matmul', (a, b) => a!.matmul(b!), () => [randomDouble([2, 2, 2]), randomDouble([2, 2], 1)]],
  [
    'addmm',
    (c, a, b) => torch.addmm(c!, a!, b!),
    () => [randomDouble([2]), randomDouble([2, 3], 1), randomDouble([3, 2], 2)],
  ],
  ['einsum', (a, b) => torch.einsum('bi,bj->ij', [a!, b!]), () => [randomDouble([2, 2]), randomDouble([2, 3], 1)]],
  ['exp', (x) => x!.exp(), () => [randomDouble([4])]],
  ['log', (x) => x!.log(), () => [positive([4])]],
  ['sqrt', (x) => x!.sqrt(), () => [positive([4])]],
  ['tanh', (x) => x!.tanh(), () => [randomDouble([4])]],
  ['sigmoid', (x) => x!.sigmoid(), () => [randomDouble([4])]],
  ['relu', (x) => x!.relu(), () => [awayFromZero([4])]],
  ['gelu', (x) => torch.gelu(x!), () => [randomDouble([4])]],
  ['gelu by tanh', (x) => torch.gelu(x!, { approximate: 'tanh' }), () => [randomDouble([4])]],
  ['silu', (x) => torch.silu(x!), () => [randomDouble([4])]],
  ['softmax', (x) => x!.softmax(-1), () => [randomDouble([2, 3])]],
  ['logSoftmax', (x) => x!.logSoftmax(-1), () => [randomDouble([2, 3])]],
  ['logsumexp', (x) => x!.logsumexp(1), () => [randomDouble([2, 3])]],
  ['sum of a dimension', (x) => x!.sum(1, { keepdim: true }), () => [randomDouble([2, 3])]],
  ['mean', (x) => x!.mean(), () => [randomDouble([2, 3])]],
  ['var', (x) => x!.var({ dim: 1, correction: 1 } as never), () => [randomDouble([2, 3])]],
  ['max with indices', (x) => x!.max(1), () => [randomDouble([2, 3])]],
  ['cumsum', (x) => x!.cumsum(0), () => [randomDouble([4])]],
  ['norm', (x) => torch.linalg.vectorNorm(x!, 2, [1]), () => [awayFromZero([2, 3])]],
  ['index', (x) => x!.at([1, 1, 0], ':2'), () => [randomDouble([2, 3])]],
  ['gather', (x) => x!.gather(1, torch.tensor([[2n, 0n]])), () => [randomDouble([2, 3])]],
  [
    'cat and split',
    (a, b) => torch.cat([a!, b!], 1).split(2, 1),
    () => [randomDouble([2, 3]), randomDouble([2, 1], 1)],
  ],
  ['permute and reshape', (x) => x!.permute(2, 0, 1).reshape(2, -1), () => [randomDouble([2, 1, 3])]],
  [
    'where',
    (a, b) => torch.where(torch.tensor([true, false]), a!, b!),
    () => [randomDouble([2]), randomDouble([2], 1)],
  ],
  ['embedding', (w) => torch.embedding(w!, torch.tensor([1n, 0n, 1n])), () => [randomDouble([3, 2])]],
  [
    'layerNorm',
    (x, w, b) => torch.layerNorm(x!, [3], w!, b!),
    () => [randomDouble([2, 3]), randomDouble([3], 1), randomDouble([3], 2)],
  ],
  ['rmsNorm', (x, w) => torch.rmsNorm(x!, [3], w!, 1e-6), () => [randomDouble([2, 3]), randomDouble([3], 1)]],
  [
    'conv2d',
    (x, w, b) => torch.conv2d(x!, w!, b!, 2, 1),
    () => [randomDouble([1, 2, 3, 3]), randomDouble([1, 2, 2, 2], 1), randomDouble([1], 2)],
  ],
  ['avgPool2d', (x) => torch.avgPool2d(x!, 2), () => [randomDouble([1, 1, 4, 4])]],
  [
    'scaledDotProductAttention',
    (q, k, v) => torch.scaledDotProductAttention(q!, k!, v!, { isCausal: true }),
    () => [randomDouble([1, 1, 3, 2]), randomDouble([1, 1, 3, 2], 1), randomDouble([1, 1, 3, 2], 2)],
  ],
  ['crossEntropyLoss', (x) => torch.crossEntropyLoss(x!, torch.tensor([0n, 2n])), () => [randomDouble([2, 3])]],
  ['mseLoss', (a, b) => torch.mseLoss(a!, b!), () => [randomDouble([3]), randomDouble([3], 1)]],
  ['inverse', (x) => torch.linalg.inv(x!.add(torch.eye(2, { dtype: 'float64' }).mul(4))), () => [randomDouble([2, 2])]],
  [
    'layer_scale_residual, fused',
    (r, x, g) => torch.callOperator('cleft::layer_scale_residual', r!, x!, g!) as torch.Tensor,
    () => [randomDouble([2, 3]), randomDouble([2, 3], 1), randomDouble([3], 2)],
  ],
  [
    'norm_linear, fused',
    (x, g, b, w, c) => torch.callOperator('cleft::norm_linear', x!, g!, b!, 1e-6, w!, c!) as torch.Tensor,
    () => [
      randomDouble([2, 2, 3]),
      randomDouble([3], 1),
      randomDouble([3], 2),
      randomDouble([4, 3], 3),
      randomDouble([4], 4),
    ],
  ],
  [
    'norm_linear without a bias, fused',
    (x, g, b, w) => torch.callOperator('cleft::norm_linear', x!, g!, b!, 1e-6, w!, null) as torch.Tensor,
    () => [randomDouble([2, 3]), randomDouble([3], 1), randomDouble([3], 2), randomDouble([4, 3], 3)],
  ],
  ...(['none', 'gelu', 'gelu_tanh'] as const).map(
    (activation): Case => [
      `linear_residual with ${activation}, fused`,
      (r, x, w, b, g) => torch.callOperator('cleft::linear_residual', r!, x!, w!, b!, g!, activation) as torch.Tensor,
      () => [
        randomDouble([2, 2, 3]),
        randomDouble([2, 2, 4], 1),
        randomDouble([3, 4], 2),
        randomDouble([3], 3),
        randomDouble([3], 4),
      ],
    ],
  ),
  [
    'self_attention',
    (x) => torch.callOperator('cleft::self_attention', x!, 2) as torch.Tensor,
    () => [randomDouble([2, 3, 12])],
  ],
  [
    'linear_residual without bias, fused',
    (r, x, w, g) => torch.callOperator('cleft::linear_residual', r!, x!, w!, null, g!, 'gelu') as torch.Tensor,
    () => [randomDouble([2, 3]), randomDouble([2, 4], 1), randomDouble([3, 4], 2), randomDouble([3], 3)],
  ],
  [
    'linear_residual without gamma, fused',
    (r, x, w, b) => torch.callOperator('cleft::linear_residual', r!, x!, w!, b!, null, 'none') as torch.Tensor,
    () => [randomDouble([2, 3]), randomDouble([2, 4], 1), randomDouble([3, 4], 2), randomDouble([3], 3)],
  ],
]

describe('gradients against finite differences', () => {
  it.each(cases)('%s', (_, operation, inputs) => {
    inScope(() => gradcheck(operation, inputs()))
  })
})

describe('gradients of gradients against finite differences', () => {
  const once = new Set(['max with indices', 'cat and split', 'scaledDotProductAttention', 'self_attention', 'relu'])
  it.each(cases.filter(([name]) => !once.has(name)))('%s', (_, operation, inputs) => {
    inScope(() => gradgradcheck(operation as (...inputs: torch.Tensor[]) => torch.Tensor, inputs()))
  })
})

describe('fused linear layers in float32', () => {
  // on some processors kernels of our own multiply there, which know no gradient
  it('have the gradients of gradients that float64 has', () => {
    const found = (['float32', 'float64'] as const).map((dtype) =>
      torch.scope(() => {
        const given = [[5, 8], [8], [8], [6, 8], [6], [5, 6], [6]].map((shape, seed) =>
          torch.noGrad(() => randomDouble(shape, seed).to(dtype)).requiresGrad_(),
        )
        const [x, g, b, w, c, r, s] = given as [torch.Tensor, ...torch.Tensor[]]
        const normed = torch.callOperator('cleft::norm_linear', x, g!, b!, 1e-6, w!, c!) as torch.Tensor
        const y = torch.callOperator(
          'cleft::linear_residual',
          r!,
          normed.t().matmul(normed).narrow(0, 0, 5),
          torch.eye(6, { dtype }),
          c!,
          s!,
          'gelu',
        )
        const [first] = torch.autograd.grad([(y as torch.Tensor).square().sum()], [x], { createGraph: true })
        const [second] = torch.autograd.grad([first!.square().sum()], [w!])
        return Array.from(second!.double().toTypedArray(), Number)
      }),
    )
    const most = Math.max(...found[1]!.map(Math.abs))
    for (const [at, value] of found[0]!.entries()) expect(Math.abs(value - found[1]![at]!)).toBeLessThan(1e-4 * most)
  })
})

describe('attention and frozen linear layers in float32', () => {
  it('have the gradients of gradients of what they are, in float64', () => {
    const heads = 2
    const found = (['float32', 'float64'] as const).map((dtype) =>
      torch.scope(() => {
        // eight rows and more go through kernels of our own
        const [x, w, b] = [[1, 9, 8], [12, 8], [12]].map((shape, seed) =>
          torch.noGrad(() => randomDouble(shape, seed).to(dtype)),
        ) as [torch.Tensor, torch.Tensor, torch.Tensor]
        x.requiresGrad_()
        const attend = (y: torch.Tensor): torch.Tensor => {
          if (dtype === 'float32') return torch.callOperator('cleft::self_attention', y, heads) as torch.Tensor
          const [q, k, v] = y.unflatten(-1, [3, heads, -1]).permute(2, 0, 3, 1, 4).unbind(0) as [
            torch.Tensor,
            torch.Tensor,
            torch.Tensor,
          ]
          const weights = q
            .mul(1 / Math.sqrt(q.size(-1)))
            .matmul(k.mT)
            .softmax(-1)
          return weights.matmul(v).transpose(1, 2).flatten(2)
        }
        const y = attend(torch.nn.functional.linear(x, w, b))
        const [first] = torch.autograd.grad([y.square().sum()], [x], { createGraph: true })
        const [second] = torch.autograd.grad([first!.square().sum()], [x])
        return Array.from(second!.double().toTypedArray(), Number)
      }),
    )
    const most = Math.max(...found[1]!.map(Math.abs))
    for (const [at, value] of found[0]!.entries()) expect(Math.abs(value - found[1]![at]!)).toBeLessThan(1e-4 * most)
  })
})

describe('gradcheck itself', () => {
  it('finds a wrong gradient', () => {
    class Wrong extends torch.autograd.Function {
      static forward(context: torch.autograd.FunctionContext, x: torch.Tensor) {
        context.saveForBackward(x)
        return x.mul(x)
      }
      static backward(context: torch.autograd.FunctionContext, gradient: torch.Tensor) {
        return gradient.mul(context.saved[0]!)
      }
    }
    inScope(() => {
      const x = randomDouble([2])
      expect(() => gradcheck((input) => Wrong.apply(input!), [x])).toThrow(/gradcheck: output 0 at 0 by input 0 at 0/)
      expect(() => gradcheck((input) => input!.detach(), [x])).toThrow(/autograd says 0/)
      expect(() => gradcheck((input) => input!, [torch.ones([1])])).toThrow('expected an input that requires')
      expect(() => gradcheck((input) => input!, [torch.ones([1], { requiresGrad: true })])).toThrow('expected float64')
    })
  })
})
