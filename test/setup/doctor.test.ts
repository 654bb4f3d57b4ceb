import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { diagnose, formatDiagnosis } from '../../src/setup/doctor.js'
import { packageRoot } from '../../src/setup/paths.js'
import { temporaryFolder } from './folder.js'

const NAMES = ['node', 'python', 'compiler', 'cmake', 'libtorch', 'addon', 'devices', 'threads', 'processor']

beforeEach(() => {
  vi.stubEnv('CLEFT_CACHE', temporaryFolder())
  vi.stubEnv('CLEFT_ADDON', undefined)
})

afterEach(() => {
  vi.unstubAllEnvs()
})

test('on a machine where nothing is set up, what is wrong and the command', async () => {
  vi.stubEnv('LIBTORCH', join(temporaryFolder(), 'nowhere'))
  const { ok, checks } = await diagnose()
  expect(ok).toBe(false)
  expect(checks.map((check) => check.name)).toEqual(NAMES)
  for (const check of checks)
    expect(check).toEqual({
      name: expect.any(String),
      ok: expect.any(Boolean),
      found: expect.any(String),
      fix: check.ok ? null : expect.any(String),
    })
  expect(checks.find((check) => check.name === 'libtorch')).toMatchObject({
    ok: false,
    fix: 'unset LIBTORCH && npx cleft setup',
  })
  expect(checks.find((check) => check.name === 'addon')).toMatchObject({ ok: false, fix: 'npx cleft setup' })
  const text = formatDiagnosis({ ok, checks })
  expect(text).toMatch(/FAIL {2}libtorch {2}LIBTORCH must name/)
  expect(text).toMatch(/fix: npx cleft setup\n/)
  expect(text).toMatch(/2 of 9 checks failed\n$/)
})

test('without compiler and build tools', async () => {
  vi.stubEnv('PATH', temporaryFolder())
  vi.stubEnv('LIBTORCH', undefined)
  vi.stubEnv('CXX', undefined)
  const { checks } = await diagnose()
  expect(checks.filter((check) => !check.ok).map((check) => check.name)).toEqual([
    'compiler',
    'cmake',
    'libtorch',
    'addon',
  ])
})

test('the command prints one JSON object, and its status says whether all is well', async () => {
  vi.unstubAllEnvs()
  const main = join(packageRoot(), 'dist', 'cli', 'main.js')
  const execute = promisify(execFile)
  const { stdout } = await execute(process.execPath, [main, 'doctor', '--json'])
  const diagnosis = JSON.parse(stdout)
  expect(diagnosis.ok).toBe(true)
  expect(diagnosis.checks.map((check: { name: string }) => check.name)).toEqual(NAMES)
  const failing = execute(process.execPath, [main, 'doctor', '--json'], {
    env: { ...process.env, LIBTORCH: '/nowhere' },
  })
  await expect(failing).rejects.toMatchObject({ code: 1, stdout: expect.stringContaining('"ok": false') })
})
