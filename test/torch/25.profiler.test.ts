import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope } from './helpers.js'

describe('the profiler', () => {
  it('counts operators, those that they call, and the backward', () => {
    inScope(() => {
      const [x, w] = [torch.ones([4, 3]).requiresGrad_(), torch.ones([3, 2]).requiresGrad_()]
      using profiler = new torch.profiler.Profiler()
      for (let k = 0; k < 3; k += 1) x.matmul(w).sum().backward()
      const operators = profiler.stop()
      const named = new Map(operators.map((each) => [each.name, each]))
      expect(named.get('aten::matmul')!.calls).toBe(3)
      // forward, and both gradients
      expect(named.get('aten::mm')!.calls).toBe(9)
      expect(named.get('MmBackward0')!.calls).toBe(3)
      const [outer, inner] = [named.get('aten::matmul')!, named.get('aten::mm')!]
      expect(outer.total).toBeGreaterThan(outer.self)
      expect(outer.self).toBeGreaterThanOrEqual(0)
      // it calls nothing that is seen
      expect(inner.self).toBeLessThanOrEqual(inner.total)
      expect(operators.map(({ self }) => self)).toEqual(operators.map(({ self }) => self).sort((a, b) => b - a))
      expect(profiler.stop()).toBe(operators)
      x.add(1)
      expect(profiler.stop()).toBe(operators)
      const lines = torch.profiler.describe(operators, { limit: 2 }).split('\n')
      expect(lines.length).toBe(3)
      expect(lines[0]).toMatch(/^self ms +share +total ms +calls +operator$/)
      expect(lines[1]).toContain(operators[0]!.name)
    })
  })

  it('runs once at a time, and begins with nothing', () => {
    inScope(() => {
      {
        using profiler = new torch.profiler.Profiler()
        torch.zeros([2]).add(1)
        expect(() => new torch.profiler.Profiler()).toThrow(/stop\(\) it first/)
        expect(profiler.stop().length).toBeGreaterThan(0)
      }
      using again = new torch.profiler.Profiler()
      expect(again.stop()).toEqual([])
      expect(torch.profiler.describe([])).toBe('self ms  share  total ms  calls  operator')
    })
  })
})
