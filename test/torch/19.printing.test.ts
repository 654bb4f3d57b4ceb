import { readFileSync } from 'node:fs'
import { inspect } from 'node:util'
import { afterEach, describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

type Encoded = number | string | boolean | readonly [number | string, number | string]

interface PrintingCase {
  readonly name: string
  readonly shape: readonly number[]
  readonly dtype: torch.DType
  readonly after: readonly string[]
  readonly values?: readonly Encoded[]
  readonly arange?: readonly [number, number, number]
  readonly options?: Record<string, number | boolean | string>
  readonly defaultDtype?: torch.DType
  readonly expected: string
}

const cases: readonly PrintingCase[] = JSON.parse(
  readFileSync(new URL('./fixtures/printing.json', import.meta.url), 'utf8'),
)

const defaults = torch.getPrintOptions()

function decode(value: Encoded, dtype: torch.DType): number | bigint | boolean | torch.Complex {
  if (typeof value === 'object') return { re: Number(value[0]), im: Number(value[1]) }
  if (typeof value === 'boolean') return value
  if (typeof value === 'string' && dtype.includes('int')) return BigInt(value)
  return Number(value)
}

function build({ shape, dtype, values, arange, after }: PrintingCase): torch.Tensor {
  let tensor =
    arange === undefined
      ? torch
          .tensor(
            values!.map((value) => decode(value, dtype)),
            { dtype },
          )
          .reshape(shape)
      : torch.arange(arange[0], { dtype: 'float64' }).mul(arange[1]).add(arange[2]).to(dtype).reshape(shape)
  const steps: Record<string, (given: torch.Tensor) => torch.Tensor> = {
    requiresGrad: (given) => given.requiresGrad_(),
    addItself: (given) => given.add(given),
    meta: (given) => given.to('meta'),
    view: (given) => given.view(-1),
    t: (given) => given.t(),
    conj: (given) => given.conj(),
    exp: (given) => given.exp(),
    sum: (given) => given.sum(),
    toSparse: (given) => given.toSparse(),
    toSparseCsr: (given) => torch.callOperator('aten::to_sparse_csr', given) as torch.Tensor,
  }
  for (const step of after) tensor = steps[step]!(tensor)
  return tensor
}

afterEach(() => {
  torch.setPrintOptions(defaults)
  torch.setDefaultDtype('float32')
})

describe('as PyTorch prints it', () => {
  it.each(cases)('$name', (each) => {
    inScope(() => {
      torch.setDefaultDtype(each.defaultDtype ?? 'float32')
      const tensor = build(each)
      if (each.options !== undefined) {
        const { threshold, ...others } = each.options
        torch.setPrintOptions({ ...others, ...(threshold === undefined ? {} : { threshold: Number(threshold) }) })
      }
      expect(tensor.toString()).toBe(each.expected)
      expect(inspect(tensor)).toBe(each.expected)
    })
  })
})

describe('printing', () => {
  it('leaves no tensors behind and changes no mode', () => {
    inScope(() => {
      const tensor = torch.randn([50, 50]).requiresGrad_()
      const sparse = torch.eye(3).toSparse()
      const before = liveTensors()
      String(tensor.toString())
      inspect([tensor, { deep: sparse }])
      expect(torch.isGradEnabled()).toBe(true)
      expect(liveTensors()).toBe(before)
    })
  })

  it('leaves the graph as it was', () => {
    inScope(() => {
      const x = torch.tensor([1, 2]).requiresGrad_()
      const y = x.mul(x)
      expect(torch.noGrad(() => y.toString())).toBe('tensor([1., 4.], grad_fn=<MulBackward0>)')
      expect(torch.inferenceMode(() => torch.ones([2]).toString())).toBe('tensor([1., 1.])')
      y.sum().backward()
      expect(x.grad!.toArray()).toEqual([2, 4])
    })
  })

  it('says of a disposed tensor that it is', () => {
    const tensor = torch.zeros([2])
    tensor.dispose()
    expect(tensor.toString()).toBe('tensor(<disposed>)')
    expect(inspect({ tensor })).toBe('{ tensor: tensor(<disposed>) }')
  })

  it('reads nothing but what it shows', () => {
    inScope(() => {
      // 4 TB of one repeated number: no copy of it could succeed
      const huge = torch.ones([1]).expand([1_000_000, 1_000_000])
      expect(huge.toString()).toBe(
        `tensor([${Array.from({ length: 7 }, (_, row) => (row === 3 ? '        ...' : `${row === 0 ? '' : '        '}[1., 1., 1.,  ..., 1., 1., 1.]`)).join(',\n')}])`,
      )
    })
  })

  it('does not throw for tensors that have no values here', () => {
    inScope(() => {
      const quantized = torch.callOperator('aten::quantize_per_tensor', torch.ones([2]), 0.1, 0, 'qint8')
      expect(inspect(quantized)).toBe('tensor(..., dtype=torch.qint8)')
      const nested = torch.callOperator('aten::_nested_tensor_from_tensor_list', [torch.ones([2]), torch.ones([3])])
      expect(inspect(nested)).toBe('tensor(..., dtype=torch.float32)')
    })
  })

  it('names a function of the user', () => {
    class Twice extends torch.autograd.Function {
      static forward(_context: torch.autograd.FunctionContext, x: torch.Tensor) {
        return x.mul(2)
      }
      static backward(_context: torch.autograd.FunctionContext, gradient: torch.Tensor) {
        return gradient.mul(2)
      }
    }
    inScope(() => {
      const text = Twice.apply(torch.ones([1]).requiresGrad_()).toString()
      expect(text).toMatch(/^tensor\(\[2\.\], grad_fn=<\w+>\)$/)
    })
  })
})

describe('setPrintOptions', () => {
  it('gives what was before and changes what is named', () => {
    const before = torch.setPrintOptions({ precision: 2 })
    expect(before).toEqual({ precision: 4, threshold: 1000, edgeitems: 3, linewidth: 80, sciMode: null })
    expect(torch.getPrintOptions()).toEqual({ ...before, precision: 2 })
    torch.setPrintOptions({ sciMode: true })
    expect(torch.getPrintOptions()).toEqual({ ...before, precision: 2, sciMode: true })
  })

  it('refuses what makes no sense, and changes nothing then', () => {
    expect(() => torch.setPrintOptions({ edgeitems: 1, precision: -1 })).toThrow(RangeError)
    expect(() => torch.setPrintOptions({ precision: 1.5 })).toThrow('setPrintOptions: expected precision')
    expect(() => torch.setPrintOptions({ threshold: Number.NaN })).toThrow(RangeError)
    expect(() => torch.setPrintOptions({ linewidth: '80' as unknown as number })).toThrow(TypeError)
    expect(() => torch.setPrintOptions({ sciMode: 1 as unknown as boolean })).toThrow(TypeError)
    expect(torch.getPrintOptions()).toEqual(defaults)
  })
})
