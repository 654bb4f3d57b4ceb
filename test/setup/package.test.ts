import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { locateAddon } from '../../src/setup/addon.js'
import { resolveLibtorch } from '../../src/setup/libtorch.js'
import { packageRoot } from '../../src/setup/paths.js'
import { hashOfSources } from '../../src/setup/prebuilt.js'
import { temporaryFolder, writeFiles } from './folder.js'
import { SMALL_SOURCE } from './small-addon.js'

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'

/** A user's first ten lines. */
const TRAINING = `
import { data, train } from 'cleft'
await data.writePhantoms({ kind: 'chexpert', out: 'phantoms', patients: 30, seed: 1 })
const job = train({
  stage: 'pretrain', data: { kind: 'chexpert', root: 'phantoms/CheXpert-v1.0-small', holdout: null },
  image: { model: { model_type: 'dinov2', hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 3, image_size: 56 } },
  text: 'cleft-report-lm', imageSize: 56, batchSize: 8, steps: 4, logEvery: 1, out: 'run',
})
for await (const event of job) if (event.type === 'step') console.log(event.step, event.loss)
console.log((await job).checkpoint)
`

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
  timeout: 300_000,
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
  const setup = () => run(npm, ['exec', '--no', '--', 'cleft', 'setup'], folder, environment)
  const addons = () => readdirSync(join(cache, 'addon'))
  const installed = join(folder, 'node_modules/cleft')
  // Its own sources take minutes, and were compiled before these tests: a small one in their place is built here, with
  // what npm has installed for it.
  expect(hashOfSources(installed)).toBe(hashOfSources(packageRoot()))
  const [native, aside] = [join(installed, 'native'), join(folder, 'native')]
  renameSync(native, aside)
  writeFiles(native, { 'addon.cpp': SMALL_SOURCE })
  setup()
  expect(addons().length).toBe(1)
  rmSync(native, { recursive: true })
  renameSync(aside, native)
  // The same sources make the same add-on.
  const built = dirname(locateAddon())
  cpSync(built, join(cache, 'addon', basename(built)), { recursive: true })
  const before = addons().sort()
  setup()
  expect(addons().sort()).toEqual(before)

  writeFileSync(
    join(folder, 'add.js'),
    "import * as torch from 'cleft/torch'\nconsole.log(JSON.stringify(torch.tensor([1, 2]).add(torch.tensor([3, 4])).toArray()))\n",
  )
  expect(run(process.execPath, ['add.js'], folder, environment).trim()).toBe('[4,6]')
  writeFileSync(join(folder, 'train.js'), TRAINING)
  const told = run(process.execPath, ['train.js'], folder, environment).trim().split('\n')
  expect(told.length).toBe(5)
  for (const line of told.slice(0, 4)) expect(Number(line.split(' ')[1])).toBeGreaterThan(0)
  expect(existsSync(join(folder, told[4]!, 'trainable.safetensors'))).toBe(true)
  expect(JSON.parse(run(npm, ['exec', '--no', '--', 'cleft', 'doctor', '--json'], folder, environment))).toMatchObject({
    ok: true,
  })
})
