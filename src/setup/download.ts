import { createWriteStream, existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { EnvHttpProxyAgent, fetch, type Response } from 'undici'
import { messageOf, SetupError } from './errors.js'
import { readRecord, sha256OfFile, writeRecord } from './files.js'
import { type Reporter, silentReporter } from './report.js'

export interface DownloadOptions {
  /** In hexadecimal; what comes with another sum is deleted. */
  readonly sha256?: string
  readonly reporter?: Reporter
  /** Attempts in a row that bring nothing, before it gives up. */
  readonly attempts?: number
  /** The first pause between attempts, in milliseconds; each next one is twice as long. */
  readonly pause?: number
  /** Milliseconds without an answer or without data. */
  readonly timeout?: number
}

/** What no further attempt mends. */
class Refused extends SetupError {}

/** Node's own fetch does not honour HTTPS_PROXY, which hospitals need. */
function request(url: string, headers: Record<string, string>, timeout: number): Promise<Response> {
  const dispatcher = new EnvHttpProxyAgent({ connectTimeout: timeout, headersTimeout: timeout, bodyTimeout: timeout })
  return fetch(url, { headers: { 'accept-encoding': 'identity', ...headers }, dispatcher, redirect: 'follow' })
}

function sizeOf(file: string): number {
  return existsSync(file) ? statSync(file).size : 0
}

function causeOf(error: unknown): string {
  // fetch says only "fetch failed"; what happened is in its cause.
  return error instanceof Error && error.cause instanceof Error ? error.cause.message : messageOf(error)
}

/** One request that goes on where the partial file ends. Returns when the whole file is there. */
async function attempt(url: string, part: string, options: DownloadOptions): Promise<void> {
  const note = `${part}.json`
  const known = readRecord(note)
  // Without the server's own mark for the state of the file, two halves could be of two different files.
  if (known?.url !== url || typeof known.mark !== 'string') rmSync(part, { force: true })
  const have = sizeOf(part)
  const headers: Record<string, string> = have > 0 ? { range: `bytes=${have}-`, 'if-range': String(known?.mark) } : {}
  const response = await request(url, headers, options.timeout ?? 60_000)
  if (response.status === 416 && have > 0) {
    await response.body?.cancel()
    const total = Number(response.headers.get('content-range')?.match(/\/(\d+)$/)?.[1])
    if (total === have) return
    rmSync(part, { force: true })
    throw new Error('the partial file is longer than the whole one')
  }
  if (response.status !== 200 && response.status !== 206) {
    await response.body?.cancel()
    const text = `${url} answered ${response.status} ${response.statusText}`
    if (response.status >= 400 && response.status < 500 && response.status !== 408 && response.status !== 429)
      throw new Refused(text)
    throw new Error(text)
  }
  const resumed = response.status === 206
  if (resumed && !response.headers.get('content-range')?.startsWith(`bytes ${have}-`)) {
    await response.body?.cancel()
    rmSync(part, { force: true })
    throw new Error(`${url} answered with another range than the one asked for`)
  }
  const mark = response.headers.get('etag') ?? response.headers.get('last-modified')
  // A weak mark may not be used with If-Range.
  writeRecord(note, { url, mark: mark?.startsWith('W/') ? null : mark })
  const start = resumed ? have : 0
  const length = Number(response.headers.get('content-length') ?? 0)
  const progress = (options.reporter ?? silentReporter).progress(
    `downloading ${basename(part, '.part')}`,
    start + length,
    'MB',
  )
  let done = start
  progress.update(done)
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      done += chunk.length
      progress.update(done)
      callback(null, chunk)
    },
  })
  if (response.body === null) throw new Error(`${url} answered without a body`)
  await pipeline(Readable.fromWeb(response.body), counted, createWriteStream(part, { flags: resumed ? 'a' : 'w' }))
  if (length > 0 && done !== start + length) throw new Error(`${url} ended after ${done} of ${start + length} bytes`)
  progress.finish()
}

/**
 * Downloads a file. What an earlier run or a broken connection left is resumed; the whole file is compared with its
 * SHA-256 and only then gets its name.
 */
export async function download(url: string, file: string, options: DownloadOptions = {}): Promise<void> {
  if (existsSync(file) && (options.sha256 === undefined || (await sha256OfFile(file)) === options.sha256)) return
  mkdirSync(dirname(file), { recursive: true })
  const part = `${file}.part`
  const attempts = options.attempts ?? 5
  let failures = 0
  for (;;) {
    const before = sizeOf(part)
    try {
      await attempt(url, part, options)
      break
    } catch (error) {
      if (error instanceof Refused)
        throw new SetupError(
          `a file was expected at ${url}, but it ${error.message.slice(url.length + 1)}; check the version and the network`,
        )
      // A connection that brings something each time is slow, not broken.
      failures = sizeOf(part) > before ? 1 : failures + 1
      if (failures >= attempts) {
        throw new SetupError(
          `the download of ${url} was expected to finish, and failed ${attempts} times (${causeOf(error)}); what has come is kept: run the same command again to go on`,
        )
      }
      options.reporter?.line(`the connection broke (${causeOf(error)}): going on in a moment`)
      await sleep((options.pause ?? 1000) * 2 ** (failures - 1))
    }
  }
  if (options.sha256 !== undefined) {
    const found = await sha256OfFile(part)
    if (found !== options.sha256) {
      rmSync(part, { force: true })
      rmSync(`${part}.json`, { force: true })
      throw new SetupError(
        `${url} was expected to have the SHA-256 ${options.sha256}, and has ${found}; it was deleted: run the same command again, and if it repeats, distrust the network`,
      )
    }
  }
  renameSync(part, file)
  rmSync(`${part}.json`, { force: true })
}

/** Fetches a small text, such as a page of an index; null where there is none. */
export async function fetchText(url: string, timeout = 20_000): Promise<string | null> {
  let response: Response
  try {
    response = await request(url, { accept: 'text/html' }, timeout)
  } catch (error) {
    throw new SetupError(
      `${url} was expected to answer, and did not (${causeOf(error)}); check the network and HTTPS_PROXY`,
    )
  }
  if (response.status === 404 || response.status === 403) {
    await response.body?.cancel()
    return null
  }
  if (!response.ok) throw new SetupError(`${url} was expected to answer, and said ${response.status}; try again later`)
  return response.text()
}
