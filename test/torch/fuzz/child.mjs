/* One process that calls operators until it is done or dies: see driver.mjs, which starts it. */
import { execFileSync } from 'node:child_process'
import { openSync, readFileSync, writeSync } from 'node:fs'
import { listTargets, makeCall, tryCall } from './calls.mjs'
import { native } from './materialize.mjs'

const {
  seed,
  from,
  until,
  only = [],
  skip = [],
  calls,
  current,
  slow = 5000,
  addressSpace = 2 * 1024 ** 3,
  threads = 1,
} = JSON.parse(process.argv[2])

native.setNumThreads(threads)
if (process.platform === 'linux' && addressSpace > 0) {
  // huge sizes must fail in malloc, not in the kernel's out-of-memory killer
  const used = Number(/VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
  try {
    execFileSync('prlimit', ['--pid', String(process.pid), `--as=${used + addressSpace}`])
  } catch {
    say({ note: 'no prlimit here: sizes are not limited' })
  }
}

function say(message) {
  writeSync(1, `${JSON.stringify(message)}\n`)
}

const file = openSync(current, 'w')
function remember(index, call) {
  // one write, the old rest behind the line's end
  writeSync(file, `${JSON.stringify({ index, ...call })}\n`, 0)
}

const outcomes = {}
const perName = {}
const all = listTargets()

function one(index, target, call) {
  remember(index, call)
  const start = performance.now()
  const { findings, outcome } = tryCall(target, call)
  const milliseconds = performance.now() - start
  if (milliseconds > slow) findings.push(`slow: ${Math.round(milliseconds)} ms`)
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  perName[call.name] ??= { reached: 0, refused: 0 }
  perName[call.name][outcome === 'returned' ? 'reached' : 'refused'] += 1
  for (const finding of findings) say({ index, finding, call })
}

if (calls !== undefined) {
  for (const [index, call] of calls.entries()) {
    if (index < from) continue
    one(
      index,
      all.find((each) => each.name === call.name),
      call,
    )
  }
} else {
  const skipped = new Set(skip)
  const targets = only.length > 0 ? all.filter((each) => only.includes(each.name)) : all
  for (let index = from; index < until; index += 1) {
    const target = targets[index % targets.length]
    if (!skipped.has(target.name)) one(index, target, makeCall(target, seed, index))
    if (index % 256 === 0) await new Promise((done) => setImmediate(done))
  }
}
say({ done: true, outcomes, perName, operators: all.length, baseline: native.counters() })
