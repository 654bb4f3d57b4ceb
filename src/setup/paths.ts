import { homedir, platform } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder of the package, the same seen from src/setup/ and from dist/setup/. */
export function packageRoot(): string {
  return fileURLToPath(new URL('../../', import.meta.url)).replace(/[/\\]$/, '')
}

/** Where cleft keeps libtorch, built add-ons and downloads: CLEFT_CACHE, else the system's place for caches. */
export function cacheFolder(environment: NodeJS.ProcessEnv = process.env): string {
  if (environment.CLEFT_CACHE) return resolve(environment.CLEFT_CACHE)
  if (environment.XDG_CACHE_HOME) return join(resolve(environment.XDG_CACHE_HOME), 'cleft')
  if (platform() === 'darwin') return join(homedir(), 'Library', 'Caches', 'cleft')
  if (platform() === 'win32') return join(environment.LOCALAPPDATA ?? join(homedir(), 'AppData', 'Local'), 'cleft')
  return join(homedir(), '.cache', 'cleft')
}
