import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import * as torch from '../../../src/torch/index.js'

const fixture = (name: string) => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'cleft-weights-'))
afterAll(() => rmSync(folder, { recursive: true }))

const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')

const dtypes: torch.DType[] = [
  'float64',
  'float32',
  'float16',
  'bfloat16',
  'int64',
  'int32',
  'int16',
  'int8',
  'uint8',
  'uint16',
  'uint32',
  'uint64',
  'bool',
  'complex64',
  'float8_e4m3fn',
  'float8_e5m2',
]

const sample = (dtype: torch.DType) =>
  torch
    .tensor(
      [
        [0, 1],
        [1, 1],
      ],
      { dtype: dtype === 'bool' ? 'bool' : 'float32' },
    )
    .to(dtype)

describe('files of weights, with libtorch', () => {
  it('keeps every dtype through safetensors', () => {
    const path = join(folder, 'all.safetensors')
    torch.saveSafetensors(Object.fromEntries(dtypes.map((dtype) => [dtype, sample(dtype)])), path)
    const file = torch.openSafetensors(path)
    for (const dtype of dtypes) {
      const tensor = file.tensor(dtype)
      expect(tensor.dtype).toBe(dtype)
      expect(tensor.toArray()).toEqual(sample(dtype).toArray())
    }
  })

  it('keeps every dtype through a .pt file', async () => {
    const path = join(folder, 'all.pt')
    torch.save(Object.fromEntries(dtypes.map((dtype) => [dtype, sample(dtype)])), path)
    const loaded = torch.toStateDict(await torch.load(path))
    for (const dtype of dtypes) expect(loaded.get(dtype)?.toArray()).toEqual(sample(dtype).toArray())
  })

  it('writes to a mapped tensor and leaves the file as it was', () => {
    const path = join(folder, 'mapped.safetensors')
    torch.saveSafetensors({ x: torch.ones([64]) }, path)
    const before = digest(path)
    const x = torch.openSafetensors(path).tensor('x')
    x.add_(1)
    expect(x.sum().item()).toBe(128)
    expect(digest(path)).toBe(before)
  })

  it('reads what Python wrote, in the zip form and in the one before PyTorch 1.6', async () => {
    const [zip, legacy] = [await torch.load(fixture('dtypes.pt')), await torch.load(fixture('dtypes-legacy.pt'))].map(
      (loaded) => torch.toStateDict(loaded),
    )
    expect(legacy!.size).toBeGreaterThan(8)
    for (const [name, tensor] of legacy!) {
      expect(zip!.get(name)?.dtype, name).toBe(tensor.dtype)
      expect(zip!.get(name)?.toTypedArray(), name).toEqual(tensor.toTypedArray())
    }
  })

  it('keeps tied weights tied', async () => {
    const path = join(folder, 'tied.pt')
    const weight = torch.ones([2, 3])
    torch.save({ a: weight, b: weight.detach() }, path)
    const loaded = torch.toStateDict(await torch.load(path))
    expect(loaded.get('a')!.sharesStorage(loaded.get('b')!)).toBe(true)
    loaded.get('a')!.zero_()
    expect(loaded.get('b')!.sum().item()).toBe(0)
  })

  it('writes tensors that are not contiguous, and lazy conjugates', () => {
    const path = join(folder, 'views.safetensors')
    const x = torch.arange(6).view(2, 3)
    const z = torch.tensor([{ re: 1, im: 2 }])
    torch.saveSafetensors({ x: x.t(), z: z.conj() }, path)
    const file = torch.openSafetensors(path)
    expect(file.tensor('x').toArray()).toEqual([
      [0, 3],
      [1, 4],
      [2, 5],
    ])
    expect(file.tensor('z').toArray()).toEqual([{ re: 1, im: -2 }])
  })

  it('refuses a view beyond its memory, whatever a caller says', () => {
    const path = join(folder, 'small.safetensors')
    torch.saveSafetensors({ x: torch.ones([4]) }, path)
    expect(() => torch.openSafetensors(path).tensor('y')).toThrow(/expected/)
  })
})
