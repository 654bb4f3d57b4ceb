import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import * as torch from '../../../src/torch/index.js'
import * as optim from '../../../src/torch/optim/index.js'
import type { OptionValue } from '../../../src/torch/optim/optimizer.js'

export { optim, torch }

/** float32 tensors of a small safetensors file, as numbers. */
export function readFloats(path: string): Map<string, { shape: number[]; values: Float32Array }> {
  const bytes = readFileSync(path)
  const length = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const found = new Map<string, { shape: number[]; values: Float32Array }>()
  for (const [name, info] of Object.entries(header)) {
    if (name === '__metadata__') continue
    if (info.dtype !== 'F32') throw new Error(`expected float32 in ${path}, but ${name} is ${info.dtype}`)
    const [begin, end] = info.data_offsets
    const values = new Float32Array((end - begin) / 4)
    for (let i = 0; i < values.length; i += 1) values[i] = bytes.readFloatLE(8 + length + begin + 4 * i)
    found.set(name, { shape: info.shape, values })
  }
  return found
}

export function referencePath(name: string): string {
  return fileURLToPath(new URL(`../../reference/${name}`, import.meta.url))
}

type SavedValue = number | [shape: number[], values: number[]]

/** A case of numbers.json, which make_numbers.py wrote. */
export interface NumbersCase {
  name: string
  optimizer: 'Adam' | 'AdamW' | 'SGD' | 'Adafactor'
  dtype: torch.DType
  shapes: number[][]
  start: number[][]
  grads: (number[] | null)[][]
  outs: number[][][]
  param_groups: ({ params: number[] } & { [option: string]: OptionValue })[]
  state: Record<string, Record<string, SavedValue>>
}

export const numbers = (
  JSON.parse(readFileSync(new URL('numbers.json', import.meta.url), 'utf8')) as { cases: NumbersCase[] }
).cases

export function tensorOf(
  values: ArrayLike<number>,
  shape: readonly number[],
  dtype: torch.DType = 'float32',
): torch.Tensor {
  return torch.fromTypedArray(Float64Array.from(values), shape, { dtype })
}

/** A parameter with these values that lives until the end of the test. */
export function parameter(values: ArrayLike<number>, shape: readonly number[], dtype?: torch.DType): torch.Tensor {
  return torch.scope(() => torch.keep(tensorOf(values, shape, dtype))).requiresGrad_()
}

export function valuesOf(tensor: torch.Tensor): number[] {
  return Array.from(tensor.toTypedArray() as Float32Array | Float64Array)
}

function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

const pythonOnly = new Set(['foreach', 'fused', 'capturable', 'differentiable', 'params'])

/** Options of a Python optimizer as ours takes them. */
export function optionsOf(python: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const kept = Object.entries(python).filter(([name]) => !pythonOnly.has(name))
  return Object.fromEntries(kept.map(([name, value]) => [camelCase(name), value]))
}

type Made = optim.SGD | optim.Adam | optim.Adafactor

/** An optimizer over groups of parameters, with the options that Python's had. */
export function makeOptimizer(
  name: NumbersCase['optimizer'],
  groups: readonly Record<string, unknown>[],
  implementation?: optim.Implementation,
): Made {
  const all = groups.map((group) => ({ ...group, implementation })) as never
  switch (name) {
    case 'SGD':
      return new optim.SGD(all)
    case 'Adam':
      return new optim.Adam(all)
    case 'AdamW':
      return new optim.AdamW(all)
    case 'Adafactor':
      return new optim.Adafactor(all, groups[0]!.relativeStep === false ? { lr: 1, relativeStep: false } : {})
  }
}

/** The largest |a - b| beyond atol + rtol |b|, at most 0 where they agree. */
export function excess(a: ArrayLike<number>, b: ArrayLike<number>, rtol: number, atol = rtol): number {
  if (a.length !== b.length) return Infinity
  let worst = -Infinity
  for (let i = 0; i < a.length; i += 1) {
    const over = Math.abs(a[i]! - b[i]!) - atol - rtol * Math.abs(b[i]!)
    worst = Number.isNaN(over) ? Infinity : Math.max(worst, over)
  }
  return worst
}

/** A number from 0 to 1 for each call: the same ones each time (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
