// Which packages and which of their files go into a bundle for one system.

/** Words in the name of a binary that say for what it was built. */
const SYSTEMS = ['android', 'darwin', 'freebsd', 'win32', 'windows', 'macos', 'wasm32', 'openbsd', 'aix', 'sunos']
const PROCESSORS = ['arm64', 'aarch64', 'arm', 'armv7', 'ia32', 'ppc64', 'riscv64', 's390x', 'loong64', 'universal']

const fits = (list, value) =>
  list === undefined ||
  (list.some((each) => !each.startsWith('!')) ? list.includes(value) : !list.includes(`!${value}`))

/** Whether a package of a lock file is for linux-x64 with glibc. */
export function packageFits({ os, cpu, libc }) {
  return fits(os, 'linux') && fits(cpu, 'x64') && fits(libc, 'glibc')
}

/** The paths (node_modules/...) of what runs: the locked packages without those for development and other systems. */
export function productionPackages(packages) {
  return Object.entries(packages)
    .filter(([path, entry]) => path !== '' && !entry.dev && !entry.link && packageFits(entry))
    .map(([path, entry]) => ({ path, optional: entry.optional === true }))
}

function isForeignBinary(name) {
  if (!/\.(node|so|dylib|dll|exe)(\.\d+)*$/.test(name)) return false
  const words = name.toLowerCase().split(/[^a-z0-9]+/)
  return words.some((word) => SYSTEMS.includes(word) || PROCESSORS.includes(word) || word.startsWith('musl'))
}

const isLicence = (name) => /^(licen[cs]e|copying|notice|third.?party)/i.test(name)

/** Whether a file of a package goes along; `path` is relative to the package, with forward slashes. */
export function keepFile(path) {
  const name = path.slice(path.lastIndexOf('/') + 1)
  if (isLicence(name)) return true
  if (isForeignBinary(name)) return false
  // Declarations stay, for whoever writes TypeScript there; sources that were compiled and maps to them are for nobody.
  if (/\.(map|md|markdown|tsx?|mts|cts|flow)$/.test(name)) return /\.d\.[mc]?ts$/.test(name)
  if (/^(tsconfig.*\.json|\.eslintrc.*|\.prettierrc.*|\.travis\.yml|yarn\.lock)$/.test(name)) return false
  return !/(^|\/)(__tests__|\.github)\//.test(path)
}
