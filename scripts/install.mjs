// Runs when the package is installed. Never touches the network and never fails: where a libtorch and a compiler are
// there it builds the add-on at once, else it leaves that to `npx cleft setup`.
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const setup = join(root, 'dist', 'setup')

/** In a clone `npm run` and `npm test` build what they need; a build during `npm ci` would only come twice. */
const isClone = existsSync(join(root, 'tsconfig.json'))

if (!isClone && existsSync(join(setup, 'addon.js')) && !process.env.CLEFT_SKIP_BUILD) {
  const load = (name) => import(pathToFileURL(join(setup, name)).href)
  try {
    const { resolveLibtorch } = await load('libtorch.js')
    const { buildAddon } = await load('addon.js')
    const { chooseBuilder, findCompiler } = await load('builders.js')
    const { terminalReporter } = await load('report.js')
    let libtorch = null
    try {
      libtorch = resolveLibtorch()
    } catch {
      console.error('cleft: no libtorch was found yet; get one with: npx cleft setup')
    }
    if (libtorch !== null && chooseBuilder() !== null && (process.platform === 'win32' || findCompiler() !== null)) {
      await buildAddon(libtorch, { reporter: terminalReporter() })
    } else if (libtorch !== null) {
      console.error(
        'cleft: no C++ compiler with CMake or make was found, so that the add-on is not built; see: npx cleft doctor',
      )
    }
  } catch (error) {
    console.error(
      `cleft: warning: the add-on could not be built yet: ${error instanceof Error ? error.message : error}`,
    )
    console.error('cleft: the package is installed; when that is mended, run: npx cleft setup')
  }
}
// Whatever happened (a handle left open, an exit code set elsewhere): npm install has not failed for it.
process.exit(0)
