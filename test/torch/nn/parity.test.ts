import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as torch from '../../../src/torch/index.js'
import { inScope } from '../helpers.js'

const { nn } = torch
const { functional: F, init } = nn

/** What torch 2.13 says: see fixtures/make_parity.py. */
const expected = JSON.parse(readFileSync(new URL('fixtures/parity.json', import.meta.url), 'utf8')) as Record<
  string,
  { shape: number[]; values: number[] }
>

function wave(shape: readonly number[], step = 0.7): torch.Tensor {
  const count = shape.reduce((product, size) => product * size, 1)
  return torch.fromTypedArray(
    Float64Array.from({ length: count }, (_, k) => Math.sin(step * k)),
    shape,
  )
}

const seen = new Set<string>()

function same(name: string, tensor: torch.Tensor, tolerance = 1e-8): void {
  const { shape, values } = expected[name] ?? { shape: [], values: [] }
  seen.add(name)
  expect(tensor.shape, name).toEqual(shape)
  const found = Array.from(tensor.double().contiguous().toTypedArray(), Number)
  for (const [index, value] of values.entries()) {
    const isClose = Math.abs(found[index]! - value) <= tolerance + 1e-7 * Math.abs(value)
    if (!isClose) expect.fail(`${name} at ${index}: expected ${value}, but received ${found[index]}`)
  }
}

describe('the same numbers as PyTorch', () => {
  it('starts layers from one seed with the same parameters', () => {
    class Net extends nn.Module {
      first = new nn.Linear(4, 4)
      table = new nn.Embedding(3, 4)
      last = new nn.Linear(4, 2)
      forward(x: torch.Tensor) {
        return x
      }
    }
    const cases: [string, () => torch.nn.Module, string[]][] = [
      ['linear', () => new nn.Linear(5, 3), ['weight', 'bias']],
      ['conv1d', () => new nn.Conv1d(4, 6, 3, { groups: 2 }), ['weight', 'bias']],
      ['conv2d', () => new nn.Conv2d(3, 4, 3), ['weight', 'bias']],
      ['embedding', () => new nn.Embedding(7, 3, { paddingIdx: 1 }), ['weight']],
      ['attention', () => new nn.MultiheadAttention(8, 2), ['in_proj_weight', 'out_proj.weight']],
      [
        'attentionKdim',
        () => new nn.MultiheadAttention(4, 2, { kdim: 3, vdim: 5 }),
        ['q_proj_weight', 'k_proj_weight', 'v_proj_weight'],
      ],
      ['net', () => new Net(), ['first.weight', 'table.weight', 'last.bias']],
    ]
    inScope(() => {
      for (const [name, make, parts] of cases) {
        torch.manualSeed(0)
        using module = make()
        const state = module.stateDict()
        for (const part of parts) same(`${name}.${part}`, state.get(part)!.flatten().at('0:6'))
      }
    })
  })

  it('initialises', () => {
    const cases: Record<string, (tensor: torch.Tensor) => torch.Tensor> = {
      xavierUniform: (t) => init.xavierUniform_(t, { gain: 2 }),
      xavierNormal: (t) => init.xavierNormal_(t),
      kaimingUniform: (t) => init.kaimingUniform_(t, { mode: 'fanOut', nonlinearity: 'relu' }),
      kaimingNormal: (t) => init.kaimingNormal_(t, { a: 0.1 }),
      truncNormal: (t) => init.truncNormal_(t, { std: 0.02 }),
      truncNormalNear: (t) => init.truncNormal_(t, { a: -0.6, b: 0.5 }),
      truncNormalFar: (t) => init.truncNormal_(t, { a: 1.5, b: 3 }),
      orthogonal: (t) => init.orthogonal_(t, { gain: 0.5 }),
    }
    inScope(() => {
      for (const [name, run] of Object.entries(cases)) {
        torch.manualSeed(3)
        same(`init.${name}`, run(torch.empty([4, 6])), 1e-6)
      }
      torch.manualSeed(3)
      same('init.orthogonalTall', init.orthogonal_(torch.empty([6, 2, 2])), 1e-6)
    })
  })

  it('interpolates', () => {
    const cases: Record<string, Parameters<typeof F.interpolate>[1]> = {
      nearest: { size: [3, 4] },
      nearestScale: { scaleFactor: 1.7 },
      nearestExact: { size: [7, 4], mode: 'nearest-exact' },
      bilinear: { size: [7, 3], mode: 'bilinear' },
      bilinearCorners: { size: [7, 3], mode: 'bilinear', alignCorners: true },
      bilinearScale: { scaleFactor: [1.3, 0.6], mode: 'bilinear' },
      bilinearRecompute: { scaleFactor: [1.3, 0.6], mode: 'bilinear', recomputeScaleFactor: true },
      bilinearAntialias: { size: [2, 3], mode: 'bilinear', antialias: true },
      bicubic: { size: [8, 9], mode: 'bicubic' },
      bicubicScale: { scaleFactor: 1.45, mode: 'bicubic' },
      bicubicAntialias: { size: 3, mode: 'bicubic', antialias: true },
      area: { scaleFactor: 0.5, mode: 'area' },
    }
    inScope(() => {
      const image = wave([1, 2, 5, 6])
      for (const [name, options] of Object.entries(cases)) same(`interpolate.${name}`, F.interpolate(image, options))
      same('interpolate.linear', F.interpolate(wave([1, 2, 5]), { size: 8, mode: 'linear' }))
      same('interpolate.trilinear', F.interpolate(wave([1, 1, 2, 3, 2]), { scaleFactor: 1.5, mode: 'trilinear' }))
    })
  })

  it('pads and samples', () => {
    inScope(() => {
      for (const mode of ['constant', 'reflect', 'replicate', 'circular'] as const) {
        same(`pad.${mode}`, F.pad(wave([1, 1, 3, 4]), [1, 2, 2, 1], { mode }))
      }
      same('pad.value', F.pad(wave([2, 3]), [1, -1], { value: 0.5 }))
      const theta = torch.tensor(
        [
          [
            [0.8, 0.3, 0.1],
            [-0.2, 1.1, -0.3],
          ],
        ],
        { dtype: 'float64' },
      )
      const grid = F.affineGrid(theta, [1, 2, 3, 4])
      same('affineGrid', grid)
      for (const mode of ['bilinear', 'nearest', 'bicubic'] as const) {
        for (const paddingMode of ['zeros', 'border', 'reflection'] as const) {
          same(`gridSample.${mode}.${paddingMode}`, F.gridSample(wave([1, 2, 5, 6]), grid, { mode, paddingMode }))
        }
      }
    })
  })

  it('computes losses and the rest of functional', () => {
    inScope(() => {
      const logits = wave([4, 3])
      const classes = torch.tensor([2n, 0n, 1n, 2n])
      const weight = torch.tensor([0.5, 1, 2], { dtype: 'float64' })
      const target = wave([4, 3], 0.3)
      const soft = target.softmax(-1)
      const logProbabilities = logits.logSoftmax(1)
      const options = { weight, ignoreIndex: 0, labelSmoothing: 0.1, reduction: 'sum' } as const
      same('crossEntropy', F.crossEntropy(logits, classes))
      same('crossEntropy', new nn.CrossEntropyLoss().forward(logits, classes))
      same('crossEntropyOptions', F.crossEntropy(logits, classes, options))
      same('crossEntropyOptions', new nn.CrossEntropyLoss(options).forward(logits, classes))
      same('crossEntropySoft', F.crossEntropy(logits, soft, { labelSmoothing: 0.2, reduction: 'none' }))
      same('nll', F.nllLoss(logProbabilities, classes, { weight }))
      const pixels = torch.tensor([
        [
          [0n, 1n],
          [2n, 0n],
        ],
        [
          [1n, 1n],
          [0n, 2n],
        ],
      ])
      same('nllImage', F.nllLoss(wave([2, 3, 2, 2]).logSoftmax(1), pixels, { reduction: 'sum' }))
      same('mse', F.mseLoss(logits, target))
      same('mse', new nn.MSELoss().forward(logits, target))
      same('l1', F.l1Loss(logits, target, { reduction: 'sum' }))
      same('l1', new nn.L1Loss({ reduction: 'sum' }).forward(logits, target))
      same('smoothL1', F.smoothL1Loss(logits, target, { beta: 0.5 }))
      same('huber', F.huberLoss(logits, target, { delta: 0.5 }))
      same('bce', F.binaryCrossEntropy(logits.sigmoid(), soft))
      same('bceLogits', F.binaryCrossEntropyWithLogits(logits, soft, { posWeight: weight }))
      same('bceLogits', new nn.BCEWithLogitsLoss({ posWeight: weight }).forward(logits, soft))
      same('klDiv', F.klDiv(logProbabilities, soft, { reduction: 'batchmean' }))
      same('klDivLog', F.klDiv(logProbabilities, soft.log(), { reduction: 'sum', logTarget: true }))
      same('cosine', F.cosineSimilarity(logits, target, { dim: 0 }))
      same('normalize', F.normalize(logits, { p: 3, dim: 0 }))
      same('unfold', F.unfold(wave([1, 2, 5, 6]), [2, 3], { padding: 1, stride: 2 }))
      same('fold', F.fold(wave([1, 8, 6]), [4, 5], 2, { stride: 2, padding: [0, 1] }))
      same('pixelShuffle', F.pixelShuffle(wave([1, 4, 2, 2]), 2))
    })
  })

  it('attends', () => {
    inScope(() => {
      for (const batchFirst of [false, true]) {
        torch.manualSeed(1)
        using attention = new nn.MultiheadAttention(4, 2, { batchFirst }).to('float64')
        const prefix = batchFirst ? 'attention.batchFirst' : 'attention.lengthFirst'
        const x = wave([3, 2, 4])
        const memory = batchFirst ? wave([3, 5, 4], 0.4) : wave([5, 2, 4])
        const [queries, batch] = batchFirst ? [2, 3] : [3, 2]
        const [output, weights] = attention.forward(x, x, x)
        same(`${prefix}.self`, output)
        same(`${prefix}.selfWeights`, weights!)
        // other objects with the same values go through the other ways of projecting
        same(`${prefix}.self`, attention.forward(x, x.clone(), x.clone())[0])
        const keyPaddingMask = torch.zeros([batch, 5], { dtype: 'bool' })
        keyPaddingMask.setAt([0, '-2:'], true)
        const attnMask = wave([queries, 5], 0.9)
        const masked = attention.forward(x, memory, memory, { keyPaddingMask, attnMask, averageAttnWeights: false })
        same(`${prefix}.masked`, masked[0])
        same(`${prefix}.maskedWeights`, masked[1]!)
        const plain = attention.forward(x, memory, memory, { keyPaddingMask, needWeights: false })
        same(`${prefix}.noWeights`, plain[0])
        expect(plain[1]).toBeNull()
      }
    })
  })

  it('drops out and normalises batches', () => {
    inScope(() => {
      torch.manualSeed(5)
      same('dropout', F.dropout(torch.ones([12]), 0.4), 1e-6)
      using norm = new nn.BatchNorm2d(2, { momentum: null }).to('float64')
      let output = norm.forward(wave([2, 2, 3, 2]))
      output = norm.forward(wave([2, 2, 3, 2], 0.4))
      same('batchNorm.train', output)
      same('batchNorm.mean', norm.running_mean!)
      same('batchNorm.var', norm.running_var!)
      same('batchNorm.eval', norm.eval().forward(wave([2, 2, 3, 2])))
      expect(norm.num_batches_tracked!.dtype).toBe('int64')
      expect(norm.num_batches_tracked!.item()).toBe(2)
    })
  })

  it('leaves none of the expected numbers out', () => {
    expect(Object.keys(expected).filter((name) => !seen.has(name))).toEqual([])
  })
})
