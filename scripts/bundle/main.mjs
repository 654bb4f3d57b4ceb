// npm run bundle [-- --with FOLDER...]: one archive for a machine without a network: Node, the package, what it needs to run on
// linux-x64, an add-on that is built, and what --with names (libtorch, weights, tokenizers, data).
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findExecutable, writeWhole } from '../../dist/setup/files.js'
import { describeLibtorch, inspectLibtorch, resolveLibtorch } from '../../dist/setup/libtorch.js'
import { makePrebuilt } from '../../dist/setup/prebuilt.js'
import { terminalReporter } from '../../dist/setup/report.js'
import { run } from '../../dist/setup/run.js'
import { readArguments } from './arguments.mjs'
import { keepFile, productionPackages } from './prune.mjs'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const here = dirname(fileURLToPath(import.meta.url))
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const name = `cleft-${version}-linux-x64`
const reporter = terminalReporter()

/** Runs a program and ends with its last words where it fails. */
async function must(command, parameters, options) {
  const { status, stdout, stderr } = await run(command, parameters, options)
  if (status !== 0) throw new Error(`${command} was expected to succeed, and ended with ${status}: ${stderr.trim()}`)
  return stdout
}

/** Node itself, without names for a debugger, and its licence. */
async function copyNode(bundle) {
  mkdirSync(join(bundle, 'bin'), { recursive: true })
  const node = join(bundle, 'bin', 'node')
  cpSync(process.execPath, node, { dereference: true })
  chmodSync(node, 0o755)
  if (findExecutable('strip') !== null) await run('strip', ['--strip-unneeded', node])
  const missing = (await must('ldd', [node])).match(/^\s*(\S+) => not found/m)
  if (missing) throw new Error(`Node was expected to find its libraries, but ${missing[1]} is not there`)
  const home = dirname(dirname(process.execPath))
  const licence = [join(home, 'LICENSE'), join(home, 'share', 'doc', 'nodejs', 'LICENSE')].find((file) =>
    existsSync(file),
  )
  if (licence === undefined) throw new Error(`Node's licence was expected beside ${process.execPath}, and is not there`)
  cpSync(licence, join(bundle, 'bin', 'LICENSE-node'))
}

/** The package as npm packs it, and its production dependencies as they are installed here. */
async function copyPackage(bundle) {
  const modules = join(bundle, 'lib', 'node_modules')
  mkdirSync(modules, { recursive: true })
  const packed = await must('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', bundle], { cwd: root })
  const archive = join(bundle, JSON.parse(packed)[0].filename)
  await must('tar', ['-xzf', archive, '-C', modules])
  await must('mv', [join(modules, 'package'), join(modules, 'cleft')])
  rmSync(archive)
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  for (const { path, optional } of productionPackages(packages)) {
    const from = join(root, path)
    if (!existsSync(from)) {
      if (optional) continue
      throw new Error(`${path} was expected to be installed, and is not; run: npm ci`)
    }
    cpSync(from, join(modules, 'cleft', path), {
      recursive: true,
      dereference: true,
      filter(source) {
        const inside = relative(from, source).split(sep).join('/')
        // Packages inside of a package have entries of their own.
        if (inside === '' || inside === 'node_modules') return inside === ''
        return statSync(source).isDirectory() || keepFile(inside)
      },
    })
  }
  return join(modules, 'cleft')
}

/** The libtorch in a folder: the folder itself, or torch/ in it (a wheel, unpacked, or what the set-up installs). */
function libtorchIn(folder) {
  const found = [folder, join(folder, 'torch')].map((each) => inspectLibtorch(each, 'LIBTORCH'))
  return found.find((each) => typeof each !== 'string') ?? null
}

async function main() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(
      `linux-x64 was expected, since the bundle is for it, and this is ${process.platform}-${process.arch}`,
    )
  }
  for (const tool of ['tar', 'xz', 'npm', 'ldd']) {
    if (findExecutable(tool) === null) throw new Error(`${tool} was expected on PATH, and is not there; install it`)
  }
  const { folders, prebuilt } = readArguments(process.argv.slice(2))
  const libtorches = [resolveLibtorch(), ...folders.map(libtorchIn).filter((each) => each !== null)]
  // not in the system's place for temporary files, which may be small: --with may name gigabytes
  mkdirSync(join(root, 'build'), { recursive: true })
  const work = mkdtempSync(join(root, 'build', 'bundle-'))
  try {
    const bundle = join(work, name)
    mkdirSync(bundle)
    reporter.line('copying Node, the package and what it needs')
    await copyNode(bundle)
    const packageFolder = await copyPackage(bundle)
    const built = new Map()
    for (const libtorch of prebuilt ? libtorches : []) {
      const kind = `${libtorch.version} ${libtorch.cuda}`
      if (!built.has(kind)) await makePrebuilt(libtorch, packageFolder, join(root, 'build'), reporter)
      built.set(kind, libtorch)
    }
    for (const file of ['install.sh', 'cleft']) {
      const to = join(bundle, file === 'cleft' ? join('bin', file) : file)
      cpSync(join(here, file), to)
      chmodSync(to, 0o755)
    }
    cpSync(join(root, 'LICENSE'), join(bundle, 'LICENSE'))
    for (const folder of folders) {
      reporter.line(`adding ${folder}`)
      // Links of a hub's cache stay links; they are relative there.
      cpSync(folder, join(bundle, 'with', basename(folder)), { recursive: true, verbatimSymlinks: true })
    }
    const archive = join(root, 'dist', `${name}.tar.xz`)
    const beside = `${archive}.part`
    // What --with adds hardly gets smaller, and is gigabytes.
    const level = folders.length > 0 ? '-T0 -2' : '-T0 -9e'
    reporter.line(`packing ${archive}`)
    const order = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner']
    mkdirSync(dirname(archive), { recursive: true })
    rmSync(archive, { force: true })
    await must('tar', [...order, `--use-compress-program=xz ${level}`, '-cf', beside, '-C', work, name])
    await must('mv', [beside, archive])
    const bytes = statSync(archive).size
    writeWhole(`${archive}.sha256`, await must('sha256sum', [basename(archive)], { cwd: dirname(archive) }))
    reporter.line(`${(bytes / 1e6).toFixed(1)} MB; there: tar -xf ${basename(archive)} && ./${name}/install.sh`)
    for (const libtorch of built.values()) reporter.line(`  with an add-on for libtorch ${describeLibtorch(libtorch)}`)
    process.stdout.write(`${archive}\n`)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

try {
  await main()
} catch (error) {
  console.error(`bundle: ${error instanceof Error ? error.message : error}`)
  process.exitCode = 1
}
