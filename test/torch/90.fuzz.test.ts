import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { describe, expect, it } from 'vitest'
// @ts-expect-error: plain JavaScript, which child processes run
import { fuzz } from './fuzz/driver.mjs'

interface Finding {
  kind: string
  text: string
  index: number
  call: object
}

/** A finding as the command that shows it again. */
function report(findings: readonly Finding[]): string[] {
  return findings.map(
    ({ kind, text, call }) => `${kind}: ${text}\n  node test/torch/fuzz/driver.mjs --call '${JSON.stringify(call)}'`,
  )
}

const regressions = JSON.parse(readFileSync(new URL('./fuzz/regressions.json', import.meta.url), 'utf8')) as {
  name: string
}[]

describe('operators with wrong and random arguments', () => {
  it('survive the calls that libtorch alone does not: crashes, internal assertions, loops without an end', async () => {
    const { findings } = await fuzz({ calls: regressions, most: Number.POSITIVE_INFINITY })
    expect(report(findings)).toEqual([])
  }, 60_000)

  it('neither end the process nor leak nor hang, each operator of the generated surface several times', async () => {
    const processes = Math.min(2, cpus().length)
    const count = 20_000
    const parts = await Promise.all(Array.from({ length: processes }, (_, k) => fuzz({ seed: 20260 + k, count })))
    expect(parts.flatMap((part: { findings: Finding[] }) => report(part.findings))).toEqual([])
    const reached = new Set(parts.flatMap((part: { perName: object }) => Object.keys(part.perName)))
    expect(reached.size).toBe(parts[0].operators)
    expect(parts[0].operators).toBeGreaterThan(800)
    // wrong arguments that never reach a kernel would prove little
    const returned = parts.reduce(
      (sum: number, part: { outcomes: { returned: number } }) => sum + part.outcomes.returned,
      0,
    )
    expect(returned).toBeGreaterThan(0.25 * count * processes)
  }, 120_000)
})
