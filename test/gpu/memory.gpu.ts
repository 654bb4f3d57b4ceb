import { describe, expect, test } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { device, isGpu, testOnGpu } from './device.js'

const MiB = 2 ** 20

describe('devices, streams, events', () => {
  test('without a GPU are errors that say so', () => {
    if (isGpu) return expect(torch.cuda.isAvailable()).toBe(true)
    expect(() => torch.cuda.synchronize()).toThrow(RangeError)
    expect(() => new torch.cuda.Graph()).toThrow(/expected a (CUDA build|machine with a GPU|add-on)/)
  })

  testOnGpu('are there, and the add-on has all of CUDA', () => {
    expect(torch.cuda.isAvailable()).toBe(true)
    expect(torch.cuda.deviceCount()).toBeGreaterThan(0)
    expect(torch.info()).toMatchObject({ cudaBuild: true, cudaAvailable: true, cudaHeaders: true })
    torch.cuda.setDevice(torch.cuda.currentDevice())
    expect(() => torch.cuda.setDevice(99)).toThrow(RangeError)
  })

  testOnGpu('work goes to its own stream, others wait for events, events measure time', () =>
    torch.scope(() => {
      const stream = torch.cuda.Stream.create()
      const x = torch.randn([2048, 2048], { device })
      stream.waitEvent(torch.cuda.Stream.current().recordEvent())
      const [start, end] = [new torch.cuda.Event({ timing: true }), new torch.cuda.Event({ timing: true })]
      const y = stream.run(() => {
        start.record()
        const product = x.mm(x)
        end.record()
        return product
      })
      stream.keepAlive(x)
      torch.cuda.Stream.current().waitEvent(end)
      expect(y.sub(x.mm(x)).abs().max().item()).toBe(0)
      end.synchronize()
      expect(end.query()).toBe(true)
      expect(start.elapsedTime(end)).toBeGreaterThan(0)
      stream.synchronize()
    }),
  )
})

describe('memory', () => {
  testOnGpu('is counted, its peak too, and given back', () => {
    torch.cuda.emptyCache()
    torch.cuda.resetPeakMemory()
    const before = torch.cuda.memoryStatistics()
    torch.zeros([32 * MiB], { dtype: 'uint8', device }).dispose()
    const after = torch.cuda.memoryStatistics()
    expect(after.allocated).toBe(before.allocated)
    expect(after.peakAllocated - before.allocated).toBeGreaterThanOrEqual(32 * MiB)
    expect(after.reserved).toBeGreaterThanOrEqual(32 * MiB)
    torch.cuda.emptyCache()
    expect(torch.cuda.memoryStatistics().reserved).toBeLessThan(after.reserved)
  })

  testOnGpu('of this process has a limit, beyond which it is out of memory and stays usable', async () => {
    const { total } = torch.cuda.memoryStatistics()
    expect(torch.cuda.memoryFraction()).toBeGreaterThan(0)
    torch.cuda.setMemoryFraction(0.1)
    try {
      let thrown: unknown
      try {
        torch.zeros([Math.floor(total * 0.2)], { dtype: 'uint8', device })
      } catch (error) {
        thrown = error
      }
      expect(torch.isOutOfMemory(thrown)).toBe(true)
      await torch.memory.collect()
      expect(torch.scope(() => torch.ones([3], { device }).sum().item())).toBe(3)
    } finally {
      torch.cuda.setMemoryFraction(1)
    }
    expect(() => torch.cuda.setMemoryFraction(0)).toThrow(RangeError)
  })

  testOnGpu('lies in segments that a snapshot shows', () => {
    using _ = torch.zeros([8 * MiB], { dtype: 'uint8', device })
    const segments = torch.cuda.memorySnapshot()
    expect(segments.some(({ allocated, bytes }) => allocated >= 8 * MiB && bytes >= allocated)).toBe(true)
    for (const { bytes, blocks } of segments) {
      expect(blocks.reduce((sum, block) => sum + block.bytes, 0)).toBe(bytes)
    }
  })

  test('that tensors take is counted alike on every device', () => {
    using warm = torch.zeros([1], { device })
    const count = new torch.memory.Count(device)
    try {
      torch.scope(() => {
        torch.zeros([4 * MiB], { dtype: 'uint8', device }).add(1)
      })
      const { current, peak } = count.read({ resetPeak: true })
      expect(current).toBe(0)
      expect(peak).toBeGreaterThanOrEqual(8 * MiB)
      expect(peak).toBeLessThan(9 * MiB)
      expect(count.read().peak).toBe(0)
      expect(warm.isAlive).toBe(true)
    } finally {
      count[Symbol.dispose]()
    }
  })
})

describe('copies', () => {
  testOnGpu('from and to pinned memory do not wait', () =>
    torch.scope(() => {
      const pinned = torch.randn([1024, 1024]).pinMemory()
      expect(pinned.isPinned()).toBe(true)
      torch.cuda.setSyncDebug('error')
      try {
        const there = pinned.to(device, { nonBlocking: true })
        const back = torch.empty([1024, 1024], { pinMemory: true })
        back.copy_(there, { nonBlocking: true })
        torch.cuda.setSyncDebug('off')
        torch.cuda.synchronize()
        expect(back.equal(pinned)).toBe(true)
        torch.cuda.setSyncDebug('error')
        expect(() => there.sum().item()).toThrow(torch.TorchError)
      } finally {
        torch.cuda.setSyncDebug('off')
      }
    }),
  )

  test('back as a Promise leave the event loop its turn, and are of the moment they were asked for', async () => {
    using x = torch.full([256, 1024], 2, { device })
    const asked = x.toTypedArrayAsync()
    x.zero_()
    let turns = 0
    const timer = setInterval(() => {
      turns += 1
    }, 0)
    // work for the device that takes longer than a turn
    using big = torch.scope(() => {
      let product = torch.randn([1024, 1024], { device })
      for (let k = 0; k < 20; k += 1) product = product.mm(product).tanh()
      return product
    })
    const values = await asked
    await big.toTypedArrayAsync()
    await new Promise((resolve) => setTimeout(resolve, 5))
    clearInterval(timer)
    expect(values.every((value) => value === 2)).toBe(true)
    expect(turns).toBeGreaterThan(0)
  })
})
