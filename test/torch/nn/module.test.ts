import { describe, expect, it } from 'vitest'
import * as torch from '../../../src/torch/index.js'
import { inScope } from '../helpers.js'

const { nn } = torch

class Block extends nn.Module {
  norm: torch.nn.LayerNorm
  scale: torch.nn.Parameter
  table: torch.Tensor
  cache: torch.Tensor
  note = torch.keep(torch.zeros([1]))

  constructor(width: number) {
    super()
    this.norm = new nn.LayerNorm(width)
    this.scale = new nn.Parameter(torch.ones([width]))
    this.table = this.registerBuffer('table', torch.arange(width))
    this.cache = this.registerBuffer('cache', torch.zeros([width]), { persistent: false })
  }

  forward(x: torch.Tensor): torch.Tensor {
    return this.norm.forward(x).mul(this.scale)
  }
}

class Net extends nn.Module {
  embed = new nn.Linear(3, 4)
  blocks = new nn.ModuleList([new Block(4), new Block(4)])
  head = new nn.Linear(4, 2, { bias: false })

  forward(x: torch.Tensor): torch.Tensor {
    let value = this.embed.forward(x)
    for (const block of this.blocks) value = block.forward(value)
    return this.head.forward(value)
  }
}

function values(module: torch.nn.Module): unknown[] {
  return torch.scope(() => Array.from(module.stateDict().values(), (tensor) => tensor.toArray()))
}

describe('Module', () => {
  it('names what it holds like PyTorch, in order', () => {
    using net = new Net()
    expect(net.namedParameters().map(([name]) => name)).toEqual([
      'embed.weight',
      'embed.bias',
      'blocks.0.scale',
      'blocks.0.norm.weight',
      'blocks.0.norm.bias',
      'blocks.1.scale',
      'blocks.1.norm.weight',
      'blocks.1.norm.bias',
      'head.weight',
    ])
    expect(net.namedBuffers().map(([name]) => name)).toEqual(
      ['0.table', '0.cache', '1.table', '1.cache'].map((name) => `blocks.${name}`),
    )
    expect([...net.stateDict().keys()].slice(0, 6)).toEqual([
      'embed.weight',
      'embed.bias',
      'blocks.0.scale',
      'blocks.0.table',
      'blocks.0.norm.weight',
      'blocks.0.norm.bias',
    ])
    expect(net.namedModules().map(([name]) => name)).toEqual([
      '',
      'embed',
      'blocks',
      'blocks.0',
      'blocks.0.norm',
      'blocks.1',
      'blocks.1.norm',
      'head',
    ])
    expect(net.getSubmodule('blocks.1.norm')).toBe(net.blocks.at(1).norm)
    expect(() => net.getSubmodule('blocks.2')).toThrow(/part named '2'/)
  })

  it('yields shared parameters and modules once, and saves each name', () => {
    class Tied extends nn.Module {
      table = new nn.Embedding(5, 3)
      again = this.table
      head = new nn.Linear(3, 5, { bias: false })
      constructor() {
        super()
        this.head.weight = this.table.weight
      }
      forward(x: torch.Tensor) {
        return this.head.forward(this.table.forward(x))
      }
    }
    using net = new Tied()
    expect(net.namedParameters().map(([name]) => name)).toEqual(['table.weight'])
    inScope(() => {
      const state = net.stateDict()
      expect([...state.keys()]).toEqual(['table.weight', 'again.weight', 'head.weight'])
      using other = new Tied()
      // files of safetensors keep one name of a tied parameter
      expect(other.loadStateDict({ 'head.weight': state.get('head.weight')! })).toEqual({ missing: [], unexpected: [] })
      expect(other.table.weight.equal(net.table.weight)).toBe(true)
    })
  })

  it('stands a part that refers to its owner', () => {
    class Child extends nn.Module {
      weight = new nn.Parameter(torch.ones([1]))
      constructor(public owner: torch.nn.Module) {
        super()
      }
      forward() {}
    }
    class Owner extends nn.Module {
      child: Child = new Child(this)
      forward() {}
    }
    using net = new Owner()
    expect([...net.stateDict().keys()]).toEqual(['child.weight'])
    expect(net.parameters()).toHaveLength(1)
  })

  it('says that an array of modules is not found', () => {
    class Wrong extends nn.Module {
      layers = [new nn.Identity()]
      forward() {}
    }
    expect(() => new Wrong().parameters()).toThrow(/Wrong: expected the field 'layers' to be an nn.ModuleList/)
  })

  it('refuses names that do not work', () => {
    using net = new Net()
    expect(() => net.registerBuffer('a.b', torch.ones([1]))).toThrow(/without dots/)
    expect(() => net.registerParameter('forward', null)).toThrow(/method/)
  })

  it('registers parameters at run time, and none', () => {
    using layer = new nn.Identity()
    layer.registerParameter('extra', new nn.Parameter(torch.ones([2]), { requiresGrad: false }))
    layer.registerParameter('none', null)
    expect(layer.namedParameters().map(([name, each]) => [name, each.requiresGrad])).toEqual([['extra', false]])
  })

  it('replaces parts by name, in lists too', () => {
    using net = new Net()
    const gelu = new nn.GELU()
    net.setSubmodule('blocks.0', gelu)
    expect(net.getSubmodule('blocks.0')).toBe(gelu)
    net.setSubmodule('head', gelu)
    expect(net.head).toBe(gelu)
    expect(() => net.setSubmodule('tail', gelu)).toThrow(/part named 'tail'/)
  })

  it('prints like PyTorch', () => {
    using net = new Net()
    expect(String(net)).toBe(
      [
        'Net(',
        '  (embed): Linear(inFeatures=3, outFeatures=4, bias=true)',
        '  (blocks): ModuleList(',
        '    (0-1): 2 x Block(',
        '      (norm): LayerNorm(normalizedShape=[4], eps=0.00001)',
        '    )',
        '  )',
        '  (head): Linear(inFeatures=4, outFeatures=2, bias=false)',
        ')',
      ].join('\n'),
    )
  })

  it('switches modes, gradients and applies functions from inside out', () => {
    using net = new Net()
    expect(net.eval().blocks.at(0).norm.training).toBe(false)
    expect(net.train().blocks.at(-1).norm.training).toBe(true)
    net.requiresGrad_(false)
    expect(net.parameters().some((each) => each.requiresGrad)).toBe(false)
    const order: string[] = []
    net.blocks.apply((module) => order.push(module.constructor.name))
    expect(order).toEqual(['LayerNorm', 'Block', 'LayerNorm', 'Block', 'ModuleList'])
  })
})

describe('places and dtypes', () => {
  it('changes floating-point tensors only, keeps the objects, and moves gradients', () => {
    using net = new Net()
    const before = net.parameters()
    inScope(() =>
      net
        .forward(torch.ones([2, 3]))
        .sum()
        .backward(),
    )
    net.to('float64')
    expect(net.parameters()).toEqual(before)
    expect(net.parameters().every((each, index) => each === before[index])).toBe(true)
    inScope(() => {
      expect(net.head.weight.dtype).toBe('float64')
      expect(net.head.weight.grad!.dtype).toBe('float64')
      expect(net.blocks.at(0).table.dtype).toBe('int64')
      expect(net.blocks.at(0).cache.dtype).toBe('float64')
      expect(net.blocks.at(0).note.dtype).toBe('float32')
      net.zeroGrad()
      expect(net.head.weight.grad).toBeNull()
      net
        .forward(torch.ones([2, 3], { dtype: 'float64' }))
        .sum()
        .backward()
      expect(net.head.weight.grad!.dtype).toBe('float64')
      expect(net.head.weight.isLeaf && net.head.weight.requiresGrad).toBe(true)
    })
    expect(() => net.to('int64')).toThrow(/floating-point/)
  })

  it('builds on meta, without memory, and fills from a state dict', () => {
    using source = new Net()
    using net = nn.onMeta(() => new Net())
    const weight = net.head.weight
    expect(weight.device).toBe('meta')
    expect(weight.requiresGrad).toBe(true)
    expect(() => net.to('cpu')).toThrow(/embed\.weight is on 'meta'; use toEmpty\('cpu'\)/)
    inScope(() => {
      const state = source.stateDict()
      expect(() => net.loadStateDict(state)).toThrow(/embed\.weight is on 'meta'; use \{ assign: true \}/)
      net.loadStateDict(state, { assign: true })
      expect(net.head.weight).toBe(weight)
      expect(weight.device).toBe('cpu')
      expect(weight.requiresGrad).toBe(true)
      expect(weight.sharesStorage(source.head.weight)).toBe(true)
      expect(values(net)).toEqual(values(source))
    })
  })

  it('makes room with toEmpty()', () => {
    using net = nn.construct({ device: 'meta', dtype: 'bfloat16' }, () => new nn.BatchNorm1d(3))
    net.toEmpty('cpu')
    expect(net.weight!.device).toBe('cpu')
    expect(net.weight!.dtype).toBe('bfloat16')
    expect(net.num_batches_tracked!.dtype).toBe('int64')
    net.resetParameters()
    expect(net.running_var!.toArray()).toEqual([1, 1, 1])
  })

  it('constructs in a dtype, nested, with the layer having the last word, and without initialising', () => {
    nn.construct({ dtype: 'float64' }, () => {
      expect(new nn.Linear(1, 1).weight.dtype).toBe('float64')
      expect(new nn.Linear(1, 1, { dtype: 'float16' }).weight.dtype).toBe('float16')
      nn.onMeta(() => {
        const layer = new nn.Embedding(2, 2, { paddingIdx: 0 })
        expect([layer.weight.dtype, layer.weight.device]).toEqual(['float64', 'meta'])
      })
      expect(new nn.Linear(1, 1).weight.device).toBe('cpu')
    })
    torch.manualSeed(1)
    nn.construct({ initialize: false }, () => new nn.Linear(10, 10))
    const after = torch.rand([1]).item()
    torch.manualSeed(1)
    expect(torch.rand([1]).item()).toBe(after)
    expect(() => nn.construct({}, async () => 1)).toThrow(/synchronous/)
  })
})

describe('state dicts', () => {
  it('round-trips, with conversions of dtype', () => {
    using source = new Net()
    using target = new Net()
    inScope(() => {
      const half = new Map(Array.from(source.stateDict(), ([name, tensor]) => [name, tensor.double()]))
      target.loadStateDict(half)
      expect(target.head.weight.dtype).toBe('float32')
      expect(values(target)).toEqual(values(source))
      expect(target.head.weight.sharesStorage(source.head.weight)).toBe(false)
      target.loadStateDict(Object.fromEntries(source.stateDict()))
      source.stateDict().get('head.weight')!.zero_()
      expect(source.head.weight.abs().sum().item()).toBe(0)
    })
  })

  it('lists all that does not fit, and loads nothing', () => {
    using source = new Net()
    using target = new Net()
    const before = values(target)
    inScope(() => {
      const state = source.stateDict()
      state.delete('embed.bias')
      state.delete('blocks.1.scale')
      state.set('extra', torch.ones([1]))
      state.set('head.weight', torch.ones([4, 2]))
      state.set('blocks.0.scale', torch.ones([7]))
      let error: unknown
      try {
        target.loadStateDict(state)
      } catch (caught) {
        error = caught
      }
      expect(error).toBeInstanceOf(nn.StateDictError)
      const found = error as InstanceType<typeof nn.StateDictError>
      expect(found.missing).toEqual(['embed.bias', 'blocks.1.scale'])
      expect(found.unexpected).toEqual(['extra'])
      expect(found.misshapen).toEqual([
        'blocks.0.scale: expected shape [4], but received [7]',
        'head.weight: expected shape [2,4], but received [4,2]; did you mean its transpose?',
      ])
      expect(found.message).toMatch(/Net, but received 10: 2 missing: embed.bias, blocks.1.scale. 1 unexpected: extra/)
      expect(values(target)).toEqual(before)
      // another shape is an error also where strict is false
      expect(() => target.loadStateDict(state, { strict: false })).toThrow(/2 of another shape/)
      state.delete('head.weight')
      state.delete('blocks.0.scale')
      expect(target.loadStateDict(state, { strict: false })).toEqual({
        missing: ['embed.bias', 'blocks.0.scale', 'blocks.1.scale', 'head.weight'],
        unexpected: ['extra'],
      })
    })
  })

  it('guesses wrappers', () => {
    using layer = new nn.Linear(2, 2)
    inScope(() => {
      const state = new Map(Array.from(layer.stateDict(), ([name, tensor]) => [`module.${name}`, tensor]))
      expect(() => layer.loadStateDict(state)).toThrow(/did you mean the names without 'module\.' in front\?/)
      using owner = new nn.Sequential(layer)
      expect(() => owner.loadStateDict(layer.stateDict())).toThrow(/did you mean the names with '0\.' in front\?/)
    })
  })

  it('refuses values that a parameter cannot have', () => {
    using layer = new nn.Linear(2, 2, { bias: false })
    inScope(() => {
      const integers = { weight: torch.ones([2, 2], { dtype: 'int64' }) }
      expect(() => layer.loadStateDict(integers, { assign: true })).toThrow(
        /floating-point values for the parameter weight/,
      )
      layer.loadStateDict(integers)
      expect(layer.weight.sum().item()).toBe(4)
      expect(() => layer.loadStateDict({ weight: torch.ones([2, 2], { dtype: 'complex64' }) })).toThrow(/real values/)
      expect(() => layer.loadStateDict({ weight: torch.ones([2, 2], { device: 'meta' }) })).toThrow(/has none/)
    })
  })

  it('assigns another dtype, and drops the gradient of the old values', () => {
    using layer = new nn.Linear(2, 2, { bias: false })
    inScope(() => {
      layer
        .forward(torch.ones([1, 2]))
        .sum()
        .backward()
      layer.loadStateDict({ weight: torch.ones([2, 2], { dtype: 'bfloat16' }) }, { assign: true })
      expect(layer.weight.dtype).toBe('bfloat16')
      expect(layer.weight.grad).toBeNull()
      layer
        .forward(torch.ones([1, 2], { dtype: 'bfloat16' }))
        .sum()
        .backward()
      expect(layer.weight.grad!.toArray()).toEqual([
        [1, 1],
        [1, 1],
      ])
    })
    // what was assigned in the scope lives on
    expect(layer.weight.toArray()).toEqual([
      [1, 1],
      [1, 1],
    ])
  })
})

describe('hooks', () => {
  it('run with forward(), and are gone when removed', () => {
    using layer = new nn.Linear(2, 2)
    const original = layer.forward
    const seen: unknown[] = []
    inScope(() => {
      const x = torch.ones([1, 2])
      const plain = layer.forward(x).toArray()
      const before = layer.registerForwardPreHook((module, inputs) => {
        seen.push(module.inFeatures, inputs[0].shape)
        return [inputs[0].mul(0)]
      })
      const after = layer.registerForwardHook((_, inputs, output) => {
        seen.push(inputs[0].sum().item())
        return output.add(1)
      })
      expect(layer.forward(x).toArray()).toEqual([layer.bias!.add(1).toArray()])
      expect(seen).toEqual([2, [1, 2], 0])
      expect(Object.keys(layer)).not.toContain('forward')
      before.remove()
      after.remove()
      after.remove()
      expect(layer.forward).toBe(original)
      expect(Object.hasOwn(layer, 'forward')).toBe(false)
      expect(layer.forward(x).toArray()).toEqual(plain)
      // again, after all were removed
      layer.registerForwardHook((_, __, output) => output.mul(0)).remove()
      layer.registerForwardHook((_, __, output) => output.mul(0))
      expect(new nn.Sequential(layer).forward(x).toArray()).toEqual([[0, 0]])
    })
  })
})

describe('containers', () => {
  it('Sequential, ModuleList and ModuleDict', () => {
    using row = new nn.Sequential(new nn.Linear(2, 3), new nn.ReLU())
    row.append(new nn.Linear(3, 1))
    expect(row.length).toBe(3)
    expect(row.forward(torch.ones([4, 2])).shape).toEqual([4, 1])
    expect([...row.stateDict().keys()]).toEqual(['0.weight', '0.bias', '2.weight', '2.bias'])
    const list = new nn.ModuleList([new nn.ReLU()])
    expect(() => list.at(1)).toThrow(RangeError)
    expect(() => list.forward()).toThrow(/list itself/)
    using named = new nn.ModuleDict({ a: new nn.Linear(1, 1), b: new nn.Linear(1, 1) })
    expect(named.get('a').inFeatures).toBe(1)
    expect(() => named.get('c')).toThrow(/one of \[a,b\]/)
    expect(named.namedParameters().map(([name]) => name)).toEqual(['a.weight', 'a.bias', 'b.weight', 'b.bias'])
    expect(Array.from(named, ([name]) => name)).toEqual(['a', 'b'])
    expect(() => named.set('x.y', new nn.Linear(1, 1))).toThrow(/without dots/)
  })
})

describe('types', () => {
  class Several extends nn.Module {
    forward(x: torch.Tensor, mask?: torch.Tensor | null): { output: torch.Tensor; count: number } {
      return { output: mask ?? x, count: 1 }
    }
  }
  class Scaled extends nn.Module {
    forward(x: torch.Tensor, scale = 2): torch.Tensor {
      return x.mul(scale)
    }
  }

  it('say what hooks and containers take', () => {
    const several = new Several()
    const all: torch.nn.Module[] = [several, new Scaled(), new nn.Linear(1, 1)]
    several.registerForwardHook((module, [x, mask], output) => {
      expect([module === several, x.shape, mask?.shape]).toEqual([true, [1], undefined])
      return { ...output, count: output.count + 1 }
    })
    // @ts-expect-error a hook gives what forward() gives
    several.registerForwardHook(() => 3).remove()
    // @ts-expect-error Sequential is for modules from a tensor to a tensor
    expect(new nn.Sequential(several).length).toBe(1)
    expect(new nn.Sequential(new Scaled(), new nn.Identity()).forward(torch.ones([1])).item()).toBe(2)
    const list: torch.nn.ModuleList<Several> = new nn.ModuleList([several])
    expect(list.at(0).forward(torch.ones([1])).count).toBe(2)
    for (const module of all) module.registerForwardPreHook((_, inputs) => expect(inputs.length).toBe(1)).remove()
  })
})
