import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { afterEach } from 'vitest'

const servers: Server[] = []

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

/** A server on this machine that stops after the test. Returns its address. */
export function serve(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(handle)
  servers.push(server)
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      resolve(`http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`)
    })
  })
}

/** Answers with bytes, or with the range that was asked for; ends the connection after so many bytes. */
export function sendBytes(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Buffer,
  options: { etag?: string; breakAfter?: number } = {},
): void {
  const etag = options.etag ?? '"one"'
  const range = request.headers['if-range'] === etag ? request.headers.range?.match(/^bytes=(\d+)-$/) : null
  const start = range ? Number(range[1]) : 0
  if (range && start >= bytes.length) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
    return
  }
  const body = bytes.subarray(start)
  const headers = {
    'content-length': body.length,
    etag,
    ...(range ? { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {}),
  }
  response.writeHead(range ? 206 : 200, headers)
  if (options.breakAfter !== undefined && options.breakAfter < body.length) {
    response.write(body.subarray(0, options.breakAfter), () => setTimeout(() => response.destroy(), 20))
  } else {
    response.end(body)
  }
}
