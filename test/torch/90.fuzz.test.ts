import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
// @ts-expect-error: plain JavaScript, which child processes run
import { canFence, fuzz } from './fuzz/driver.mjs'

interface Finding {
  kind: string
  text: string
  call: object
}

interface Result {
  findings: Finding[]
  outcomes: Record<string, number>
  perName: Record<string, object>
  operators: number
}

/** Findings as the commands that show them again. */
function report(results: readonly Result[]): string[] {
  return results.flatMap(({ findings }) =>
    findings.map(
      ({ kind, text, call }) => `${kind}: ${text}\n  node test/torch/fuzz/driver.mjs --call '${JSON.stringify(call)}'`,
    ),
  )
}

/** Calls that crashed, hung or failed an internal assertion once: `failed` says how. */
const regressions: object[] = JSON.parse(readFileSync(new URL('./fuzz/regressions.json', import.meta.url), 'utf8'))

// A machine that is busy with other things must not look like a hang.
const patience = { slow: 10_000, hangAfter: 40_000 }

// With a fence around each tensor, reading outside of it is a crash and not a wrong number.
const fences: (false | 'high' | 'low')[] = canFence() ? ['high', 'low'] : [false]

describe('operators with wrong and random arguments', () => {
  it('survive the calls that libtorch alone does not: crashes, reads outside of tensors, internal assertions, loops without an end', async () => {
    const runs = fences.map((fence) => fuzz({ ...patience, calls: regressions, most: Number.POSITIVE_INFINITY, fence }))
    expect(report(await Promise.all(runs))).toEqual([])
  }, 120_000)

  it('neither end the process nor leak nor hang, each operator of the generated surface dozens of times', async () => {
    const count = 25_000
    const results: Result[] = await Promise.all([
      fuzz({ ...patience, seed: 20261, count }),
      fuzz({ ...patience, seed: 20262, count, fence: fences[0] }),
    ])
    expect(report(results)).toEqual([])
    for (const { operators, outcomes, perName } of results) {
      expect(operators).toBeGreaterThan(800)
      expect(Object.keys(perName)).toHaveLength(operators)
      // wrong arguments that never reach a kernel would prove little
      expect(outcomes.returned).toBeGreaterThan(0.3 * count)
    }
  }, 180_000)
})
