import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { matrixUnits } from '../../src/setup/doctor.js'
import { cudaOfDriver, detectGpu, flavoursFor } from '../../src/setup/gpu.js'
import { fakeProgram, temporaryFolder } from './folder.js'

afterEach(() => {
  vi.unstubAllEnvs()
})

test.each([
  ['13.0', [9.0], ['cu130', 'cu128', 'cu126']],
  ['13.1', [10.0], ['cu130', 'cu128']],
  ['12.4', [8.0], ['cu128', 'cu126']],
  ['13.0', [6.1], ['cu126']],
  ['11.8', [8.0], []],
  ['13.0', [], ['cu130', 'cu128', 'cu126']],
])('a driver for CUDA %s and capability %o: %o', (cuda, capabilities, expected) => {
  expect(flavoursFor({ names: ['x'], driver: '1', cuda, capabilities })).toEqual(expected)
})

test('the CUDA of a driver', () => {
  expect(['580.65', '575.51', '560.1', '535.2', '470.1', ''].map(cudaOfDriver)).toEqual([
    '13.0',
    '12.8',
    '12.6',
    '12.0',
    '11.0',
    '0',
  ])
})

test('an nvidia-smi without a GPU is no GPU', async () => {
  const programs = temporaryFolder()
  vi.stubEnv('PATH', programs)
  fakeProgram(programs, 'nvidia-smi', "console.log('No devices were found'); process.exit(6)")
  expect(await detectGpu()).toBeNull()
  fakeProgram(
    join(programs),
    'nvidia-smi',
    `console.log(process.argv[2] ? 'NVIDIA A40, 535.2, 8.6\\nNVIDIA A40, 535.2, 8.6' : 'CUDA Version: 12.2')`,
  )
  expect(await detectGpu()).toEqual({
    names: ['NVIDIA A40', 'NVIDIA A40'],
    driver: '535.2',
    cuda: '12.2',
    capabilities: [8.6, 8.6],
  })
})

test("the processor's matrix units", () => {
  expect(matrixUnits('model name\t: x\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16\n')).toEqual([
    'AVX-512',
    'AVX-512 BF16',
    'AMX BF16',
    'AVX2',
  ])
  expect(matrixUnits('')).toEqual([])
})
