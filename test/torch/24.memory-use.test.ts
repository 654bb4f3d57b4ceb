import { describe, expect, test } from 'vitest'
import * as torch from '../../src/torch/index.js'

const MiB = 2 ** 20
const fill = (mebibytes: number) => torch.zeros([mebibytes * MiB], { dtype: 'uint8' })

/** Counts while a function runs. */
function counted<T>(run: (count: torch.memory.Count) => T): T {
  const count = new torch.memory.Count('cpu')
  try {
    return run(count)
  } finally {
    count[Symbol.dispose]()
  }
}

describe('memory that tensors take', () => {
  test('is what is alive, and the most that was', () =>
    counted((count) => {
      const a = fill(4)
      fill(8).dispose()
      expect(count.read()).toEqual({ current: 4 * MiB, peak: 12 * MiB })
      expect(count.read({ resetPeak: true }).peak).toBe(12 * MiB)
      expect(count.read()).toEqual({ current: 4 * MiB, peak: 4 * MiB })
      a.dispose()
      expect(count.read()).toEqual({ current: 0, peak: 4 * MiB })
    }))

  test('counts what autograd keeps, and not what was there before', () => {
    const weight = torch.ones([256, 1024], { requiresGrad: true })
    const bytes = 256 * 1024 * 4
    counted((count) => {
      const loss = torch.scope(() => weight.exp().exp().sum())
      // each exp keeps its result; the sum is a number
      expect(count.read().current).toBeGreaterThanOrEqual(2 * bytes)
      expect(count.read().current).toBeLessThan(2.1 * bytes)
      loss.backward()
      loss.dispose()
      weight.grad = null
      expect(count.read().current).toBe(0)
      weight.dispose()
      expect(count.read().current).toBe(0)
    })
  })

  test('is counted once at a time', () =>
    counted(() => {
      expect(() => new torch.memory.Count('cpu')).toThrow(/expected no other count or profiler in this thread/)
    }))

  test('cannot be read once it is stopped', () => {
    const count = new torch.memory.Count('cpu')
    count[Symbol.dispose]()
    count[Symbol.dispose]()
    expect(() => count.read()).toThrow(/expected a count that was started/)
  })
})

describe('a step as a graph', () => {
  test('runs as it is where no GPU is, and says why, once', () => {
    const reasons: string[] = []
    const step = new torch.cuda.GraphedStep(([x]) => [x!.mul(2)], { onFallback: (reason) => reasons.push(reason) })
    torch.scope(() => {
      for (const value of [1, 2, 3]) expect(step.run([torch.tensor([value])])[0]!.toArray()).toEqual([2 * value])
    })
    expect(reasons).toEqual(['expected inputs on a GPU, and one is on cpu'])
    expect([step.reason, step.recorded]).toEqual([reasons[0], 0])
    step.dispose()
  })
})

describe.runIf(!torch.info().cudaBuild)('what only CUDA has', () => {
  test.each([
    ['memoryFraction', () => torch.cuda.memoryFraction()],
    ['setMemoryFraction', () => torch.cuda.setMemoryFraction(0.5)],
    ['memorySnapshot', () => torch.cuda.memorySnapshot()],
    ['setSyncDebug', () => torch.cuda.setSyncDebug('error')],
    ['Graph', () => new torch.cuda.Graph()],
  ])('%s is an error with the next command where the build lacks it', (_, run) => {
    expect(run).toThrow(/expected a CUDA build of libtorch, but this is a CPU build; run: npx cleft setup --cuda auto/)
    expect(run).toThrow(RangeError)
  })

  test('determinism sets what cuBLAS reads, and leaves what is set', () => {
    const before = process.env.CUBLAS_WORKSPACE_CONFIG
    try {
      delete process.env.CUBLAS_WORKSPACE_CONFIG
      torch.useDeterministicAlgorithms(true)
      expect(process.env.CUBLAS_WORKSPACE_CONFIG).toBe(':4096:8')
      process.env.CUBLAS_WORKSPACE_CONFIG = ':16:8'
      torch.useDeterministicAlgorithms(true)
      expect(process.env.CUBLAS_WORKSPACE_CONFIG).toBe(':16:8')
    } finally {
      torch.useDeterministicAlgorithms(false)
      if (before === undefined) delete process.env.CUBLAS_WORKSPACE_CONFIG
      else process.env.CUBLAS_WORKSPACE_CONFIG = before
    }
  })
})
