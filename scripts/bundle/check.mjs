// node scripts/bundle/check.mjs [ARCHIVE] [--libtorch FOLDER] [--prebuilt-only]: unpacks a bundle into a new folder, cuts the network off (unshare),
// installs it there twice (with the compiler that is here, and without any), and each time asks the doctor, draws phantoms and
// trains on them. Exit status 1 where anything fails.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { findExecutable } from '../../dist/setup/files.js'
import { resolveLibtorch } from '../../dist/setup/libtorch.js'

const dist = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'dist')
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { libtorch: { type: 'string' }, 'prebuilt-only': { type: 'boolean', default: false } },
})

const TRAINING = `
import { data, train } from 'cleft'
await data.writePhantoms({ kind: 'chexpert', out: 'phantoms', patients: 30, seed: 1 })
const job = train({
  recipe: 'cleft-small', data: { root: 'phantoms/CheXpert-v1.0-small' }, batchSize: 8, steps: 4, logEvery: 1, out: 'run',
})
for await (const event of job) if (event.type === 'step') console.log(event.step, event.loss)
console.log((await job).checkpoint)
`

function withoutNetwork() {
  const unshare = findExecutable('unshare')
  for (const flags of unshare === null ? [] : ['-n', '-rn']) {
    if (spawnSync(unshare, [flags, 'true']).status === 0) return [unshare, flags]
  }
  throw new Error('unshare was expected to cut the network off, and is not allowed to here; run this as root')
}

/** A PATH with what every Linux has, and neither a compiler nor a build tool nor Node. */
function bareTools(folder) {
  mkdirSync(folder)
  for (const name of ['sh', 'dirname', 'readlink', 'uname', 'ldd', 'cat', 'head', 'ln', 'bash', 'cut', 'sed']) {
    const found = findExecutable(name)
    if (found !== null) symlinkSync(found, join(folder, name))
  }
  return folder
}

/** Unpacks, installs, asks the doctor, trains. */
function check({ way, path, isBuilt }, { archive, place, isolated, libtorch }) {
  const folder = join(place, way.replaceAll(' ', '-'))
  mkdirSync(folder)
  const environment = {
    HOME: folder,
    PATH: path,
    OMP_NUM_THREADS: process.env.OMP_NUM_THREADS,
    ...(libtorch && { LIBTORCH: libtorch }),
  }
  const run = (command, parameters, { cwd = folder, env = environment } = {}) => {
    const started = performance.now()
    const [program, ...rest] = [...isolated, command, ...parameters]
    const { status, stdout, stderr, error } = spawnSync(program, rest, {
      cwd,
      env,
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    })
    if (status !== 0)
      throw new Error(`${way}: ${basename(command)}: ${error?.message ?? status}:\n${stdout}\n${stderr}`)
    const seconds = ((performance.now() - started) / 1000).toFixed(0)
    console.error(`${way}: ${basename(command)} ${parameters.join(' ')}: ${seconds} s`)
    console.error(`${stderr}${stdout}`.replaceAll(/^(?=.)/gm, '    '))
    return { stdout, stderr }
  }
  run('tar', ['-xf', archive], { env: process.env })
  const bundle = join(folder, basename(archive, '.tar.xz'))
  const { stderr } = run(join(bundle, 'install.sh'), [])
  if (/using the add-on that came built/.test(stderr) === isBuilt) {
    throw new Error(`${way}: the add-on was expected ${isBuilt ? 'to be built' : 'to be the one that came built'}`)
  }
  const doctor = JSON.parse(run(join(bundle, 'bin', 'cleft'), ['doctor', '--json']).stdout)
  if (!doctor.ok) throw new Error(`${way}: the doctor was expected to find all well`)
  const project = join(folder, 'project')
  mkdirSync(project)
  symlinkSync(join(bundle, 'lib', 'node_modules'), join(project, 'node_modules'))
  writeFileSync(join(project, 'train.mjs'), TRAINING)
  run(join(bundle, 'bin', 'node'), ['train.mjs'], { cwd: project })
}

function main() {
  const newest = readdirSync(dist).find((name) => name.endsWith('.tar.xz'))
  const [archive = newest && join(dist, newest)] = positionals.map((each) => resolve(each))
  if (archive === undefined) throw new Error('a bundle was expected in dist/, and there is none; run: npm run bundle')
  const place = mkdtempSync(join(tmpdir(), 'cleft-bundle-check-'))
  const surroundings = {
    archive,
    place,
    isolated: withoutNetwork(),
    libtorch: values.libtorch ?? resolveLibtorch().root,
  }
  try {
    const ways = [
      { way: 'without a compiler', path: bareTools(join(place, 'tools')), isBuilt: false },
      { way: 'with the compiler that is here', path: process.env.PATH, isBuilt: true },
    ].slice(0, values['prebuilt-only'] ? 1 : 2)
    for (const each of ways) check(each, surroundings)
    process.stdout.write(
      `it installs, and trains, with the network cut off: ${ways.map(({ way }) => way).join(', ')}\n`,
    )
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

try {
  main()
} catch (error) {
  console.error(`check: ${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
}
