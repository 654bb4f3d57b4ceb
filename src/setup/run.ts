import { spawn } from 'node:child_process'
import { onEarlyExit } from './exit.js'

export interface Finished {
  /** The exit status; 127 where the program could not be started, 128 where a signal ended it. */
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  readonly timeout?: number
  /** Shows the program's standard output as it is, for its own progress bar; its errors are still returned. */
  readonly show?: boolean
  /** Called with each whole line of output as it comes. */
  readonly onLine?: (line: string) => void
}

/** Runs a program to its end, never through a shell, and never throws for its failure. */
export function run(command: string, parameters: readonly string[], options: RunOptions = {}): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(command, parameters, {
      cwd: options.cwd,
      env: options.env,
      timeout: options.timeout,
      stdio: options.show ? ['ignore', 'inherit', 'pipe'] : ['ignore', 'pipe', 'pipe'],
      windowsHide: true,
      // A group of its own, which can be ended whole: a build tool's compilers would outlive it otherwise.
      detached: process.platform !== 'win32',
    })
    const forget = onEarlyExit(() => {
      if (child.pid !== undefined && process.platform !== 'win32') process.kill(-child.pid)
      else child.kill()
    })
    let stdout = ''
    let stderr = ''
    let rest = ''
    const lines = (chunk: string) => {
      const parts = (rest + chunk).split(/\r?\n/)
      rest = parts.pop() ?? ''
      for (const line of parts) options.onLine?.(line)
    }
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk
      lines(chunk)
    })
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      stderr += chunk
      lines(chunk)
    })
    child.once('error', (error) => {
      forget()
      resolve({ status: 127, stdout, stderr: `${stderr}${error.message}` })
    })
    child.once('close', (status) => {
      forget()
      if (rest !== '') options.onLine?.(rest)
      resolve({ status: status ?? 128, stdout, stderr })
    })
  })
}
