import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readConfig } from '../../src/models/config.js'
import { dinov2Loader } from '../../src/models/image/dinov2.js'
import { type Dinov2, dinov2HubLayout, imageEncoderFromPretrained } from '../../src/models/image/index.js'
import { fromPretrained } from '../../src/models/pretrained.js'
import { invertTable, planRenames, type RenameTable } from '../../src/models/renames.js'
import { fromTensors, loadWeights, openWeights, renameSource, WeightsMismatchError } from '../../src/models/weights.js'
import * as torch from '../../src/torch/index.js'
import { inScope } from '../torch/helpers.js'
import { expectClose, referenceCase } from './reference.js'

const { nn } = torch
const exact = { atol: 0, rtol: 0 }
const folder = mkdtempSync(join(tmpdir(), 'cleft-weights-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

class Net extends nn.Module {
  first = new nn.Linear(3, 4)
  second = new nn.Linear(4, 2, { bias: false })

  forward(x: torch.Tensor): torch.Tensor {
    return this.second.forward(this.first.forward(x))
  }
}

const good = (): Record<string, torch.Tensor> => ({
  'first.weight': torch.ones([4, 3]),
  'first.bias': torch.ones([4]),
  'second.weight': torch.ones([2, 4]),
})

function errorOf(tensors: Record<string, torch.Tensor>, rename: readonly RenameTable[] = []): WeightsMismatchError {
  const net = new Net()
  const before = net.first.weight.sum().item()
  try {
    loadWeights(net, fromTensors(new Map(Object.entries(tensors)), 'file.bin'), { rename })
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(WeightsMismatchError)
    expect(net.first.weight.sum().item()).toBe(before)
    return thrown as WeightsMismatchError
  }
  throw new Error('nothing was wrong')
}

describe('loading is strict', () => {
  it('lists all that is missing, unexpected and misshapen at once', () => {
    inScope(() => {
      const { 'first.bias': _, ...rest } = good()
      const error = errorOf({ ...rest, 'second.weight': torch.ones([4, 2]), extra: torch.ones([7]) })
      expect(error.missing).toEqual(['first.bias'])
      expect(error.unexpected).toEqual(['extra'])
      expect(error.message).toBe(
        'loadWeights: expected the 3 tensors of Net, but file.bin does not give them: 1 missing: first.bias. ' +
          '1 unexpected: extra. 1 of another shape: second.weight: expected shape [2,4], but received [4,2]; did you mean its transpose?',
      )
    })
  })

  it('says which names were meant', () => {
    inScope(() => {
      const { 'first.bias': bias, 'second.weight': weight, ...rest } = good()
      const renamed = errorOf({ ...rest, 'first.biases': bias!, 'secondary.weight': weight!.t() }).message
      expect(renamed).toContain('first.bias (did you mean first.biases?)')
      expect(renamed).toContain('second.weight (did you mean secondary.weight, transposed?)')
      const wrapped = Object.fromEntries(Object.entries(good()).map(([name, each]) => [`module.${name}`, each]))
      expect(errorOf(wrapped).message).toContain("Did you mean the names without 'module.' in front?")
      expect(errorOf({ ...good(), 'bad\u001b[2Jname': torch.ones([1]) }).message).not.toContain('\u001b')
    })
  })

  it('refuses two tensors for one name, and parts that do not fit', () => {
    inScope(() => {
      const table: RenameTable = [{ from: 'other', to: 'first.bias' }]
      expect(errorOf({ ...good(), other: torch.ones([4]) }, [table]).message).toContain(
        'given twice: first.bias from first.bias and from other',
      )
      const { 'first.bias': _, ...rest } = good()
      const halves: RenameTable = [{ from: ['a', 'b'], to: 'first.bias' }]
      expect(errorOf({ ...rest, a: torch.ones([2]) }, [halves]).message).toContain(
        '1 missing: first.bias. 1 unexpected: a',
      )
      expect(errorOf({ ...rest, a: torch.ones([2, 2]), b: torch.ones([2]) }, [halves]).message).toContain(
        'do not fit together',
      )
    })
  })
})

describe('loading', () => {
  it('fills modules on meta, casts on the way and keeps what trains', () => {
    inScope(() => {
      const net = nn.onMeta(() => new Net())
      net.first.requiresGrad_(false)
      loadWeights(net, fromTensors(new Map(Object.entries(good()))), { dtype: 'bfloat16' })
      expect(net.parameters().map((p) => p.dtype)).toEqual(['bfloat16', 'bfloat16', 'bfloat16'])
      expect(net.parameters().map((p) => p.requiresGrad)).toEqual([false, false, true])
      loadWeights(net, fromTensors(new Map(Object.entries(good()))), { dtype: 'auto' })
      expect(net.first.weight.dtype).toBe('float32')
    })
  })

  it('joins, splits, transposes, skips and fills by tables', () => {
    inScope(() => {
      const net = nn.onMeta(() => new Net())
      const { 'first.bias': _, ...rest } = good()
      const source = fromTensors(
        new Map(
          Object.entries({
            ...rest,
            'second.weight': torch.arange(8).float().view([4, 2]),
            'step.count': torch.ones([]),
          }),
        ),
      )
      const rename: RenameTable[] = [
        [
          { from: 'second.{p}', to: 'second.{p}', transpose: true },
          { from: 'step.{rest*}', to: null },
        ],
        [{ from: 'first.weight', to: ['top', 'bottom'] }],
        [{ from: ['bottom', 'top'], to: 'first.weight' }],
      ]
      loadWeights(net, source, { rename, optional: { '{layer}.bias': 5 } })
      expect(net.second.weight.toArray()).toEqual([
        [0, 2, 4, 6],
        [1, 3, 5, 7],
      ])
      expect(net.first.bias!.toArray()).toEqual([5, 5, 5, 5])
    })
  })

  it('needs a tied tensor once', () => {
    class Tied extends Net {
      third = this.first
    }
    inScope(() => {
      const net = nn.onMeta(() => new Tied())
      loadWeights(net, fromTensors(new Map(Object.entries(good()))))
      expect(net.third.weight.sum().item()).toBe(12)
    })
  })

  it.each(['float32', 'bfloat16', 'float16', 'float64'] as const)(
    'reads %s files in pieces where they are cast',
    async (stored) => {
      class Wide extends nn.Module {
        table = new nn.Embedding(37, 2111)
        forward(): never {
          throw new Error('none')
        }
      }
      const path = join(folder, `${stored}.safetensors`)
      const values = torch.randn([37, 2111], { generator: new torch.Generator().manualSeed(2) }).to(stored)
      torch.saveSafetensors({ 'table.weight': values }, path)
      const source = await openWeights(path)
      inScope(() => {
        for (const dtype of ['float32', 'bfloat16', 'float64'] as const) {
          using wide = nn.onMeta(() => new Wide())
          loadWeights(wide, source, { dtype })
          expect(wide.table.weight.dtype).toBe(dtype)
          expectClose(wide.table.weight.double(), values.to(dtype).double(), exact, dtype)
        }
      })
      values.dispose()
    },
  )
})

describe('tables', () => {
  it('are inverted', () => {
    const names = ['blocks.3.attn.qkv.weight', 'blocks.3.ls1.gamma', 'cls_token', 'norm.bias', 'blocks.0.mlp.fc1.bias']
    const there = [...planRenames(names, [dinov2HubLayout]).recipes.keys()]
    expect(there).toContain('encoder.layer.3.attention.attention.key.weight')
    expect(there).toContain('encoder.layer.0.mlp.fc1.bias')
    const back = planRenames(there, [invertTable(dinov2HubLayout)]).recipes
    expect([...back.keys()].sort()).toEqual([...names].sort())
  })
})

describe('checkpoints', () => {
  const reference = () => referenceCase('dinov2')

  it("in the hub's layout are those in transformers', as safetensors and as pickles", async () => {
    using wanted = await imageEncoderFromPretrained(reference().model)
    const source = await openWeights(reference().model)
    const hub = renameSource(source, [invertTable(dinov2HubLayout)])
    expect(hub.names).toContain('blocks.2.attn.qkv.weight')
    expect(hub.names.filter((name) => name.includes('layer'))).toEqual([])
    for (const kind of ['model.safetensors', 'model.pth', 'wrapped.pt']) {
      const place = join(folder, `hub-${kind}`)
      mkdirSync(place)
      copyFileSync(join(reference().model, 'config.json'), join(place, 'config.json'))
      inScope(() => {
        const tensors = new Map(hub.names.map((name) => [name, hub.tensor(name)]))
        if (kind.endsWith('.safetensors')) torch.saveSafetensors(tensors, join(place, kind))
        else if (kind === 'wrapped.pt') torch.save(new Map([['state_dict', tensors]]), join(place, kind))
        else torch.save(tensors, join(place, kind))
      })
      using found = await imageEncoderFromPretrained(place)
      inScope(() => {
        const pixels = reference().tensor('in.pixel_values')
        expectClose(found.forward(pixels).hidden, wanted.forward(pixels).hidden, exact, kind)
      })
    }
  })

  it("say how positions are resized: the hub's without registers by a factor", async () => {
    const plain = new URL('image/fixtures/dinov2-plain', import.meta.url).pathname
    using transformers = (await imageEncoderFromPretrained(plain)) as Dinov2
    expect(transformers.positions).toBe('size')
    const source = renameSource(await openWeights(plain), [invertTable(dinov2HubLayout)])
    inScope(() =>
      torch.saveSafetensors(new Map(source.names.map((n) => [n, source.tensor(n)])), join(folder, 'model.safetensors')),
    )
    copyFileSync(join(plain, 'config.json'), join(folder, 'config.json'))
    using hub = (await imageEncoderFromPretrained(folder)) as Dinov2
    expect(hub.positions).toBe('scale-offset')
  })

  it('of the published code give the same encoder', async () => {
    const step = referenceCase('cleft-step')
    using wanted = await imageEncoderFromPretrained(`${step.folder}/image`)
    const source = await openWeights(`${step.folder}/official.ckpt`)
    const config = readConfig(`${step.folder}/image`)
    const { Config } = await import('../../src/models/config.js')
    using found = nn.onMeta(() => dinov2Loader.build(new Config(config), {}))
    const published: RenameTable = [
      { from: 'img_encoder_q.model.{rest*}', to: '{rest}' },
      ...['img_encoder_q.global_embed.{p}', 'text_encoder_q.{rest*}', 'logit_scale'].map((from) => ({
        from,
        to: null,
      })),
    ]
    loadWeights(found, source, { rename: [published, dinov2HubLayout] })
    inScope(() => {
      for (const [name, tensor] of wanted.stateDict()) expectClose(found.stateDict().get(name)!, tensor, exact, name)
    })
    source.close?.()
  })

  it('in shards, safetensors or pickles, are one', async () => {
    const { hubFolder } = { hubFolder: join(folder, 'shards') }
    mkdirSync(hubFolder)
    inScope(() => {
      torch.save(new Map([['a', torch.ones([2])]]), join(hubFolder, 'pytorch_model-1.bin'))
      torch.save(new Map([['b', torch.zeros([3])]]), join(hubFolder, 'pytorch_model-2.bin'))
    })
    const index = { weight_map: { a: 'pytorch_model-1.bin', b: 'pytorch_model-2.bin' } }
    writeFileSync(join(hubFolder, 'pytorch_model.bin.index.json'), JSON.stringify(index))
    const source = await openWeights(hubFolder)
    expect([...source.names]).toEqual(['a', 'b'])
    inScope(() => expect(source.tensor('b').shape).toEqual([3]))
    source.close?.()
    await expect(openWeights(join(folder, 'nowhere'))).rejects.toThrow(/does not exist/)
    const empty = join(folder, 'empty')
    mkdirSync(empty)
    await expect(openWeights(empty)).rejects.toThrow(/to hold one file of weights .* but it has none/)
  })
})

it('a model loads in another dtype, and frozen', async () => {
  using model = await fromPretrained(referenceCase('vit').model, { dtype: 'bfloat16', frozen: true })
  expect(model.parameters().every((p) => p.dtype === 'bfloat16' && !p.requiresGrad)).toBe(true)
  expect(model.train().training).toBe(false)
})

describe.runIf(process.platform === 'linux')('memory', () => {
  /** MiB of pages of files that count as this process's. */
  const fileMemory = () => Number(/RssFile:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024

  it.each(['pytorch_model.bin', 'model.safetensors'])('is not taken by the pages of %s that are cast', async (name) => {
    const folder = mkdtempSync(join(tmpdir(), 'cleft-weights-'))
    try {
      torch.scope(() => {
        const state = new Map([['weight', torch.randn([3072, 4096])]])
        if (name.endsWith('.bin')) torch.save(state, join(folder, name))
        else torch.saveSafetensors(state, join(folder, name))
      })
      // a fused tensor of 48 MiB, of which each layer takes a third
      const module = nn.onMeta(() => new nn.ModuleList([0, 1, 2].map(() => new nn.Linear(4096, 1024, { bias: false }))))
      const source = await openWeights(folder)
      const before = fileMemory()
      loadWeights(module, source, {
        rename: [[{ from: 'weight', to: ['0.weight', '1.weight', '2.weight'] }]],
        dtype: 'bfloat16',
      })
      expect(fileMemory() - before).toBeLessThan(20)
      const parts = torch.cat(module.parameters(), 0)
      expect(parts.equal(source.tensor('weight').to('bfloat16'))).toBe(true)
      source.close?.()
      module.dispose()
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('of tensors that were not mapped from a file is left alone', () => {
    const tensor = torch.arange(4096)
    torch.dropPages(tensor)
    expect(tensor.at(17).item()).toBe(17)
  })
})
