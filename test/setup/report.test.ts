import { Writable } from 'node:stream'
import { expect, test } from 'vitest'
import { terminalReporter } from '../../src/setup/report.js'

function logged(): { stream: NodeJS.WriteStream; lines: string[] } {
  const lines: string[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk).trimEnd())
      done()
    },
  })
  return { stream: stream as unknown as NodeJS.WriteStream, lines }
}

test('a log has a line at every fifth, with the rate and the time left', async () => {
  const { stream, lines } = logged()
  const progress = terminalReporter(stream).progress('prepare', 10, 'images')
  for (let done = 0; done <= 10; done += 1) {
    progress.update(done)
    await new Promise((later) => setTimeout(later, 2))
  }
  progress.finish()
  expect(lines).toHaveLength(5)
  for (const [k, line] of lines.slice(0, 4).entries()) {
    expect(line).toMatch(new RegExp(`^prepare: ${20 * (k + 1)}% of 10 images, [\\d.]+/s, \\d+ s left$`))
  }
  expect(lines[4]).toBe('prepare: done, 10 images')
})

test('what an earlier run did has no rate, and is not told as progress', () => {
  const { stream, lines } = logged()
  const progress = terminalReporter(stream).progress('prepare', 10, 'images')
  progress.update(10)
  progress.finish()
  expect(lines).toEqual(['prepare: done, 10 images'])
})
