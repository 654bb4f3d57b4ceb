import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { inspectWheel, parseRecord, unpackWheel } from '../../src/setup/wheel.js'
import { temporaryFolder } from './folder.js'
import { torchFiles, writeWheel, writeZip } from './zip.js'

test('what is needed is unpacked, and nothing else', async () => {
  const folder = temporaryFolder()
  const wheel = join(folder, 'torch.whl')
  writeWheel(wheel, { name: 'torch', version: '2.13.0', files: torchFiles('2.13.0+cpu', null) })
  await unpackWheel(wheel, join(folder, 'out'))
  expect(readFileSync(join(folder, 'out/torch/lib/libtorch_cpu.so'), 'utf8')).toBe('cpu')
  expect(statSync(join(folder, 'out/torch/version.py')).mode & 0o777).toBe(0o644)
  expect(existsSync(join(folder, 'out/torch/nn'))).toBe(false)
  expect(existsSync(join(folder, 'out/torch-2.13.0.dist-info/METADATA'))).toBe(true)
})

test('the kind of a wheel is seen without unpacking it', async () => {
  const wheel = join(temporaryFolder(), 'torch.whl')
  writeWheel(wheel, { name: 'torch', version: '2.13.0', files: torchFiles('2.13.0+cu130', '13.0') })
  expect(await inspectWheel(wheel)).toMatchObject({
    name: 'torch',
    version: '2.13.0+cu130',
    hasCuda: true,
    cuda: '13.0',
  })
})

test('a file that differs from RECORD is refused', async () => {
  const folder = temporaryFolder()
  const wheel = join(folder, 'torch.whl')
  writeWheel(wheel, {
    name: 'torch',
    version: '2.13.0',
    files: torchFiles('2.13.0', null),
    sums: { 'torch/lib/libc10.so': 'x'.repeat(43) },
  })
  await expect(unpackWheel(wheel, join(folder, 'out'))).rejects.toThrow(
    /torch\.whl: torch\/lib\/libc10\.so was expected to have the SHA-256 x+, and has .*; delete /,
  )
})

test('a file that RECORD does not name is refused', async () => {
  const folder = temporaryFolder()
  const wheel = join(folder, 'torch.whl')
  writeWheel(wheel, {
    name: 'torch',
    version: '2.13.0',
    files: {},
    extra: [{ name: 'torch/lib/libmore.so', data: 'x' }],
  })
  await expect(unpackWheel(wheel, join(folder, 'out'))).rejects.toThrow(/torch\/lib\/libmore\.so is not in RECORD/)
})

test.each(['torch/lib/../../../outside', '/torch/lib/outside', 'torch/lib/..\\..\\..\\outside'])(
  'a path that leads outside is refused: %s',
  async (name) => {
    const folder = temporaryFolder()
    const wheel = join(folder, 'torch.whl')
    writeWheel(wheel, { name: 'torch', version: '2.13.0', files: { [name]: 'x' } })
    await expect(unpackWheel(wheel, join(folder, 'out'), { wanted: () => true })).rejects.toThrow(/torch\.whl/)
    expect(existsSync(join(folder, 'outside'))).toBe(false)
  },
)

test('a link is refused', async () => {
  const folder = temporaryFolder()
  const wheel = join(folder, 'torch.whl')
  writeWheel(wheel, {
    name: 'torch',
    version: '2.13.0',
    files: {},
    extra: [{ name: 'torch/lib/link', data: '/etc', mode: 0o120777 }],
  })
  await expect(unpackWheel(wheel, join(folder, 'out'))).rejects.toThrow(/was expected to be a file, and is a link/)
})

test('what is no wheel is said to be none', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'a.whl'), 'not a zip at all, but long enough to be looked at')
  await expect(inspectWheel(join(folder, 'a.whl'))).rejects.toThrow(
    /a wheel was expected in .*a\.whl, and it cannot be read/,
  )
  writeZip(join(folder, 'b.whl'), [{ name: 'file', data: 'x' }])
  await expect(inspectWheel(join(folder, 'b.whl'))).rejects.toThrow(
    /b\.whl was expected to be a wheel, and holds no RECORD/,
  )
})

test('RECORD with quotes and lines without a sum', () => {
  expect([...parseRecord('a/b.so,sha256=AbC_-,3\n"with, comma",sha256=x,1\r\nRECORD,,\n')]).toEqual([
    ['a/b.so', 'AbC_-'],
    ['with, comma', 'x'],
  ])
})
