import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { download } from '../../src/setup/download.js'
import { temporaryFolder } from './folder.js'
import { sendBytes, serve } from './server.js'

const DATA = randomBytes(1 << 20)
const SHA256 = createHash('sha256').update(DATA).digest('hex')
const QUICK = { pause: 1, timeout: 5000 }

test('a connection that breaks is resumed where it ended', async () => {
  const ranges: (string | undefined)[] = []
  const address = await serve((request, response) => {
    ranges.push(request.headers.range)
    sendBytes(request, response, DATA, { breakAfter: ranges.length < 4 ? 300_000 : undefined })
  })
  const file = join(temporaryFolder(), 'file.whl')
  await download(`${address}/file.whl`, file, { ...QUICK, sha256: SHA256 })
  expect(readFileSync(file).equals(DATA)).toBe(true)
  // How much of the broken part reached the disk is chance; each request has to go on further than the one before.
  const starts = ranges.map((range) => Number(range?.match(/\d+/)?.[0] ?? 0))
  expect(starts).toHaveLength(4)
  expect(starts).toEqual([...new Set(starts)].sort((a, b) => a - b))
  expect(existsSync(`${file}.part`) || existsSync(`${file}.part.json`)).toBe(false)
})

test('a later run goes on with what an earlier one left', async () => {
  let broken = true
  let served = 0
  let asked: string | undefined
  const address = await serve((request, response) => {
    if (broken && request.headers.range) response.destroy()
    else sendBytes(request, response, DATA, { breakAfter: broken ? 400_000 : undefined })
    served += 1
    asked = request.headers.range
  })
  const file = join(temporaryFolder(), 'file.whl')
  await expect(download(`${address}/file.whl`, file, { ...QUICK, attempts: 2 })).rejects.toThrow(
    /was expected to finish, and failed 2 times .*run the same command again to go on/,
  )
  const left = statSync(`${file}.part`).size
  expect(left).toBeGreaterThan(0)
  broken = false
  served = 0
  await download(`${address}/file.whl`, file, { ...QUICK, sha256: SHA256 })
  expect(served).toBe(1)
  expect(asked).toBe(`bytes=${left}-`)
  expect(readFileSync(file).equals(DATA)).toBe(true)
})

test('a file that changed meanwhile is fetched anew, not joined', async () => {
  const other = randomBytes(1 << 20)
  let requests = 0
  const address = await serve((request, response) => {
    requests += 1
    if (requests === 1) sendBytes(request, response, DATA, { breakAfter: 500_000 })
    else sendBytes(request, response, other, { etag: '"two"' })
  })
  const file = join(temporaryFolder(), 'file.whl')
  await download(`${address}/file.whl`, file, QUICK)
  expect(readFileSync(file).equals(other)).toBe(true)
})

test('a wrong checksum is refused and nothing is left', async () => {
  const address = await serve((request, response) => sendBytes(request, response, DATA))
  const file = join(temporaryFolder(), 'file.whl')
  await expect(download(`${address}/file.whl`, file, { ...QUICK, sha256: 'a'.repeat(64) })).rejects.toThrow(
    new RegExp(`was expected to have the SHA-256 a{64}, and has ${SHA256}; it was deleted`),
  )
  expect(existsSync(file) || existsSync(`${file}.part`)).toBe(false)
})

test('what the server refuses is not asked again', async () => {
  let requests = 0
  const address = await serve((_request, response) => {
    requests += 1
    response.writeHead(404).end()
  })
  await expect(download(`${address}/file.whl`, join(temporaryFolder(), 'file.whl'), QUICK)).rejects.toThrow(
    /a file was expected at .*answered 404/,
  )
  expect(requests).toBe(1)
})

test('a file that is there with the right checksum is not fetched', async () => {
  const address = await serve((request, response) => sendBytes(request, response, DATA))
  const file = join(temporaryFolder(), 'file.whl')
  await download(`${address}/file.whl`, file, { ...QUICK, sha256: SHA256 })
  await download('http://127.0.0.1:9/file.whl', file, { ...QUICK, sha256: SHA256 })
})
