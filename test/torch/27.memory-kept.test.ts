import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import * as torch from '../../src/torch/index.js'

const MiB = 2 ** 20
const filled = (bytes: number, value: number) => torch.full([bytes], value, { dtype: 'uint8' })

/** What the process holds, in MiB. */
const resident = () => Number(/VmRSS:\s*(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024

/** The same numbers each time. */
function* numbers(): Generator<number, never> {
  for (let seed = 1; ; ) {
    seed = (seed * 48271) % 2147483647
    yield seed / 2147483647
  }
}

describe.runIf(process.platform === 'linux')('memory that is kept for the next tensors', () => {
  test('is nobody else’s while a tensor has it, in whatever order tensors come and go', () => {
    const random = numbers()
    const alive: { tensor: torch.Tensor; value: number }[] = []
    for (let round = 0; round < 600; round += 1) {
      if (alive.length > 12 || (alive.length > 0 && random.next().value < 0.45)) {
        const [{ tensor, value }] = alive.splice(Math.floor(random.next().value * alive.length), 1) as [
          (typeof alive)[0],
        ]
        torch.scope(() => {
          expect(tensor.min().item()).toBe(value)
          expect(tensor.max().item()).toBe(value)
        })
        tensor.dispose()
      } else {
        // on both sides of where it begins, and of whole pages
        const bytes = Math.floor((0.5 + 5 * random.next().value) * MiB)
        const value = round % 251
        alive.push({ tensor: filled(bytes, value), value })
      }
    }
    for (const { tensor } of alive) tensor.dispose()
  })

  test('is no more than tensors took at once', async () => {
    await torch.memory.collect()
    const before = resident()
    // 48 MiB at once, of ever other sizes
    for (let round = 0; round < 40; round += 1) {
      const sizes = [round + 1, 47 - round].filter((size) => size > 0)
      const tensors = sizes.map((size) => filled(size * MiB, 1))
      for (const tensor of tensors) tensor.dispose()
    }
    expect(resident() - before).toBeLessThan(64)
    await torch.memory.collect()
    expect(resident() - before).toBeLessThan(16)
  })

  test('is used again', async () => {
    await torch.memory.collect()
    filled(64 * MiB, 1).dispose()
    const { minorPageFault } = process.resourceUsage()
    for (let round = 0; round < 20; round += 1) filled(64 * MiB - 4096 * round, 1).dispose()
    // new each time it would be 16,384 pages a round
    expect(process.resourceUsage().minorPageFault - minorPageFault).toBeLessThan(16_384)
  })

  test('is given back', async () => {
    filled(256 * MiB, 1).dispose()
    const before = resident()
    await torch.memory.collect()
    expect(before - resident()).toBeGreaterThan(200)
  })

  test('does not change what is said of memory that there is not', () => {
    expect(() => torch.empty([2 ** 50])).toThrow(/allocate/)
  })
})
