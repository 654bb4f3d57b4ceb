// The first thing that runs in a new clone: brings packages, compiled TypeScript and the native add-on up to date, and then
// does the task. Plain JavaScript with nothing but Node, since nothing else is there yet.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)

/** Runs a program with our own input and output; ends this process where it fails, unless told otherwise. */
function run(command, parameters, { mayFail = false } = {}) {
  const npm = command === 'npm' && process.platform === 'win32'
  const finished = spawnSync(npm ? 'npm.cmd' : command, parameters, { cwd: root, stdio: 'inherit', shell: npm })
  if (finished.error) {
    console.error(
      `${command} was expected to start, and did not (${finished.error.message}); install it and run this again`,
    )
    process.exit(1)
  }
  const status = finished.status ?? 130
  if (status !== 0 && !mayFail) process.exit(status)
  return status
}

/** Runs a program of an npm package with this Node. */
function tool(packageName, program, parameters, options) {
  const folder = dirname(require.resolve(`${packageName}/package.json`))
  return run(process.execPath, [join(folder, program), ...parameters], options)
}

const readJson = (file) => JSON.parse(readFileSync(join(root, file), 'utf8'))

/** What keeps node_modules from being what the lock file says, or null. npm's own note is compared, not times. */
function packagesOutdated() {
  if (!existsSync(join(root, 'node_modules', '.package-lock.json'))) return 'there is no node_modules'
  const locked = readJson('package-lock.json').packages
  const installed = readJson('node_modules/.package-lock.json').packages
  for (const [path, { version, optional, devOptional, peer, link }] of Object.entries(locked)) {
    if (path === '' || link) continue
    const there = installed[path]
    // What is optional may be for another platform.
    if (there === undefined && !optional && !devOptional && !peer) return `${path} is missing`
    if (there !== undefined && there.version !== version) return `${path} is ${there.version} and ${version} is locked`
  }
  return null
}

function ensurePackages() {
  const reason = packagesOutdated()
  if (reason === null) return
  console.error(`npm ci, since ${reason}`)
  run('npm', ['ci', '--no-audit', '--no-fund'])
}

/** Compiles to dist/. Its note of what is compiled lies in dist/ too, so that removing dist/ starts anew. */
function compile({ mayFail = false } = {}) {
  const parameters = ['-p', 'tsconfig.build.json', '--incremental', '--tsBuildInfoFile', 'dist/.tsbuildinfo']
  const status = tool('typescript', 'bin/tsc', parameters, { mayFail: true })
  const main = join(root, 'dist', 'cli', 'main.js')
  if (status !== 0 && !(mayFail && existsSync(main))) process.exit(status)
  if (status !== 0) console.error('TypeScript found the errors above: going on, and `npm run lint` fails for them')
  if (existsSync(main)) chmodSync(main, 0o755)
}

const cleft = (...parameters) => run(process.execPath, [join(root, 'dist', 'cli', 'main.js'), ...parameters])

function prepare(options) {
  ensurePackages()
  compile(options)
  cleft('setup', '--if-needed')
}

/** clang-format's binary, called by path: npm may have kept its package from making it executable. */
function clangFormat(parameters) {
  const program = require('clang-format-node').clangFormatPath
  if (process.platform !== 'win32') {
    try {
      chmodSync(program, 0o755)
    } catch {
      // Somebody else's file: it may well be executable already.
    }
  }
  const files = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(cpp|hpp|h)$/.test(name))
    .map((name) => join('native', name))
  return files.length === 0 ? 0 : run(program, ['--style=file', ...parameters, ...files], { mayFail: true })
}

const biome = (...parameters) => tool('@biomejs/biome', 'bin/biome', parameters, { mayFail: true })

const tasks = {
  build: () => prepare(),
  /** Only what a package needs: for `npm pack`. */
  compile() {
    ensurePackages()
    // Anew, or what was compiled from sources that are gone would be packed too.
    const dist = join(root, 'dist')
    // Bundles lie in dist/ too, and are not ours to remove.
    const compiled = existsSync(dist) ? readdirSync(dist).filter((entry) => !entry.includes('.tar.xz')) : []
    for (const entry of compiled) rmSync(join(dist, entry), { recursive: true, force: true })
    compile()
  },
  /** One archive for a machine without a network. */
  bundle(parameters) {
    tasks.compile()
    cleft('setup', '--if-needed')
    run(process.execPath, ['scripts/bundle/main.mjs', ...parameters])
  },
  quickstart(parameters) {
    prepare()
    run(process.execPath, ['scripts/quickstart.mjs', ...parameters])
  },
  tour() {
    prepare()
    run(process.execPath, ['scripts/tour.mjs'])
  },
  /** The main job on a folder of real images. */
  real(parameters) {
    prepare()
    run(process.execPath, ['scripts/real/main.mjs', ...parameters])
  },
  test(parameters) {
    prepare({ mayFail: true })
    tool('vitest', 'vitest.mjs', ['run', ...parameters])
  },
  /** What needs a GPU. --device cpu runs what can be run without one. */
  'test:gpu'(parameters) {
    prepare({ mayFail: true })
    const at = parameters.indexOf('--device')
    const device = at < 0 ? 'cuda' : parameters.splice(at, 2)[1]
    const probe = `import('${pathToFileURL(join(root, 'dist', 'torch', 'index.js'))}').then((torch) => process.exit(torch.cuda.isAvailable() ? 0 : 3))`
    if (device !== 'cpu' && spawnSync(process.execPath, ['-e', probe], { stdio: 'inherit' }).status !== 0) {
      console.error('no GPU here: nothing was tested; run this where one is, or with --device cpu for what needs none')
      process.exit(1)
    }
    process.env.CLEFT_TEST_DEVICE = device
    tool('vitest', 'vitest.mjs', ['run', '--config', 'vitest.gpu.config.ts', ...parameters])
  },
  bench(parameters) {
    prepare()
    run(process.execPath, ['scripts/bench/main.mjs', ...parameters])
  },
  generate(parameters) {
    prepare({ mayFail: true })
    run(process.execPath, ['scripts/generate/main.mjs', ...parameters])
  },
  lint() {
    ensurePackages()
    const statuses = [
      biome('check', '--error-on-warnings', '.'),
      tool('typescript', 'bin/tsc', ['--noEmit'], { mayFail: true }),
      clangFormat(['--dry-run', '-Werror']),
    ]
    if (statuses.some((status) => status !== 0)) {
      console.error('lint found the errors above; what is only format is mended by: npm run format')
      process.exit(1)
    }
    console.error('lint: Biome, TypeScript and clang-format found nothing')
  },
  format() {
    ensurePackages()
    const statuses = [biome('check', '--write', '.'), clangFormat(['-i'])]
    process.exit(Math.max(...statuses))
  },
}

const [name, ...parameters] = process.argv.slice(2)
const task = Object.hasOwn(tasks, name ?? '') ? tasks[name] : undefined
if (task === undefined) {
  console.error(
    `a task (${Object.keys(tasks).join(', ')}) was expected, and ${name ?? 'nothing'} came; for example: npm test`,
  )
  process.exit(1)
}
task(parameters)
