// node scripts/bundle/check.mjs [ARCHIVE] [--libtorch FOLDER]: unpacks a bundle into a new folder, cuts the network off (unshare),
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
  options: { libtorch: { type: 'string' }, keep: { type: 'boolean', default: false } },
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
  for (const way of [
    ['unshare', '-n'],
    ['unshare', '-rn'],
  ]) {
    if (spawnSync(way[0], [...way.slice(1), 'true']).status === 0) return way
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

function main() {
  const archive = resolve(
    positionals[0] ?? join(dist, readdirSync(dist).find((name) => name.endsWith('.tar.xz')) ?? ''),
  )
  const place = mkdtempSync(join(tmpdir(), 'cleft-bundle-check-'))
  const isolated = withoutNetwork()
  const libtorch = values.libtorch ?? (positionals[0] === undefined ? resolveLibtorch().root : '')
  try {
    for (const [way, path] of [
      [
        'with the compiler that is here',
        process.env.PATH.split(':')
          .filter((folder) => folder !== dirname(process.execPath) || findExecutable('c++', folder) !== null)
          .join(':'),
      ],
      ['without a compiler', bareTools(join(place, 'tools'))],
    ]) {
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
        const { status, stdout, stderr } = spawnSync(program, rest, { cwd, env, encoding: 'utf8', maxBuffer: 1 << 26 })
        if (status !== 0) throw new Error(`${way}: ${basename(command)} ended with ${status}:\n${stdout}\n${stderr}`)
        console.error(
          `${way}: ${basename(command)} ${parameters.join(' ')}: ${((performance.now() - started) / 1000).toFixed(0)} s`,
        )
        return { stdout, stderr }
      }
      run('tar', ['-xf', archive], { env: process.env })
      const bundle = join(folder, basename(archive, '.tar.xz'))
      const { stdout, stderr } = run(join(bundle, 'install.sh'), [])
      console.error(`${stderr}${stdout}`.replaceAll(/^(?=.)/gm, '    '))
      const isPrebuilt = /using the add-on that came built/.test(stderr)
      if (isPrebuilt !== (way === 'without a compiler'))
        throw new Error(`${way}: another add-on was expected to be used`)
      const doctor = JSON.parse(run(join(bundle, 'bin', 'cleft'), ['doctor', '--json']).stdout)
      if (!doctor.ok) throw new Error(`${way}: the doctor was expected to find all well`)
      const project = join(folder, 'project')
      mkdirSync(project)
      symlinkSync(join(bundle, 'lib', 'node_modules'), join(project, 'node_modules'))
      writeFileSync(join(project, 'train.mjs'), TRAINING)
      console.error(
        run(join(bundle, 'bin', 'node'), ['train.mjs'], { cwd: project }).stdout.replaceAll(/^(?=.)/gm, '    '),
      )
    }
    process.stdout.write('the bundle installs, and trains, with the network cut off: with a compiler and without one\n')
  } finally {
    if (!values.keep) rmSync(place, { recursive: true, force: true })
  }
}

try {
  main()
} catch (error) {
  console.error(`check: ${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
}
