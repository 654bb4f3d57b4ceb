import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { packageRoot } from '../../src/setup/paths.js'

const url = pathToFileURL(join(packageRoot(), 'dist', 'setup', 'exit.js')).href

/** Runs code that never ends by itself; it gets a signal for each line that it prints. Gives its lines and its end. */
async function interrupted(code: string, signal: NodeJS.Signals) {
  const script = `import { exitOnSignals, onInterrupt } from '${url}'; exitOnSignals(); setInterval(() => {}, 1e6); ${code}`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines: string[] = []
  createInterface(child.stdout).on('line', (line) => {
    lines.push(line)
    child.kill(signal)
  })
  const [status] = (await once(child, 'close')) as [number | null]
  return { lines, status }
}

describe('Ctrl-C and SIGTERM', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s ends the process with %i', async (signal, status) => {
    expect(await interrupted("console.log('ready')", signal)).toEqual({ lines: ['ready'], status })
  })

  it('first stop work that can be gone on with, and end the process at the second', async () => {
    const code = "onInterrupt((status) => console.log('first ' + status)); console.log('ready')"
    expect(await interrupted(code, 'SIGINT')).toEqual({ lines: ['ready', 'first 130'], status: 130 })
    expect(await interrupted(code, 'SIGTERM')).toEqual({ lines: ['ready', 'first 143'], status: 143 })
  })

  it('end the process at once when the work is over', async () => {
    const code = "onInterrupt(() => console.log('first'))(); console.log('ready')"
    expect(await interrupted(code, 'SIGINT')).toEqual({ lines: ['ready'], status: 130 })
  })
})
