import { describe, expect, it } from 'vitest'
import {
  AdaptedTextModel,
  type AdapterConfig,
  AdapterLayer,
  addAdapter,
  markOnlyAdaptersTrainable,
  type TextEncoder,
  trainableParameters,
} from '../../src/peft/index.js'
import * as torch from '../../src/torch/index.js'
import { difference, loadReferenceModel } from './helpers.js'

const { nn } = torch
type Tensor = torch.Tensor

const layered: Record<string, AdapterConfig> = {
  lora: { kind: 'lora', r: 4, alpha: 6 },
  'lora all': { kind: 'lora', r: 2, alpha: 6, rslora: true, targetModules: 'all-linear' },
  dora: { kind: 'lora', r: 4, alpha: 6, dora: true },
  adalora: { kind: 'adalora', initR: 3, alpha: 4, totalStep: 10 },
  ia3: { kind: 'ia3' },
}
const virtual: Record<string, AdapterConfig> = {
  prefix: { kind: 'prefix', numVirtualTokens: 3 },
  'prefix with projection': { kind: 'prefix', numVirtualTokens: 3, prefixProjection: true, encoderHiddenSize: 10 },
  prompt: { kind: 'prompt', numVirtualTokens: 3 },
}
const all = { ...layered, ...virtual }

const ids = [
  [5, 9, 2, 7, 1],
  [3, 3, 8, 0, 0],
]

/** Random values, so that no adapter does nothing. */
function shake(adapted: AdaptedTextModel, name = 'default', seed = 1): void {
  torch.manualSeed(seed)
  torch.noGrad(() =>
    torch.scope(() => {
      for (const parameter of adapted.adapterParameters(name).values())
        parameter.add_(torch.randnLike(parameter), { alpha: 0.1 })
    }),
  )
}

async function gpt2(): Promise<TextEncoder> {
  return loadReferenceModel('gpt2-lora')
}

function run(model: TextEncoder): Tensor {
  return torch.noGrad(() => model.forward({ inputIds: ids }).lastHidden)
}

describe.each(Object.entries(all))('%s', (_, config) => {
  it.each(['gpt2-lora', 'llama-lora'])('trains its own parameters alone, also with checkpointing: %s', async (name) => {
    const model = await loadReferenceModel(name)
    model.requiresGrad_(true)
    const adapted = addAdapter(model, config)
    expect(adapted).toBeInstanceOf(AdaptedTextModel)
    shake(adapted)
    const own = [...adapted.adapterParameters().values()]
    expect(new Set(adapted.parameters().filter((each) => each.requiresGrad))).toEqual(new Set(own))
    const { trainable, total } = trainableParameters(adapted)
    expect(trainable).toBe(own.reduce((sum, each) => sum + each.numel(), 0))
    expect(total).toBeGreaterThan(trainable)
    adapted.train()
    const found: Tensor[][] = []
    for (const checkpointing of [false, true]) {
      model.running.checkpointing = checkpointing
      torch.scope(() => adapted.forward({ inputIds: ids }).lastHidden.square().sum().backward())
      found.push(own.map((each) => each.grad!.clone()))
      adapted.zeroGrad()
    }
    for (const [index, gradient] of found[0]!.entries()) {
      expect(gradient.abs().max().item()).toBeGreaterThan(0)
      expect(difference(gradient, found[1]![index]!)).toBeLessThan(1e-5)
    }
    expect(model.wordEmbeddings().weight.grad).toBeNull()
  })

  it('is switched off and taken off', async () => {
    const model = await gpt2()
    const before = run(model)
    const adapted = addAdapter(model, config)
    shake(adapted)
    const length = before.shape[1]!
    const after = run(adapted)
    const text = after.narrow(1, after.shape[1]! - length, length)
    expect(difference(text, before)).toBeGreaterThan(1e-3)
    expect(
      difference(
        adapted.withoutAdapters(() => run(adapted)),
        before,
      ),
    ).toBe(0)
    expect(difference(run(adapted), after)).toBe(0)
    adapted.setAdapter([])
    expect(difference(run(adapted), before)).toBe(0)
    adapted.setAdapter('default')
    expect(() => adapted.withoutAdapters(async () => run(adapted))).toThrow(/expected a synchronous function/)
    adapted.removeAdapter('default')
    expect(model.modules().some((each) => each instanceof AdapterLayer)).toBe(false)
    expect(difference(run(model), before)).toBe(0)
  })

  it('leaves no tensor behind', async () => {
    const adapted = addAdapter(await gpt2(), config)
    const step = () => torch.scope(() => adapted.forward({ inputIds: ids }).lastHidden.sum().backward())
    step()
    const { live } = torch.memory.counters()
    for (let count = 0; count < 3; count += 1) step()
    expect(torch.memory.counters().live).toBe(live)
  })
})

describe.each(Object.entries(layered))('%s on layers', (_, config) => {
  it.each(['gpt2-lora', 'llama-lora'])('merges and unmerges: %s', async (name) => {
    const model = await loadReferenceModel(name)
    const adapted = addAdapter(model, config)
    shake(adapted)
    const paths = adapted.adapter().paths
    const weights = () =>
      model
        .namedParameters()
        .filter(([each]) => each.includes('base_layer'))
        .map(([, each]) => each.clone())
    const before = weights()
    const expected = run(adapted)
    const plain = adapted.withoutAdapters(() => run(adapted))
    const lines: string[] = []
    const report = adapted.merge({ log: (line) => lines.push(line) })
    expect(lines[0]).toMatch(/merged default into \d+ layers: largest error/)
    expect(report.layers).toBe(paths.length)
    expect(report.largestError).toBeLessThan(1e-6)
    expect(report.largestChange).toBeGreaterThan(1e-3)
    expect(difference(run(adapted), expected)).toBeLessThan(5e-6)
    expect(
      difference(
        adapted.withoutAdapters(() => run(adapted)),
        plain,
      ),
    ).toBe(0)
    expect(difference(run(adapted), expected)).toBeLessThan(5e-6)
    expect(() => adapted.merge()).toThrow(/expected adapters that are not merged/)
    expect(() => adapted.setAdapter([])).toThrow(/call unmerge\(\) before/)
    expect(adapted.unmerge()).toBe(paths.length)
    for (const [index, weight] of weights().entries()) expect(difference(weight, before[index]!)).toBe(0)
    expect(difference(run(adapted), expected)).toBe(0)
    const bare = adapted.unload({ merge: true })
    expect(bare).toBe(model)
    expect(bare.modules().some((each) => each instanceof AdapterLayer)).toBe(false)
    expect(difference(run(bare), expected)).toBeLessThan(5e-6)
  })

  it('merges into bfloat16 within its rounding', async () => {
    const model = await gpt2()
    model.to('bfloat16')
    const adapted = addAdapter(model, config)
    shake(adapted)
    expect([...adapted.adapterParameters().values()].every((each) => each.dtype === 'float32')).toBe(true)
    const expected = run(adapted)
    expect(expected.dtype).toBe('bfloat16')
    const { largestError } = adapted.merge({ keepOriginal: false })
    expect(largestError).toBeGreaterThan(0)
    // half a step of bfloat16 below 2
    expect(largestError).toBeLessThan(2 ** -8)
    expect(difference(run(adapted), expected)).toBeLessThan(0.06)
    expect(() => adapted.unmerge()).toThrow(/merged with keepOriginal: false/)
    expect(() => adapted.withoutAdapters(() => run(adapted))).toThrow(/keepOriginal: false/)
  })

  it('computes in float32 beside a bfloat16 model, and under autocast', async () => {
    const model = await gpt2()
    const adapted = addAdapter(model, config)
    shake(adapted)
    const exact = run(adapted)
    const low = torch.noGrad(() => torch.autocast({}, () => adapted.forward({ inputIds: ids }).lastHidden))
    expect(difference(low, exact)).toBeLessThan(0.1)
    torch.scope(() =>
      torch
        .autocast({}, () => adapted.forward({ inputIds: ids }).lastHidden)
        .float()
        .sum()
        .backward(),
    )
    model.to('bfloat16')
    for (const parameter of adapted.adapterParameters().values()) {
      expect(parameter.grad).not.toBeNull()
      parameter.grad = null
      parameter.data = parameter.float()
    }
    expect(difference(run(adapted), exact)).toBeLessThan(0.1)
    torch.scope(() => adapted.forward({ inputIds: ids }).lastHidden.float().sum().backward())
    for (const parameter of adapted.adapterParameters().values()) expect(parameter.grad?.dtype).toBe('float32')
  })
})

describe('several adapters', () => {
  it('switches, adds up, and trains the active ones', async () => {
    const model = await gpt2()
    const plain = run(model)
    const adapted = addAdapter(model, { kind: 'lora', r: 4 }, 'a')
    addAdapter(model, { kind: 'lora', r: 2, targetModules: ['c_fc', 'c_attn'] }, 'b')
    addAdapter(adapted, { kind: 'ia3' }, 'c')
    addAdapter(adapted, { kind: 'prompt', numVirtualTokens: 2 }, 'd')
    for (const [index, name] of ['a', 'b', 'c', 'd'].entries()) shake(adapted, name, index)
    expect(adapted.active).toEqual(['a'])
    const outputs = ['a', 'b', 'c'].map((name) => run(adapted.setAdapter(name)))
    for (const [index, output] of outputs.entries()) {
      expect(difference(output, plain)).toBeGreaterThan(1e-3)
      expect(difference(output, outputs[(index + 1) % 3]!)).toBeGreaterThan(1e-3)
    }
    const trains = () =>
      ['a', 'b', 'c', 'd'].filter((name) =>
        [...adapted.adapterParameters(name).values()].every((each) => each.requiresGrad),
      )
    expect(trains()).toEqual(['c'])
    adapted.setAdapter(['a', 'b'])
    expect(trains()).toEqual(['a', 'b'])
    const both = run(adapted)
    expect(difference(both, outputs[0]!)).toBeGreaterThan(1e-3)
    adapted.merge()
    expect(difference(run(adapted), both)).toBeLessThan(5e-6)
    adapted.unmerge()
    expect(run(adapted.setAdapter(['a', 'd'])).shape).toEqual([2, 7, 48])
    expect(() => adapted.merge()).toThrow(/made of virtual tokens/)
    expect(() => adapted.setAdapter(['a', 'c'])).toThrow(
      /expected adapters of one kind together, but received lora, ia3/,
    )
    expect(() => adapted.setAdapter('x')).toThrow(/expected one of \[a,b,c,d\], but received 'x'/)
    adapted.setAdapter('a')
    expect(difference(run(adapted), outputs[0]!)).toBe(0)
    adapted.removeAdapter('b')
    adapted.removeAdapter('c')
    expect(difference(run(adapted), outputs[0]!)).toBe(0)
    model.requiresGrad_(true)
    markOnlyAdaptersTrainable(model)
    expect(trainableParameters(adapted).parameters.every(({ name }) => name.includes('lora_'))).toBe(true)
    expect(difference(run(adapted.unload() as TextEncoder), plain)).toBe(0)
  })
})

describe('modes', () => {
  it('drops elements in training only, and leaves the frozen model in evaluation mode', async () => {
    const adapted = addAdapter(await gpt2(), { kind: 'lora', r: 4, dropout: 0.5 })
    shake(adapted)
    adapted.train()
    expect(
      adapted.model
        .modules()
        .filter((each) => each.training)
        .every((each) => each instanceof AdapterLayer),
    ).toBe(true)
    expect(difference(run(adapted), run(adapted))).toBeGreaterThan(1e-4)
    adapted.eval()
    expect(difference(run(adapted), run(adapted))).toBe(0)
    adapted.train(true, { base: true })
    expect(adapted.model.modules().every((each) => each.training)).toBe(true)
  })

  it('runs a DoRA layer on what dropout leaves', () => {
    torch.manualSeed(3)
    const adapted = addAdapter(new nn.Sequential(new nn.Linear(6, 4)), {
      kind: 'lora',
      r: 2,
      dropout: 0.4,
      dora: true,
      targetModules: ['0'],
    })
    torch.noGrad(() => {
      for (const each of adapted.adapterParameters().values()) each.add_(torch.randnLike(each), { alpha: 0.3 })
    })
    const { weight, bias } = (adapted.model.at(0) as AdapterLayer).base_layer as torch.nn.Linear
    const [a, b, m] = [...adapted.adapterParameters().values()] as [Tensor, Tensor, Tensor]
    const x = torch.randn([5, 6])
    adapted.train()
    torch.manualSeed(9)
    const found = adapted.forward(x)
    torch.manualSeed(9)
    const dropped = torch.dropout(x, 0.4, true)
    const sum = weight.add(b.mm(a).mul(4))
    const factor = m.div(sum.norm(2, 1))
    const base = nn.functional.linear(x, weight, bias)
    const expected = base
      .add(nn.functional.linear(dropped, weight).mul(factor.sub(1)))
      .add(dropped.mm(a.t()).mm(b.t()).mul(factor).mul(4))
    expect(difference(found, expected)).toBeLessThan(1e-5)
  })

  it('works on any model, and on parameters without memory', () => {
    const net = nn.onMeta(() => new nn.Sequential(new nn.Linear(8, 4), new nn.ReLU(), new nn.Linear(4, 2)))
    for (const config of Object.values(layered)) {
      const targets = { targetModules: ['0', '2'], ...(config.kind === 'ia3' ? { feedforwardModules: ['2'] } : {}) }
      const adapted = addAdapter(net, { ...config, ...targets } as AdapterConfig)
      expect(trainableParameters(adapted).trainable).toBeGreaterThan(0)
      expect(adapted.parameters().every((each) => each.isMeta)).toBe(true)
      adapted.unload()
    }
    expect(() => addAdapter(net, { kind: 'prefix', numVirtualTokens: 2 })).toThrow(
      /expected a text model .* for a prefix adapter/,
    )
  })

  it('gives the virtual tokens to those who lay out texts themselves', async () => {
    const model = await gpt2()
    const prefix = addAdapter(model, { kind: 'prefix', numVirtualTokens: 3 })
    const tokens = prefix.virtualTokens()!
    expect(tokens.prefix!.map(({ key, value }) => [key.shape, value.shape])).toEqual([
      [
        [1, 4, 3, 12],
        [1, 4, 3, 12],
      ],
      [
        [1, 4, 3, 12],
        [1, 4, 3, 12],
      ],
    ])
    expect(() => prefix.forward({ inputIds: ids, prefix: tokens.prefix! })).toThrow(/without a prefix of its own/)
    prefix.unload()
    const text = addAdapter(model, { kind: 'prompt', numVirtualTokens: 5, init: 'text', initTokens: [7, 2] })
    const rows = model.wordEmbeddings().weight.indexSelect(0, torch.tensor([7n, 2n, 7n, 2n, 7n]))
    expect(difference(text.virtualTokens()!.embeddings!, rows)).toBe(0)
    const wanted = torch.tensor([0n, 7n])
    const chosen = torch.noGrad(() => text.forward({ inputIds: ids, outputTokens: wanted }).lastHidden)
    const hidden = run(text)
    expect(difference(chosen, torch.stack([hidden.at(0, 5), hidden.at(1, 7)]))).toBeLessThan(1e-6)
    expect(() =>
      addAdapter(model, { kind: 'prompt', numVirtualTokens: 5, init: 'text', initTokens: [97] }, 'x'),
    ).toThrow(/from 0 to 96, but received 97/)
  })
})
