import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { resolveLibtorch } from '../../src/setup/libtorch.js'
import { packageRoot } from '../../src/setup/paths.js'
import { temporaryFolder } from './folder.js'

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'

/** Runs a command as a user does: without what npm told this process of our own package. */
function run(command: string, parameters: readonly string[], cwd: string, more: NodeJS.ProcessEnv): string {
  const own = Object.entries(process.env).filter(
    ([name]) => !/^(npm_(?!config_(cache|registry|userconfig|cafile))|VITEST|NODE_ENV|INIT_CWD)/.test(name),
  )
  const { status, stdout, stderr, error } = spawnSync(command, parameters, {
    cwd,
    env: { ...Object.fromEntries(own), CLEFT_ADDON: '', ...more },
    encoding: 'utf8',
  })
  expect(`${status} ${error?.message ?? ''}${status === 0 ? '' : `${stdout}\n${stderr}`}`).toBe('0 ')
  return stdout
}

test('as users get it: pack, install into an empty project, set up, a script of a few lines', {
  timeout: 900_000,
}, () => {
  const folder = temporaryFolder()
  const libtorch = resolveLibtorch().root
  const cache = join(folder, 'cache')
  run(npm, ['pack', '--ignore-scripts', '--pack-destination', folder], packageRoot(), {})
  const packed = readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? ''

  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ name: 'user', version: '1.0.0', private: true, type: 'module' }),
  )
  // LIBTORCH names nothing: the installation has to succeed all the same, and to build nothing.
  run(npm, ['install', '--prefer-offline', '--no-audit', '--no-fund', join(folder, packed)], folder, {
    CLEFT_CACHE: cache,
    LIBTORCH: join(folder, 'nowhere'),
  })
  expect(existsSync(join(cache, 'addon'))).toBe(false)
  expect(existsSync(join(folder, 'node_modules/cleft/src/models/presets/cleft-report-lm/model.safetensors'))).toBe(true)
  for (const name of ['src/torch', 'test', 'build', 'tsconfig.json'])
    expect(existsSync(join(folder, 'node_modules/cleft', name))).toBe(false)

  const environment = { CLEFT_CACHE: cache, LIBTORCH: libtorch }
  // The programs of the project itself, which is what npx runs; npx on its own could take another cleft.
  run(npm, ['exec', '--no', '--', 'cleft', 'setup'], folder, environment)
  writeFileSync(
    join(folder, 'add.js'),
    "import * as torch from 'cleft/torch'\nconsole.log(JSON.stringify(torch.tensor([1, 2]).add(torch.tensor([3, 4])).toArray()))\n",
  )
  expect(run(process.execPath, ['add.js'], folder, environment).trim()).toBe('[4,6]')
  expect(JSON.parse(run(npm, ['exec', '--no', '--', 'cleft', 'doctor', '--json'], folder, environment))).toMatchObject({
    ok: true,
  })
})
