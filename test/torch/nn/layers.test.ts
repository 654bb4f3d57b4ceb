import { describe, expect, it } from 'vitest'
import * as torch from '../../../src/torch/index.js'
import { gradcheck, inScope, randomDouble } from '../helpers.js'

const { nn } = torch
// small tensors: threads would only wait for each other
torch.setNumThreads(1)
const { functional: F } = nn

/** Gradients of a module's output by its inputs and all its parameters. */
function check(
  make: () => torch.nn.Module,
  run: (module: torch.nn.Module, ...inputs: torch.Tensor[]) => torch.Tensor | readonly torch.Tensor[],
  ...shapes: readonly (readonly number[])[]
): void {
  inScope(() => {
    torch.manualSeed(11)
    using module = make().to('float64')
    // away from the ones and zeros that hide mistakes
    torch.noGrad(() => {
      for (const each of module.parameters()) each.add_(torch.randn(each.shape, { dtype: 'float64' }).mul(0.3))
    })
    const inputs = shapes.map((shape, index) => randomDouble(shape, index))
    const all = [...inputs, ...module.parameters()]
    gradcheck((...given) => run(module, ...given.slice(0, inputs.length)), all)
  })
}

type OneInput = torch.nn.Module & { forward(input: torch.Tensor): torch.Tensor }

describe('gradients of layers against finite differences', () => {
  const cases: Record<string, [() => OneInput, number[]]> = {
    Linear: [() => new nn.Linear(3, 2), [2, 3]],
    'Linear without bias': [() => new nn.Linear(3, 2, { bias: false }), [2, 1, 3]],
    Conv1d: [() => new nn.Conv1d(2, 4, 3, { stride: 2, padding: 1, groups: 2 }), [2, 2, 5]],
    Conv2d: [() => new nn.Conv2d(2, 2, [2, 3], { padding: [1, 0], dilation: [1, 2] }), [1, 2, 3, 6]],
    "Conv2d 'same'": [() => new nn.Conv2d(1, 2, [1, 3], { padding: 'same' }), [1, 1, 3, 4]],
    LayerNorm: [() => new nn.LayerNorm([2, 3]), [2, 2, 3]],
    'LayerNorm without bias': [() => new nn.LayerNorm(4, { bias: false }), [2, 4]],
    RMSNorm: [() => new nn.RMSNorm(4, { eps: 1e-6 }), [2, 4]],
    GroupNorm: [() => new nn.GroupNorm(2, 4), [2, 4, 3]],
    BatchNorm1d: [() => new nn.BatchNorm1d(3), [4, 3]],
    'BatchNorm1d in eval': [() => new nn.BatchNorm1d(3).eval(), [4, 3]],
    BatchNorm2d: [() => new nn.BatchNorm2d(2), [2, 2, 2, 2]],
    'BatchNorm2d without statistics': [() => new nn.BatchNorm2d(2, { trackRunningStats: false }).eval(), [2, 2, 2, 2]],
    GELU: [() => new nn.GELU(), [5]],
    'GELU tanh': [() => new nn.GELU({ approximate: 'tanh' }), [5]],
    QuickGELU: [() => new nn.QuickGELU(), [5]],
    SiLU: [() => new nn.SiLU(), [5]],
    ReLU: [() => new nn.ReLU(), [5]],
    LeakyReLU: [() => new nn.LeakyReLU({ negativeSlope: 0.2 }), [5]],
    ELU: [() => new nn.ELU(), [5]],
    Softplus: [() => new nn.Softplus(), [5]],
    Sigmoid: [() => new nn.Sigmoid(), [5]],
    Tanh: [() => new nn.Tanh(), [5]],
    Softmax: [() => new nn.Softmax(-1), [2, 4]],
    LogSoftmax: [() => new nn.LogSoftmax(0), [3, 2]],
    MaxPool2d: [() => new nn.MaxPool2d(2, { stride: 1 }), [1, 1, 3, 3]],
    AvgPool2d: [() => new nn.AvgPool2d(2, { padding: 1, countIncludePad: false }), [1, 1, 3, 3]],
    AdaptiveAvgPool2d: [() => new nn.AdaptiveAvgPool2d([2, 1]), [1, 2, 3, 4]],
    Flatten: [() => new nn.Flatten(), [2, 2, 2]],
    Identity: [() => new nn.Identity(), [3]],
    Sequential: [() => new nn.Sequential(new nn.Linear(2, 3), new nn.GELU(), new nn.Linear(3, 1)), [2, 2]],
  }
  for (const [name, [make, shape]] of Object.entries(cases)) {
    it(name, () => check(make, (module, x) => (module as OneInput).forward(x!), shape))
  }

  it('Embedding, with no gradient for the padding row', () => {
    check(
      () => new nn.Embedding(4, 2),
      (module) =>
        (module as torch.nn.Embedding).forward(
          torch.tensor([
            [0n, 2n],
            [2n, 3n],
          ]),
        ),
    )
    inScope(() => {
      using layer = new nn.Embedding(4, 2, { paddingIdx: -1 })
      expect(layer.weight.at(3).toArray()).toEqual([0, 0])
      layer
        .forward(torch.tensor([3n, 1n]))
        .sum()
        .backward()
      expect(layer.weight.grad!.toArray()).toEqual([
        [0, 0],
        [1, 1],
        [0, 0],
        [0, 0],
      ])
      expect(() => new nn.Embedding(4, 2, { paddingIdx: 4 })).toThrow(RangeError)
      using frozen = nn.Embedding.fromPretrained(torch.ones([3, 2]))
      expect(frozen.weight.requiresGrad).toBe(false)
      expect(frozen.forward(torch.tensor([1n])).toArray()).toEqual([[1, 1]])
    })
  })

  it('MultiheadAttention', () => {
    const attend =
      (options: torch.nn.AttentionOptions) => (module: torch.nn.Module, q?: torch.Tensor, m?: torch.Tensor) => {
        const [output, weights] = (module as torch.nn.MultiheadAttention).forward(q!, m ?? q!, m ?? q!, options)
        return weights === null ? [output] : [output, weights]
      }
    const make = () => new nn.MultiheadAttention(4, 2, { batchFirst: true })
    check(make, attend({}), [1, 3, 4])
    check(make, attend({ needWeights: false, isCausal: true }), [1, 3, 4])
    check(make, attend({ averageAttnWeights: false }), [1, 2, 4], [1, 3, 4])
    check(() => new nn.MultiheadAttention(4, 2, { kdim: 3, vdim: 3, bias: false }), attend({}), [2, 1, 4], [3, 1, 3])
  })

  it('LayerScaleResidual, also of its gradients', () => {
    const make = () => new nn.LayerScaleResidual(3, { initValue: 0.5 })
    const run = (module: torch.nn.Module, a?: torch.Tensor, b?: torch.Tensor) =>
      (module as torch.nn.LayerScaleResidual).forward(a!, b!)
    check(make, run, [2, 2, 3], [2, 2, 3])
    check(make, run, [3], [3])
  })

  it('interpolates, pads, folds and samples differentiably', () => {
    inScope(() => {
      const image = randomDouble([1, 1, 3, 4])
      gradcheck((x) => F.interpolate(x!, { size: [4, 3], mode: 'bicubic', antialias: true }), [image])
      gradcheck((x) => F.interpolate(x!, { scaleFactor: 1.5, mode: 'bilinear' }), [image])
      gradcheck((x) => F.pad(x!, [1, 1, 1, 0], { mode: 'reflect' }), [image])
      gradcheck((x) => F.fold(F.unfold(x!, 2), [3, 4], 2), [image])
      const theta = torch
        .tensor(
          [
            [
              [0.8, 0.3, 0.1],
              [-0.2, 1.1, -0.3],
            ],
          ],
          { dtype: 'float64' },
        )
        .requiresGrad_()
      gradcheck((x, t) => F.gridSample(x!, F.affineGrid(t!, [1, 1, 2, 2])), [image, theta])
    })
  })
})

describe('layers', () => {
  it('LayerScaleResidual in float32 is the unfused formula', () => {
    inScope(() => {
      for (const shape of [[2, 5, 16], [7, 3], [4]]) {
        using layer = new nn.LayerScaleResidual(shape.at(-1)!, { initValue: 0.3 })
        const [residual, x, gradient] = [0, 1, 2].map(() => torch.randn(shape)) as [
          torch.Tensor,
          torch.Tensor,
          torch.Tensor,
        ]
        residual.requiresGrad_()
        x.requiresGrad_()
        const wanted = [residual, x, layer.gamma]
        const fused = layer.forward(residual, x)
        const plain = residual.add(x.mul(layer.gamma))
        expect(fused.allclose(plain, 1e-6, 1e-6)).toBe(true)
        const found = torch.autograd.grad(fused, wanted, { gradOutputs: [gradient] })
        const expected = torch.autograd.grad(plain, wanted, { gradOutputs: [gradient] })
        for (const [index, each] of found.entries()) expect(each.allclose(expected[index]!, 1e-5, 1e-5)).toBe(true)
      }
      using layer = new nn.LayerScaleResidual(4)
      expect(() => layer.forward(torch.ones([2, 3]), torch.ones([2, 3]))).toThrow(/gamma/)
      expect([...layer.stateDict().keys()]).toEqual(['gamma'])
      // as under autocast: the branch in bfloat16, the residual stream in float32
      const branch = torch.randn([2, 4], { dtype: 'bfloat16' }).requiresGrad_()
      const mixed = layer.forward(torch.ones([2, 4]), branch)
      expect(mixed.dtype).toBe('float32')
      mixed.sum().backward()
      expect(branch.grad!.dtype).toBe('bfloat16')
      const empty = nn.onMeta(() => new nn.LayerScaleResidual(4))
      expect(
        empty.forward(torch.ones([2, 4], { device: 'meta' }), torch.ones([2, 4], { device: 'meta' })).shape,
      ).toEqual([2, 4])
    })
  })

  it('drops out while training alone', () => {
    inScope(() => {
      torch.manualSeed(2)
      const x = torch.ones([1000])
      const layer = new nn.Dropout(0.25)
      const dropped = layer.forward(x)
      expect(dropped.eq(0).sum().item()).toBeGreaterThan(180)
      expect(dropped.max().item()).toBeCloseTo(4 / 3)
      expect(layer.eval().forward(x)).toBe(x)
      expect(() => new nn.Dropout(1.5)).toThrow(/from 0 to 1/)
    })
  })

  it('drops whole samples', () => {
    inScope(() => {
      torch.manualSeed(2)
      const x = torch.ones([400, 2, 3])
      const layer = new nn.DropPath(0.5)
      const perSample = layer.forward(x).flatten(1)
      expect(perSample.amin(1).equal(perSample.amax(1))).toBe(true)
      expect(new Set(perSample.at(':', 0).toArray() as number[])).toEqual(new Set([0, 2]))
      const share = perSample.gt(0).float().mean().item()
      expect(share).toBeGreaterThan(0.4)
      expect(share).toBeLessThan(0.6)
      expect(new nn.DropPath(0.5, { scaleByKeep: false }).forward(x).max().item()).toBe(1)
      expect(new nn.DropPath(1).forward(x).sum().item()).toBe(0)
      expect(layer.eval().forward(x)).toBe(x)
    })
  })

  it('causal attention with and without weights is the same', () => {
    inScope(() => {
      using attention = new nn.MultiheadAttention(8, 2, { batchFirst: true })
      const x = torch.randn([2, 5, 8])
      const fast = attention.forward(x, x, x, { isCausal: true, needWeights: false })[0]
      const [slow, weights] = attention.forward(x, x, x, { isCausal: true })
      expect(fast.allclose(slow, 1e-5, 1e-5)).toBe(true)
      expect(weights!.triu(1).abs().sum().item()).toBe(0)
      const unbatched = attention.forward(x.at(0), x.at(0), x.at(0), { isCausal: true })
      expect(unbatched[0].allclose(slow.at(0), 1e-5, 1e-5)).toBe(true)
      expect(unbatched[1]!.shape).toEqual([5, 5])
      const wrong = { attnMask: torch.zeros([5, 4]) }
      expect(() => attention.forward(x, x, x, wrong)).toThrow(/attnMask of shape \[5,5\], but received \[5,4\]/)
    })
  })

  it('refuses options that do not go together', () => {
    inScope(() => {
      const image = torch.ones([1, 1, 4, 4])
      expect(() => F.interpolate(image, {})).toThrow(/either size or scaleFactor, but received neither/)
      expect(() => F.interpolate(image, { size: 2, scaleFactor: 2 })).toThrow(/but received both/)
      expect(() => F.interpolate(image, { size: 2, alignCorners: true })).toThrow(/no alignCorners with mode 'nearest'/)
      expect(() => F.interpolate(image, { size: 2, antialias: true })).toThrow(/antialias/)
      expect(() => F.interpolate(image, { size: 2, mode: 'linear' })).toThrow(/3 dimensions for mode 'linear'/)
      expect(() => F.interpolate(image, { size: [1, 2, 3] })).toThrow(/size to be a number or 2/)
      expect(() => F.interpolate(image, { size: 2, mode: 'cubic' as 'bicubic' })).toThrow(/mode to be one of/)
      expect(() => F.mseLoss(image, image, { reduction: 'avg' as 'mean' })).toThrow(/reduction to be one of/)
      expect(() => F.embedding(torch.tensor([0n]), torch.ones([2, 2]), { paddingIdx: 2 })).toThrow(/paddingIdx/)
      expect(() => new nn.Conv2d(3, 4, 3, { groups: 2 })).toThrow(/multiples of groups/)
      expect(() => new nn.Conv2d(2, 2, 3, { stride: 2, padding: 'same' })).toThrow(/stride 1/)
      expect(() => new nn.BatchNorm2d(2).forward(torch.ones([2, 2]))).toThrow(/4 dimensions/)
      expect(() => new nn.BatchNorm1d(2).forward(torch.ones([1, 2]))).toThrow(/more than one value/)
      expect(() => nn.init.xavierUniform_(torch.ones([2]))).toThrow(/2 dimensions or more/)
    })
  })

  it('initialisers fill in place, outside of autograd', () => {
    inScope(() => {
      using weight = new nn.Parameter(torch.empty([2, 2, 3]))
      nn.init.dirac_(weight)
      expect(weight.toArray()).toEqual([
        [
          [0, 1, 0],
          [0, 0, 0],
        ],
        [
          [0, 0, 0],
          [0, 1, 0],
        ],
      ])
      expect(weight.isLeaf).toBe(true)
      expect(nn.init.eye_(torch.empty([2, 3])).toArray()).toEqual([
        [1, 0, 0],
        [0, 1, 0],
      ])
      expect(nn.init.constant_(torch.empty([2]), 3).toArray()).toEqual([3, 3])
      const generator = new torch.Generator().manualSeed(4)
      const drawn = nn.init.normal_(torch.empty([3]), 1, 2, { generator }).toArray()
      generator.manualSeed(4)
      expect(torch.empty([3]).normal_(1, 2, { generator }).toArray()).toEqual(drawn)
      const square = nn.init.orthogonal_(torch.empty([4, 4], { dtype: 'float64' }))
      expect(square.matmul(square.t()).allclose(torch.eye(4, { dtype: 'float64' }))).toBe(true)
    })
  })
})
