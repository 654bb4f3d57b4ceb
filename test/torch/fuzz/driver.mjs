/*
 * Calls every generated operator with random and wrong arguments, in child processes, since what is looked for ends
 * processes. From the command line:
 *
 *   node test/torch/fuzz/driver.mjs --seed 7 --calls 100000 [--only name,name] [--skip name,name] [--fence [low]]
 *   node test/torch/fuzz/driver.mjs --call '{"name": "add", "overload": "Tensor", "how": "function", "values": [...]}'
 *
 * --fence puts each tensor between pages that cannot be touched (fence.cpp, compiled with c++), so that reads and writes
 * outside of a tensor are crashes and not wrong numbers.
 */
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const here = fileURLToPath(new URL('.', import.meta.url))

/** @returns {string} the file of the compiled fence */
export function buildFence(folder) {
  const target = join(folder, 'fence.so')
  execFileSync(process.env.CXX ?? 'c++', ['-O1', '-shared', '-fPIC', '-o', target, join(here, 'fence.cpp')])
  return target
}

/** Whether fence.cpp works here: it wants Linux, glibc and a compiler. */
export function canFence() {
  if (process.platform !== 'linux') return false
  const folder = mkdtempSync(join(tmpdir(), 'cleft-fence-'))
  try {
    execFileSync(process.execPath, ['-e', ''], {
      env: { ...process.env, LD_PRELOAD: buildFence(folder) },
      stdio: 'ignore',
    })
    return true
  } catch {
    return false
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function runChild(options, { hangAfter, environment, wrap }) {
  return new Promise((resolve) => {
    const messages = []
    const command = [...(wrap ?? []), process.execPath, join(here, 'child.mjs'), JSON.stringify(options)]
    const child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], env: environment })
    let rest = ''
    let errors = ''
    let hung = false
    let last = ''
    let since = Date.now()
    const watch = setInterval(() => {
      let now = ''
      try {
        now = readFileSync(options.current, 'utf8').split('\n', 1)[0]
      } catch {}
      if (now !== last) {
        last = now
        since = Date.now()
      } else if (Date.now() - since > hangAfter) {
        hung = true
        child.kill('SIGKILL')
      }
    }, 500)
    child.stdout.on('data', (data) => {
      const lines = (rest + data).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        if (line.startsWith('{')) messages.push(JSON.parse(line))
      }
    })
    child.stderr.on('data', (data) => {
      errors = (errors + data).slice(-4000)
    })
    child.on('close', (code, signal) => {
      clearInterval(watch)
      let call
      try {
        call = JSON.parse(readFileSync(options.current, 'utf8').split('\n', 1)[0])
      } catch {}
      resolve({ code, signal, hung, messages, errors, call })
    })
  })
}

/**
 * @param {{ seed?: number, from?: number, count?: number, only?: string[], skip?: string[], calls?: object[], dist?: string, most?: number,
 *   hangAfter?: number, slow?: number, fence?: false | 'high' | 'low', threads?: number, addressSpace?: number, onFinding?: (finding: object) => void }} options
 */
export async function fuzz(options = {}) {
  const {
    seed = 1,
    from = 0,
    count = 5000,
    only,
    calls,
    most = 4,
    hangAfter = 15000,
    fence = false,
    onFinding = () => {},
  } = options
  const skip = new Set(options.skip ?? [])
  const folder = mkdtempSync(join(tmpdir(), 'cleft-fuzz-'))
  const environment = {
    TORCH_CPP_LOG_LEVEL: 'ERROR',
    ...process.env,
    CLEFT_DIST: options.dist ?? process.env.CLEFT_DIST ?? fileURLToPath(new URL('../../../dist', import.meta.url)),
  }
  if (fence) Object.assign(environment, { LD_PRELOAD: buildFence(folder), FENCE_SIDE: fence })
  const findings = []
  const perOperator = new Map()
  const perName = {}
  const outcomes = {}
  let operators = 0
  let next = from
  const until = from + count
  const add = (finding) => {
    findings.push(finding)
    onFinding(finding)
    const times = (perOperator.get(finding.call?.name) ?? 0) + 1
    perOperator.set(finding.call?.name, times)
    return times
  }
  try {
    for (;;) {
      const child = await runChild(
        {
          seed,
          from: next,
          until,
          only,
          skip: [...skip],
          calls,
          current: join(folder, 'current.json'),
          slow: options.slow,
          threads: options.threads,
          addressSpace: options.addressSpace,
        },
        { hangAfter, environment },
      )
      for (const message of child.messages) {
        if (message.finding !== undefined)
          add({
            kind: message.finding.startsWith('leak') ? 'leak' : message.finding.startsWith('slow') ? 'slow' : 'message',
            text: message.finding,
            index: message.index,
            call: message.call,
          })
        if (message.note !== undefined) console.error(message.note)
        if (message.done) {
          operators = message.operators
          for (const [name, times] of Object.entries(message.outcomes)) outcomes[name] = (outcomes[name] ?? 0) + times
          for (const [name, { reached, refused }] of Object.entries(message.perName))
            perName[name] = {
              reached: reached + (perName[name]?.reached ?? 0),
              refused: refused + (perName[name]?.refused ?? 0),
            }
        }
      }
      if (child.messages.some((message) => message.done)) break
      if (child.call === undefined)
        throw new Error(`the child ended before its first call (${child.signal ?? child.code}): ${child.errors}`)
      const { index, ...call } = child.call
      const times = add({
        kind: child.hung ? 'hang' : 'crash',
        text: child.hung
          ? 'did not return'
          : `${child.signal ?? `exit ${child.code}`}: ${child.errors.trim().split('\n').slice(-6).join(' | ')}`,
        index,
        call,
      })
      // in a hunt, what crashes often would hide the rest
      if (times >= most) skip.add(call.name)
      next = index + 1
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return { findings, outcomes, perName, operators, skipped: [...skip] }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      calls: { type: 'string', default: '100000' },
      from: { type: 'string', default: '0' },
      only: { type: 'string' },
      skip: { type: 'string' },
      call: { type: 'string' },
      fence: { type: 'string' },
      most: { type: 'string', default: '4' },
      threads: { type: 'string', default: '1' },
      names: { type: 'boolean', default: false },
    },
  })
  const start = Date.now()
  const result = await fuzz({
    seed: Number(values.seed),
    from: Number(values.from),
    count: Number(values.calls),
    only: values.only?.split(','),
    skip: values.skip?.split(','),
    calls: values.call === undefined ? undefined : [JSON.parse(values.call)].flat(),
    most: Number(values.most),
    threads: Number(values.threads),
    fence: values.fence === undefined ? false : values.fence === 'low' ? 'low' : 'high',
    onFinding: (finding) => console.log(JSON.stringify(finding)),
  })
  if (values.names) console.log(JSON.stringify(result.perName))
  console.log(
    `${values.calls} calls of ${result.operators} operators in ${Math.round((Date.now() - start) / 1000)} s: ${JSON.stringify(result.outcomes)}; ${result.findings.length} findings; left out after too many crashes: ${result.skipped.join(', ') || 'none'}`,
  )
  process.exitCode = result.findings.length > 0 ? 1 : 0
}
