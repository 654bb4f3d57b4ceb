import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import * as torch from '../../src/torch/index.js'

/** A case made by Python's libraries: see test/reference. CLEFT_REFERENCE says another folder of cases. */
export interface ReferenceCase {
  readonly folder: string
  readonly model: string
  readonly atol: number
  readonly rtol: number
  readonly names: readonly string[]
  tensor(name: string): torch.Tensor
}

const base = process.env.CLEFT_REFERENCE ?? fileURLToPath(new URL('../reference', import.meta.url))

export function referenceCase(name: string): ReferenceCase {
  const folder = `${base}/${name}`
  const { atol, rtol } = JSON.parse(readFileSync(`${folder}/case.json`, 'utf8')) as { atol: number; rtol: number }
  const file = torch.openSafetensors(`${folder}/io.safetensors`)
  return { folder, model: `${folder}/model`, atol, rtol, names: file.names, tensor: (each) => file.tensor(each) }
}

export function numbersOf(tensor: torch.Tensor): number[] {
  return Array.from(tensor.detach().contiguous().toTypedArray(), Number)
}

/** |a - b| <= atol + rtol |b|, everywhere. */
export function expectClose(
  found: torch.Tensor,
  wanted: torch.Tensor,
  { atol, rtol }: { atol: number; rtol: number },
  what = '',
): void {
  expect(found.shape, what).toEqual(wanted.shape)
  const values = numbersOf(found)
  let worst = { excess: 0, text: '' }
  for (const [index, expected] of numbersOf(wanted).entries()) {
    const excess = Math.abs(values[index]! - expected) - (atol + rtol * Math.abs(expected))
    // NaN too
    if (!(excess <= worst.excess))
      worst = { excess, text: `at ${index}: expected ${expected}, received ${values[index]}` }
  }
  if (worst.text !== '') expect.fail(`${what} ${worst.text}`)
}

/** sum(x * linspace(-1, 1, numel)): the loss of the cases. */
export function lineLoss(x: torch.Tensor): torch.Tensor {
  return x.mul(torch.linspace(-1, 1, x.numel()).view(x.shape)).sum()
}

/** Holds the gradients of a module against those of a case. */
export function expectGradients(module: torch.nn.Module, reference: ReferenceCase): void {
  const parameters = new Map(module.namedParameters())
  const names = reference.names.filter((name) => name.startsWith('grad.'))
  expect(names.length).toBeGreaterThan(0)
  for (const name of names) {
    const gradient = parameters.get(name.slice('grad.'.length))?.grad ?? null
    expect(gradient, name).not.toBeNull()
    expectClose(gradient!, reference.tensor(name), reference, name)
  }
}
