// Runs the quickstart's commands, each in a process of its own, and measures them. What is done is kept in a file: a
// quickstart that was stopped goes on where it was, and a long training from its last checkpoint.
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { text as textOf } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url))
const memory = new URL('./quickstart-memory.mjs', import.meta.url).href

/**
 * @typedef {object} Measured
 * @property {readonly string[]} command
 * @property {number} seconds of wall time, of all its starts
 * @property {number} peakMiB
 * @property {object} output the JSON that it wrote
 * @property {object} start of a training: its first event
 * @property {object} result of a training: its last line
 */

export class Commands {
  /** @param {string} file where it is kept what is done */
  constructor(file) {
    this.file = file
    this.known = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}
  }

  /**
   * Runs `cleft` with arguments, or says what it said before. Ends this process where it fails.
   *
   * @returns {Promise<Measured>}
   */
  async run(name, values) {
    const command = values.map(String)
    const shown = `npx cleft ${command.map(quoted).join(' ')}`
    const before = this.known[name]
    if (before?.done && JSON.stringify(before.command) === JSON.stringify(command)) {
      process.stderr.write(`\n$ ${shown}\n  was done before; remove ${dirname(this.file)} to do it again\n`)
      return before
    }
    process.stderr.write(`\n$ ${shown}\n`)
    const started = performance.now()
    const { status, text, peakMiB } = await start(command)
    const spent = (before?.done ? 0 : (before?.seconds ?? 0)) + (performance.now() - started) / 1000
    const measured = { command, seconds: spent, peakMiB: Math.max(peakMiB, before?.peakMiB ?? 0) }
    if (status !== 0) {
      this.keep(name, { ...measured, done: false })
      process.exit(status)
    }
    return this.keep(name, {
      ...measured,
      done: true,
      ...(command[0] === 'train' ? events(text) : { output: JSON.parse(text) }),
    })
  }

  keep(name, measured) {
    this.known[name] = measured
    writeFileSync(`${this.file}.part`, `${JSON.stringify(this.known, null, 2)}\n`)
    renameSync(`${this.file}.part`, this.file)
    return measured
  }
}

const quoted = (value) => (/^[\w./=@:,-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`)

/** The first event and the result. */
function events(text) {
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  return { start: lines.find(({ type }) => type === 'start'), result: lines.at(-1) }
}

/** Runs a command with our standard error; Ctrl-C reaches it, and it leaves its checkpoint before we end. */
async function start(command) {
  const child = spawn(process.execPath, ['--import', memory, main, ...command], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  })
  const pass = (signal) => child.kill(signal)
  // A terminal sends Ctrl-C to both.
  const wait = () => {}
  process.on('SIGINT', wait).on('SIGTERM', pass)
  try {
    const [text, peak, status] = await Promise.all([
      textOf(child.stdout),
      textOf(child.stdio[3]),
      new Promise((done, fail) => {
        child.once('error', fail).once('close', (code) => done(code ?? 130))
      }),
    ])
    return { status, text, peakMiB: Number(peak) }
  } finally {
    process.off('SIGINT', wait).off('SIGTERM', pass)
  }
}
