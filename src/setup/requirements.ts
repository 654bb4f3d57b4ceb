/** What a wheel says that it needs: `name[extras] (specifier) ; marker`, as in PEP 508. */
export interface Requirement {
  /** Lower case, with single hyphens, as package indexes spell it. */
  readonly name: string
  readonly extras: readonly string[]
  /** Such as ==13.1.*; empty where any version does. */
  readonly specifier: string
}

export type MarkerEnvironment = Readonly<Record<string, string>>

/** What markers compare with on this machine. The Python is the one whose wheels we ask for when there is none. */
export function markerEnvironment(): MarkerEnvironment {
  const systems: Record<string, string> = { linux: 'Linux', darwin: 'Darwin', win32: 'Windows' }
  const machines: Record<string, string> = {
    x64: process.platform === 'win32' ? 'AMD64' : 'x86_64',
    arm64: process.platform === 'darwin' ? 'arm64' : 'aarch64',
  }
  return {
    sys_platform: process.platform,
    platform_system: systems[process.platform] ?? process.platform,
    platform_machine: machines[process.arch] ?? process.arch,
    os_name: process.platform === 'win32' ? 'nt' : 'posix',
    implementation_name: 'cpython',
    platform_python_implementation: 'CPython',
    python_version: '3.12',
    python_full_version: '3.12.0',
  }
}

export function normalizeName(name: string): string {
  return name.toLowerCase().replace(/[-_.]+/g, '-')
}

/** Compares release numbers, part by part; what is not a number counts as 0. */
export function compareVersions(a: string, b: string): number {
  const parts = (version: string) =>
    (version.split('+')[0] ?? '').split('.').map((part) => Number.parseInt(part, 10) || 0)
  const [first, second] = [parts(a), parts(b)]
  for (let index = 0; index < Math.max(first.length, second.length); index++) {
    const difference = (first[index] ?? 0) - (second[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

/** Whether a version fits a list of conditions such as `>=13.0.48,==13.0.*`. */
export function fitsSpecifier(version: string, specifier: string): boolean {
  const release = version.split('+')[0] ?? version
  return specifier
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .every((part) => {
      const match = part.match(/^(===|==|~=|!=|<=|>=|<|>)\s*(\S+)$/)
      if (!match) return false
      const [, operator, wanted = ''] = match
      if (wanted.endsWith('.*')) {
        const within = `${release}.`.startsWith(`${wanted.slice(0, -2)}.`)
        return operator === '==' ? within : operator === '!=' && !within
      }
      const order = compareVersions(release, wanted)
      const sameLocal = !wanted.includes('+') || version === wanted
      switch (operator) {
        case '==':
        case '===':
          return order === 0 && sameLocal
        case '!=':
          return order !== 0 || !sameLocal
        case '<=':
          return order <= 0
        case '>=':
          return order >= 0
        case '<':
          return order < 0
        case '>':
          return order > 0
        default: {
          const prefix = wanted.split('.').slice(0, -1).join('.')
          return order >= 0 && `${release}.`.startsWith(`${prefix}.`)
        }
      }
    })
}

/** Evaluates an environment marker; a name that nobody set is the empty string, as `extra` is. */
export function evaluateMarker(marker: string, environment: MarkerEnvironment): boolean {
  const tokens = marker.match(/'[^']*'|"[^"]*"|\(|\)|~=|===|==|!=|<=|>=|<|>|[A-Za-z_.]+/g) ?? []
  let position = 0
  const next = () => tokens[position++]
  const value = (token: string | undefined): { text: string; name: string | null } => {
    if (token === undefined) throw new RangeError(`the marker ${marker} was expected to go on, and ends`)
    if (/^['"]/.test(token)) return { text: token.slice(1, -1), name: null }
    return { text: environment[token] ?? '', name: token }
  }
  const comparison = (): boolean => {
    if (tokens[position] === '(') {
      position++
      const inner = either()
      position++
      return inner
    }
    const left = value(next())
    let operator = next()
    if (operator === 'not') operator = `not ${next()}`
    const right = value(next())
    if (operator === 'in') return right.text.includes(left.text)
    if (operator === 'not in') return !right.text.includes(left.text)
    const isVersion = /python_(full_)?version|platform_release|implementation_version/.test(
      `${left.name} ${right.name}`,
    )
    if (isVersion) {
      return left.name === null
        ? fitsSpecifier(right.text, `${mirrored(operator ?? '')}${left.text}`)
        : fitsSpecifier(left.text, `${operator}${right.text}`)
    }
    return operator === '!=' ? left.text !== right.text : operator === '==' && left.text === right.text
  }
  const both = (): boolean => {
    let result = comparison()
    while (tokens[position] === 'and') {
      position++
      const other = comparison()
      result = result && other
    }
    return result
  }
  const either = (): boolean => {
    let result = both()
    while (tokens[position] === 'or') {
      position++
      const other = both()
      result = result || other
    }
    return result
  }
  return either()
}

function mirrored(operator: string): string {
  return operator.replace(/^[<>]/, (sign) => (sign === '<' ? '>' : '<'))
}

/** Reads one requirement, without its marker; null where it is none. */
export function parseRequirement(text: string): Requirement | null {
  const match = text.match(/^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?\s*\(?([^();]*)\)?\s*$/)
  if (!match) return null
  const extras = (match[2] ?? '').split(',').map((extra) => normalizeName(extra.trim()))
  return {
    name: normalizeName(match[1] ?? ''),
    extras: extras.filter((extra) => extra !== ''),
    specifier: (match[3] ?? '').replace(/\s+/g, ''),
  }
}

/** The requirements in a wheel's METADATA that hold on this machine, for the extras that were asked for. */
export function parseRequirements(
  metadata: string,
  extras: readonly string[] = [],
  environment: MarkerEnvironment = markerEnvironment(),
): Requirement[] {
  const headers = metadata.split(/\r?\n\r?\n/)[0] ?? ''
  const found: Requirement[] = []
  for (const match of headers.matchAll(/^Requires-Dist:\s*(.+)$/gim)) {
    const [text = '', ...marker] = (match[1] ?? '').split(';')
    const requirement = parseRequirement(text)
    if (requirement === null) continue
    const condition = marker.join(';').trim()
    const asked = ['', ...extras]
    if (condition !== '' && !asked.some((extra) => evaluateMarker(condition, { ...environment, extra }))) continue
    found.push(requirement)
  }
  return found
}

/** Whether a requirement brings libraries of CUDA; all others (sympy, triton, ...) are Python's business. */
export function isCudaLibrary(requirement: Requirement): boolean {
  return requirement.name.startsWith('nvidia-') || requirement.name === 'cuda-toolkit'
}
