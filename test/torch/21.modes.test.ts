import { afterEach, describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope } from './helpers.js'

const threads = torch.getNumThreads()

afterEach(() => {
  torch.setDefaultDtype('float32')
  torch.setNumThreads(threads)
  torch.useDeterministicAlgorithms(false)
})

describe('autocast', () => {
  it('computes matrix products in bfloat16, and what needs float32 in it', () => {
    inScope(() => {
      const x = torch.randn([4, 4])
      const weight = torch.randn([4, 4]).requiresGrad_()
      torch.autocast({ dtype: 'bfloat16' }, () => {
        expect([torch.isAutocastEnabled(), torch.getAutocastDtype()]).toEqual([true, 'bfloat16'])
        const y = x.matmul(weight)
        expect(y.dtype).toBe('bfloat16')
        expect(x.add(weight).dtype).toBe('float32')
        y.sum().backward()
      })
      expect(weight.grad!.dtype).toBe('float32')
      expect(x.matmul(weight).dtype).toBe('float32')
      expect(torch.isAutocastEnabled()).toBe(false)
    })
  })

  it('is bfloat16 on the CPU, and another dtype where that is said', () => {
    inScope(() => {
      const x = torch.ones([2, 2])
      expect(torch.autocast({}, () => x.matmul(x)).dtype).toBe('bfloat16')
      expect(torch.autocast({ dtype: 'float16' }, () => x.matmul(x)).dtype).toBe('float16')
      expect(torch.autocast({}, () => x.matmul(x)).dtype).toBe('bfloat16')
      expect(torch.autocast({ enabled: false }, () => x.matmul(x)).dtype).toBe('float32')
    })
  })

  it('nests, and ends where the function throws', () => {
    inScope(() => {
      const x = torch.ones([2, 2])
      torch.autocast({ dtype: 'bfloat16' }, () => {
        torch.autocast({ enabled: false }, () => expect(x.matmul(x).dtype).toBe('float32'))
        expect(() =>
          torch.autocast({ dtype: 'float16' }, () => {
            throw new Error('mine')
          }),
        ).toThrow('mine')
        expect(x.matmul(x).dtype).toBe('bfloat16')
      })
      expect(x.matmul(x).dtype).toBe('float32')
    })
  })

  it('keeps casts of weights until it ends, and not after they change', () => {
    inScope(() => {
      const weight = torch.ones([2, 2], { requiresGrad: true })
      const x = torch.ones([2, 2])
      const first = torch.autocast({}, () => x.matmul(weight).add(x.matmul(weight)))
      torch.noGrad(() => weight.fill_(2))
      const second = torch.autocast({}, () => x.matmul(weight))
      expect([first.at(0, 0).item(), second.at(0, 0).item()]).toEqual([4, 4])
    })
  })

  it('refuses what it cannot do', () => {
    const run = () => 1
    expect(() => torch.autocast({ dtype: 'int64' }, run)).toThrow(RangeError)
    expect(() => torch.autocast({ dtype: 'int64' }, run)).toThrow(
      /^autocast: expected dtype to be bfloat16, float16 or float32/,
    )
    expect(() => torch.autocast({ device: 'meta' }, run)).toThrow(/^autocast: expected a device that has autocast/)
    expect(() => torch.autocast({}, async () => 1)).toThrow(/^autocast: expected a synchronous function/)
    expect(torch.isAutocastEnabled()).toBe(false)
  })
})

describe('threads', () => {
  it('are set and read', () => {
    torch.setNumThreads(1)
    expect(torch.getNumThreads()).toBe(1)
    expect(torch.info().threads).toBe(1)
    torch.setNumThreads(2)
    expect(torch.getNumThreads()).toBe(2)
  })

  it('refuse numbers that make no sense', () => {
    for (const count of [0, -1, 1.5, Number.NaN, 1e9])
      expect(() => torch.setNumThreads(count), String(count)).toThrow(RangeError)
    expect(() => torch.setNumThreads('2' as unknown as number)).toThrow(TypeError)
    expect(() => torch.setNumThreads(0)).toThrow('setNumThreads: expected threads from 1 to 4096, but received 0')
  })
})

describe('the default dtype', () => {
  it('is that of factories and plain numbers', () => {
    inScope(() => {
      expect(torch.getDefaultDtype()).toBe('float32')
      torch.setDefaultDtype('float64')
      expect(torch.getDefaultDtype()).toBe('float64')
      expect([torch.zeros([1]).dtype, torch.tensor([1]).dtype, torch.full([1], 2).dtype]).toEqual([
        'float64',
        'float64',
        'float64',
      ])
      expect(torch.tensor([1n]).div(2).dtype).toBe('float64')
      torch.setDefaultDtype('bfloat16')
      expect(torch.tensor([0.1]).item()).toBe(0.10009765625)
    })
  })

  it('is a floating one', () => {
    expect(() => torch.setDefaultDtype('int64')).toThrow(RangeError)
    expect(() => torch.setDefaultDtype('float31' as torch.DType)).toThrow(/^setDefaultDtype: expected dtype/)
  })
})

describe('switches', () => {
  it('deterministic algorithms', () => {
    expect(torch.areDeterministicAlgorithmsEnabled()).toBe(false)
    torch.useDeterministicAlgorithms(true)
    expect(torch.areDeterministicAlgorithmsEnabled()).toBe(true)
  })

  it('of the backends are read and written', () => {
    for (const [name, each] of Object.entries(torch.backends)) {
      const before = each.enabled
      each.enabled = !before
      expect(each.enabled, name).toBe(!before)
      each.enabled = before
    }
  })
})

describe('info', () => {
  it('says what is loaded', () => {
    const info = torch.info()
    expect(info.torchVersion).toMatch(/^2\.1[1-4]\.\d/)
    expect(typeof info.cudaAvailable).toBe('boolean')
    expect(info.threads).toBeGreaterThan(0)
  })
})

describe.runIf(!torch.cuda.isAvailable())('without a GPU', () => {
  it('asking for one is an error that says so, and leaves nothing behind', () => {
    const { live } = torch.memory.counters()
    expect(torch.cuda.deviceCount()).toBe(0)
    expect(() => torch.zeros([1], { device: 'cuda' })).toThrow(Error)
    expect(() => torch.tensor([1], { device: 'cuda' })).toThrow(Error)
    expect(() => torch.cuda.memoryStatistics()).toThrow(RangeError)
    expect(() => torch.cuda.synchronize()).toThrow(RangeError)
    expect(() => torch.cuda.Stream.current()).toThrow(RangeError)
    expect(torch.memory.counters().live).toBe(live)
  })
})
